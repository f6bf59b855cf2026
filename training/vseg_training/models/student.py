# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""MGCNet's student: prototypes, single-stream short-term context (SSC), one segmentation head."""
import torch

from .network import MGCNet
from .prototypes import causal_mask
from .stream import StudentStream


class Student(MGCNet):
    """MGCNet with the single-stream short-term context (SSC, Sec. III-B)."""

    def __init__(self, num_classes, head_widths=(96, 64), dropout=0.1, **options):
        super().__init__(num_classes, head_widths=head_widths, **options)
        self.head = self.build_head(head_widths, dropout)

    @property
    def heads(self):
        """The segmentation streams: one."""
        return [self.head]

    def forward(self, clip):
        """
        Segment every frame of a clip, each attending to itself and up to T frames before it.

        The first frames see a pool that is not full yet, as at the start of a stream. Returns a
        dict: scores [B, L, K, h', w'], auxiliary [B, L, K, h16, w16], features [B, L, C, h, w],
        projection [B, L, N, h*w] (None for the pixel form).
        """
        batch, length = clip.shape[:2]
        stages, features, memory, projection = self.encode(clip.flatten(0, 1))
        count = memory.shape[1]
        memory = memory.view(batch, 1, length * count, self.prototype_dim)
        memory = memory.expand(-1, length, -1, -1).flatten(0, 1)
        mask = causal_mask(length, count, self.context_frames, memory)
        scores = self.segment(self.head, stages, features, memory, mask.repeat(batch, 1))
        auxiliary = self.auxiliary(stages[2])
        output = {'scores': scores, 'auxiliary': auxiliary, 'features': features,
                  'projection': projection}
        return {name: value if value is None else value.unflatten(0, (batch, length))
                for name, value in output.items()}

    def step(self, image, pool, pool_mask):
        """
        One frame of a stream: the function that a bundle holds (Algorithm 1).

        image uint8 [B, H, W, 3], pool [B, T*N, D], pool_mask [B, T*N] ->
        (scores [B, K, h', w'], prototypes [B, N, D] to put in the pool).
        """
        stages, features, memory, _ = self.encode(image.float().permute(0, 3, 1, 2))
        mask = torch.cat([pool_mask, pool_mask.new_zeros(memory.shape[:2])], 1)
        context = torch.cat([pool, memory], 1)
        return self.segment(self.head, stages, features, context, mask), memory

    def stream(self, admit: bool = True) -> StudentStream:
        """Return a stream that starts with an empty pool; admit: see StudentStream."""
        return StudentStream(self, admit)
