# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""From coarse class scores to a probability image of single classes."""
from typing import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.decode import LIMIT

Floats = npt.NDArray[np.float32]


def class_probabilities(scores: npt.NDArray[np.floating], size: tuple[int, int],
                        groups: Sequence[Sequence[int]]) -> list[Floats]:
    """
    Return how probable each group of classes is at each pixel.

    The softmax of the scores upsampled as ``decode`` does it (bilinear, align_corners=False):
    p_c = exp(s_c) / sum_k exp(s_k), summed over the classes of a group. One class is in memory at
    a time.

    Args:
        scores: float [K, h, w], coarse; NaN counts as lowest.
        size: (H, W) of the result.
        groups: ids of classes, 0..K-1; a group without any has probability 0.

    Returns:
        float32 [H, W] in 0..1 for each group.
    """
    finite = np.fmin(np.fmax(np.asarray(scores, np.float32), -LIMIT), LIMIT)
    top = np.full(size, -LIMIT, np.float32)
    for plane in finite:
        np.maximum(top, _upsample(plane, size), out=top)
    total = np.zeros(size, np.float32)
    results = [np.zeros(size, np.float32) for _ in groups]
    for index, plane in enumerate(finite):
        power = np.exp(_upsample(plane, size) - top)
        total += power
        for result, classes in zip(results, groups):
            if index in classes:
                result += power
    for result in results:
        result /= total
    return results


def _upsample(plane: Floats, size: tuple[int, int]) -> Floats:
    return cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR)
