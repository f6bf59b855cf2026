# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that see one frame at a time: the papers' students and teachers beside MGCNet."""
from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn, Tensor

from .layers import conv_bn_relu
from .network import Output
from .options import Tasks
from .tasks import add_to, split
from ..backbones import Backbone


class PerFrame(nn.Module):
    """
    A network without context; subclasses say how one frame becomes features and scores.

    They set ``head``, whose ``classify`` is the last layer, and ``auxiliary``, a head of the last
    stage but one, where they have it; and they implement ``decode``, and ``guide`` where auxiliary
    heads are others. Normalisation is part of the network.

    Args:
        num_classes: K.
        backbone: Its stages may be of other number and strides than those of ``BACKBONES``.
        channels: Width of the features that ``decode`` gives.
        output_stride: Of the scores.

    Attributes:
        context_frames: T: 0.
    """

    mean: Tensor
    std: Tensor
    head: nn.Module
    context_frames = 0

    def __init__(self, num_classes: int, backbone: Backbone, channels: int,
                 output_stride: int) -> None:
        super().__init__()
        self.num_classes, self.channels = num_classes, channels
        self.output_stride, self.backbone = output_stride, backbone
        self.tasks = Tasks()
        self.auxiliary: nn.Module | None = None
        self.register_buffer('mean', torch.tensor(backbone.mean).view(3, 1, 1), False)
        self.register_buffer('std', torch.tensor(backbone.std).view(3, 1, 1), False)

    @property
    def heads(self) -> list[nn.Module]:
        """What ends in a layer ``classify``: one head."""
        return [self.head]

    def decode(self, stages: list[Tensor], size: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """
        Segment frames.

        Args:
            stages: The backbone's maps, coarsest last.
            size: (H, W) of the frames.

        Returns:
            Maps of the decoder, the features float [B, C, h, w] last, and scores float
            [B, K, h', w'].
        """
        raise NotImplementedError

    def guide(self, stages: list[Tensor], maps: list[Tensor]) -> list[Tensor]:
        """Scores of the auxiliary heads, of the stages or of the maps that ``decode`` gave."""
        return [] if self.auxiliary is None else [self.auxiliary(stages[-2])]

    def encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Stages and features of images [B, 3, H, W] in 0..255."""
        stages = self._stages(images)
        return stages, self.decode(stages, images.shape[-2:])[0][-1]

    def _stages(self, images: Tensor) -> list[Tensor]:
        stages = self.backbone((images.to(self.mean.dtype) - self.mean) / self.std)
        return cast(list[Tensor], stages)

    def forward(self, clip: Tensor, places: Tensor | None = None,
                counted: Tensor | None = None) -> Output:
        """
        Segment every frame of a clip.

        Args:
            clip: [B, L, 3, H, W] in 0..255.
            places: Not used; MGCNet needs them.
            counted: Likewise.

        Returns:
            scores, features, stages, what ``tasks`` adds, and auxiliary where the network has such
            heads.
        """
        size = clip.shape[:2]
        stages = self._stages(clip.flatten(0, 1))
        maps, scores = self.decode(stages, clip.shape[-2:])
        output: Output = {'features': maps[-1].unflatten(0, size),
                          'stages': [stage.unflatten(0, size) for stage in stages],
                          'projection': None}
        add_to(output, scores.unflatten(0, size), self.num_classes, self.tasks)
        if self.auxiliary is not None:
            output['auxiliary'] = [each.unflatten(0, size) for each in self.guide(stages, maps)]
        return output

    def step(self, image: Tensor) -> Tensor:
        """
        Score a frame: the function that a bundle holds.

        Args:
            image: uint8 [B, H, W, 3], RGB.

        Returns:
            Float [B, K, h, w], with the channels of ``tasks`` after the classes'.
        """
        # cast first: TensorRT transposes no uint8
        pixels = image.to(self.mean.dtype).permute(0, 3, 1, 2)
        return self.decode(self._stages(pixels), image.shape[1:3])[1]

    def stream(self, admit: bool = True) -> 'FrameStream':
        """Return a stream; admit: for networks with a pool."""
        return FrameStream(self)


class FrameStream:
    """
    A stream of frames through a network without context, in eval mode.

    Args:
        network: In eval mode.

    Attributes:
        parts: Of the last frame, as in ``tasks.split``.
    """

    def __init__(self, network: PerFrame) -> None:
        self.network = network
        self.parts: dict[str, Tensor] = {}

    def reset(self) -> None:
        """Forget nothing: there is no memory."""

    @torch.inference_mode()
    def step(self, image: npt.NDArray[np.uint8]) -> Tensor:
        """Scores float [K, h, w] of a frame uint8 [H, W, 3], RGB."""
        network = self.network
        scores = network.step(torch.as_tensor(image, device=network.mean.device)[None])[0]
        self.parts = split(scores, network.num_classes, network.tasks)
        return self.parts['scores']


class Classifier(nn.Sequential):
    """
    Dropout and the 1x1 convolution that scores features.

    Args:
        channels: C of the features.
        num_classes: K.
        dropout: Probability of dropping a channel.
    """

    def __init__(self, channels: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, num_classes, 1)


def auxiliary_head(inputs: int, channels: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Head of the last stage but one, which exists only while a network trains."""
    return nn.Sequential(conv_bn_relu(inputs, channels, 3),
                         Classifier(channels, num_classes, dropout))
