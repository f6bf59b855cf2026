# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a model costs: parameters, and operations of one streamed frame."""
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import nn, Tensor
from torch.utils.flop_counter import FlopCounterMode


def parameters(model: nn.Module) -> int:
    """
    Count a network's parameters, without the auxiliary head, which exists only in training.

    Examples:
        >>> parameters(nn.Conv2d(3, 8, 1))  # 3 * 8 weights and 8 biases
        32
    """
    return sum(value.numel() for name, value in model.named_parameters()
               if not name.startswith('auxiliary.'))


def flops(step: Callable[[npt.NDArray[np.uint8]], Tensor], size: tuple[int, int],
          context_frames: int) -> int:
    """
    Count the floating point operations of one frame of a stream, a multiply-add as two.

    Convolutions and matrix products count; normalisation, activations and resizes do not. Papers
    that count multiply-adds as one state half of this.

    Args:
        step: uint8 [H, W, 3] -> scores, of a fresh stream in eval mode.
        size: (H, W).
        context_frames: How many frames fill the stream's pool, which they do first.

    Examples:
        >>> import torch
        >>> network = nn.Conv2d(3, 8, 1)
        >>> def step(image):
        ...     return network(torch.from_numpy(image).permute(2, 0, 1)[None].float())
        >>> flops(step, (10, 20), 0)  # 2 * 3 * 8 * 10 * 20
        9600
    """
    image = np.zeros((*size, 3), np.uint8)
    for _ in range(context_frames):
        step(image)
    with FlopCounterMode(display=False) as counter:
        step(image)
    return counter.get_total_flops()
