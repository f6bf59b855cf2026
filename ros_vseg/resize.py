# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Images at the network's size: by OpenCV on the CPU, as tables of taps for the GPU."""
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Taps = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


def resize_image(image: npt.NDArray[np.uint8], size: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return an image uint8 [H, W, 3] at (height, width): itself if it has that size."""
    if image.shape[:2] == tuple(size):
        return image
    return cv2.resize(image, (size[1], size[0]),
                      interpolation=cv2.INTER_AREA if _shrinks(image.shape, size)
                      else cv2.INTER_LINEAR)


def _shrinks(shape: tuple[int, ...], size: Sequence[int]) -> bool:
    return shape[0] > size[0] or shape[1] > size[1]


@lru_cache(maxsize=64)
def resize_taps(shape: tuple[int, int], size: tuple[int, int]) -> tuple[Taps, Taps]:
    """
    Return what ``resize_image`` does as taps of the rows and of the columns.

    Args:
        shape: height and width before.
        size: height and width after.

    Returns:
        For each axis (first int32 [n], weights float32 [n, taps]): pixel i is the sum of
        weights[i, k] times pixel first[i] + k; taps that would lie beyond the image have weight
        0. OpenCV rounds in between: the results differ by at most 1.
    """
    area = _shrinks(shape, size)
    # where OpenCV shrinks one axis and stretches the other, it stretches as if it shrank
    both = shape[0] >= size[0] and shape[1] >= size[1]
    rows, columns = (_area(old, new) if area and both else _linear(old, new, area)
                     for old, new in zip(shape, size))
    return rows, columns


def _area(old: int, new: int) -> Taps:
    """Each output pixel is the mean of the input that it covers."""
    scale = old / new
    start = np.arange(new) * scale
    first = np.floor(start + 1e-6).astype(np.int32)
    pixel = first[:, None] + np.arange(int(np.ceil(scale)) + 1)
    overlap = np.minimum(pixel + 1, (start + scale)[:, None]) - np.maximum(pixel, start[:, None])
    overlap = np.where(pixel < old, np.maximum(overlap, 0), 0)
    return first, (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)


def _linear(old: int, new: int, area: bool) -> Taps:
    """Two neighbours; ``area``: the rule that OpenCV's INTER_AREA has for stretching."""
    place, inverse = np.arange(new, dtype=np.float64), new / old
    scale = 1 / inverse     # rounded as OpenCV does: where it falls on a pixel, that decides
    if area:
        first = np.floor(place * scale)
        after = ((place + 1) - (first + 1) * inverse).astype(np.float32)
        weight = np.where(after <= 0, 0, after - np.floor(after))
    else:
        start = (place + 0.5) * scale - 0.5
        first = np.floor(start)
        weight = start - first
    weight = np.where((first < 0) | (first >= old - 1), 0, weight)
    first = first.clip(0, old - 1).astype(np.int32)
    return first, np.stack([1 - weight, weight], 1).astype(np.float32)
