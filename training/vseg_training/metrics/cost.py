# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a model costs: parameters, and operations of one streamed frame."""
import numpy as np
from torch.utils.flop_counter import FlopCounterMode


def parameters(model):
    """Count the parameters of a Student or Teacher, less the auxiliary head's: training only."""
    return sum(value.numel() for name, value in model.named_parameters()
               if not name.startswith('auxiliary.'))


def flops(step, size, context_frames):
    """
    Count the floating point operations of one frame of a stream, a multiply-add as two.

    step: uint8 [H, W, 3] -> scores, of a fresh stream in eval mode; size: (H, W);
    context_frames: how many frames fill the stream's pool, which they do first. Convolutions and
    matrix products count; normalisation, activations and resizes do not.
    """
    image = np.zeros((*size, 3), np.uint8)
    for _ in range(context_frames):
        step(image)
    with FlopCounterMode(display=False) as counter:
        step(image)
    return counter.get_total_flops()
