# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a backend is, the ring of prototypes, and what backends on the processor share."""
from dataclasses import dataclass
from pathlib import Path
import time
from typing import NamedTuple, Optional, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.bundle import Bundle, EMPTY_SLOT
from ros_vseg.decode import decode
from ros_vseg.resize import resize_image
from ros_vseg.stabilize import Stabilizer


@dataclass(frozen=True)
class Options:
    """
    How a bundle is to be made ready; each backend takes what concerns it.

    threads: processor threads per step, 0 for the backend's own choice; precision: 'auto' or of
    backends.PRECISIONS; engines: folder of TensorRT engines, the user's own cache if None;
    may_build: whether a missing engine may be built; stabilize: whether to mix earlier frames'
    probabilities into the scores, which must come to the processor for it.
    """

    threads: int = 0
    precision: str = 'auto'
    engines: Optional[Path] = None
    may_build: bool = True
    stabilize: bool = False


class Labels(NamedTuple):
    """
    What a backend makes of a frame.

    labels uint8 [H, W] and confidence uint8 [H, W] (or None) at the image's size, till the next
    frame; times: seconds of each stage by name; mean_confidence: mean over the coarse scores of
    the largest class probability, in [0, 1], or None where the bundle does not give it; scores
    float32 [K, h, w], coarse, till the next frame, or None where they stay on the GPU.
    """

    labels: np.ndarray
    confidence: Optional[np.ndarray]
    times: dict
    mean_confidence: Optional[float] = None
    scores: Optional[npt.NDArray[np.float32]] = None


def probability(values: npt.NDArray[np.float32]) -> float:
    """Return a network's only value as a number in 0..1, which rounding may have left."""
    return float(np.clip(values.flat[0], 0, 1))


class BackendStream(Protocol):
    """
    One camera's way through a backend; owns its prototype pool; used by one thread.

    A frame is attended to by later ones only if ``remember`` follows it.
    """

    context_frames: int  # earlier frames that the last step attended to, 0..T

    def label(self, image, confidence=False):
        """Labels of an RGB image uint8 [H, W, 3] of any size."""

    def step(self, image):
        """Label uint8 [H, W, 3] of the network's size; scores float32 [K, h, w], till the next."""

    def remember(self) -> None:
        """Keep the prototypes of the frame just labelled; of more than T the oldest go."""

    def forget_oldest(self) -> None:
        """Attend no longer to the oldest frame that is remembered, if there is one."""

    def reset(self):
        """Forget all earlier frames."""


class Backend(Protocol):
    """A bundle made ready to run; shared by all cameras."""

    name: str
    device: str  # for people: processor and precision
    bundle: Bundle
    problem: Optional[str]  # what failed before this backend was chosen, or since

    def stream(self, table=None):
        """Return a new BackendStream; table: uint8 [256] that renames its labels."""


class Ring:
    """
    Where in the pool the prototypes of which frame lie: T + 1 slots of N prototypes.

    The frame at work writes its prototypes into ``slot`` while the T others are attended to, so
    nothing is copied: attention has no order, and the mask leaves the slot at work out. A frame
    that is not remembered is overwritten by the next one. ``masks`` float32
    [(T + 1) (T + 1), (T + 1) N] has a row for each ``state``, that is for each number of frames
    to be seen and each slot at work (0, or EMPTY_SLOT where a slot is not to be seen); ``slots``
    has the slot at work of each state.
    """

    def __init__(self, info):
        self.capacity = info.pool_frames
        count = self.capacity + 1
        self.slots = [state % count for state in range(count * count)]
        seen = np.zeros((count * count, count), bool)
        for state, slot in enumerate(self.slots):   # the newest lie just before the slot at work
            seen[state, (slot - 1 - np.arange(state // count)) % count] = True
        self.masks = np.where(seen, 0, EMPTY_SLOT).astype(np.float32).repeat(
            info.num_prototypes, axis=1)
        self.reset()

    def reset(self):
        """Forget all frames."""
        self.frames = 0     # that can be attended to, 0..T
        self.slot = 0       # that the frame at work writes, 0..T

    @property
    def state(self):
        """Row of masks, 0..(T + 1)^2 - 1."""
        return self.frames * (self.capacity + 1) + self.slot

    def advance(self) -> None:
        """Count the frame at work as an earlier one."""
        self.frames = min(self.frames + 1, self.capacity)
        self.slot = (self.slot + 1) % (self.capacity + 1)

    def forget_oldest(self) -> None:
        """Hide the oldest frame, if there is one."""
        self.frames = max(self.frames - 1, 0)


class RingStream:
    """What all streams with a Ring share."""

    def __init__(self, info):
        self.info, self.ring, self.context_frames = info, Ring(info), 0

    def remember(self) -> None:
        """See BackendStream."""
        self.ring.advance()

    def forget_oldest(self) -> None:
        """See BackendStream."""
        self.ring.forget_oldest()

    def reset(self):
        """See BackendStream."""
        self.ring.reset()


class HostStream(RingStream):
    """A BackendStream whose scores come to the processor: it resizes and decodes there."""

    def __init__(self, bundle, table, stabilize=False):
        super().__init__(bundle.info)
        self.table = table
        self.stabilizer = Stabilizer() if stabilize else None
        self.mean_confidence: Optional[float] = None    # of the last step

    def label(self, image, confidence=False):
        """See BackendStream."""
        start = time.perf_counter()
        resized = self.resize(image)
        sized = time.perf_counter()
        scores = self.step(resized)
        scored = time.perf_counter()
        times = {'resize': sized - start, 'network': scored - sized}
        if self.stabilizer:
            scores = self.stabilizer(scores, resized)
            times['stabilize'] = time.perf_counter() - scored
            scored += times['stabilize']
        labels, sure = decode(
            scores, image.shape[:2], confidence=confidence, table=self.table)
        times['decode'] = time.perf_counter() - scored
        return Labels(labels, sure, times, self.mean_confidence, scores)

    def reset(self):
        """See BackendStream."""
        super().reset()
        if self.stabilizer:
            self.stabilizer.reset()

    def resize(self, image):
        """Image at the network's size and in its colour order."""
        image = resize_image(image, (self.info.height, self.info.width))
        if self.info.color_order == 'bgr':
            image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        return np.ascontiguousarray(image)
