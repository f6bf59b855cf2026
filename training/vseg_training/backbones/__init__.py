# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Backbones: each maps float [B, 3, H, W] to features at strides 4, 8, 16 and output_stride."""
from .efficientnet_lite import EfficientNetLite
from .mobilenetv2 import MobileNetV2
from .resnet import ResNet
from .weights import load_pretrained


_FAMILIES = {
    'efficientnet_lite0': EfficientNetLite, 'efficientnet_lite1': EfficientNetLite,
    'efficientnet_lite2': EfficientNetLite, 'mobilenet_v2': MobileNetV2,
    'resnet18': ResNet, 'resnet50': ResNet, 'resnet101': ResNet,
}
BACKBONES = tuple(_FAMILIES)


def build_backbone(name, output_stride):
    """Build a backbone without weights; ValueError for an unknown name or output stride."""
    if name not in _FAMILIES:
        raise ValueError(f'backbone {name!r} is unknown: choose one of {", ".join(BACKBONES)}')
    if output_stride not in (8, 16, 32):
        raise ValueError(f'output_stride {output_stride} is not possible: choose 8, 16 or 32')
    return _FAMILIES[name](name, output_stride)


__all__ = ['BACKBONES', 'build_backbone', 'load_pretrained']
