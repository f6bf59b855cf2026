# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Clips of consecutive frames: the common form of all training data."""
from typing import NamedTuple

import numpy as np


VOID = 255


class Clip(NamedTuple):
    """Consecutive frames, oldest first: images uint8 [L, H, W, 3] RGB, labels uint8 [L, H, W]."""

    images: np.ndarray
    labels: np.ndarray


class ClipSource:
    """
    Labelled frames of one kind, grouped into drives.

    A subclass sets ``drives``, a list of lists of frame keys in order of time, and implements
    ``read(key)`` -> (image uint8 [H, W, 3] RGB, labels uint8 [H, W]; 255 = void or not labelled).
    """

    drives = ()

    def read(self, key):
        """Image and labels of one frame."""
        raise NotImplementedError

    def frames(self):
        """Every (drive index, position) in order."""
        return [(d, i) for d, drive in enumerate(self.drives) for i in range(len(drive))]

    def clip(self, drive, position, length):
        """
        Clip that ends at a frame; at the start of a drive the first frame is repeated.

        Frames of one clip are resized to nothing: all frames of a drive must share one size.
        """
        keys = [self.drives[drive][max(0, position - back)] for back in range(length - 1, -1, -1)]
        images, labels = zip(*(self.read(key) for key in keys))
        return Clip(np.stack(images), np.stack(labels))


def class_frequency(source, num_classes, most=400):
    """Share of labelled pixels per class, float64 [K], of about ``most`` spread frames."""
    keys = [key for drive in source.drives for key in drive]
    counts = np.zeros(256, np.int64)
    for key in keys[::max(1, len(keys) // most)]:
        counts += np.bincount(source.read(key)[1].ravel(), minlength=256)
    return counts[:num_classes] / max(1, counts[:num_classes].sum())
