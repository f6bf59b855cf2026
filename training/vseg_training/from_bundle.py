# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Weights back from a bundle, so that a training can start from a student that was shipped."""
from collections.abc import Callable, Sequence
from functools import partial
import logging
from pathlib import Path

import onnx
from onnx import numpy_helper
import torch
from torch import nn, Tensor
from torch.utils.hooks import RemovableHandle

from ros_vseg.bundle import Bundle

from .models.kinds import Network
from .models.options import DepthTask, Tasks
from .models.tasks import outputs_of, with_known


log = logging.getLogger(__name__)
_ANEW = ('prototypes.', 'attention.', 'auxiliary.')


_Convolution = nn.Conv2d | nn.ConvTranspose2d


def _arrays(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """Initializers of a bundle that vseg-train exported, those of the student by its own names."""
    return {value.name.removeprefix('student.'):
            torch.from_numpy(numpy_helper.to_array(value).copy()) for value in graph.initializer}


class _Unfolding:
    """Hooks that give a network's layers a bundle's weights, as it runs."""

    def __init__(self, path: Path, wanted: Sequence[str]) -> None:
        bundle = Bundle.load(path)
        graph = onnx.load_model_from_string(bundle.model).graph
        self.path, self.info, self.wanted = path, bundle.info, wanted
        self.arrays, self.taken = _arrays(graph), 0
        # export renames or shares these weights, but nodes are in the order in which layers run
        self._nodes = {op: iter([[key.removeprefix('student.') for key in node.input[1:]]
                                 for node in graph.node if node.op_type == op])
                       for op in ('PRelu', 'BatchNormalization')}
        self._folded: Tensor | None = None  # bias of the convolution that ran last

    def hook(self, name: str, module: nn.Module) -> RemovableHandle | None:
        """
        Let a module take its weights when it runs; None if it has none of its own.

        Raises:
            ValueError: Nothing is known of how a bundle holds the weights of such a module.
        """
        take: Callable[[Tensor], None]
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            take = partial(self.convolution, name, module)
        elif isinstance(module, nn.BatchNorm2d):
            take = partial(self.batch_norm, name, module)
        elif isinstance(module, nn.PReLU):
            take = partial(self.slopes, name, module)
        elif list(module.parameters(recurse=False)):
            raise self._unfit(name, module)
        else:
            return None
        return module.register_forward_pre_hook(lambda module, inputs: take(inputs[0]))

    def _unfit(self, name: str, module: nn.Module) -> ValueError:
        return ValueError(f'model.init: {self.path} has no weights that fit {name}, a '
                          f'{type(module).__name__}: give a checkpoint')

    def _find(self, name: str, kind: str) -> Tensor | None:
        """Weight of a module by its kind, None if the bundle has none."""
        if name.startswith('heads.'):  # every stream of a teacher starts from the student's head
            name = 'head.' + name.split('.', 2)[2]
        return self.arrays.get(f'{name}.{kind}')

    def convolution(self, name: str, module: _Convolution, seen: Tensor) -> None:
        """Take the weights of a convolution that is about to run."""
        weight, bias = self._find(name, 'weight'), self._find(name, 'bias')
        if name.startswith('head') and name.endswith('.classify'):
            weight, bias = self._of_known_outputs(module, weight, bias)
        if (weight is None or weight.shape != module.weight.shape
                or (module.bias is not None and bias is None)):
            raise ValueError(f'model.init: {self.path} has no weights for {name} of shape '
                             f'{tuple(module.weight.shape)}: give a bundle of the same backbone, '
                             'channels and head_widths, or a checkpoint')
        module.weight.copy_(weight)
        if module.bias is not None and bias is not None:
            module.bias.copy_(bias)
        self._folded = self._find(name, 'weight_bias')
        self.taken += 1

    def _of_known_outputs(self, module: _Convolution, weight: Tensor | None, bias: Tensor | None
                          ) -> tuple[Tensor | None, Tensor | None]:
        """Weight and bias of a last layer, with the bundle's channels where it has the same."""
        if weight is None or bias is None:
            return None, None
        classes, depth = list(self.info.label_set.names), self.info.depth
        tasks = Tasks()
        if depth:
            tasks.depth = DepthTask(bins=len(bias) - len(classes), **depth._asdict())
        known = outputs_of(classes, tasks)
        known += [''] * (len(bias) - len(known))  # of normals, which no bundle tells of
        assert module.bias is not None
        axis = int(isinstance(module, nn.ConvTranspose2d))
        return (with_known(module.weight, self.wanted, weight, known, axis),
                with_known(module.bias, self.wanted, bias, known))

    def _next(self, op: str, name: str, module: nn.Module, wanted: Sequence[Tensor]) -> None:
        """Take the weights of the next node of a kind."""
        found = [self.arrays[key] for key in next(self._nodes[op], []) if key in self.arrays]
        if [each.numel() for each in found] != [own.numel() for own in wanted]:
            raise self._unfit(name, module)
        for own, each in zip(wanted, found):
            own.copy_(each.flatten())

    def slopes(self, name: str, module: nn.PReLU, seen: Tensor) -> None:
        """Take the slopes of a PReLU that is about to run."""
        self._next('PRelu', name, module, [module.weight])

    def batch_norm(self, name: str, module: nn.BatchNorm2d, seen: Tensor) -> None:
        """
        Take a batch norm that is about to run.

        One that is folded undoes the mean and variance of what it sees, and adds the bias.
        """
        folded, self._folded = self._folded, None
        assert module.running_mean is not None and module.running_var is not None
        if folded is None:
            self._next('BatchNormalization', name, module, [
                module.weight, module.bias, module.running_mean, module.running_var])
            return
        if folded.shape != module.bias.shape:
            raise self._unfit(name, module)
        variance, mean = torch.var_mean(seen, (0, 2, 3), correction=0)
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
        module.weight.copy_((variance + module.eps).sqrt())
        module.bias.copy_(mean + folded)


@torch.no_grad()
def initialise_from_bundle(network: Network, path: Path, classes: Sequence[str],
                           images: Tensor) -> None:
    """
    Start backbone, reduction and heads of a network from a bundle's weights.

    An exported convolution has the batch norm after it folded into it. The batch norm is made
    again from the images: mean and variance of what it sees, and the scale and shift that undo
    them, so that these parts compute what the bundle does. Prototypes, attention and auxiliary
    head start anew.

    Args:
        network: A student or teacher.
        path: Bundle written by ``vseg-train export``.
        classes: Names of the network's classes.
        images: uint8 [B, 3, H, W], frames as in training.

    Raises:
        ValueError: The bundle lacks weights of a part of the network, they differ in shape, or
            the network has a part that no bundle can start.
    """
    unfolding = _Unfolding(path, outputs_of(classes, network.tasks))
    handles = [unfolding.hook(name, module) for name, module in network.named_modules()
               if not f'{name}.'.startswith(_ANEW)]
    training = network.training
    # as many equal frames as a teacher has streams, so that every head runs
    network.eval()(images[:, None].expand(-1, len(network.heads), -1, -1, -1))
    for handle in handles:
        if handle is not None:
            handle.remove()
    network.train(training)
    log.info('took the weights of %d convolutions from %s', unfolding.taken, path)
