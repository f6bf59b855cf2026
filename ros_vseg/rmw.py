# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What to do about images that get lost on their way, by the ROS middleware (RMW) that runs."""
from typing import NamedTuple


class Middleware(NamedTuple):
    """An RMW: its name for people, and what to do when it loses large images."""

    name: str
    remedy: str


FAST_DDS = Middleware(
    'Fast DDS', 'images do not fit in its shared memory: start the camera driver with '
    'config/fastdds.xml too, and publish best effort with depth 1 above 20 MB an image')
CYCLONE_DDS = Middleware(
    'Cyclone DDS', "the kernel's buffers are too small for images: sudo sysctl -w "
    'net.core.rmem_max=2147483647, and <SocketReceiveBufferSize min="64MB"/> in the file that '
    'CYCLONEDDS_URI names')
ZENOH = Middleware(
    'Zenoh', 'images go through sockets: switch shared memory on for both sides '
    "(export ZENOH_CONFIG_OVERRIDE='transport/shared_memory/enabled=true'), and let a router run "
    '(ros2 run rmw_zenoh_cpp rmw_zenohd)')
BY_IDENTIFIER = {
    'rmw_fastrtps_cpp': FAST_DDS, 'rmw_fastrtps_dynamic_cpp': FAST_DDS,
    'rmw_cyclonedds_cpp': CYCLONE_DDS, 'rmw_zenoh_cpp': ZENOH}


def middleware(identifier: str) -> Middleware:
    """Return the RMW that rclpy calls ``identifier``; of an unknown one that is all there is."""
    return BY_IDENTIFIER.get(identifier) or Middleware(
        identifier, 'images are larger than its buffers: see its documentation on large messages')
