# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Algorithm 1 of MGCNet as a stream of one camera: warm-up, pool, reset rules, decoding."""
from collections import Counter
import time
from typing import NamedTuple, Optional

import cv2
import numpy as np

from ros_vseg.decode import decode
from ros_vseg.labels import remap_table


def resize_image(image, size):
    """Image uint8 [H, W, 3] at a network's size (height, width): itself if it has that size."""
    if image.shape[:2] == tuple(size):
        return image
    shrinks = image.shape[0] > size[0] or image.shape[1] > size[1]
    return cv2.resize(image, (size[1], size[0]),
                      interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


class Result(NamedTuple):
    """
    What a frame gave.

    labels uint8 [H, W] at the camera's size; confidence uint8 [H, W] (255 times the largest
    softmax probability) or None; context_frames: earlier frames attended to, 0..T; reset: cause
    of a reset before this frame, or None; times: seconds of resize, network and decode.
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
        self._table = remap_table(self.info.label_set, label_set) if renamed else None
        self._stream = backend.stream()
        self.max_gap = max_gap
        self.resets = Counter()
        self._last = self._pending = None
        self._warm_up()

    def _warm_up(self):
        """Let decoder and backend compile and allocate now, not at the first frame."""
        size = self.info.height, self.info.width
        decode(self._stream.step(np.zeros((*size, 3), np.uint8)), size, confidence=True)
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
        start = time.perf_counter()
        resized = self._resize(image)
        sized = time.perf_counter()
        scores = self._stream.step(resized)
        scored = time.perf_counter()
        labels, sure = decode(scores, image.shape[:2], confidence=confidence, table=self._table)
        times = {'resize': sized - start, 'network': scored - sized,
                 'decode': time.perf_counter() - scored}
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

    def _resize(self, image):
        info = self.info
        image = resize_image(image, (info.height, info.width))
        if info.color_order == 'bgr':
            image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        return np.ascontiguousarray(image)
