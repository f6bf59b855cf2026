# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Weights back from a bundle, so that a training can start from a student that was shipped."""
import logging
from pathlib import Path

import onnx
from onnx import numpy_helper
import torch
from torch import nn, Tensor

from ros_vseg.bundle import Bundle

from .models.kinds import Network


log = logging.getLogger(__name__)
_ANEW = ('prototypes.', 'attention.', 'auxiliary.')


def _arrays(path: Path) -> dict[str, Tensor]:
    """Initializers of a bundle that vseg-train exported, by the student's own names."""
    graph = onnx.load_model_from_string(Bundle.load(path).model).graph
    arrays = {}
    for value in graph.initializer:
        if value.name.startswith('student.'):
            array = numpy_helper.to_array(value).copy()
            arrays[value.name.removeprefix('student.')] = torch.from_numpy(array)
    return arrays


class _Unfolding:
    """Hooks that give a network's convolutions and batch norms a bundle's weights, as it runs."""

    def __init__(self, path: Path) -> None:
        self.path, self.arrays, self.taken = path, _arrays(path), 0
        self._folded: Tensor | None = None  # bias of the convolution that ran last

    def _find(self, name: str, kind: str) -> Tensor | None:
        """Weight of a module by its kind, None if the bundle has none."""
        if name.startswith('heads.'):  # every stream of a teacher starts from the student's head
            name = 'head.' + name.split('.', 2)[2]
        return self.arrays.get(f'{name}.{kind}')

    def convolution(self, name: str, module: nn.Conv2d) -> None:
        """Take the weights of a convolution that is about to run."""
        weight, bias = self._find(name, 'weight'), self._find(name, 'bias')
        rows = len(module.weight)
        if weight is not None and name == 'head.classify':  # further tasks start anew
            rows = min(rows, len(weight))
        if (weight is None or weight.shape != module.weight[:rows].shape
                or (module.bias is not None and bias is None)):
            raise ValueError(f'model.init: {self.path} has no weights for {name} of shape '
                             f'{tuple(module.weight.shape)}: give a bundle of the same backbone, '
                             'channels and head_widths, or a checkpoint')
        module.weight[:rows].copy_(weight)
        if module.bias is not None and bias is not None:
            module.bias[:rows].copy_(bias)
        self._folded = self._find(name, 'weight_bias')
        self.taken += 1

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
def initialise_from_bundle(network: Network, path: Path, images: Tensor) -> None:
    """
    Start backbone, reduction and heads of a network from a bundle's weights.

    An exported convolution has its batch norm folded into it. The batch norm is made again from
    the images: mean and variance of what it sees, and the scale and shift that undo them, so that
    these parts compute what the bundle does. Prototypes, attention and auxiliary head start anew.

    Args:
        network: A student or teacher.
        path: Bundle written by ``vseg-train export``.
        images: uint8 [B, 3, H, W], frames as in training.

    Raises:
        ValueError: The bundle lacks weights of a part of the network, or they differ in shape.
    """
    unfolding, handles = _Unfolding(path), []
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
