# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What every backbone has in common."""
from torch import nn


class Backbone(nn.Module):
    """
    Feature extractor of four stages.

    ``forward``: float [B, 3, H, W], normalised by ``mean`` and ``std`` -> list of four maps
    [B, channels[i], H / strides[i], W / strides[i]], sizes rounded up.

    Attributes:
        mean: Per colour (RGB, 0..255), subtracted from the image.
        std: Per colour, which the difference is divided by.
        channels: Width of each stage's map.
        strides: 4, 8, 16 and ``output_stride``; none is larger than ``output_stride``. The stages
            beyond it are dilated, so that they see as much of the image as without it.

    Encoders that belong to one network may have stages of other number and strides.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: tuple[int, ...]
    strides: tuple[int, ...]


def scaled(channels: int, width: float) -> int:
    """
    Number of channels for a width, a multiple of 8 and not less than 90 % of it (MobileNetV2).

    Examples:
        >>> scaled(24, 1.0), scaled(24, 0.5), scaled(32, 0.35)
        (24, 16, 16)
    """
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
