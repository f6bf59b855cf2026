# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Small layers that every model shares."""
from torch import nn
from torch.nn import functional as F


def conv_bn_relu(inputs, outputs, kernel=1):
    """Convolution, batch norm and ReLU: [B, inputs, h, w] -> [B, outputs, h, w]."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs), nn.ReLU())


def resize(x, size):
    """Bilinear resize with align_corners=False, the convention of every resize here."""
    return F.interpolate(x, size=size, mode='bilinear', align_corners=False)


def resize_labels(labels, size):
    """Nearest-neighbour resize of label images int64 [B, H, W] to (height, width)."""
    return F.interpolate(labels[:, None].float(), size=size, mode='nearest-exact')[:, 0].long()
