# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a backend is, and the prototype pool that CPU backends share."""
from typing import Protocol

import numpy as np

from ros_vseg.bundle import EMPTY_SLOT


class BackendStream(Protocol):
    """One camera's way through a backend; owns its prototype pool; used by one thread."""

    context_frames: int  # earlier frames that the last step attended to, 0..T

    def step(self, image):
        """Label uint8 [H, W, 3] of the network's size; scores float32 [K, h, w], till the next."""

    def reset(self):
        """Forget all earlier frames."""


class Backend(Protocol):
    """A bundle made ready to run; shared by all cameras."""

    name: str
    device: str  # for people: processor and precision
    bundle: object

    def stream(self):
        """Return a new BackendStream."""


class Pool:
    """
    Ring of the prototypes of the last T frames.

    pool float32 [1, T*N, D] and mask [1, T*N] (0, or EMPTY_SLOT where a slot is empty) are
    allocated once and written in place. Attention over prototypes has no order, so the newest
    frame takes the oldest frame's slot.
    """

    def __init__(self, info):
        shapes = info.shapes()
        self.pool = np.zeros(shapes.get('pool', [1, 0, info.prototype_dim]), np.float32)
        self.mask = np.zeros(shapes.get('pool_mask', [1, 0]), np.float32)
        self._per_frame, self._capacity = info.num_prototypes, info.pool_frames
        self.reset()

    def reset(self):
        """Empty every slot."""
        self.mask.fill(EMPTY_SLOT)
        self._pushed = 0

    @property
    def frames(self):
        """Frames that the pool holds, 0..T."""
        return min(self._pushed, self._capacity)

    def push(self, prototypes):
        """Put a frame's prototypes float32 [1, N, D] in place of the oldest."""
        if self._capacity:
            start = self._pushed % self._capacity * self._per_frame
            self.pool[:, start:start + self._per_frame] = prototypes
            self.mask[:, start:start + self._per_frame] = 0
        self._pushed += 1
