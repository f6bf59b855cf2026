# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2Plus (Liu, LightNet, 2018): MobileNetV2 with ASPP over all its stages."""
from collections.abc import Sequence

import torch
from torch import nn, Tensor

from .layers import resize
from .per_frame import Classifier, PerFrame
from ..backbones.mobilenetv2 import InvertedResidual, MobileNetV2


RATES = (12, 24, 36)
DILATIONS = (1, 1, 1, 2, 4, 8, 16)  # of the stages


def _norm_act(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.LeakyReLU(0.01))


class AllStages(MobileNetV2):
    """MobileNetV2 at output stride 8 that gives all of its seven stages."""

    def __init__(self) -> None:
        super().__init__(output_stride=8, stages=range(7))
        start = 1
        for end, dilation in zip(self.taps, DILATIONS):
            for block in list(self.features)[start:end + 1]:
                if isinstance(block, InvertedResidual) and dilation > 1:
                    block.dilate(dilation)
            start = end + 1


class ChannelAndSpace(nn.Module):
    """
    Concurrent channel and spatial squeeze and excitation (scSE; Roy et al., 2018).

    Args:
        channels: Of the map.
        reduction: Factor by which the hidden layer is narrower.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = channels // reduction
        self.channel = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(),
                                     nn.Conv2d(hidden, channels, 1), nn.Sigmoid())
        self.space = nn.Sequential(nn.Conv2d(channels, 1, 1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Weigh float [B, C, h, w] by channel and by cell, and add both."""
        return x * self.channel(x.mean((2, 3), keepdim=True)) + x * self.space(x)


class PreNormPyramid(nn.Module):
    """
    ASPP whose batch norms come before its convolutions.

    Args:
        inputs: Channels that come.
        channels: Of each branch and of the result.
        dropout: Probability of dropping a channel of the result.
    """

    def __init__(self, inputs: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.normalise = _norm_act(inputs)
        self.pooled = nn.Conv2d(inputs, channels, 1, bias=False)
        self.branches = nn.ModuleList([nn.Conv2d(inputs, channels, 1, bias=False)])
        for rate in RATES:
            self.branches.append(nn.Conv2d(
                inputs, channels, 3, padding=rate, dilation=rate, bias=False))
        joined = channels * (len(self.branches) + 1)
        self.fuse = nn.Sequential(_norm_act(joined), nn.Conv2d(joined, channels, 1, bias=False),
                                  nn.Dropout2d(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, inputs, h, w] to [B, channels, h, w]."""
        x = self.normalise(x)
        pooled = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        return self.fuse(torch.cat([pooled, *(branch(x) for branch in self.branches)], 1))


class MobileNetV2Plus(PerFrame):
    """
    All stages at stride 8 through scSE and ASPP, then stride 4 with two skips; scores at stride 4.

    Max pooling rounds sides up, and ASPP's last convolution is not padded, unlike LightNet's code:
    maps fit at every size.

    Args:
        num_classes: K.
        channels: Of ASPP's branches.
        dropout: Of ASPP.
    """

    def __init__(self, num_classes: int, channels: int = 256, dropout: float = 0.2) -> None:
        backbone = AllStages()
        stages = sum(backbone.channels)
        width = channels + sum(backbone.channels[:2])
        super().__init__(num_classes, backbone, width, 4)
        self.halve = nn.MaxPool2d(3, 2, 1)
        self.weigh_stages = ChannelAndSpace(stages)
        self.pyramid = PreNormPyramid(stages, channels, dropout)
        self.weigh = ChannelAndSpace(width)
        self.refine = nn.Sequential(
            _norm_act(width), nn.Conv2d(width, width, 3, padding=2, dilation=2, bias=False),
            _norm_act(width))
        self.head = Classifier(width, num_classes)

    def decode(self, stages: list[Tensor], size: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """See PerFrame."""
        half, quarter, *eighths = stages
        pooled = self.halve(half)
        joined = torch.cat([*eighths, self.halve(pooled), self.halve(quarter)], 1)
        x = resize(self.pyramid(self.weigh_stages(joined)), quarter.shape[2:])
        features = self.refine(self.weigh(torch.cat([x, quarter, pooled], 1)))
        return [features], self.head(features)
