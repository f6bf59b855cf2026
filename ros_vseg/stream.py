# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Algorithm 1 of MGCNet as a stream of one camera: warm-up, pool, reset rules."""
from collections import Counter
from typing import NamedTuple, Optional

import numpy as np

from ros_vseg.labels import remap_table


class Result(NamedTuple):
    """
    What a frame gave.

    labels uint8 [H, W] at the camera's size; confidence uint8 [H, W] (255 times the largest
    softmax probability) or None; context_frames: earlier frames attended to, 0..T; reset: cause
    of a reset before this frame, or None; times: seconds of resize, network, decode and what else
    the backend has. labels and confidence hold till the stream's next frame.
    """

    labels: np.ndarray
    confidence: Optional[np.ndarray]
    context_frames: int
    reset: Optional[str]
    times: dict


class Stream:
    """
    Frames of one camera in order -> label images, with the context of the last T frames.

    It forgets earlier frames when the stamp goes back, when two stamps are more than ``max_gap``
    seconds apart, when size or frame_id change, and on ``reset``; ``resets`` counts them by cause.
    A repeated stamp is a frame like any other. The same frames give the same labels. label_set:
    what the output's ids mean (the bundle's own by default).
    """

    def __init__(self, backend, *, max_gap=1.0, label_set=None):
        self.info = backend.bundle.info
        self.label_set = label_set or self.info.label_set
        renamed = self.label_set != self.info.label_set
        self._stream = backend.stream(
            remap_table(self.info.label_set, label_set) if renamed else None)
        self.max_gap = max_gap
        self.resets = Counter()
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
        self.resets[cause] += 1
        self._last, self._pending = None, cause

    def step(self, image, stamp, frame_id='', confidence=False):
        """
        Label the next frame.

        image uint8 [H, W, 3] RGB of any size; stamp in nanoseconds; confidence: whether to
        compute it. Returns a Result.
        """
        cause = self._cause(stamp, image.shape, frame_id)
        if cause:
            self.reset(cause)
        self._last = stamp, image.shape, frame_id
        cause, self._pending = self._pending, None
        labels, sure, times = self._stream.label(image, confidence)[:3]
        return Result(labels, sure, self._stream.context_frames, cause, times)

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
