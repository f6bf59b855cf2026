# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""NfS-Net and NfS-SegNet (Need for Speed): a dense encoder down to 1/256, and a thin decoder."""
from collections.abc import Sequence

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from .per_frame import PerFrame
from ..backbones.base import Backbone, scaled

STEM = 32
# layers and growth of each stage of NfS-Net, at strides 4, 8, 16 and 32, and of those that
# NfS-SegNet adds at 64, 128 and 256
STAGES = ((3, 24), (5, 40), (6, 64), (6, 80))
FURTHER = ((2, 64), (2, 64), (2, 64))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm that export folds into it, PReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs), nn.PReLU(outputs))


class DenseStage(nn.Module):
    """
    Dense block (Huang et al., 2017): each layer sees the maps of all before it.

    Args:
        inputs: Channels that come.
        layers: How many.
        growth: Channels that each adds, by a 1x1 convolution to as many and a 3x3 one.
    """

    def __init__(self, inputs: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(_conv(inputs + number * growth, growth, 1), _conv(growth, growth, 3))
            for number in range(layers))
        self.channels = inputs + layers * growth

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, inputs, h, w] to [B, inputs + layers * growth, h, w]."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class NfSNet(Backbone):
    """
    NfS-Net: convolutions without bias, PReLU, pooling and concatenation, nothing else.

    The paper gives these four kinds of layers, early downsampling, dense reuse and 21.3 GFLOPs at
    1024x2048; widths and depths are ours. ``further`` are the stages that take NfS-SegNet's
    encoder on to 1/256.

    Args:
        width: Factor of all channels.
        further: Whether to go on beyond stride 32.
    """

    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

    def __init__(self, width: float = 1.0, further: bool = True) -> None:
        super().__init__()
        channels = scaled(STEM, width)
        self.stem = _conv(3, channels, 3, 2)
        self.transitions, self.stages = nn.ModuleList(), nn.ModuleList()
        widths = []
        for number, (layers, growth) in enumerate(STAGES + (FURTHER if further else ())):
            # a pooled map of half as many channels comes into each stage but the first
            inputs = channels if not number else scaled(channels, 0.5)
            self.transitions.append(nn.Identity() if not number else _conv(channels, inputs, 1))
            self.stages.append(DenseStage(inputs, layers, scaled(growth, width)))
            channels = inputs + layers * scaled(growth, width)
            widths.append(channels)
        self.channels = tuple(widths)
        self.strides = tuple(4 * 2 ** number for number in range(len(widths)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Extract all stages of a normalised image float [B, 3, H, W]."""
        x, found = self.stem(x), []
        for transition, stage in zip(self.transitions, self.stages):
            x = stage(transition(_pooled(x)))
            found.append(x)
        return found


def _pooled(x: Tensor) -> Tensor:
    """Maximum of 2x2 cells, sizes rounded up."""
    return F.max_pool2d(x, 2, ceil_mode=True)


class Doubling(nn.Module):
    """
    One step of the decoder: class maps are doubled, and an encoder's stage joins them.

    Args:
        skipped: Channels of the stage.
        width: Of the class maps.
    """

    def __init__(self, skipped: int, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width, 2, 2, bias=False)
        self.skip = _conv(skipped, width, 1)
        self.fuse = _conv(2 * width, width, 3)

    def forward(self, x: Tensor, stage: Tensor) -> Tensor:
        """Join float [B, width, h, w] and a stage [B, skipped, h', w'] of twice its size."""
        doubled = self.up(x)[:, :, :stage.shape[2], :stage.shape[3]]
        return self.fuse(torch.cat([doubled, self.skip(stage)], 1))


class _Head(nn.Module):
    """Doublings from the coarsest stage on, and a 1x1 convolution that scores the last map."""

    def __init__(self, channels: Sequence[int], steps: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.start = _conv(channels[-1], width, 1)
        skipped = channels[-2::-1][:steps]
        self.doublings = nn.ModuleList(Doubling(each, width) for each in skipped)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, stages: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """All maps, coarsest first, and scores of the finest."""
        maps = [self.start(stages[-1])]
        for doubling, stage in zip(self.doublings, stages[-2::-1]):
            maps.append(doubling(maps[-1], stage))
        return maps, self.classify(maps[-1])


class NfSSegNet(PerFrame):
    """
    NfS-SegNet: NfS-Net down to 1/256 of the image, and a thin decoder that doubles class maps.

    Auxiliary heads score the decoder's map at every coarser resolution, where JA-KD compares
    student and teacher too; they are not exported.

    Args:
        num_classes: K.
        width: Factor of the encoder's channels (compression rates of Fig. 8).
        output_stride: Of the scores, 4 to 128: how many doublings the decoder has (Fig. 4, 5).
        decoder: Width of the decoder's maps.

    Raises:
        ValueError: The output stride is not one of 4, 8, 16, 32, 64 and 128.
    """

    def __init__(self, num_classes: int, width: float = 1.0, output_stride: int = 8,
                 decoder: int = 32) -> None:
        encoder = NfSNet(width)
        if output_stride not in encoder.strides[:-1]:
            raise ValueError(f'model.output_stride is {output_stride}: NfS-SegNet has '
                             f'{", ".join(map(str, encoder.strides[:-1]))}')
        super().__init__(num_classes, encoder, decoder, output_stride)
        steps = len(encoder.strides) - 1 - encoder.strides.index(output_stride)
        self.head = _Head(encoder.channels, steps, decoder, num_classes)
        self.auxiliary = nn.ModuleList(nn.Conv2d(decoder, num_classes, 1) for _ in range(steps))

    def decode(self, stages: list[Tensor], size: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """See PerFrame."""
        maps, scores = self.head(stages)
        return maps, scores

    def guide(self, stages: list[Tensor], maps: list[Tensor]) -> list[Tensor]:
        """See PerFrame."""
        assert isinstance(self.auxiliary, nn.ModuleList)
        return [classify(each) for classify, each in zip(self.auxiliary, maps)]
