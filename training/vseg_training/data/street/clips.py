# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The rendered street as training data: short clips of many streets, rendered once."""
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ros_vseg.files import write_whole

from .street import Street
from ..clips import ClipSource, Geometry, Pixels


class StreetClips(ClipSource[tuple[int, int]]):
    """
    Clips of some frames, one per seed, rendered at first use and kept in a cache folder.

    Args:
        seeds: Of the streets.
        length: Frames of a clip.
        cache: Folder of the rendered clips, made if need be.
        size: (height, width) in pixels.
        step: Distance of two frames of a clip, in frames of the 15 Hz drive.
        with_geometry: Whether frames have their ``geometry``.
    """

    def __init__(self, seeds: Iterable[int], length: int, cache: Path,
                 size: Sequence[int] = (360, 480), step: int = 3, with_geometry: bool = False
                 ) -> None:
        self.with_geometry = with_geometry
        self.size, self.length, self.step = (size[0], size[1]), length, step
        self.cache = Path(cache)
        self.drives = [[(seed, index) for index in range(length)] for seed in seeds]
        self._open: dict[int, dict[str, Any]] = {}

    def _render(self, seed: int, path: Path) -> None:
        street = Street(seed, self.size)
        frames = [street.frame(index * self.step, flow=False, geometry=self.with_geometry)
                  for index in range(self.length)]
        arrays: dict[str, Any] = {'images': np.stack([frame.image for frame in frames]),
                                  'labels': np.stack([frame.labels for frame in frames])}
        shapes = [frame.geometry for frame in frames if frame.geometry]
        if shapes:  # in half the memory: 3 digits are enough
            arrays |= {'depth': np.stack([shape.depth for shape in shapes]).astype(np.float16),
                       'normals': np.stack([shape.normals for shape in shapes]).astype(np.float16),
                       'focal': shapes[0].focal}
        content = BytesIO()
        np.savez(content, **arrays)
        write_whole(path, content.getbuffer())

    def frame_name(self, key: tuple[int, int]) -> str:
        """Name of a frame: of what it shows, which is the size, step and seed, and its number."""
        height, width = self.size
        return f'street/{height}x{width}x{self.step}/{key[0]}-{key[1]}'

    def _clip(self, seed: int) -> dict[str, Any]:
        """Arrays of a street's clip, by name."""
        if seed not in self._open:
            height, width = self.size
            more = '-geometry' if self.with_geometry else ''
            name = f'street-{height}x{width}-{self.length}x{self.step}-{seed}{more}.npz'
            if not (self.cache / name).exists():
                self._render(seed, self.cache / name)
            with np.load(self.cache / name, allow_pickle=False) as file:
                self._open[seed] = dict(file)
        return self._open[seed]

    def read(self, key: tuple[int, int]) -> tuple[Pixels, Pixels]:
        """Image uint8 [H, W, 3] RGB and labels uint8 [H, W] of one frame."""
        clip = self._clip(key[0])
        return clip['images'][key[1]], clip['labels'][key[1]]

    def geometry(self, key: tuple[int, int]) -> Geometry | None:
        """See ClipSource."""
        if not self.with_geometry:
            return None
        clip = self._clip(key[0])
        return Geometry(clip['depth'][key[1]].astype(np.float32),
                        clip['normals'][key[1]].astype(np.float32), float(clip['focal']))
