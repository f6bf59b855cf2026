# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""MGCNet's teacher: multi-stream short-term context (MSC) with one head per frame of context."""
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn, Tensor

from .network import MGCNet, Output
from .stream import TeacherStream


def mean_prediction(streams: Sequence[Tensor]) -> Tensor:
    """
    Mean of the streams' probabilities (MGCNet Eq. 9), over the streams that a frame has.

    Args:
        streams: Stream tau as float [B, L - tau, ...], for the frames tau..L-1 of a clip, as
            ``Teacher.forward`` gives them.

    Returns:
        Float32 [B, L, ...].
    """
    total = torch.zeros_like(streams[0], dtype=torch.float32)
    for tau, stream in enumerate(streams):
        total[:, tau:] += stream
    return total / _stream_count(streams)


def _stream_count(streams: Sequence[Tensor]) -> Tensor:
    """Streams per frame of a clip, shaped to divide [B, L, ...]."""
    like = streams[0]
    count = torch.arange(1, like.shape[1] + 1, device=like.device).clamp(max=len(streams))
    return count.view(1, -1, *[1] * (like.dim() - 2))


class Teacher(MGCNet):
    """
    MGCNet with the multi-stream short-term context (MSC, Eq. 7 to 9).

    Stream tau attends to the prototypes of frame t - tau and has a head of its own.

    Args:
        num_classes: K.
        head_widths: As in ``MGCNet``, of every head.
        dropout: Of the heads; it stays active after ``monte_carlo``.
        options: As in ``MGCNet``.
    """

    def __init__(self, num_classes: int, head_widths: Sequence[int] = (96, 64),
                 dropout: float = 0.1, **options: Any) -> None:
        super().__init__(num_classes, head_widths=head_widths, **options)
        self.heads = nn.ModuleList(
            self.build_head(head_widths, dropout) for _ in range(self.context_frames + 1))

    def monte_carlo(self) -> 'Teacher':
        """Eval mode, but with the dropout of the stream heads active (MC dropout, Sec. III-D)."""
        self.eval()
        for head in self.heads:
            head.get_submodule('dropout').train()
        return self

    def forward(self, clip: Tensor, places: Tensor | None = None,
                counted: Tensor | None = None) -> Output:
        """
        Segment every frame of a clip by as many streams as it has earlier frames, plus one.

        Args:
            clip: [B, L, 3, H, W] in 0..255.
            places: Float [B, 4], where in the camera image the clips lie (``position_codes``);
                None: they are whole images.
            counted: Bool [B, L, H, W], False for padding; None: there is none.

        Returns:
            streams (for tau = 0..min(T, L-1)), auxiliary, features, stages and projection.
        """
        batch, length = clip.shape[:2]
        codes = self.clip_codes(clip, places)
        stages, features, memory, projection = self.encode(
            clip.flatten(0, 1), codes, None if counted is None else counted.flatten(0, 1))
        memory = memory.unflatten(0, (batch, length))

        def frames_from(x: Tensor, tau: int) -> Tensor:
            return x.unflatten(0, (batch, length))[:, tau:].flatten(0, 1)

        streams = []
        for tau, head in enumerate(self.heads[:length]):
            scores = self.segment(
                head, [frames_from(stage, tau) for stage in stages], frames_from(features, tau),
                memory[:, :length - tau].flatten(0, 1),
                codes=None if codes is None else frames_from(codes, tau))
            streams.append(scores.unflatten(0, (batch, length - tau)))
        if projection is not None:
            projection = projection.unflatten(0, (batch, length))
        return {'streams': streams,
                'auxiliary': [self.auxiliary(stages[2]).unflatten(0, (batch, length))],
                'features': features.unflatten(0, (batch, length)),
                'stages': [stage.unflatten(0, (batch, length)) for stage in stages],
                'projection': projection}

    def step(self, image: Tensor, memories: Sequence[Tensor]
             ) -> tuple[Tensor, Tensor, Tensor | None]:
        """
        Segment one frame of a stream.

        Args:
            image: uint8 [B, H, W, 3], RGB.
            memories: Those of the last T frames, newest first, each float [B, N, D].

        Returns:
            The streams' scores [S, B, K, h', w'], memory [B, N, D] and projection [B, N, h*w].
        """
        stages, features, memory, projection = self.encode(
            image.to(self.mean.dtype).permute(0, 3, 1, 2))
        context = [memory, *memories][:len(self.heads)]
        scores = [self.segment(head, stages, features, earlier)
                  for head, earlier in zip(self.heads, context)]
        return torch.stack(scores), memory, projection

    def stream(self) -> TeacherStream:
        """Return a stream that starts without earlier frames."""
        return TeacherStream(self)
