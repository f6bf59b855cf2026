# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Clips of consecutive frames: the common form of all training data."""
from typing import NamedTuple

import numpy as np


VOID = 255  # a pixel that no one labelled
PADDING = 254  # a pixel outside the frame, which augmentation filled in


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
    snippet_frames = 30  # frames of a drive that make one "video" of MGCNet's long-term context
    unlabelled = False  # whether training clips may end at frames without labels

    def read(self, key):
        """Image and labels of one frame."""
        raise NotImplementedError

    def frame_name(self, key):
        """Name of a frame in messages and on disk, unique among sources: a relative path."""
        raise NotImplementedError

    def read_image(self, key):
        """Image of one frame."""
        return self.read(key)[0]

    def has_labels(self, key):
        """Whether a frame has labels, without reading them."""
        return True

    def frames(self):
        """Every (drive index, position) at which a training clip may end, in order."""
        return [(d, i) for d, drive in enumerate(self.drives) for i, key in enumerate(drive)
                if self.unlabelled or self.has_labels(key)]

    def clip_keys(self, drive, position, length):
        """Keys of a clip that ends at a frame; at a drive's start the first is repeated."""
        return [self.drives[drive][max(0, position - back)] for back in range(length - 1, -1, -1)]

    def drive_name(self, drive):
        """Name of a drive, by its index, as ``data.train[].drives`` gives it."""
        return self.frame_name(self.drives[drive][0]).rpartition('/')[0]

    def keep_drives(self, names):
        """Leave out all drives but those of some names; ValueError for a name of none."""
        known = [self.drive_name(drive) for drive in range(len(self.drives))]
        for name in names:
            if name not in known:
                raise ValueError(f'there is no drive {name!r}: use {", ".join(known)}')
        self.drives = [drive for drive, name in zip(self.drives, known) if name in names]

    def snippets(self):
        """First snippet number of each drive, and the number of all: list of int."""
        counts = [-(-len(drive) // self.snippet_frames) for drive in self.drives]
        return np.cumsum([0, *counts]).tolist()

    def distant_keys(self, drive, position, length, interval):
        """
        Keys of the distant frames of a clip: interval, 2 * interval ... before its end.

        Where that leaves the drive, the walk turns back at its ends (MGCNet Sec. III-C, R).
        """
        last = len(self.drives[drive]) - 1
        turned = [(position - interval * step) % (2 * last) if last else 0
                  for step in range(length, 0, -1)]
        return [self.drives[drive][min(place, 2 * last - place)] for place in turned]

    def load(self, keys):
        """Clip of some frames; ValueError if they are not of one size."""
        images, labels = zip(*(self.read(key) for key in keys))
        return Clip(self._stack(keys, images), np.stack(labels))

    def load_images(self, keys):
        """Images uint8 [L, H, W, 3] of some frames; ValueError if they are not of one size."""
        return self._stack(keys, [self.read_image(key) for key in keys])

    def _stack(self, keys, images):
        for key, image in zip(keys, images):
            if image.shape != images[0].shape:
                raise ValueError(
                    f'{self.frame_name(keys[0])} is {images[0].shape[:2]}, but '
                    f'{self.frame_name(key)} of the same drive is {image.shape[:2]}: put frames '
                    'of one size into a drive')
        return np.stack(images)


def class_frequency(source, num_classes, most=400):
    """Share of labelled pixels per class, float64 [K], of about ``most`` labelled frames."""
    keys = [key for drive in source.drives for key in drive if source.has_labels(key)]
    counts = np.zeros(256, np.int64)
    for key in keys[::max(1, len(keys) // most)]:
        counts += np.bincount(source.read(key)[1].ravel(), minlength=256)
    return counts[:num_classes] / max(1, counts[:num_classes].sum())
