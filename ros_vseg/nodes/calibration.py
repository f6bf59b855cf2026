# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a ``CameraInfo`` says of a camera's lens: one answer for all nodes."""
from typing import NamedTuple

from sensor_msgs.msg import CameraInfo


class Intrinsics(NamedTuple):
    """Focal lengths and centre in pixels; focal lengths of 0: not calibrated."""

    fx: float
    fy: float
    cx: float
    cy: float


def fits(info: CameraInfo, size: tuple[int, int]) -> bool:
    """Whether it is of images of (H, W): whole, or its region of interest, binned."""
    return (info.height, info.width) in ((0, 0), size) or _binned_size(info) == size


def intrinsics(info: CameraInfo, size: tuple[int, int]) -> Intrinsics:
    """
    Read the projection matrix P or, where that is empty, K.

    Both are of the whole sensor: where images of (H, W) are its region of interest or binned, they
    are converted as image_geometry does.
    """
    p, k = info.p, info.k
    fx, fy, cx, cy = (p[0], p[5], p[2], p[6]) if p[0] else (k[0], k[4], k[2], k[5])
    if (info.height, info.width) in ((0, 0), size):
        return Intrinsics(fx, fy, cx, cy)
    x, y = max(1, info.binning_x), max(1, info.binning_y)
    return Intrinsics(
        fx / x, fy / y, (cx - info.roi.x_offset) / x, (cy - info.roi.y_offset) / y)


def _binned_size(info: CameraInfo) -> tuple[int, int]:
    height, width = info.roi.height or info.height, info.roi.width or info.width
    return height // max(1, info.binning_y), width // max(1, info.binning_x)
