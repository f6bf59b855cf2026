# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Backbones: each maps float [B, 3, H, W] to features at strides 4, 8, 16 and output_stride."""
from .base import Backbone
from .efficientnet_lite import EfficientNetLite
from .mobilenetv2 import MobileNetV2
from .resnet import ResNet
from .weights import load_pretrained


_FAMILIES: dict[str, type[EfficientNetLite] | type[MobileNetV2] | type[ResNet]] = {
    'efficientnet_lite0': EfficientNetLite, 'efficientnet_lite1': EfficientNetLite,
    'efficientnet_lite2': EfficientNetLite, 'mobilenet_v2': MobileNetV2,
    'resnet18': ResNet, 'resnet50': ResNet, 'resnet101': ResNet,
}
BACKBONES = tuple(_FAMILIES)


def build_backbone(name: str, output_stride: int, width: float = 1.0, deep_stem: bool = False
                   ) -> Backbone:
    """
    Build a backbone with random weights.

    Args:
        name: One of ``BACKBONES``.
        output_stride: Pixels of the image per cell of the last stage: 8, 16 or 32.
        width: Factor of every number of channels.
        deep_stem: Whether a ResNet starts with three 3x3 convolutions instead of one 7x7; other
            families have no such stem and stay as they are.

    Raises:
        ValueError: The name, the output stride or the width is not possible.
    """
    if name not in _FAMILIES:
        raise ValueError(f'backbone {name!r} is unknown: choose one of {", ".join(BACKBONES)}')
    if output_stride not in (8, 16, 32):
        raise ValueError(f'output_stride {output_stride} is not possible: choose 8, 16 or 32')
    if not 0 < width <= 4:
        raise ValueError(f'width {width} of a backbone is not possible: choose above 0, up to 4')
    family = _FAMILIES[name]
    if family is ResNet:
        return ResNet(name, output_stride, width, deep_stem)
    return family(name, output_stride, width)


__all__ = ['BACKBONES', 'Backbone', 'build_backbone', 'load_pretrained']
