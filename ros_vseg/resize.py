# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Images at the network's size: by OpenCV on the CPU, as tables of taps for the GPU."""
from functools import lru_cache

import cv2
import numpy as np


def resize_image(image, size):
    """Image uint8 [H, W, 3] at a network's size (height, width): itself if it has that size."""
    if image.shape[:2] == tuple(size):
        return image
    return cv2.resize(image, (size[1], size[0]),
                      interpolation=cv2.INTER_AREA if _shrinks(image.shape, size)
                      else cv2.INTER_LINEAR)


def _shrinks(shape, size):
    return shape[0] > size[0] or shape[1] > size[1]


@lru_cache(maxsize=64)
def resize_taps(shape, size):
    """
    Return what ``resize_image`` does as taps of the rows and of the columns.

    shape, size: (height, width) before and after. For each axis (first int32 [n], weights float32
    [n, taps]): pixel i is the sum of weights[i, k] times pixel first[i] + k; taps that would lie
    beyond the image have weight 0. OpenCV rounds in between: the results differ by at most 1.
    """
    area = _shrinks(shape, size)
    # where OpenCV shrinks one axis and stretches the other, it stretches as if it shrank
    both = shape[0] >= size[0] and shape[1] >= size[1]
    return tuple(_area(old, new) if area and both else _linear(old, new, area)
                 for old, new in zip(shape, size))


def _area(old, new):
    """Each output pixel is the mean of the input that it covers."""
    scale = old / new
    start = np.arange(new) * scale
    first = np.floor(start + 1e-6).astype(np.int32)
    pixel = first[:, None] + np.arange(int(np.ceil(scale)) + 1)
    overlap = np.minimum(pixel + 1, (start + scale)[:, None]) - np.maximum(pixel, start[:, None])
    overlap = np.where(pixel < old, np.maximum(overlap, 0), 0)
    return first, (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)


def _linear(old, new, area):
    """Two neighbours; ``area``: the rule that OpenCV's INTER_AREA has for stretching."""
    place, inverse = np.arange(new, dtype=np.float64), new / old
    scale = 1 / inverse     # rounded as OpenCV does: where it falls on a pixel, that decides
    if area:
        first = np.floor(place * scale)
        weight = np.float32((place + 1) - (first + 1) * inverse)
        weight = np.where(weight <= 0, 0, weight - np.floor(weight))
    else:
        start = (place + 0.5) * scale - 0.5
        first = np.floor(start)
        weight = start - first
    weight = np.where((first < 0) | (first >= old - 1), 0, weight)
    first = first.clip(0, old - 1).astype(np.int32)
    return first, np.stack([1 - weight, weight], 1).astype(np.float32)
