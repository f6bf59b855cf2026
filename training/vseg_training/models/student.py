# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""MGCNet's student: prototypes, single-stream short-term context (SSC), one segmentation head."""
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .network import MGCNet, Output, SegmentationHead
from .prototypes import causal_mask, EMPTY
from .stream import StudentStream
from .tasks import add_to


class Student(MGCNet):
    """
    MGCNet with the single-stream short-term context (SSC, Sec. III-B).

    Args:
        num_classes: K.
        head_widths: As in ``MGCNet``.
        dropout: Of the head.
        hide_own: While it trains: probability that a frame's own prototypes are hidden from it
            where it has earlier frames, so that it learns to read those.
        wrong_pool: While it trains: probability that a clip's earlier frames are replaced by
            another clip's of the batch, so that it learns not to trust a pool that does not fit.
        options: As in ``MGCNet``.
    """

    def __init__(self, num_classes: int, head_widths: Sequence[int] = (96, 64),
                 dropout: float = 0.1, hide_own: float = 0.0, wrong_pool: float = 0.0,
                 **options: Any) -> None:
        super().__init__(num_classes, head_widths=head_widths, **options)
        self.head = self.build_head(head_widths, dropout)
        self.hide_own, self.wrong_pool = hide_own, wrong_pool

    @property
    def heads(self) -> list[SegmentationHead]:
        """The segmentation streams: one."""
        return [self.head]

    def forward(self, clip: Tensor, places: Tensor | None = None,
                counted: Tensor | None = None) -> Output:
        """
        Segment every frame of a clip, each attending to itself and up to T frames before it.

        The first frames see a pool that is not full yet, as at the start of a stream.

        Args:
            clip: [B, L, 3, H, W] in 0..255.
            places: Float [B, 4], where in the camera image the clips lie (``position_codes``);
                None: they are whole images.
            counted: Bool [B, L, H, W], False for padding; None: there is none.

        Returns:
            scores, auxiliary, features, stages and projection, and what ``tasks`` adds.
        """
        batch, length = clip.shape[:2]
        codes = self.clip_codes(clip, places)
        stages, features, memory, projection = self.encode(
            clip.flatten(0, 1), codes, None if counted is None else counted.flatten(0, 1))
        context, mask = self._clip_context(memory.unflatten(0, (batch, length)))
        scores = self.segment(self.head, stages, features, context, mask, codes)
        auxiliary = self.auxiliary(stages[2])
        if projection is not None:
            projection = projection.unflatten(0, (batch, length))
        output: Output = {'auxiliary': [auxiliary.unflatten(0, (batch, length))],
                          'features': features.unflatten(0, (batch, length)),
                          'stages': [stage.unflatten(0, (batch, length)) for stage in stages],
                          'projection': projection}
        add_to(output, scores.unflatten(0, (batch, length)), self.num_classes, self.tasks)
        return output

    def _clip_context(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Memory [B, L, N, D] -> what each frame attends to [B*L, L*N, D], mask [B*L, L*N]."""
        batch, length, count = memory.shape[:3]
        mask = causal_mask(length, count, self.context_frames, memory)
        mask = mask.expand(batch, -1, -1).unflatten(2, (length, count))
        context = memory[:, None].expand(-1, length, -1, -1, -1)
        if self.training and length > 1 and self.context_frames:
            own = torch.eye(length, dtype=torch.bool, device=memory.device)
            wrong = self._chosen(self.wrong_pool, batch) if batch > 1 else None
            if wrong is not None:
                swapped = (wrong[:, None, None] & ~own)[..., None, None]
                context = torch.where(swapped, context.roll(1, 0), context)
            hidden = own & self._chosen(self.hide_own, batch, length)[..., None]
            hidden[:, 0] = False  # it has no earlier frame
            if wrong is not None:
                hidden &= ~wrong[:, None, None]
            mask = mask.masked_fill(hidden[..., None], EMPTY)
        return context.flatten(0, 1).flatten(1, 2), mask.flatten(0, 1).flatten(1, 2)

    def _chosen(self, probability: float, *shape: int) -> Tensor:
        """Bool of a shape, each True with a probability; drawn by torch's generator of the CPU."""
        return (torch.rand(shape) < probability).to(self.mean.device)

    def step(self, image: Tensor, pool: Tensor, pool_mask: Tensor,
             codes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        Segment one frame of a stream: the function that a bundle holds (Algorithm 1).

        Args:
            image: uint8 [B, H, W, 3], RGB.
            pool: Float [B, T*N, D], the prototypes of the last T frames.
            pool_mask: Float [B, T*N], 0 where the pool is filled, else EMPTY.
            codes: Position codes; None: those of the whole image.

        Returns:
            Scores float [B, K, h', w'], with the channels of ``tasks`` after the classes', and the
            prototypes [B, N, D] to put into the pool.
        """
        image = image.to(self.mean.dtype).permute(0, 3, 1, 2)
        codes = self.codes(image) if codes is None else codes
        stages, features, memory, _ = self.encode(image, codes)
        mask = torch.cat([pool_mask, pool_mask.new_zeros(memory.shape[:2])], 1)
        context = torch.cat([pool, memory], 1)
        return self.segment(self.head, stages, features, context, mask, codes), memory

    def stream(self, admit: bool = True) -> StudentStream:
        """Return a stream that starts with an empty pool; admit: see StudentStream."""
        return StudentStream(self, admit)
