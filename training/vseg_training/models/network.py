# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What MGCNet's student and teacher share: backbone, per-frame context, segmentation head."""
import torch
from torch import nn

from .layers import conv_bn_relu, resize
from .prototypes import (
    locate, NoAttention, NoPrototypes, PixelGeneration, POSITION_CHANNELS, position_codes,
    PrototypeAttention, PrototypeGeneration)
from ..backbones import build_backbone


class SegmentationHead(nn.Module):
    """
    3x3 and 1x1 convolution on augmented features, with FCN-8s skips from finer backbone stages.

    ``forward``: augmented [B, C, h, w] and the skip features, coarse to fine -> scores
    [B, K, h', w'] at the finest skip's size, or at (h, w) without skips.
    """

    def __init__(self, channels, skip_channels, widths, num_classes, dropout):
        super().__init__()
        self.reduce, self.skip, self.fuse = (nn.ModuleList() for _ in range(3))
        for inputs, width in zip(skip_channels, widths):
            self.reduce.append(conv_bn_relu(channels, width))
            self.skip.append(conv_bn_relu(inputs, width))
            self.fuse.append(conv_bn_relu(width, width, 3))
            channels = width
        if not widths:
            self.fuse.append(conv_bn_relu(channels, channels, 3))
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x, skips):
        if not len(self.skip):
            x = self.fuse[0](x)
        for reduce, skip, fuse, feature in zip(self.reduce, self.skip, self.fuse, skips):
            feature = skip(feature)
            x = fuse(resize(reduce(x), feature.shape[2:]) + feature)
        return self.classify(self.dropout(x))


class MGCNet(nn.Module):
    """
    MGCNet up to the augmented features; ``Student`` and ``Teacher`` add the short-term context.

    A clip is uint8 or float [B, L, 3, H, W] in 0..255, RGB, oldest frame first. Normalisation is
    part of the network. ``head_widths`` has a width per skip: none, stride 8, or strides 8 and 4.
    ``non_local``: 'prototype' (Eq. 1 to 3), 'pixel' (the pixel-to-pixel form of Table III) or
    'none' (the baseline of Table I, which sees no context). ``attention`` and ``attention_scale``:
    form and scale of ``PrototypeAttention``. ``positions``: whether position codes stand beside
    the features that become prototypes, queries and keys, so that a prototype knows where it was.
    """

    def __init__(self, num_classes, backbone='efficientnet_lite0', output_stride=16, channels=128,
                 key_channels=64, num_prototypes=32, context_frames=3, head_widths=(96, 64),
                 attention='cosine', attention_scale=1.0, positions=True,
                 non_local='prototype'):
        super().__init__()
        self.backbone = build_backbone(backbone, output_stride)
        stages = self.backbone.channels
        self.num_classes, self.context_frames = num_classes, context_frames
        self.channels, self.prototype_dim = channels, key_channels + channels
        finer = [i for i in (1, 0) if self.backbone.strides[i] < output_stride]
        if len(head_widths) > len(finer):
            raise ValueError(
                f'head_widths has {len(head_widths)} entries, but output stride {output_stride} '
                f'leaves {len(finer)} finer stages to skip from: shorten head_widths')
        self._skips = finer[:len(head_widths)]
        self.output_stride = (
            self.backbone.strides[self._skips[-1]] if head_widths else output_stride)
        self.reduce = conv_bn_relu(stages[3], channels)
        self.positions = positions and non_local != 'none'
        extra = POSITION_CHANNELS if self.positions else 0
        if non_local == 'none':
            if context_frames:
                raise ValueError('non_local none sees no other frame: set context_frames to 0')
            self.prototypes, self.attention = NoPrototypes(), NoAttention()
            self.prototype_dim = channels
        elif non_local in ('prototype', 'pixel'):
            self.prototypes = (PrototypeGeneration(channels + extra, num_prototypes)
                               if non_local == 'prototype' else PixelGeneration())
            self.attention = PrototypeAttention(
                channels, key_channels, attention, attention_scale, extra)
        else:
            raise ValueError(
                f'non_local {non_local!r} is unknown: use prototype, pixel or none')
        self.auxiliary = nn.Sequential(
            conv_bn_relu(stages[2], stages[2], 3), nn.Conv2d(stages[2], num_classes, 1))
        self.register_buffer('mean', torch.tensor(self.backbone.mean).view(3, 1, 1), False)
        self.register_buffer('std', torch.tensor(self.backbone.std).view(3, 1, 1), False)

    def build_head(self, head_widths, dropout):
        """Build one segmentation stream: augmented features and skips to scores."""
        skips = [self.backbone.channels[i] for i in self._skips]
        return SegmentationHead(
            self.channels, skips, head_widths, self.num_classes, dropout)

    def codes(self, images, places=None):
        """
        Position codes of the feature maps of images [B, 3, H, W]; None without positions.

        places [B, 4]: where in the camera image they lie, as in ``position_codes``.
        """
        if not self.positions:
            return None
        stride = self.backbone.strides[-1]
        size = [-(-side // stride) for side in images.shape[-2:]]
        return position_codes(size, places, self.mean)

    def encode(self, images, codes=None):
        """
        Features and memory of single frames.

        images [B, 3, H, W] in 0..255, codes: ``codes`` of them (None: they are whole camera
        images) -> (backbone stages, X [B, C, h, w], memory [B, N, D], projection P [B, N, h*w],
        None for the pixel form).
        """
        codes = self.codes(images) if codes is None else codes
        stages = self.backbone((images.to(self.mean.dtype) - self.mean) / self.std)
        features = self.reduce(stages[3])
        prototypes, projection = self.prototypes(locate(features, codes))
        return stages, features, self.attention.memorise(prototypes), projection

    def segment(self, head, stages, features, memory, mask=None, codes=None):
        """Scores [B, K, h', w'] of frames that attend to memory [B, M, D] under mask [B, M]."""
        if codes is None and self.positions:
            codes = position_codes(features.shape[2:], None, self.mean)
        augmented = self.attention(features, memory, mask, codes)
        return head(augmented, [stages[i] for i in self._skips])
