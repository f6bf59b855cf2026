# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What check-data says of a source's depth: how much there is, and whether a recipe can use it."""
import math

import numpy as np

from .clips import Geometry
from ..models.options import DepthTask


class DepthCount:
    """
    Depth of a source, summed up frame by frame.

    Args:
        task: Of the recipe, which says what range of depth is learned; None: no task of depth.
    """

    def __init__(self, task: DepthTask | None) -> None:
        self.task = task
        self.pixels = self.known = self.useful = 0
        self.nearest, self.farthest = math.inf, 0.0
        self.limits = (math.inf, 0.0)  # metres of the source's camera that the task can use

    def add(self, geometry: Geometry | None, shape: tuple[int, ...], scales: tuple[float, float]
            ) -> None:
        """
        Count a frame.

        Args:
            geometry: Of the frame; None where it has no depth.
            shape: (height, width) of its image.
            scales: Least and largest scale of what the network sees of it: a larger image is that
                of a longer lens, whose depths are smaller (``Draw.geometry``).
        """
        self.pixels += shape[0] * shape[1]
        if geometry is None:
            return
        depth = geometry.depth[geometry.depth > 0]
        if not depth.size:
            return
        self.known += depth.size
        self.nearest = min(self.nearest, float(depth.min()))
        self.farthest = max(self.farthest, float(depth.max()))
        if self.task is not None:
            own = geometry.focal / self.task.focal
            low = self.task.nearest * own * scales[0]
            high = self.task.farthest * own * scales[1]
            self.limits = min(self.limits[0], low), max(self.limits[1], high)
            self.useful += int(np.count_nonzero((low <= depth) & (depth <= high)))

    def summary(self) -> str:
        """Say how many pixels have depth, and its range."""
        if not self.known:
            return 'no pixel has depth'
        return (f'depth of {100 * self.known / self.pixels:.1f} % of the pixels, '
                f'{self.nearest:.3g} to {self.farthest:.3g} m')

    def problem(self, where: str) -> str | None:
        """Say why the recipe cannot use the depth of a source; None where it can."""
        if not self.known:
            return (f'{where}: all depth is 0, which is unknown: write millimetres into the '
                    '16-bit PNGs, or leave focal out of this source')
        if self.task is not None and not self.useful:
            low, high = self.limits
            return (f'{where}: depth is {self.nearest:.3g} to {self.farthest:.3g} m, and none '
                    f'lies in {low:.3g} to {high:.3g} m, which tasks.depth.nearest and farthest '
                    'are for this camera: depth is stored in millimetres, and focal in pixels of '
                    'the images; correct these, or the range of the task')
        return None
