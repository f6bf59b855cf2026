# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Weights back from a bundle, so that a training can start from a student that was shipped."""
from collections.abc import Sequence
import logging
from pathlib import Path

import onnx
from onnx import numpy_helper
import torch
from torch import nn, Tensor

from ros_vseg.bundle import Bundle

from .models.kinds import Network
from .models.options import DepthTask, Tasks
from .models.tasks import outputs_of, with_known


log = logging.getLogger(__name__)
_ANEW = ('prototypes.', 'attention.', 'auxiliary.')


def _arrays(bundle: Bundle) -> dict[str, Tensor]:
    """Initializers of a bundle that vseg-train exported, by the student's own names."""
    graph = onnx.load_model_from_string(bundle.model).graph
    arrays = {}
    for value in graph.initializer:
        if value.name.startswith('student.'):
            array = numpy_helper.to_array(value).copy()
            arrays[value.name.removeprefix('student.')] = torch.from_numpy(array)
    return arrays


class _Unfolding:
    """Hooks that give a network's convolutions and batch norms a bundle's weights, as it runs."""

    def __init__(self, path: Path, wanted: Sequence[str]) -> None:
        bundle = Bundle.load(path)
        self.path, self.info, self.wanted = path, bundle.info, wanted
        self.arrays, self.taken = _arrays(bundle), 0
        self._folded: Tensor | None = None  # bias of the convolution that ran last

    def _find(self, name: str, kind: str) -> Tensor | None:
        """Weight of a module by its kind, None if the bundle has none."""
        if name.startswith('heads.'):  # every stream of a teacher starts from the student's head
            name = 'head.' + name.split('.', 2)[2]
        return self.arrays.get(f'{name}.{kind}')

    def convolution(self, name: str, module: nn.Conv2d) -> None:
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

    def _of_known_outputs(self, module: nn.Conv2d, weight: Tensor | None, bias: Tensor | None
                          ) -> tuple[Tensor | None, Tensor | None]:
        """Weight and bias of a last layer, with the bundle's channels where it has the same."""
        if weight is None or bias is None or weight.shape[1:] != module.weight.shape[1:]:
            return None, None
        classes, depth = list(self.info.label_set.names), self.info.depth
        tasks = Tasks()
        if depth:
            tasks.depth = DepthTask(bins=len(weight) - len(classes), **depth._asdict())
        known = outputs_of(classes, tasks)
        known += [''] * (len(weight) - len(known))  # of normals, which no bundle tells of
        assert module.bias is not None
        return (with_known(module.weight, self.wanted, weight, known),
                with_known(module.bias, self.wanted, bias, known))

    def batch_norm(self, module: nn.BatchNorm2d, seen: Tensor) -> None:
        """Let a batch norm undo the mean and variance of what it sees, and add the bias."""
        if self._folded is None:
            raise ValueError(f'model.init: {self.path} has a convolution without the bias of its '
                             'batch norm: write it anew by vseg-train export')
        assert module.running_mean is not None and module.running_var is not None
        variance, mean = torch.var_mean(seen, (0, 2, 3), correction=0)
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)
        module.weight.copy_((variance + module.eps).sqrt())
        module.bias.copy_(mean + self._folded)


@torch.no_grad()
def initialise_from_bundle(network: Network, path: Path, classes: Sequence[str],
                           images: Tensor) -> None:
    """
    Start backbone, reduction and heads of a network from a bundle's weights.

    An exported convolution has its batch norm folded into it. The batch norm is made again from
    the images: mean and variance of what it sees, and the scale and shift that undo them, so that
    these parts compute what the bundle does. Prototypes, attention and auxiliary head start anew.

    Args:
        network: A student or teacher.
        path: Bundle written by ``vseg-train export``.
        classes: Names of the network's classes.
        images: uint8 [B, 3, H, W], frames as in training.

    Raises:
        ValueError: The bundle lacks weights of a part of the network, or they differ in shape.
    """
    unfolding = _Unfolding(path, outputs_of(classes, network.tasks))
    handles = []
    for name, module in network.named_modules():
        if name.startswith(_ANEW):
            continue
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_pre_hook(
                lambda module, inputs, name=name: unfolding.convolution(name, module)))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(
                lambda module, inputs: unfolding.batch_norm(module, inputs[0])))
    training = network.training
    # as many equal frames as a teacher has streams, so that every head runs
    network.eval()(images[:, None].expand(-1, len(network.heads), -1, -1, -1))
    for handle in handles:
        handle.remove()
    network.train(training)
    log.info('took the weights of %d convolutions from %s', unfolding.taken, path)
