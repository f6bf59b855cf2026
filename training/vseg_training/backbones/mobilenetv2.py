# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2; keys of torchvision's ``mobilenet_v2`` weights."""
from collections.abc import Sequence

from torch import nn, Tensor

from .base import Backbone, scaled


# expansion, output channels, repeats, stride (MobileNetV2, Table 2)
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
           (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, dilation: int = 1,
             groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation,
                  groups=groups, bias=False),
        nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project: [B, in, h, w] -> [B, out, h', w']."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int,
                 dilation: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [_conv_bn(inputs, hidden)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *layers, _conv_bn(hidden, hidden, 3, stride, dilation, hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self._residual = stride == 1 and inputs == outputs

    def dilate(self, dilation: int) -> None:
        """Set the dilation of the depthwise convolution."""
        layers = list(self.conv)[-3]
        assert isinstance(layers, nn.Sequential) and isinstance(layers[0], nn.Conv2d)
        layers[0].dilation = layers[0].padding = (dilation, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, in, h, w] to [B, out, h / stride, w / stride]."""
        return x + self.conv(x) if self._residual else self.conv(x)


class MobileNetV2(Backbone):
    """
    MobileNetV2 (Sandler et al., 2018).

    Args:
        name: ``mobilenet_v2``; there is one size.
        output_stride: 8, 16 or 32.
        width: Factor of every number of channels.
        stages: Which of the seven stages of Table 2 ``forward`` gives.
    """

    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

    def __init__(self, name: str = 'mobilenet_v2', output_stride: int = 16,
                 width: float = 1.0, stages: Sequence[int] = (1, 2, 4, 6)) -> None:
        super().__init__()
        inputs = scaled(32, width)
        features: list[nn.Module] = [_conv_bn(3, inputs, 3, 2)]
        ends = []  # of each stage: index of its last block, channels, stride
        reached, dilation = 2, 1
        for expansion, channels, repeats, stride in _STAGES:
            outputs = scaled(channels, width)
            for block in range(repeats):
                step = stride if block == 0 else 1
                if step > 1 and reached >= output_stride:
                    step, dilation = 1, dilation * 2
                reached *= step
                features.append(InvertedResidual(inputs, outputs, expansion, step, dilation))
                inputs = outputs
            ends.append((len(features) - 1, outputs, reached))
        self.features = nn.Sequential(*features)
        taps = [ends[i] for i in stages]
        self.taps = [tap[0] for tap in taps]
        self.channels = tuple(tap[1] for tap in taps)
        self.strides = tuple(tap[2] for tap in taps)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Extract the four maps of ``Backbone``."""
        features = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in self.taps:
                features.append(x)
        return features
