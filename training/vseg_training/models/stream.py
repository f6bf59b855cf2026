# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Algorithm 1 in torch: the reference that every runtime backend is measured against."""
import torch
from torch import Tensor

from ros_vseg.admission import Admission

from .prototypes import EMPTY


def mean_confidence(scores: Tensor) -> Tensor:
    """Mean over the frame of the largest probability: scores [B, K, h, w] -> float32 [B]."""
    return scores.float().softmax(1).amax(1).mean((1, 2))


class StudentStream:
    """
    A stream of frames through a student in eval mode, with the pool of the last T good frames.

    ``step``: uint8 [H, W, 3] RGB -> scores [K, h, w]. ``reset`` empties the pool. admit_all:
    whether every frame enters the pool, instead of those that ``Admission`` admits.
    """

    def __init__(self, student, admit_all=False):
        self.student, self.admit_all = student, admit_all
        self.admission = Admission()
        self.reset()

    def reset(self):
        """Forget all earlier frames."""
        self.frames = 0
        self.pool = self.mask = None
        self.admission.reset()

    @torch.inference_mode()
    def step(self, image):
        """Segment the next frame and, if it is good, put its prototypes into the oldest slot."""
        student = self.student
        image = torch.as_tensor(image, device=student.mean.device)[None]
        pool, mask = self.pool, self.mask
        if pool is None:
            pool = student.mean.new_zeros(1, 0, student.prototype_dim)
            mask = pool[..., 0]
        scores, prototypes = student.step(image, pool, mask)
        if student.context_frames and (
                self.admit_all or self.admission.admits(mean_confidence(scores).item())):
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
