# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The rendered street as a bag: what the demo replays, images and exact labels."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.typesys import get_typestore, Stores

from ros_vseg.media.writers import BagWriter

from .paint import Pixels
from .street import Street

JPEG = (cv2.IMWRITE_JPEG_QUALITY, 82)
PNG = (cv2.IMWRITE_PNG_COMPRESSION, 9)


def write_street_bag(path: str | Path, seed: int, seconds: float,
                     size: Sequence[int] = (360, 480), fps: float = 15) -> int:
    """
    Write a drive along a street as a bag.

    Topics: ``/camera/image/compressed`` (JPEG), ``/camera/label`` (PNG of class ids, 255 = void,
    same stamps) and ``/camera/camera_info``; the first stamp is 1 s.

    Args:
        path: Bag folder to write.
        seed: Of the street.
        seconds: Length of the drive.
        size: (height, width) in pixels.
        fps: Frames per second.

    Returns:
        The number of frames.
    """
    street = Street(seed, size, fps)
    count = round(seconds * fps)
    with BagWriter(path) as bag:
        for index in range(count):
            frame = street.frame(index, flow=False)
            stamp = 10**9 + round(index * 1e9 / fps)
            bag.compressed('/camera/image/compressed', _encode('.jpg', frame.image[..., ::-1]),
                           'jpeg', stamp, 'camera')
            bag.compressed('/camera/label', _encode('.png', frame.labels), 'png', stamp, 'camera')
            bag.message('/camera/camera_info', _camera_info(street, stamp), stamp)
    return count


def _camera_info(street: Street, stamp: int) -> Any:
    """Return the CameraInfo of an undistorted camera."""
    types = get_typestore(Stores.ROS2_HUMBLE).types
    header = types['std_msgs/msg/Header'](
        types['builtin_interfaces/msg/Time'](*divmod(stamp, 10**9)), 'camera')
    matrix, height_width = street.intrinsics, street.size
    return types['sensor_msgs/msg/CameraInfo'](
        header, *height_width, 'plumb_bob', np.zeros(5), matrix.ravel(), np.eye(3).ravel(),
        np.column_stack([matrix, np.zeros(3)]).ravel(), 0, 0,
        types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False))


def _encode(kind: str, picture: Pixels) -> bytes:
    return cv2.imencode(kind, picture, JPEG if kind == '.jpg' else PNG)[1].tobytes()
