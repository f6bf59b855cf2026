# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What MGCNet's student and teacher share: backbone, per-frame context, segmentation head."""
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import nn, Tensor

from .layers import conv_bn_relu, counted_cells, resize
from .options import Tasks
from .prototypes import (
    locate, NoAttention, NoPrototypes, PixelGeneration, POSITION_CHANNELS, position_codes,
    PrototypeAttention, PrototypeGeneration)
from ..backbones import build_backbone


class Output(TypedDict, total=False):
    """
    What a network says of a clip: a student has ``scores``, a teacher ``streams``.

    Attributes:
        scores: Float [B, L, K, h', w'].
        streams: Scores [B, L - tau, K, h', w'] of stream tau, for the frames tau..L-1.
        auxiliary: Scores [B, L, K, h, w] of each auxiliary head; MGCNet has one, at stride 16.
        features: X, float [B, L, C, h, w].
        projection: P, float [B, L, N, h*w] (Eq. 1); None where there are no prototypes.
        stages: The backbone's maps, each [B, L, C', h', w'], coarsest last.
        depth: Scores of the bins, float [B, L, bins, h', w'], where the network has that task.
        normals: Float [B, L, 3, h', w'], likewise.
    """

    scores: Tensor
    depth: Tensor
    normals: Tensor
    streams: list[Tensor]
    auxiliary: list[Tensor]
    features: Tensor
    projection: Tensor | None
    stages: list[Tensor]


