# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Algorithm 1 in torch: the reference that every runtime backend is measured against."""
import torch
from torch import nn, Tensor

from ros_vseg.admission import Admission

from .prototypes import EMPTY


def mean_confidence(scores: Tensor) -> Tensor:
    """Mean over the frame of the largest probability: scores [B, K, h, w] -> float32 [B]."""
    return scores.float().softmax(1).amax(1).mean((1, 2))


class StudentStream:
    """
    A stream of frames through a student in eval mode, with the pool of the last T good frames.

    ``step``: uint8 [H, W, 3] RGB -> scores [K, h, w]. ``reset`` empties the pool. admit: whether
    frames of low mean confidence are held back as the runtime does; without, all frames enter.
    ``frames`` counts those that entered. There are no stamps here: age and scene changes are the
    runtime's.
    """

    def __init__(self, student: nn.Module, admit: bool = True) -> None:
        self.student = student
        self._admission = Admission() if admit else None
        self.reset()

    def reset(self):
        """Forget all earlier frames."""
        self.frames = 0
        self.pool = self.mask = None
        if self._admission:
            self._admission.reset()

    @torch.inference_mode()
    def step(self, image):
        """Segment the next frame; if it is good its prototypes replace the pool's oldest."""
        student = self.student
        image = torch.as_tensor(image, device=student.mean.device)[None]
        pool, mask = self.pool, self.mask
        if pool is None:
            pool = student.mean.new_zeros(1, 0, student.prototype_dim)
            mask = pool[..., 0]
        scores, prototypes = student.step(image, pool, mask)
        if student.context_frames and self._admits(scores):
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

    def _admits(self, scores: Tensor) -> bool:
        if self._admission is None:
            return True
        return self._admission.admits(mean_confidence(scores).item())


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
