# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What the doctor learns of DDS: images sent and counted, shared memory left behind."""
import fcntl
import json
from pathlib import Path
import re
import sys
import tempfile
from typing import NamedTuple

from ros_vseg.processes import Child, ros_environment

MODULE = 'ros_vseg.nodes.burst'
PATIENCE = 180.0    # seconds; the processes themselves give up before
SHARED_MEMORY = Path('/dev/shm')
LOCK = re.compile('fast(dds|rtps)_[0-9a-f]{16}_el')     # Fast DDS 3, and 2


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


def left_behind() -> list[Path]:
    """
    Return the shared memory segments of Fast DDS whose process ended without giving them back.

    A process holds the lock beside its segment while it lives; kill -9 and crashes leave both.
    """
    segments = []
    for lock in SHARED_MEMORY.glob('fast*_el'):
        if not LOCK.fullmatch(lock.name):
            continue
        try:
            with open(lock, 'rb') as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:     # its process lives, or has just ended, or is another user's
            continue
        segments.append(lock.with_name(lock.name.removesuffix('_el')))
    return segments
