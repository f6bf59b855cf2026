# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""ESPNet and ESPNet-C (Mehta et al., 2018): spatial pyramids of dilated convolutions."""
from collections.abc import Sequence

import torch
from torch import nn, Tensor

from .per_frame import Classifier, PerFrame
from ..backbones.base import Backbone


def _norm_prelu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3), nn.PReLU(channels))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class SpatialPyramid(nn.Module):
    """
    ESP module: reduce, five dilated 3x3 convolutions, hierarchical sum, concatenation.

    Args:
        inputs: Channels that come.
        outputs: Channels that leave: n in each branch but the first, which takes the rest.
        stride: Of the reduction; 2 halves the map by a 3x3 convolution.
        residual: Whether the input is added, where it has as many channels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, residual: bool = True) -> None:
        super().__init__()
        width = outputs // 5
        self.reduce = _conv(inputs, width, 1 if stride == 1 else 3, stride)
        self.branches = nn.ModuleList(
            nn.Conv2d(width, outputs - 4 * width if rate == 1 else width, 3, padding=rate,
                      dilation=rate, bias=False) for rate in (1, 2, 4, 8, 16))
        self.normalise = _norm_prelu(outputs)
        self._residual = residual and stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, inputs, h, w] to [B, outputs, h / stride, w / stride]."""
        reduced = self.reduce(x)
        first, *others = [branch(reduced) for branch in self.branches]
        parts, total = [first], 0
        for other in others:
            total = total + other
            parts.append(total)
        y = torch.cat(parts, 1)
        return self.normalise(x + y if self._residual else y)


class ESPEncoder(Backbone):
    """
    ESPNet-C without its classifier.

    Stages at strides 2, 4 and 8, each with the image beside it but the last.

    Args:
        alpha_2: ESP modules at stride 4 after the one that halves the map.
        alpha_3: Those at stride 8.
    """

    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

    def __init__(self, alpha_2: int, alpha_3: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 16, 3, 2), _norm_prelu(16))
        self.shrink = nn.AvgPool2d(3, 2, 1)
        self.join_1, self.join_2, self.join_3 = (
            _norm_prelu(channels) for channels in (19, 131, 256))
        self.down_2, self.down_3 = SpatialPyramid(19, 64, 2), SpatialPyramid(131, 128, 2)
        self.level_2 = nn.Sequential(*(SpatialPyramid(64, 64) for _ in range(alpha_2)))
        self.level_3 = nn.Sequential(*(SpatialPyramid(128, 128) for _ in range(alpha_3)))
        self.channels, self.strides = (19, 131, 256), (2, 4, 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Extract the three stages of a normalised image float [B, 3, H, W]."""
        half = self.shrink(x)
        first = self.join_1(torch.cat([self.stem(x), half], 1))
        down = self.down_2(first)
        second = self.join_2(torch.cat([self.level_2(down), down, self.shrink(half)], 1))
        down = self.down_3(second)
        return [first, second, self.join_3(torch.cat([down, self.level_3(down)], 1))]


class ESPNetC(PerFrame):
    """
    ESPNet-C: the encoder and a 1x1 convolution; scores and features at stride 8.

    Args:
        num_classes: K.
        alpha_2: As in ``ESPEncoder``.
        alpha_3: As in ``ESPEncoder``.
    """

    def __init__(self, num_classes: int, alpha_2: int = 2, alpha_3: int = 8) -> None:
        super().__init__(num_classes, ESPEncoder(alpha_2, alpha_3), 256, 8)
        self.head = Classifier(256, num_classes)

    def decode(self, stages: list[Tensor], size: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """See PerFrame."""
        return [stages[-1]], self.head(stages[-1])


class ESPHead(nn.Module):
    """
    Light decoder of ESPNet: class maps are doubled three times, with two skips.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        k = num_classes
        pyramid = max(5, k)  # a channel for each branch
        self.score_3 = nn.Sequential(_conv(256, k, 1), nn.BatchNorm2d(k, eps=1e-3))
        self.score_2 = _conv(131, k, 1)
        self.up_3 = nn.ConvTranspose2d(k, k, 2, 2, bias=False)
        self.fuse_2 = nn.Sequential(
            _norm_prelu(2 * k), SpatialPyramid(2 * k, pyramid, residual=False))
        self.up_2 = nn.Sequential(
            nn.ConvTranspose2d(pyramid, k, 2, 2, bias=False), _norm_prelu(k))
        self.fuse_1 = nn.Sequential(_conv(19 + k, k, 3), _norm_prelu(k))
        self.classify = nn.ConvTranspose2d(k, k, 2, 2)

    def forward(self, stages: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Score every pixel of images of a size: float [B, K, H, W]."""
        first, second, third = stages
        x = _cut(self.up_3(self.score_3(third)), second.shape[2:])
        x = self.fuse_2(torch.cat([self.score_2(second), x], 1))
        x = _cut(self.up_2(x), first.shape[2:])
        return _cut(self.classify(self.fuse_1(torch.cat([x, first], 1))), size)


def _cut(x: Tensor, size: Sequence[int]) -> Tensor:
    """Cut what a doubled map has beyond a size: sides are rounded up where they are halved."""
    return x if x.shape[2:] == tuple(size) else x[:, :, :size[0], :size[1]]


class ESPNet(PerFrame):
    """
    ESPNet: ESPNet-C and a light decoder; features are the encoder's, scores have stride 1.

    The last deconvolution has a bias, which the original lacks: logit adjustment needs it.

    Args:
        num_classes: K.
        alpha_2: As in ``ESPEncoder``.
        alpha_3: As in ``ESPEncoder``.
    """

    def __init__(self, num_classes: int, alpha_2: int = 2, alpha_3: int = 8) -> None:
        super().__init__(num_classes, ESPEncoder(alpha_2, alpha_3), 256, 1)
        self.head = ESPHead(num_classes)

    def decode(self, stages: list[Tensor], size: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """See PerFrame."""
        return [stages[-1]], self.head(stages, size)
