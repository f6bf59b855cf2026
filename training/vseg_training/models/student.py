# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""MGCNet's student: prototypes, single-stream short-term context (SSC), one segmentation head."""
import torch

from .network import MGCNet
from .prototypes import causal_mask, EMPTY
from .stream import StudentStream


class Student(MGCNet):
    """
    MGCNet with the single-stream short-term context (SSC, Sec. III-B).

    While it trains, a frame's own prototypes are hidden from it with probability ``hide_own``
    where it has earlier frames, so that it learns to read those; and with probability
    ``wrong_pool`` a clip's earlier frames are replaced by another clip's of the batch, so that it
    learns not to trust a pool that does not fit.
    """

    def __init__(self, num_classes, head_widths=(96, 64), dropout=0.1, hide_own=0.0,
                 wrong_pool=0.0, **options):
        super().__init__(num_classes, head_widths=head_widths, **options)
        self.head = self.build_head(head_widths, dropout)
        self.hide_own, self.wrong_pool = hide_own, wrong_pool

    @property
    def heads(self):
        """The segmentation streams: one."""
        return [self.head]

    def forward(self, clip, places=None):
        """
        Segment every frame of a clip, each attending to itself and up to T frames before it.

        The first frames see a pool that is not full yet, as at the start of a stream. places
        [B, 4]: where in the camera image the clips lie (``position_codes``); None: they are whole
        images. Returns a dict: scores [B, L, K, h', w'], auxiliary [B, L, K, h16, w16], features
        [B, L, C, h, w], projection [B, L, N, h*w] (None for the pixel form).
        """
        batch, length = clip.shape[:2]
        codes = self.codes(clip, places)
        if codes is not None:
            codes = codes.expand(batch, -1, -1, -1).repeat_interleave(length, 0)
        stages, features, memory, projection = self.encode(clip.flatten(0, 1), codes)
        context, mask = self._clip_context(memory.unflatten(0, (batch, length)))
        scores = self.segment(self.head, stages, features, context, mask, codes)
        auxiliary = self.auxiliary(stages[2])
        output = {'scores': scores, 'auxiliary': auxiliary, 'features': features,
                  'projection': projection}
        return {name: value if value is None else value.unflatten(0, (batch, length))
                for name, value in output.items()}

    def _clip_context(self, memory):
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

    def _chosen(self, probability, *shape):
        """Bool of a shape, each True with a probability; by torch's generator of the CPU."""
        return (torch.rand(shape) < probability).to(self.mean.device)

    def step(self, image, pool, pool_mask, codes=None):
        """
        One frame of a stream: the function that a bundle holds (Algorithm 1).

        image uint8 [B, H, W, 3], pool [B, T*N, D], pool_mask [B, T*N], codes: position codes
        (None: those of the whole image) ->
        (scores [B, K, h', w'], prototypes [B, N, D] to put in the pool).
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
