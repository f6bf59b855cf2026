# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Algorithm 1 of MGCNet as a stream of one camera: warm-up, pool of good frames, reset rules."""
from collections import Counter, deque
from typing import Collection, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from ros_vseg.admission import Admission
from ros_vseg.backends.base import Backend
from ros_vseg.encoding import Picture
from ros_vseg.labels import LabelSet, remap_table
from ros_vseg.rate import FrameRate
from ros_vseg.scene import SceneChange


class Result(NamedTuple):
    """
    What a frame gave; arrays hold until the stream's next frame.

    Attributes:
        labels: uint8 [H, W] at the camera's size.
        confidence: uint8 [H, W], 255 times the largest softmax probability, or None.
        context_frames: earlier frames attended to, 0..T.
        reset: cause of a reset before this frame, or None.
        times: seconds of resize, network, decode and what else the backend has.
        admitted: whether it entered the pool.
        held_back: whether there is a pool that it was too bad for.
        oldest: age in seconds of the oldest frame attended to, None without any.
        scores: float32 [K, h, w] of the network's own classes, or None where they stay on the GPU.
        mean_confidence: that the network gave, which admission judges by, or None.
        depth: float32 [h, w], coarse, in metres at the bundle's focal length (``depth_image``), or
            None where the bundle gives none.
    """

    labels: npt.NDArray[np.uint8]
    confidence: Optional[npt.NDArray[np.uint8]]
    context_frames: int
    reset: Optional[str]
    times: dict[str, float]
    admitted: bool
    held_back: bool
    oldest: Optional[float]
    scores: Optional[npt.NDArray[np.float32]] = None
    mean_confidence: Optional[float] = None
    depth: Optional[npt.NDArray[np.float32]] = None


class Past(NamedTuple):
    """
    What is known of a frame that was labelled by an earlier process.

    Attributes:
        mean_confidence: that the network gave, or None.
        matters: whether the frame is still in the pool when new frames come, so that the network
            must see it again.
    """

    mean_confidence: Optional[float]
    matters: bool


