# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Algorithm 1 of MGCNet as a stream of one camera: warm-up, pool of good frames, reset rules."""
from collections import Counter, deque
from typing import NamedTuple, Optional

import numpy as np

from ros_vseg.admission import Admission
from ros_vseg.labels import remap_table
from ros_vseg.rate import FrameRate
from ros_vseg.scene import SceneChange


class Result(NamedTuple):
    """
    What a frame gave.

    labels uint8 [H, W] at the camera's size; confidence uint8 [H, W] (255 times the largest
    softmax probability) or None; context_frames: earlier frames attended to, 0..T; reset: cause
    of a reset before this frame, or None; times: seconds of resize, network, decode and what else
    the backend has; admitted: whether it entered the pool; held_back: whether there is a pool that
    it was too bad for; oldest: age in seconds of the oldest frame attended to, None without any;
    scores: float32 [K, h, w] of the network's own classes, or None where they stay on the GPU.
    labels, confidence and scores hold till the stream's next frame.
    """

    labels: np.ndarray
    confidence: Optional[np.ndarray]
    context_frames: int
    reset: Optional[str]
    times: dict
    admitted: bool
    held_back: bool
    oldest: Optional[float]
    scores: Optional[np.ndarray] = None


class Stream:
    """
    Frames of one camera in order -> label images, with the context of the last T good frames.

    A frame whose mean confidence is low (see Admission) is labelled, but not remembered;
    ``held_back`` counts these. Frames older than ``max_gap`` seconds are forgotten one by one.

    All earlier frames are forgotten when the stamp goes back ('time_back'), when two stamps are
    more than ``max_gap`` apart ('gap'), when only older frames than that are remembered
    ('stale'), when size or frame_id change, one frame after a cut to another scene ('scene', see
    SceneChange), and on ``reset``; ``resets`` counts them by cause. A repeated stamp is a frame
    like any other. The same frames give the same labels. ``rate`` is the FrameRate. label_set:
    what the output's ids mean (the bundle's own by default).
    """

    def __init__(self, backend, *, max_gap=1.0, label_set=None):
        self.info = backend.bundle.info
        self.label_set = label_set or self.info.label_set
        renamed = self.label_set != self.info.label_set
        self._stream = backend.stream(
            remap_table(self.info.label_set, label_set) if renamed else None)
        self.max_gap = max_gap
        self.resets, self.held_back = Counter(), 0
        self.rate = FrameRate(getattr(self.info, 'rates', None))
        self._admission, self._scene = Admission(), SceneChange()
        self._stamps = deque(maxlen=self.info.pool_frames)  # of the frames in the pool
        self._last = self._pending = None
        self._warm_up()

    def _warm_up(self):
        """Let decoder and backend compile and allocate now, not at the first frame."""
        blank = np.zeros((self.info.height, self.info.width, 3), np.uint8)
        self._stream.label(blank, confidence=True)
        self._stream.reset()

    def reset(self, cause='request'):
        """Forget all earlier frames; the next result names the cause."""
        self._stream.reset()
        self._admission.reset()
        self._scene.reset()
        self._stamps.clear()
        self.resets[cause] += 1
        self._last, self._pending = None, cause

    def step(self, image, stamp, frame_id='', confidence=False):
        """
        Label the next frame.

        image uint8 [H, W, 3] RGB of any size; stamp in nanoseconds; confidence: whether to
        compute it. Returns a Result.
        """
        cause = self._cause(stamp, image.shape, frame_id)
        has_pool = self.info.pool_frames > 0
        if has_pool and self._scene.is_cut(image):
            cause = cause or 'scene'
        cause = cause or self._forget_old(stamp)
        if cause:
            self.reset(cause)
        self._last = stamp, image.shape, frame_id
        self.rate.add(stamp)
        cause, self._pending = self._pending, None
        made = self._stream.label(image, confidence)
        context = self._stream.context_frames
        while len(self._stamps) > context:      # another backend took over, with an empty pool
            self._stamps.popleft()
        oldest = (stamp - self._stamps[0]) / 1e9 if context else None
        admitted = has_pool and self._admission.admits(made.mean_confidence)
        self._scene.labelled(admitted)
        if admitted:
            self._stream.remember()
            self._stamps.append(stamp)
        held_back = has_pool and not admitted
        self.held_back += held_back
        return Result(made.labels, made.confidence, context, cause, made.times, admitted,
                      held_back, oldest, made.scores)

    def _forget_old(self, stamp: int) -> Optional[str]:
        """Forget frames older than max_gap; the cause of a reset if that leaves none."""
        before = len(self._stamps)
        while self._stamps and stamp - self._stamps[0] > self.max_gap * 1e9:
            self._stamps.popleft()
            self._stream.forget_oldest()
        return 'stale' if before and not self._stamps else None

    def _cause(self, stamp, shape, frame_id):
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
