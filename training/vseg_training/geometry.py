# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How right depth and normals are, of a network or of a bundle."""
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from ros_vseg.depth import DepthRange

from .data.clips import Geometry
from .metrics import DepthMetrics, NormalsMetrics
from .models.options import Tasks
from .models.tasks import metres, range_of


class Seen(NamedTuple):
    """
    What is said of a frame.

    Attributes:
        depth: Float32 [h, w], metres at the range's focal length; None: nothing.
        normals: Float32 [h, w, 3] of any length; None: nothing.
    """

    depth: npt.NDArray[np.float32] | None = None
    normals: npt.NDArray[np.float32] | None = None


def seen(parts: Mapping[str, Tensor], tasks: Tasks) -> Seen:
    """Take depth and normals from the parts of a frame (``tasks.split``)."""
    return Seen(
        metres(parts['depth'], tasks.depth).cpu().numpy() if tasks.depth else None,
        parts['normals'].float().permute(1, 2, 0).cpu().numpy() if tasks.normals else None)


class GeometryMetrics:
    """
    Errors of depth and normals of frames that are fed one by one.

    Counted is depth that is nearer than the range's ``farthest``, at its ``focal``.

    Args:
        depth: Range of the depths; None: there are none.
        normals: Whether there are normals.
        height: Of the network's input.
    """

    def __init__(self, depth: DepthRange | None, normals: bool, height: int) -> None:
        self._range, self._height = depth, height
        self._depths = DepthMetrics() if depth else None
        self._angles = NormalsMetrics() if normals else None

    def update(self, size: Sequence[int], truth: Geometry | None, found: Seen) -> None:
        """
        Add a frame; depths are made those of its camera, by its focal length.

        Args:
            size: (height, width) of the frame.
            truth: None: it does not count.
            found: What the network says.
        """
        if truth is None:
            return
        height, width = size
        if self._range and self._depths and found.depth is not None:
            scale = self._range.scale(truth.focal, height, self._height)
            near = np.where(truth.depth < scale * self._range.farthest, truth.depth, 0)
            self._depths.update(near, scale * cv2.resize(
                found.depth, (width, height), interpolation=cv2.INTER_NEAREST))
        if self._angles and found.normals is not None:
            self._angles.update(truth.normals, cv2.resize(found.normals, (width, height)))

    def summary(self) -> dict[str, float]:
        """``DepthMetrics.summary`` and ``NormalsMetrics.summary``, of what there is."""
        parts = [part.summary() for part in (self._depths, self._angles) if part]
        return {name: value for part in parts for name, value in part.items()}


def geometry_metrics(tasks: Tasks, height: int) -> GeometryMetrics | None:
    """Metrics of a network with further tasks and an input of that height; None without tasks."""
    if not tasks.channels:
        return None
    return GeometryMetrics(
        range_of(tasks.depth) if tasks.depth else None, tasks.normals is not None, height)
