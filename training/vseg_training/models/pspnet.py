# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""PSPNet (Zhao et al., 2017), as the distillation papers size it."""
from collections.abc import Sequence

import torch
from torch import nn, Tensor

from .layers import conv_bn_relu, resize
from .per_frame import auxiliary_head, Classifier, PerFrame
from ..backbones import build_backbone


def pooling_matrix(cells: int, bins: int) -> Tensor:
    """
    Mean over bins that cover an axis, as a matrix.

    Bin i covers the cells from floor(i cells / bins) to ceil((i + 1) cells / bins), as adaptive
    average pooling has it. A product instead of that pooling lets a graph run only at the size
    that it was written for.

    Args:
        cells: Length of the axis.
        bins: How many bins.

    Returns:
        Float32 [bins, cells], whose rows sum to 1.

    Examples:
        >>> pooling_matrix(4, 3)
        tensor([[0.5000, 0.5000, 0.0000, 0.0000],
                [0.0000, 0.5000, 0.5000, 0.0000],
                [0.0000, 0.0000, 0.5000, 0.5000]])
    """
    matrix = torch.zeros(bins, cells)
    for number in range(bins):
        start, end = number * cells // bins, -(-(number + 1) * cells // bins)
        matrix[number, start:end] = 1 / (end - start)
    return matrix


class PyramidPooling(nn.Module):
    """
    Pyramid pooling module: means over grids of bins stand beside the features.

    Args:
        inputs: Width of the backbone's last stage.
        channels: Width of every level and of the result.
        bins: Bins per axis of each level.
    """

    def __init__(self, inputs: int, channels: int, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.levels = nn.ModuleList(conv_bn_relu(inputs, channels) for _ in bins)
        self.fuse = conv_bn_relu(inputs + channels * len(self.bins), channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, inputs, h, w] to [B, channels, h, w]."""
        height, width = x.shape[2:]
        parts = [x]
        for bins, level in zip(self.bins, self.levels):
            down = pooling_matrix(height, bins).to(x)
            across = pooling_matrix(width, bins).to(x)
            parts.append(resize(level(down @ x @ across.T), (height, width)))
        return self.fuse(torch.cat(parts, 1))


class PSPNet(PerFrame):
    """
    Dilated backbone, pyramid pooling, 1x1 convolution.

    Args:
        num_classes: K.
        backbone: One of ``backbones.BACKBONES``.
        width: Of the backbone, as a factor of its channels.
        deep_stem: Whether a ResNet starts with three 3x3 convolutions, as the papers' do.
        output_stride: 8, 16 or 32.
        channels: Width of the pyramid's levels and of the features: in the papers 128 for
            ResNet-18, 64 for half its width, 512 for ResNet-50 and -101, 32 for MobileNetV2.
        dropout: Of the heads.
    """

    def __init__(self, num_classes: int, backbone: str = 'resnet18', width: float = 1.0,
                 deep_stem: bool = True, output_stride: int = 8, channels: int = 128,
                 dropout: float = 0.1) -> None:
        extractor = build_backbone(backbone, output_stride, width, deep_stem)
        super().__init__(num_classes, extractor, channels, output_stride)
        self.pyramid = PyramidPooling(extractor.channels[3], channels)
        self.head = Classifier(channels, num_classes, dropout)
        self.auxiliary = auxiliary_head(extractor.channels[2], channels, num_classes, dropout)

    def decode(self, stages: list[Tensor], size: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """See PerFrame."""
        features = self.pyramid(stages[-1])
        return [features], self.head(features)
