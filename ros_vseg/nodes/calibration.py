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


def intrinsics(info: CameraInfo) -> Intrinsics:
    """Read the projection matrix P or, where that is empty, K."""
    p, k = info.p, info.k
    return Intrinsics(*((p[0], p[5], p[2], p[6]) if p[0] else (k[0], k[4], k[2], k[5])))
