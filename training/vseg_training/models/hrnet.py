# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""HRNet-W18-Small-v2 (Sun et al., 2019): four resolutions side by side, which exchange maps."""
from collections.abc import Sequence

import torch
from torch import nn, Tensor

from .layers import conv_bn_relu, resize
from .per_frame import Classifier, PerFrame
from ..backbones.base import Backbone
from ..backbones.resnet import BasicBlock, Bottleneck


MODULES = (1, 3, 2)  # exchange units of stages 2 to 4
BLOCKS = 2  # residual blocks per branch and unit, and of stage 1


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs))


def _down(inputs: int, outputs: int, times: int) -> nn.Sequential:
    """Halve a map some times by 3x3 convolutions; the last one alone changes the width."""
    layers: list[nn.Module] = []
    for number in range(times):
        last = number == times - 1
        layers.append(_conv_bn(inputs, outputs if last else inputs, 3, 2))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Exchange(nn.Module):
    """
    Residual blocks on every branch, then every branch gets the sum of all.

    Args:
        widths: Of the branches, fine to coarse.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width, 1, 1, None) for _ in range(BLOCKS)))
            for width in widths)
        self.fuse = nn.ModuleList()
        for target, outputs in enumerate(widths):
            row = nn.ModuleList()
            for source, inputs in enumerate(widths):
                if source == target:
                    row.append(nn.Identity())
                elif source > target:
                    row.append(_conv_bn(inputs, outputs, 1))
                else:
                    row.append(_down(inputs, outputs, target - source))
            self.fuse.append(row)
        self.relu = nn.ReLU()

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map branches to branches of the same shapes."""
        maps = [branch(each) for branch, each in zip(self.branches, maps)]
        fused = []
        for row, own in zip(self.fuse, maps):
            assert isinstance(row, nn.ModuleList)
            parts = [change(each) for change, each in zip(row, maps)]
            parts = [part if part.shape[2:] == own.shape[2:] else resize(part, own.shape[2:])
                     for part in parts]
            fused.append(self.relu(torch.stack(parts).sum(0)))
        return fused


class HighResolution(Backbone):
    """
    HRNet's four branches, at strides 4, 8, 16 and 32.

    Args:
        width: Factor of the branches' 18, 36, 72 and 144 channels.
    """

    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _conv_bn(3, 64, 3, 2), nn.ReLU(), _conv_bn(64, 64, 3, 2), nn.ReLU())
        self.layer1 = nn.Sequential(
            Bottleneck(64, 64, 1, 1, _conv_bn(64, 256, 1)),
            *(Bottleneck(256, 64, 1, 1, None) for _ in range(BLOCKS - 1)))
        channels = [round(18 * width) * 2 ** number for number in range(4)]
        self.transitions, self.stages = nn.ModuleList(), nn.ModuleList()
        before = [256]
        for branches, modules in zip((2, 3, 4), MODULES):
            now = channels[:branches]
            self.transitions.append(_transition(before, now))
            self.stages.append(nn.Sequential(*(Exchange(now) for _ in range(modules))))
            before = now
        self.channels, self.strides = tuple(channels), (4, 8, 16, 32)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Extract the four branches of a normalised image float [B, 3, H, W]."""
        maps = [self.layer1(self.stem(x))]
        for transition, stage in zip(self.transitions, self.stages):
            maps = [*maps, maps[-1]]  # the new branch starts from the coarsest
            assert isinstance(transition, nn.ModuleList)
            maps = stage([change(each) for change, each in zip(transition, maps)])
        return maps


def _transition(before: Sequence[int], now: Sequence[int]) -> nn.ModuleList:
    """Layers from the branches before, the last of them twice, to one branch more."""
    layers = nn.ModuleList()
    for inputs, outputs in zip(before, now):
        same = inputs == outputs
        layers.append(nn.Identity() if same else conv_bn_relu(inputs, outputs, 3))
    layers.append(nn.Sequential(_conv_bn(before[-1], now[-1], 3, 2), nn.ReLU()))
    return layers


class HRNet(PerFrame):
    """
    HRNetV2's head: all branches at the finest grid, 1x1 convolution, classifier.

    Args:
        num_classes: K.
        width: As in ``HighResolution``; 1 is HRNet-W18-Small-v2.
        dropout: Of the head.
    """

    def __init__(self, num_classes: int, width: float = 1.0, dropout: float = 0.0) -> None:
        backbone = HighResolution(width)
        channels = sum(backbone.channels)
        super().__init__(num_classes, backbone, channels, 4)
        self.fuse = conv_bn_relu(channels, channels)
        self.head = Classifier(channels, num_classes, dropout)

    def decode(self, stages: list[Tensor], size: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """See PerFrame."""
        grid = stages[0].shape[2:]
        maps = [stages[0], *(resize(stage, grid) for stage in stages[1:])]
        features = self.fuse(torch.cat(maps, 1))
        return [features], self.head(features)
