# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Child processes on a DDS domain of their own: what the demo and the benchmarks start."""
import os
from pathlib import Path
import random
import signal
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Mapping, Optional, Sequence, Union

from ros_vseg.errors import VsegError


PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')


class ChildError(VsegError):
    """A child process that died or did not end in its time; holds its last lines."""


def share_path(relative: str) -> Path:
    """Return the path of a data file such as ``config/fastdds.xml``."""
    package = Path(__file__).resolve().parent
    installed = (parent / 'share/ros_vseg' for parent in (*package.parents, Path(sys.prefix)))
    for root in (package.parent, *installed):
        if (root / relative).is_file():
            return root / relative
    raise VsegError(f'{relative} is not installed: install ros_vseg again, with pip or colcon')


def demo_clip() -> Path:
    """Return the embedded drive, a bag with images and exact labels."""
    return Path(__file__).parent / 'demo_clip/street'


def ros_environment(profile: bool = True) -> dict[str, str]:
    """
    Return an environment for processes that talk to each other alone.

    They share a free DDS domain on this machine only.

    Args:
        profile: whether they have the shipped Fast DDS profile, unless the user's environment
            names another one; False: the user's environment decides alone.
    """
    environment = dict(os.environ)
    environment['ROS_DOMAIN_ID'] = str(free_domain_id())
    if environment.get('ROS_DISTRO') == 'humble':
        environment['ROS_LOCALHOST_ONLY'] = '1'
    else:
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if not profile:
        return environment
    return {**environment, **fast_dds_profile(environment)}


def fast_dds_profile(environment: Mapping[str, str]) -> dict[str, str]:
    """
    Return the variable that gives image-sized shared memory to Fast DDS.

    Empty if ``environment`` names a profile already: the user's own is kept, and Fast DDS 2 loads
    it twice and complains when both variables are set.
    """
    if any(variable in environment for variable in PROFILE_VARIABLES):
        return {}
    prefixes = [sys.prefix, *environment.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    # Fast DDS 3 (ROS package fastdds, from Kilted on) renamed the variable.
    fastdds3 = any(prefix and Path(prefix, 'share/fastdds').is_dir() for prefix in prefixes)
    return {PROFILE_VARIABLES[not fastdds3]: str(share_path('config/fastdds.xml'))}


def free_domain_id() -> int:
    """Return a random ROS_DOMAIN_ID that no participant on this machine uses now."""
    for domain in random.sample(range(1, 101), 100):
        if all(_free_port(7400 + 250 * domain + offset) for offset in (0, 10)):
            return domain
    raise VsegError('every ROS_DOMAIN_ID from 1 to 100 is in use on this machine')


def _free_port(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(('', port))
        except OSError:
            return False
    return True


class Child:
    """
    A process started here and ended here, with its output in a file.

    Use it as a context manager: leaving it stops the process, gently first.

    Args:
        name: what to call it in errors.
        argv: the program and its arguments.
        environment: all of its environment variables.
        log: the file for its output.
    """

    def __init__(self, name: str, argv: Sequence[Union[str, Path]], environment: dict[str, str],
                 log: Union[str, Path]) -> None:
        """Start the process."""
        self.name = name
        self.log = Path(log)
        with open(log, 'wb') as output:
            # Its own session: Ctrl-C reaches the parent alone, which then ends its children.
            self.process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True)

    def __enter__(self) -> 'Child':
        """Return itself."""
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        """Stop the process."""
        self.stop()

    def last_lines(self, count: int = 15) -> str:
        """Return the end of what the process has printed."""
        lines = self.log.read_text(errors='replace').splitlines()
        return '\n'.join(f'  {self.name}: {line}' for line in lines[-count:])

    def check(self) -> None:
        """Raise ChildError if the process has failed."""
        if self.process.poll():
            self._died()

    def check_alive(self) -> None:
        """Raise ChildError if the process has ended, well or not."""
        if self.process.poll() is not None:
            self._died()

    def _died(self) -> None:
        raise ChildError(
            f'{self.name} ended with exit code {self.process.returncode}:\n{self.last_lines()}')

    def wait_for_line(self, text: str, timeout: float, others: Sequence['Child'] = ()) -> None:
        """
        Wait until it has printed ``text``.

        Args:
            text: part of a line.
            timeout: seconds to wait.
            others: processes that must not end meanwhile either.

        Raises:
            ChildError: it is late, or one of the processes ended.
        """
        deadline = time.monotonic() + timeout
        while text not in self.log.read_text(errors='replace'):
            for child in (self, *others):
                child.check_alive()
            if time.monotonic() > deadline:
                raise ChildError(
                    f'{self.name} did not say {text!r} in {timeout:.0f} s:\n{self.last_lines()}')
            time.sleep(0.05)

    def wait_for_end(self, timeout: float, others: Sequence['Child'] = ()) -> None:
        """
        Wait until it has ended well.

        Args:
            timeout: seconds to wait.
            others: processes that must not end meanwhile.

        Raises:
            ChildError: it is late or has failed, or one of the others ended.
        """
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            for child in others:
                child.check_alive()
            if time.monotonic() > deadline:
                raise ChildError(
                    f'{self.name} did not end in {timeout:.0f} s:\n{self.last_lines()}')
            time.sleep(0.05)
        self.check()

    def stop(self) -> None:
        """End the process and what it started: interrupt, terminate, then kill."""
        for number, patience in ((signal.SIGINT, 5), (signal.SIGTERM, 3), (signal.SIGKILL, 3)):
            if self.process.poll() is not None:
                return
            os.killpg(self.process.pid, number)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
