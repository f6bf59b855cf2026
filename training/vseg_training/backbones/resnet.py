# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""ResNet-18, -50 and -101; keys of torchvision's weights."""
from torch import nn, Tensor

from .base import Backbone


_LAYERS = {'resnet18': (2, 2, 2, 2), 'resnet50': (3, 4, 6, 3), 'resnet101': (3, 4, 23, 3)}


def _conv3x3(inputs: int, outputs: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)


def _deep_stem(width: int) -> nn.Sequential:
    """Three 3x3 convolutions in the place of the 7x7 one; a batch norm follows."""
    return nn.Sequential(
        _conv3x3(3, width, 2, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        _conv3x3(width, width, 1, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        _conv3x3(width, 2 * width, 1, 1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, dilation: int,
                 downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3x3(inputs, width, stride, dilation), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv3x3(width, width, 1, dilation), nn.BatchNorm2d(width)
        self.relu, self.downsample = nn.ReLU(inplace=True), downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, inputs, h, w] to [B, width * expansion, h / stride, w / stride]."""
        shortcut = self.downsample(x) if self.downsample else x
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with a shortcut; the stride sits on the 3x3 (v1.5)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, dilation: int,
                 downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv3x3(width, width, stride, dilation), nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * 4)
        self.relu, self.downsample = nn.ReLU(inplace=True), downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, inputs, h, w] to [B, width * expansion, h / stride, w / stride]."""
        shortcut = self.downsample(x) if self.downsample else x
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(Backbone):
    """
    ResNet (He et al., 2016).

    Args:
        name: ``resnet18``, ``resnet50`` or ``resnet101``.
        output_stride: 8, 16 or 32.
        width: Factor of every number of channels.
        deep_stem: Whether three 3x3 convolutions, the last of twice the width, stand in the place
            of the 7x7 one, as in PSPNet's ResNets; no public weights of torchvision fit these.
    """

    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(self, name: str = 'resnet18', output_stride: int = 16, width: float = 1.0,
                 deep_stem: bool = False) -> None:
        super().__init__()
        block: type[BasicBlock] | type[Bottleneck] = (
            BasicBlock if name == 'resnet18' else Bottleneck)
        first = round(64 * width)
        inputs = 2 * first if deep_stem else first
        self.conv1 = _deep_stem(first) if deep_stem else nn.Conv2d(3, first, 7, 2, 3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        reached, dilation = 4, 1
        strides, channels = [], []
        for stage, blocks in enumerate(_LAYERS[name]):
            planes, stride = first * 2 ** stage, 1 if stage == 0 else 2
            if stride > 1 and reached >= output_stride:
                stride, dilation = 1, dilation * 2
            reached *= stride
            outputs = planes * block.expansion
            layers: list[nn.Module] = []
            for index in range(blocks):
                step = stride if index == 0 else 1
                downsample = None
                if step != 1 or inputs != outputs:
                    downsample = nn.Sequential(
                        nn.Conv2d(inputs, outputs, 1, step, bias=False), nn.BatchNorm2d(outputs))
                layers.append(block(inputs, planes, step, dilation, downsample))
                inputs = outputs
            setattr(self, f'layer{stage + 1}', nn.Sequential(*layers))
            strides.append(reached)
            channels.append(outputs)
        self.strides, self.channels = tuple(strides), tuple(channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Extract the four maps of ``Backbone``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features
