# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""DeepLab with atrous spatial pyramid pooling (DeepLabV3; Chen et al., 2017)."""
from collections.abc import Sequence

import torch
from torch import nn, Tensor

from .layers import conv_bn_relu
from .per_frame import auxiliary_head, Classifier, PerFrame
from ..backbones import build_backbone


class AtrousPyramid(nn.Module):
    """
    Atrous spatial pyramid pooling (ASPP): 1x1 and dilated 3x3 convolutions, the image's mean.

    Args:
        inputs: Width of the backbone's last stage.
        channels: Width of every branch and of the result.
        rates: Dilations of the 3x3 convolutions.
    """

    def __init__(self, inputs: int, channels: int, rates: Sequence[int] = (12, 24, 36)) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_bn_relu(inputs, channels)])
        for rate in rates:
            self.branches.append(nn.Sequential(
                nn.Conv2d(inputs, channels, 3, padding=rate, dilation=rate, bias=False),
                nn.BatchNorm2d(channels), nn.ReLU()))
        # without batch norm: there is one value per image
        self.pooled = nn.Sequential(nn.Conv2d(inputs, channels, 1), nn.ReLU())
        self.fuse = conv_bn_relu(channels * (len(self.branches) + 1), channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, inputs, h, w] to [B, channels, h, w]."""
        parts = [branch(x) for branch in self.branches]
        pooled = self.pooled(x.mean((2, 3), keepdim=True))
        parts.append(pooled.expand(-1, -1, *x.shape[2:]))
        return self.fuse(torch.cat(parts, 1))


class DeepLab(PerFrame):
    """
    Dilated backbone, ASPP, 1x1 convolution.

    Args:
        num_classes: K.
        backbone: As in ``PSPNet``, like width, deep_stem and output_stride.
        width: Of the backbone.
        deep_stem: Of a ResNet.
        output_stride: 8, 16 or 32.
        channels: Width of the branches and of the features: in the papers 64, and 32 for half a
            ResNet-18.
        dropout: Of the heads.
        rates: Dilations at output stride 8.
    """

    def __init__(self, num_classes: int, backbone: str = 'resnet18', width: float = 1.0,
                 deep_stem: bool = True, output_stride: int = 8, channels: int = 64,
                 dropout: float = 0.1, rates: Sequence[int] = (12, 24, 36)) -> None:
        extractor = build_backbone(backbone, output_stride, width, deep_stem)
        super().__init__(num_classes, extractor, channels, output_stride)
        self.pyramid = AtrousPyramid(extractor.channels[3], channels, rates)
        self.head = Classifier(channels, num_classes, dropout)
        self.auxiliary = auxiliary_head(
            extractor.channels[2], 2 * channels, num_classes, dropout)

    def decode(self, stages: list[Tensor], size: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """See PerFrame."""
        features = self.pyramid(stages[-1])
        return [features], self.head(features)
