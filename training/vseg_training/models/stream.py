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
        pool, mask = self.pool, self.mask
        if pool is None:
            pool = image.new_zeros(1, 0, student.prototype_dim, dtype=torch.float32)
            mask = pool[..., 0]
        scores, prototypes = student.step(image, pool, mask)
        if student.context_frames:
            count = prototypes.shape[1]
            if self.pool is None:
                slots = student.context_frames * count
                self.pool = prototypes.new_zeros(1, slots, student.prototype_dim)
                self.mask = self.pool.new_full((1, slots), EMPTY)
            start = self.frames % student.context_frames * count
            self.pool[:, start:start + count] = prototypes
            self.mask[:, start:start + count] = 0
        self.frames += 1
        return scores[0]


class TeacherStream:
    """
    A stream of frames through a teacher, with the prototypes of the last T frames.

    ``step``: uint8 [H, W, 3] RGB -> log of the mean prediction (Eq. 9) [K, h, w]. ``streams`` and
    ``projection`` are those of the last frame.
    """

    def __init__(self, teacher):
        self.teacher = teacher
        self.reset()

    def reset(self):
        """Forget all earlier frames."""
        self.memories, self.streams, self.projection = [], None, None

    @torch.inference_mode()
    def step(self, image):
        """Segment the next frame and keep its prototypes for the following T."""
        image = torch.as_tensor(image, device=self.teacher.mean.device)[None]
        scores, memory, self.projection = self.teacher.step(image, self.memories)
        self.memories = [memory, *self.memories][:self.teacher.context_frames]
        self.streams = scores.float().softmax(2)
        return self.streams.mean(0)[0].log()
