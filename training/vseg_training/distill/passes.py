# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Several passes of a teacher with dropout (U-KD of NfS-SegNet)."""
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from .targets import teacher_maps
from ..models.kinds import Network
from ..terms import MonteCarlo


LAYERS = 6  # "which have the most compressed features with low resolution" (Sec. IV-C)


@torch.no_grad()
def monte_carlo(network: Network, clip: Tensor, places: Tensor | None = None,
                counted: Tensor | None = None, passes: int = 5, rate: float = 0.01) -> MonteCarlo:
    """
    Mean and variance of the probabilities over passes with dropout.

    Args:
        network: Put into eval mode; only the last six normalised layers of its backbone drop.
        clip: [B, L, 3, H, W] in 0..255.
        places: As in the network's ``forward``.
        counted: Likewise.
        passes: How many.
        rate: Share of values that are dropped.
    """
    with _dropout(network.backbone, rate):
        found = torch.stack([teacher_maps(network, clip, places, counted).of(
            'scores', True).softmax(2) for _ in range(passes)])
    # without the first pass rounding would tell pixels apart whose passes are all the same
    variance = (found - found[:1]).var(0, correction=0).sum(2)
    return MonteCarlo(found.mean(0), variance)


@contextmanager
def _dropout(backbone: nn.Module, rate: float) -> Iterator[None]:
    """Let the last layers of a backbone drop values."""
    def drop(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return F.dropout(output, rate)

    layers = [layer for layer in backbone.modules() if isinstance(layer, _BatchNorm)][-LAYERS:]
    hooks = [layer.register_forward_hook(drop) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