class SegmentationHead(nn.Module):
    """
    3x3 and 1x1 convolution on augmented features, with FCN-8s skips from finer backbone stages.

    Args:
        channels: C of the augmented features.
        skip_channels: Widths of the backbone stages to skip from, coarse to fine.
        widths: The head's own width at each skip; none: no skips.
        num_classes: K.
        dropout: Probability of dropping a channel before the last convolution.
    """

    def __init__(self, channels: int, skip_channels: Sequence[int], widths: Sequence[int],
                 num_classes: int, dropout: float) -> None:
        super().__init__()
        self.reduce, self.skip, self.fuse = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for inputs, width in zip(skip_channels, widths):
            self.reduce.append(conv_bn_relu(channels, width))
            self.skip.append(conv_bn_relu(inputs, width))
            self.fuse.append(conv_bn_relu(width, width, 3))
            channels = width
        if not widths:
            self.fuse.append(conv_bn_relu(channels, channels, 3))
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """
        Score every class in every cell.

        Args:
            x: Augmented features float [B, C, h, w].
            skips: Features of the backbone stages, coarse to fine.

        Returns:
            Scores float [B, K, h', w'] at the finest skip's size, or at (h, w) without skips.
        """
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
    part of the network.

    Args:
        num_classes: K.
        backbone: One of ``backbones.BACKBONES``.
        output_stride: Of the backbone: 8, 16 or 32.
        channels: C, width of the features X.
        key_channels: Width of theta and phi.
        num_prototypes: N of each frame.
        context_frames: T, the number of earlier frames that are attended to.
        head_widths: A width per skip of the head: none, stride 8, or strides 8 and 4.
        attention: Form of ``PrototypeAttention``.
        attention_scale: Its scale.
        positions: Whether position codes stand beside the features that become prototypes,
            queries and keys, so that a prototype knows where it was.
        non_local: 'prototype' (Eq. 1 to 3), 'pixel' (the pixel-to-pixel form of Table III) or
            'none' (the baseline of Table I, which sees no context).

    Raises:
        ValueError: Options that do not fit together; the message says which to change.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int, backbone: str = 'efficientnet_lite0',
                 output_stride: int = 16, channels: int = 128, key_channels: int = 64,
                 num_prototypes: int = 32, context_frames: int = 3,
                 head_widths: Sequence[int] = (96, 64), attention: str = 'cosine',
                 attention_scale: float = 1.0, positions: bool = True,
                 non_local: str = 'prototype') -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, output_stride)
        stages = self.backbone.channels
        self.num_classes, self.context_frames, self.channels = (
            num_classes, context_frames, channels)
        self.tasks = Tasks()
        self._skips = self._skipped_stages(output_stride, head_widths)
        self.output_stride = (
            self.backbone.strides[self._skips[-1]] if head_widths else output_stride)
        self.reduce = conv_bn_relu(stages[3], channels)
        self.positions = positions and non_local != 'none'
        extra = POSITION_CHANNELS if self.positions else 0
        self.prototypes = _prototypes(non_local, channels + extra, num_prototypes)
        self.attention: PrototypeAttention | NoAttention
        if non_local == 'none':
            if context_frames:
                raise ValueError('non_local none sees no other frame: set context_frames to 0')
            self.attention, self.prototype_dim = NoAttention(), channels
        else:
            self.attention = PrototypeAttention(
                channels, key_channels, attention, attention_scale, extra)
            self.prototype_dim = key_channels + channels
        self.auxiliary = nn.Sequential(
            conv_bn_relu(stages[2], stages[2], 3), nn.Conv2d(stages[2], num_classes, 1))
        self.register_buffer('mean', torch.tensor(self.backbone.mean).view(3, 1, 1), False)
        self.register_buffer('std', torch.tensor(self.backbone.std).view(3, 1, 1), False)

    def _skipped_stages(self, output_stride: int, head_widths: Sequence[int]) -> list[int]:
        """Numbers of the backbone's stages that the head skips from, coarse to fine."""
        finer = [i for i in (1, 0) if self.backbone.strides[i] < output_stride]
        if len(head_widths) > len(finer):
            raise ValueError(
                f'head_widths has {len(head_widths)} entries, but output stride {output_stride} '
                f'leaves {len(finer)} finer stages to skip from: shorten head_widths')
        return finer[:len(head_widths)]

    def build_head(self, head_widths: Sequence[int], dropout: float) -> SegmentationHead:
        """Build one segmentation stream: augmented features and skips to scores."""
        skips = [self.backbone.channels[i] for i in self._skips]
        return SegmentationHead(
            self.channels, skips, head_widths, self.num_classes, dropout)

    def codes(self, images: Tensor, places: Tensor | None = None) -> Tensor | None:
        """
        Position codes for the feature maps of some images.

        Args:
            images: [B, 3, H, W], of which only the size counts.
            places: Float [B, 4], where in the camera image they lie, as in ``position_codes``;
                None: they are whole camera images.

        Returns:
            Float [1 or B, 16, h, w]; None for a network without positions.
        """
        if not self.positions:
            return None
        stride = self.backbone.strides[-1]
        height, width = (-(-side // stride) for side in images.shape[-2:])
        return position_codes((height, width), places, self.mean)

    def clip_codes(self, clip: Tensor, places: Tensor | None) -> Tensor | None:
        """``codes`` for every frame of clips [B, L, 3, H, W]: float [B*L, 16, h, w] or None."""
        codes = self.codes(clip, places)
        if codes is None:
            return None
        batch, length = clip.shape[:2]
        return codes.expand(batch, -1, -1, -1).repeat_interleave(length, 0)

    def encode(self, images: Tensor, codes: Tensor | None = None, counted: Tensor | None = None
               ) -> tuple[list[Tensor], Tensor, Tensor, Tensor | None]:
        """
        Features and memory of single frames.

        Args:
            images: [B, 3, H, W] in 0..255.
            codes: Their position codes; None: they are whole camera images.
            counted: Bool [B, H, W], False for padding; None: there is none.

        Returns:
            The backbone's stages, X float [B, C, h, w], memory float [B, N, D] and projection P
            float [B, N, h*w] (None where there are no prototypes).
        """
        codes = self.codes(images) if codes is None else codes
        stages = self.backbone((images.to(self.mean.dtype) - self.mean) / self.std)
        features = self.reduce(stages[3])
        cells = None if counted is None else counted_cells(counted, features.shape[2:])
        prototypes, projection = self.prototypes(locate(features, codes), cells)
        return stages, features, self.attention.memorise(prototypes), projection

    def segment(self, head: nn.Module, stages: Sequence[Tensor], features: Tensor,
                memory: Tensor, mask: Tensor | None = None,
                codes: Tensor | None = None) -> Tensor:
        """
        Score frames that attend to a memory.

        Args:
            head: Of ``build_head``.
            stages: The backbone's, of ``encode``.
            features: X float [B, C, h, w].
            memory: Float [B, M, D].
            mask: Float [B, M], 0 or EMPTY; None: all is filled.
            codes: Position codes of X; None: those of whole camera images.

        Returns:
            Scores float [B, K, h', w'].
        """
        if codes is None and self.positions:
            height, width = features.shape[2:]
            codes = position_codes((height, width), None, self.mean)
        augmented = self.attention(features, memory, mask, codes)
        return head(augmented, [stages[i] for i in self._skips])


def _prototypes(non_local: str, channels: int, num_prototypes: int) -> nn.Module:
    """Build what makes prototypes of features with ``channels``, position codes included."""
    if non_local == 'prototype':
        return PrototypeGeneration(channels, num_prototypes)
    if non_local == 'pixel':
        return PixelGeneration()
    if non_local == 'none':
        return NoPrototypes()
    raise ValueError(f'non_local {non_local!r} is unknown: use prototype, pixel or none')
