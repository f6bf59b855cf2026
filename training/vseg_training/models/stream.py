# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Algorithm 1 in torch: the reference that every runtime backend is measured against."""
import torch

from .prototypes import EMPTY


class StudentStream:
    """
    A stream of frames through a student in eval mode, with the pool of the last T frames.

    ``step``: uint8 [H, W, 3] RGB -> scores [K, h, w]. ``reset`` empties the pool.
    """

    def __init__(self, student):
        self.student = student
        self.reset()

    def reset(self):
        """Forget all earlier frames."""
        self.frames = 0
        self.pool = self.mask = None

    @torch.inference_mode()
    def step(self, image):
        """Segment the next frame and put its prototypes into the pool's oldest slot."""
        student = self.student
        image = torch.as_tensor(image, device=student.mean.device)[None]
        if self.pool is None:
            slots = student.context_frames * student.num_prototypes
            self.pool = image.new_zeros(1, slots, student.prototype_dim, dtype=torch.float32)
            self.mask = self.pool.new_full((1, slots), EMPTY)
        scores, prototypes = student.step(image, self.pool, self.mask)
        if student.context_frames:
            start = self.frames % student.context_frames * student.num_prototypes
            self.pool[:, start:start + student.num_prototypes] = prototypes
            self.mask[:, start:start + student.num_prototypes] = 0
        self.frames += 1
        return scores[0]
