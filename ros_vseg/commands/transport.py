# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""``vseg doctor --dds``: images sent through this machine's own transport, and counted."""
import json
from pathlib import Path
import sys
import tempfile
from typing import NamedTuple

from ros_vseg.processes import Child, ros_environment

MODULE = 'ros_vseg.nodes.burst'
PATIENCE = 180.0    # seconds; the processes themselves give up before


class Counts(NamedTuple):
    """Images that one process has sent, and those of them that arrived in another."""

    sent: int
    arrived: int


def send(cameras: int, height: int, width: int) -> Counts:
    """
    Send images from one process to another, as a camera driver does to vseg_node.

    The processes have this one's environment, RMW and profile included, in a domain of their own.

    Args:
        cameras: number of topics that one process sends on, one image after the other.
        height: of the images, rgb8.
        width: of the images.

    Raises:
        ChildError: a process failed, or the two did not meet.
    """
    environment = ros_environment(profile=False)
    with tempfile.TemporaryDirectory() as folder:
        environment.setdefault('ROS_LOG_DIR', folder)   # the home folder may be read-only

        def start(role: str, *numbers: int) -> Child:
            argv = [sys.executable, '-m', MODULE, role, *map(str, numbers)]
            return Child(role, argv, environment, Path(folder, f'{role}.log'))
        with start('receive', cameras) as receiver, start('send', cameras, height,
                                                          width) as sender:
            sender.wait_for_end(PATIENCE, others=[receiver])
            return Counts(**json.loads(sender.log.read_text().rpartition('result ')[2]))
