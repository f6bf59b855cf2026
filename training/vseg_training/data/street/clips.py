# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The rendered street as training data: short clips of many streets, rendered once."""
from collections.abc import Iterable, Sequence
import os
from pathlib import Path

import numpy as np

from .street import Street
from ..clips import ClipSource, Pixels


class StreetClips(ClipSource[tuple[int, int]]):
    """
    Clips of some frames, one per seed, rendered at first use and kept in a cache folder.

    Args:
        seeds: Of the streets.
        length: Frames of a clip.
        cache: Folder of the rendered clips, made if need be.
        size: (height, width) in pixels.
        step: Distance of two frames of a clip, in frames of the 15 Hz drive.
    """

    def __init__(self, seeds: Iterable[int], length: int, cache: Path,
                 size: Sequence[int] = (360, 480), step: int = 3) -> None:
        self.size, self.length, self.step = (size[0], size[1]), length, step
        self.cache = Path(cache)
        self.drives = [[(seed, index) for index in range(length)] for seed in seeds]
        self._open: dict[int, tuple[Pixels, Pixels]] = {}

    def _render(self, seed: int, path: Path) -> None:
        street = Street(seed, self.size)
        frames = [street.frame(index * self.step, flow=False) for index in range(self.length)]
        self.cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f'.{os.getpid()}.tmp')
        with partial.open('wb') as file:
            np.savez(file, images=np.stack([frame.image for frame in frames]),
                     labels=np.stack([frame.labels for frame in frames]))
        os.replace(partial, path)

    def frame_name(self, key: tuple[int, int]) -> str:
        """Name of a frame: of its street's seed and its number."""
        return f'street/{key[0]}-{key[1]}'

    def read(self, key: tuple[int, int]) -> tuple[Pixels, Pixels]:
        """Image uint8 [H, W, 3] RGB and labels uint8 [H, W] of one frame."""
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
