# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a backend is, the ring of prototypes, and what backends on the processor share."""
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
import time
from typing import NamedTuple, Optional, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.bundle import Bundle, BundleInfo, EMPTY_SLOT
from ros_vseg.decode import decode
from ros_vseg.encoding import Picture, to_rgb_pixels
from ros_vseg.resize import resize_image
from ros_vseg.stabilize import Stabilizer


@dataclass(frozen=True)
class Options:
    """
    How a bundle is made ready; each backend takes what concerns it.

    Attributes:
        threads: processor threads per step, 0 for the backend's own choice.
        precision: 'auto' or one of backends.PRECISIONS.
        engines: folder of TensorRT engines and graphs for int8, None for the user's own cache.
        may_build: whether a missing engine may be built.
        stabilize: whether to mix earlier frames' probabilities into the scores, which must come
            to the processor for it.
        device: index of the GPU.
        gpu_timeout: seconds that a frame may take there before the GPU counts as lost.
        workspace: MB of GPU memory that the build of an engine may take, 0 for half of what is
            free.
    """

    threads: int = 0
    precision: str = 'auto'
    engines: Optional[Path] = None
    may_build: bool = True
    stabilize: bool = False
    device: int = 0
    gpu_timeout: float = 5.0
    workspace: int = 0


class Labels(NamedTuple):
    """
    What a backend makes of a frame; arrays hold until the next frame.

    Attributes:
        labels: uint8 [H, W] at the image's size.
        confidence: uint8 [H, W], 255 times the largest class probability, or None.
        times: seconds of each stage by name.
        mean_confidence: mean over the coarse scores of the largest class probability, in 0..1,
            or None where the bundle does not give it.
        scores: float32 [K, h, w], coarse, or None where they stay on the GPU.
        depth: float32 [h, w], coarse, in metres at the bundle's focal length, or None where the
            bundle gives none.
    """

    labels: npt.NDArray[np.uint8]
    confidence: Optional[npt.NDArray[np.uint8]]
    times: dict[str, float]
    mean_confidence: Optional[float] = None
    scores: Optional[npt.NDArray[np.float32]] = None
    depth: Optional[npt.NDArray[np.float32]] = None


def probability(values: npt.NDArray[np.float32]) -> float:
    """Return a network's only value as a number in 0..1, which rounding may have left."""
    return float(np.clip(values.flat[0], 0, 1))


class BackendStream(Protocol):
    """
    One camera's way through a backend; owns its prototype pool; used by one thread.

    A frame is attended to by later ones only if ``remember`` follows it.
    """

    @property
    def context_frames(self) -> int:
        """Earlier frames that the last step attended to, 0..T."""

    def label(self, image: Picture, confidence: bool = False) -> Labels:
        """Label an image of any size, RGB or raw; say whether confidence is wanted."""

    def step(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return scores float32 [K, h, w] of an image of the network's size and colour order."""

    def remember(self) -> None:
        """Keep the prototypes of the frame just labelled; of more than T the oldest go."""

    def forget_oldest(self) -> None:
        """Attend no longer to the oldest frame that is remembered, if there is one."""

    def reset(self) -> None:
        """Forget all earlier frames."""


class Backend(Protocol):
    """
    A bundle made ready to run; shared by all cameras.

    One that converts images itself has ``raw_encodings``: those in which a RawImage costs it less
    than RGB would.
    """

    @property
    def name(self) -> str:
        """One of backends.BACKENDS."""

    @property
    def device(self) -> str:
        """Processor and precision, for people."""

    @property
    def bundle(self) -> Bundle:
        """What it runs."""

    @property
    def problem(self) -> Optional[str]:
        """What failed before this backend was chosen, or since; None if nothing did."""

    def stream(self, table: Optional[npt.NDArray[np.uint8]] = None) -> BackendStream:
        """Return a new camera's stream; table: uint8 [256] that renames its labels."""


class Ring:
    """
    Where in the pool the prototypes of which frame lie: T + 1 slots of N prototypes.

    The frame at work writes its prototypes into ``slot`` while the T others are attended to, so
    nothing is copied: attention has no order, and the mask leaves the slot at work out. A frame
    that is not remembered is overwritten by the next one.

    Attributes:
        capacity: T.
        frames: earlier frames that can be attended to, 0..T.
        slot: the slot at work, 0..T.
        masks: float32 [(T + 1) (T + 1), (T + 1) N]: a row for each ``state``, that is for each
            number of frames to be seen and each slot at work; 0, or EMPTY_SLOT where a slot is
            not to be seen.
        slots: the slot at work of each state.
    """

    def __init__(self, info: BundleInfo) -> None:
        self.capacity = info.pool_frames
        count = self.capacity + 1
        self.slots = [state % count for state in range(count * count)]
        seen = np.zeros((count * count, count), bool)
        for state, slot in enumerate(self.slots):   # the newest lie just before the slot at work
            seen[state, (slot - 1 - np.arange(state // count)) % count] = True
        self.masks = np.where(seen, 0, EMPTY_SLOT).astype(np.float32).repeat(
            info.num_prototypes, axis=1)
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self.frames = 0
        self.slot = 0

    @property
    def state(self) -> int:
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

    def __init__(self, info: BundleInfo) -> None:
        self.info, self.ring, self.context_frames = info, Ring(info), 0

    def remember(self) -> None:
        """See BackendStream."""
        self.ring.advance()

    def forget_oldest(self) -> None:
        """See BackendStream."""
        self.ring.forget_oldest()

    def reset(self) -> None:
        """See BackendStream."""
        self.ring.reset()


class HostStream(RingStream, ABC):
    """A BackendStream whose scores come to the processor: it resizes and decodes there."""

    def __init__(self, bundle: Bundle, table: Optional[npt.NDArray[np.uint8]],
                 stabilize: bool = False) -> None:
        super().__init__(bundle.info)
        self.table = table
        self.stabilizer = Stabilizer() if stabilize else None
        self.mean_confidence: Optional[float] = None    # of the last step
        self.depth: Optional[npt.NDArray[np.float32]] = None    # likewise

    @abstractmethod
    def step(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See BackendStream."""

    def label(self, image: Picture, confidence: bool = False) -> Labels:
        """See BackendStream."""
        start = time.perf_counter()
        resized = self.resize(to_rgb_pixels(image))
        sized = time.perf_counter()
        scores = self.step(resized)
        scored = time.perf_counter()
        times = {'resize': sized - start, 'network': scored - sized}
        if self.stabilizer:
            scores = self.stabilizer(scores, resized)
            times['stabilize'] = time.perf_counter() - scored
            scored += times['stabilize']
        labels, certainty = decode(
            scores, image.shape[:2], confidence=confidence, table=self.table)
        times['decode'] = time.perf_counter() - scored
        return Labels(labels, certainty, times, self.mean_confidence, scores, self.depth)

    def reset(self) -> None:
        """See BackendStream."""
        super().reset()
        if self.stabilizer:
            self.stabilizer.reset()

    def resize(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return an image at the network's size and in its colour order."""
        image = resize_image(image, (self.info.height, self.info.width))
        if self.info.color_order == 'bgr':
            image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        return np.ascontiguousarray(image)
