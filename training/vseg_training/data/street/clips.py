# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The rendered street as training data: short clips of many streets, rendered once."""
import os
from pathlib import Path

import numpy as np

from .street import Street
from ..clips import ClipSource


class StreetClips(ClipSource):
    """
    Clips of ``length`` frames, one per seed, rendered at first use and kept in a cache folder.

    ``step`` is the distance of two frames of a clip in frames of the 15 Hz drive.
    """

    def __init__(self, seeds, length, cache, size=(360, 480), step=3):
        self.size, self.length, self.step = tuple(size), length, step
        self.cache = Path(cache)
        self.cache.mkdir(parents=True, exist_ok=True)
        self.drives = [[(seed, index) for index in range(length)] for seed in seeds]
        self._open = {}

    def _render(self, seed, path):
        street = Street(seed, self.size)
        frames = [street.frame(index * self.step, flow=False) for index in range(self.length)]
        partial = path.with_suffix(f'.{os.getpid()}.tmp')
        with partial.open('wb') as file:
            np.savez(file, images=np.stack([frame.image for frame in frames]),
                     labels=np.stack([frame.labels for frame in frames]))
        os.replace(partial, path)

    def frame_name(self, key):
        """Name of a frame."""
        return f'street/{key[0]}-{key[1]}'

    def read(self, key):
        """Image and labels of one frame."""
        seed, index = key
        if seed not in self._open:
            height, width = self.size
            path = self.cache / f'street-{height}x{width}-{self.length}x{self.step}-{seed}.npz'
            if not path.exists():
                self._render(seed, path)
            with np.load(path, allow_pickle=False) as file:
                self._open[seed] = file['images'], file['labels']
        images, labels = self._open[seed]
        return images[index], labels[index]
