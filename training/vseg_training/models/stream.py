# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Algorithm 1 in torch: the reference that every runtime backend is measured against."""
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ros_vseg.admission import Admission

from .prototypes import EMPTY
from .tasks import split

if TYPE_CHECKING:
    from .student import Student
    from .teacher import Teacher


def mean_confidence(scores: Tensor) -> Tensor:
    """Mean over the frame of the largest probability: scores [B, K, h, w] -> float32 [B]."""
    return scores.float().softmax(1).amax(1).mean((1, 2))


class StudentStream:
    """
    A stream of frames through a student in eval mode, with the pool of the last T good frames.

    There are no stamps here: age and scene changes are the runtime's.

    Args:
        student: In eval mode.
        admit: Whether frames of low mean confidence are kept out of the pool, as the runtime does;
            without it all frames enter.

    Attributes:
        frames: How many frames have entered the pool since the last reset.
        parts: Of the last frame, as in ``tasks.split``.
    """

    def __init__(self, student: 'Student', admit: bool = True) -> None:
        self.student = student
        self.parts: dict[str, Tensor] = {}
        self._admission = Admission() if admit else None
        self.reset()

    def reset(self) -> None:
        """Forget all earlier frames."""
        student = self.student
        self.frames = 0
        self.pool = student.mean.new_zeros(1, 0, student.prototype_dim)
        self.mask = self.pool[..., 0]
        if self._admission:
            self._admission.reset()

    @torch.inference_mode()
    def step(self, image: npt.NDArray[np.uint8]) -> Tensor:
        """
        Segment the next frame; if it is good its prototypes replace the pool's oldest.

        Args:
            image: uint8 [H, W, 3], RGB.

        Returns:
            Scores float [K, h, w].
        """
        batch = torch.as_tensor(image, device=self.student.mean.device)[None]
        student = self.student
        scores, prototypes = student.step(batch, self.pool, self.mask)
        self.parts = split(scores[0], student.num_classes, student.tasks)
        if student.context_frames and self._admits(self.parts['scores'][None]):
            self._put(prototypes)
        return self.parts['scores']

    def _put(self, prototypes: Tensor) -> None:
        """Write a frame's prototypes [1, N, D] over the oldest of the pool."""
        count, context = prototypes.shape[1], self.student.context_frames
        if not self.pool.shape[1]:
            self.pool = prototypes.new_zeros(1, context * count, self.student.prototype_dim)
            self.mask = self.pool.new_full((1, context * count), EMPTY)
        start = self.frames % context * count
        self.pool[:, start:start + count] = prototypes
        self.mask[:, start:start + count] = 0
        self.frames += 1

    def _admits(self, scores: Tensor) -> bool:
        if self._admission is None:
            return True
        return self._admission.admits(mean_confidence(scores).item())


class TeacherStream:
    """
    A stream of frames through a teacher, with the prototypes of the last T frames.

    Args:
        teacher: In eval mode.

    Attributes:
        streams: Probabilities [S, 1, K, h, w] of the last frame's streams, or None.
        projection: P [1, N, h*w] of the last frame, or None.
    """

    def __init__(self, teacher: 'Teacher') -> None:
        self.teacher = teacher
        self.reset()

    def reset(self) -> None:
        """Forget all earlier frames."""
        self.memories: list[Tensor] = []
        self.streams: Tensor | None = None
        self.projection: Tensor | None = None

    @torch.inference_mode()
    def step(self, image: npt.NDArray[np.uint8]) -> Tensor:
        """
        Segment the next frame and keep its prototypes for the following T.

        Args:
            image: uint8 [H, W, 3], RGB.

        Returns:
            Logarithm of the mean prediction (Eq. 9), float32 [K, h, w].
        """
        batch = torch.as_tensor(image, device=self.teacher.mean.device)[None]
        scores, memory, self.projection = self.teacher.step(batch, self.memories)
        self.memories = [memory, *self.memories][:self.teacher.context_frames]
        self.streams = scores.float().softmax(2)
        return self.streams.mean(0)[0].log()
