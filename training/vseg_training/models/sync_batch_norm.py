# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Batch norm over the batches of all processes, on a CPU (torch's own refuses CPU tensors)."""
from typing import Any

import torch
from torch import distributed, nn, Tensor


class _Sum(torch.autograd.Function):
    """Sum over processes; so is its gradient, as every process uses the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over a running process group, all of whose batches have the same size."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """Normalise float [B, C, h, w]."""
        if not self.training:
            return super().forward(x)
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        mean = _Sum.apply(x.sum((0, 2, 3))) / count
        x = x - mean[:, None, None]
        variance = _Sum.apply(x.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(1, count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return x * scale[:, None, None] + self.bias[:, None, None]


def convert(module: nn.Module) -> None:
    """Make every nn.BatchNorm2d of a module a ``SyncBatchNorm2d``, in place; its state stays."""
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SyncBatchNorm2d
