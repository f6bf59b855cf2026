# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""MGCNet's student: prototypes, single-stream short-term context (SSC), one segmentation head."""
import torch
from torch import nn

from .layers import conv_bn_relu, resize
from .prototypes import causal_mask, PrototypeAttention, PrototypeGeneration
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


class Student(nn.Module):
    """
    MGCNet's student network (Eq. 1 to 4, 7, 8, SSC).

    A clip is uint8 or float [B, L, 3, H, W] in 0..255, RGB, oldest frame first. Normalisation is
    part of the network. ``head_widths`` has a width per skip: none, stride 8, or strides 8 and 4.
    """

    def __init__(self, num_classes, backbone='efficientnet_lite0', output_stride=16, channels=128,
                 key_channels=64, num_prototypes=32, context_frames=3, head_widths=(96, 64),
                 dropout=0.1, attention_scale=1.0):
        super().__init__()
        self.backbone = build_backbone(backbone, output_stride)
        stages = self.backbone.channels
        self.num_classes, self.num_prototypes = num_classes, num_prototypes
        self.context_frames, self.channels = context_frames, channels
        self.prototype_dim = key_channels + channels
        finer = [i for i in (1, 0) if self.backbone.strides[i] < output_stride]
        if len(head_widths) > len(finer):
            raise ValueError(
                f'head_widths has {len(head_widths)} entries, but output stride {output_stride} '
                f'leaves {len(finer)} finer stages to skip from: shorten head_widths')
        self._skips = finer[:len(head_widths)]
        self.output_stride = (
            self.backbone.strides[self._skips[-1]] if head_widths else output_stride)
        self.reduce = conv_bn_relu(stages[3], channels)
        self.prototypes = PrototypeGeneration(channels, num_prototypes)
        self.attention = PrototypeAttention(channels, key_channels, attention_scale)
        self.head = SegmentationHead(
            channels, [stages[i] for i in self._skips], head_widths, num_classes, dropout)
        self.auxiliary = nn.Sequential(
            conv_bn_relu(stages[2], stages[2], 3), nn.Conv2d(stages[2], num_classes, 1))
        self.register_buffer('mean', torch.tensor(self.backbone.mean).view(3, 1, 1), False)
        self.register_buffer('std', torch.tensor(self.backbone.std).view(3, 1, 1), False)

    def encode(self, images):
        """
        Features and memory of single frames.

        images [B, 3, H, W] in 0..255 -> (backbone stages, X [B, C, h, w], memory [B, N, D],
        projection P [B, N, h*w]).
        """
        stages = self.backbone((images.float() - self.mean) / self.std)
        features = self.reduce(stages[3])
        prototypes, projection = self.prototypes(features)
        return stages, features, self.attention.memorise(prototypes), projection

    def segment(self, stages, features, memory, mask=None):
        """Scores [B, K, h', w'] of frames that attend to memory [B, M, D] under mask [B, M]."""
        augmented = self.attention(features, memory, mask)
        return self.head(augmented, [stages[i] for i in self._skips])

    def forward(self, clip):
        """
        Segment every frame of a clip, each attending to itself and up to T frames before it.

        The first frames see a pool that is not full yet, as at the start of a stream. Returns a
        dict: scores [B, L, K, h', w'], auxiliary [B, L, K, h16, w16], projection [B, L, N, h*w].
        """
        batch, length = clip.shape[:2]
        stages, features, memory, projection = self.encode(clip.flatten(0, 1))
        memory = memory.view(batch, 1, length * self.num_prototypes, -1)
        memory = memory.expand(-1, length, -1, -1).flatten(0, 1)
        mask = causal_mask(length, self.num_prototypes, self.context_frames, memory)
        scores = self.segment(stages, features, memory, mask.repeat(batch, 1))
        return {'scores': scores.unflatten(0, (batch, length)),
                'auxiliary': self.auxiliary(stages[2]).unflatten(0, (batch, length)),
                'projection': projection.unflatten(0, (batch, length))}

    def step(self, image, pool, pool_mask):
        """
        One frame of a stream: the function that a bundle holds (Algorithm 1).

        image uint8 [B, H, W, 3], pool [B, T*N, D], pool_mask [B, T*N] ->
        (scores [B, K, h', w'], prototypes [B, N, D] to put in the pool).
        """
        stages, features, memory, _ = self.encode(image.float().permute(0, 3, 1, 2))
        mask = torch.cat([pool_mask, pool_mask.new_zeros(memory.shape[:2])], 1)
        return self.segment(stages, features, torch.cat([pool, memory], 1), mask), memory