class Stream:
    """
    Frames of one camera in order -> label images, with the context of the last T good frames.

    >>> import numpy as np
    >>> from ros_vseg import backends
    >>> from ros_vseg.bundle import Bundle, default_bundle_path
    >>> from ros_vseg.stream import Stream
    >>> stream = Stream(backends.load(Bundle.load(default_bundle_path()), 'onnxruntime'))
    >>> image = np.full((360, 480, 3), 128, np.uint8)
    >>> for stamp in (0, 40_000_000):       # nanoseconds: two frames at 25 Hz
    ...     result = stream.step(image, stamp)
    >>> result.labels.shape, result.labels.dtype
    ((360, 480), dtype('uint8'))

    A frame whose mean confidence is low (see Admission) is labelled, but not remembered. Frames
    older than ``max_gap`` are forgotten one by one. All earlier frames are forgotten when the
    stamp goes back ('time_back'), when two stamps are more than ``max_gap`` apart ('gap'), when
    only older frames than that are remembered ('stale'), when size or frame_id change, one frame
    after a cut to another scene ('scene', see SceneChange), and on ``reset``. A repeated stamp is
    a frame like any other. The same frames give the same labels.

    Args:
        backend: of ``backends.load``.
        max_gap: seconds.
        label_set: what the output's ids mean, the bundle's own by default. LabelSetError if it
            does not fit the bundle's.

    Attributes:
        info: of the bundle.
        label_set: as given.
        max_gap: as given; may be changed at any time.
        resets: number of resets by cause.
        held_back: number of frames that were not remembered.
        rate: the FrameRate.
    """

    def __init__(self, backend: Backend, *, max_gap: float = 1.0,
                 label_set: Optional[LabelSet] = None) -> None:
        self.info, self._backend = backend.bundle.info, backend
        self.label_set = label_set or self.info.label_set
        renamed = self.label_set != self.info.label_set
        self._stream = backend.stream(
            remap_table(self.info.label_set, self.label_set) if renamed else None)
        self.max_gap = max_gap
        self.resets: Counter[str] = Counter()
        self.held_back = 0
        self.rate = FrameRate(self.info.rates)
        self._admission, self._scene = Admission(), SceneChange()
        # stamps of the frames in the pool, oldest first
        self._stamps: deque[int] = deque(maxlen=self.info.pool_frames)
        # stamp, shape and frame_id of the last frame
        self._last: Optional[tuple[int, tuple[int, ...], str]] = None
        self._pending: Optional[str] = None     # cause of a reset that no frame has told yet
        self._warm_up()

    def _warm_up(self) -> None:
        """Let decoder and backend compile and allocate now, not at the first frame."""
        blank = np.zeros((self.info.height, self.info.width, 3), np.uint8)
        self._stream.label(blank, confidence=True)
        self._stream.reset()

    @property
    def raw_encodings(self) -> Collection[str]:
        """Encodings in which the backend would rather have a RawImage than RGB."""
        return getattr(self._backend, 'raw_encodings', ())

    def reset(self, cause: str = 'request') -> None:
        """Forget all earlier frames; the next result names the cause."""
        self._stream.reset()
        self._admission.reset()
        self._scene.reset()
        self._stamps.clear()
        self.resets[cause] += 1
        self._last, self._pending = None, cause

    def step(self, image: Picture, stamp: int, frame_id: str = '',
             confidence: bool = False) -> Result:
        """
        Label the next frame.

        Args:
            image: uint8 [H, W, 3] RGB of any size, or a RawImage.
            stamp: nanoseconds.
            frame_id: of the camera.
            confidence: whether to compute it.

        Raises:
            DeviceError: The backend's GPU failed, and there is no other backend to go on with.
        """
        cause = self._begin(image, stamp, frame_id)
        try:
            made = self._stream.label(image, confidence)
        except Exception:
            self._pending = cause   # the next result names it
            raise
        context = self._stream.context_frames
        while len(self._stamps) > context:      # another backend took over, with an empty pool
            self._stamps.popleft()
        oldest = (stamp - self._stamps[0]) / 1e9 if context else None
        admitted = self._admit(stamp, made.mean_confidence)
        return Result(made.labels, made.confidence, context, cause, made.times, admitted,
                      self.info.pool_frames > 0 and not admitted, oldest, made.scores,
                      made.mean_confidence, made.depth)

    def follow(self, image: Picture, stamp: int, frame_id: str, past: Past) -> bool:
        """
        Take the next frame, which was labelled before, without labelling it again.

        After all frames of an earlier run the stream is what it was then, to the bit: resets,
        admission and scene follow from the frames and their mean confidences, and the network
        sees those again that the pool still holds.

        Args:
            image: as for ``step``.
            stamp: nanoseconds.
            frame_id: of the camera.
            past: what the earlier run knew.

        Returns:
            Whether the frame entered the pool.
        """
        self._begin(image, stamp, frame_id)
        if past.matters:
            self._stream.label(image)
        return self._admit(stamp, past.mean_confidence)

    def _begin(self, image: Picture, stamp: int, frame_id: str) -> Optional[str]:
        """Reset and forget as a frame asks for, before it is labelled; the cause of a reset."""
        cause = self._cause(stamp, image.shape, frame_id)
        if self.info.pool_frames and self._scene.is_cut(image):
            cause = cause or 'scene'
        cause = cause or self._forget_old(stamp)
        if cause:
            self.reset(cause)
        self._last = stamp, image.shape, frame_id
        self.rate.add(stamp)
        cause, self._pending = self._pending, None
        return cause

    def _admit(self, stamp: int, mean_confidence: Optional[float]) -> bool:
        """Remember the frame at work if it is good enough; whether it was."""
        has_pool = self.info.pool_frames > 0
        admitted = has_pool and self._admission.admits(mean_confidence)
        self._scene.labelled(admitted)
        if admitted:
            self._stream.remember()
            self._stamps.append(stamp)
        self.held_back += has_pool and not admitted
        return admitted

    def _forget_old(self, stamp: int) -> Optional[str]:
        """Forget frames older than max_gap; the cause of a reset if that leaves none."""
        before = len(self._stamps)
        while self._stamps and stamp - self._stamps[0] > self.max_gap * 1e9:
            self._stamps.popleft()
            self._stream.forget_oldest()
        return 'stale' if before and not self._stamps else None

    def _cause(self, stamp: int, shape: tuple[int, ...], frame_id: str) -> Optional[str]:
        """Return why this frame does not follow the last one, or None."""
        if self._last is None:
            return None
        last_stamp, last_shape, last_frame_id = self._last
        if shape != last_shape:
            return 'size'
        if frame_id != last_frame_id:
            return 'frame_id'
        if stamp < last_stamp:
            return 'time_back'
        if stamp - last_stamp > self.max_gap * 1e9:
            return 'gap'
        return None
