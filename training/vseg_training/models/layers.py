# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Small layers and resizes that every network shares."""
from collections.abc import Sequence

from torch import nn, Tensor
from torch.nn import functional as F


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU: [B, inputs, h, w] -> [B, outputs, h, w]."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs), nn.ReLU())


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of float [B, C, h, w] to (height, width), always align_corners=False."""
    return F.interpolate(x, size=size, mode='bilinear', align_corners=False)


def resize_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest-neighbour resize of label images int64 [B, H, W] to (height, width)."""
    return F.interpolate(labels[:, None].float(), size=size, mode='nearest-exact')[:, 0].long()


def counted_cells(counted: Tensor, size: Sequence[int]) -> Tensor:
    """Which cells of a map of (height, width) are not padding, as counted bool [B, H, W] is."""
    return resize_labels(counted, size).bool()
