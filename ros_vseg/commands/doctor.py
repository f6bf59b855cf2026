# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""vseg doctor: what this machine has, what it lacks, and the fix."""
import importlib
import os
from pathlib import Path
import platform
import shutil
import socket
import subprocess
from typing import NamedTuple

from ros_vseg import backends
from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.commands import transport
from ros_vseg.errors import VsegError
from ros_vseg.processes import PROFILE_VARIABLES, share_path
from ros_vseg.rmw import CYCLONE_DDS, FAST_DDS, Middleware, middleware, ZENOH

OK, HINT, MISSING = 'ok', 'hint', 'MISSING'  # MISSING: the main job cannot run
SHARED_MEMORY = 128 * 2**20     # bytes, two segments of config/fastdds.xml
RECEIVE_BUFFER = 10 * 2**20     # bytes that a socket may hold, for a large image
ROUTER = ('localhost', 7447)    # where Zenoh's nodes look for their router
SEVERAL = (4, 480, 640)     # cameras that one process sends, and their height and width


class Finding(NamedTuple):
    """One line of the report: its state, what was looked at, and what was found or the fix."""

    state: str
    what: str
    text: str


def examine(bundle: Path | None = None, images: tuple[int, int] | None = None) -> list[Finding]:
    """
    Return all findings.

    Args:
        bundle: path of a bundle to check, by default the shipped one.
        images: height and width of images to send through the transport, and to count; None: none
            are sent.
    """
    return [_python(), *_ros(images), *_backends(), _gpu(),
            _bundle(bundle or default_bundle_path())]


def _python() -> Finding:
    return Finding(OK, 'Python', f'{platform.python_version()} on {platform.machine()}')


def _ros(images: tuple[int, int] | None = None) -> list[Finding]:
    try:
        rclpy = importlib.import_module('rclpy')
        from rclpy.utilities import get_rmw_implementation_identifier
        identifier = get_rmw_implementation_identifier()
    except ImportError as error:
        return [Finding(MISSING, 'ROS 2', f'{error}: source a ROS 2 distribution '
                        '(source /opt/ros/<distribution>/setup.bash)')]
    except RuntimeError as error:
        return [Finding(MISSING, 'RMW', f'{str(error).splitlines()[0]}: install '
                        'rmw_fastrtps_cpp, or set RMW_IMPLEMENTATION')]
    distribution = os.environ.get('ROS_DISTRO', 'not sourced')
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    reach = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') or (  # the other one is Humble's
        'LOCALHOST' if os.environ.get('ROS_LOCALHOST_ONLY') == '1' else 'SUBNET')
    rmw = middleware(identifier)
    return [Finding(OK, 'ROS 2', f'{distribution}, rclpy in {Path(rclpy.__file__ or "").parent}'),
            Finding(OK, 'RMW', f'{identifier}, domain {domain}, discovery {reach}'),
            *_transport(rmw), *(_images(rmw, *images) if images else [])]


def _transport(rmw: Middleware) -> list[Finding]:
    """Return what keeps this RMW from losing images."""
    if rmw is FAST_DDS:
        return [_profile(), _shared_memory()]
    if rmw is CYCLONE_DDS:
        return [_receive_buffer()]
    if rmw is ZENOH:
        return [_router()]
    return [Finding(HINT, 'large images', f'if they vanish: {rmw.remedy}')]


def _images(rmw: Middleware, height: int, width: int) -> list[Finding]:
    """Return what comes through of one camera's images, and of several small ones'."""
    findings = []
    for cameras, rows, columns in ((1, height, width), SEVERAL):
        what = f'{cameras} x {rows}x{columns} rgb8'
        try:
            sent, arrived = transport.send(cameras, rows, columns)
        except VsegError as error:
            findings.append(Finding(MISSING, what, ' '.join(str(error).split())))
            continue
        state = OK if arrived == sent else HINT if arrived else MISSING
        remedy = '' if arrived == sent else f': {rmw.remedy}'
        findings.append(Finding(state, what, f'{arrived} of {sent} images arrived{remedy}'))
    return findings


def _profile() -> Finding:
    for variable in PROFILE_VARIABLES:
        if path := os.environ.get(variable):
            if Path(path).is_file():
                return Finding(OK, 'Fast DDS profile', f'{path}, by {variable}')
            return Finding(
                HINT, 'Fast DDS profile', f'{variable} names {path}, which is not there')
    return Finding(HINT, 'Fast DDS profile', 'none: camera images above half a megabyte may '
                   'vanish, and smaller ones where one process sends several cameras; '
                   f'export {PROFILE_VARIABLES[0]}={share_path("config/fastdds.xml")} '
                   f'(Humble, Jazzy: {PROFILE_VARIABLES[1]}) for this node and the camera driver')


def _shared_memory() -> Finding:
    try:
        free = shutil.disk_usage('/dev/shm').free
    except OSError:
        return Finding(HINT, 'shared memory', '/dev/shm is not there: images go through sockets')
    text, fixes = f'{free / 2**20:.0f} MiB free in /dev/shm', []
    if segments := transport.left_behind():
        used = sum(path.stat().st_size for path in segments if path.exists())
        fixes.append(f'{used / 2**20:.0f} MiB are held there by {len(segments)} Fast DDS segments '
                     'of ended processes: fastdds shm clean')
    if free < SHARED_MEMORY:
        fixes.append('make it larger (docker: --shm-size=512m)')
    return Finding(HINT if fixes else OK, 'shared memory', '; '.join([text, *fixes]))


def _receive_buffer() -> Finding:
    try:
        size = int(Path('/proc/sys/net/core/rmem_max').read_text())
    except (OSError, ValueError):
        return Finding(HINT, 'socket buffers', 'cannot be read from /proc/sys/net/core/rmem_max; '
                       f'if images vanish: {CYCLONE_DDS.remedy}')
    text = f'{size / 2**20:.1f} MiB at most (net.core.rmem_max)'
    if size < RECEIVE_BUFFER:
        return Finding(HINT, 'socket buffers', f'{text}: {CYCLONE_DDS.remedy}')
    return Finding(OK, 'socket buffers', text)


def _router() -> Finding:
    try:
        socket.create_connection(ROUTER, timeout=1).close()
    except OSError:
        return Finding(HINT, 'Zenoh router', f'none at {ROUTER[0]}:{ROUTER[1]}: nodes do not find '
                       'each other without it: ros2 run rmw_zenoh_cpp rmw_zenohd')
    return Finding(OK, 'Zenoh router', f'at {ROUTER[0]}:{ROUTER[1]}')


def _backends() -> list[Finding]:
    findings = []
    for name, reason in backends.available().items():
        if reason:
            findings.append(Finding(HINT, f'backend {name}', reason))
        else:
            package = importlib.import_module(backends.BACKENDS[name][0])
            version = getattr(package, '__version__', 'installed')
            findings.append(Finding(OK, f'backend {name}', version))
    if all(finding.state == HINT for finding in findings):
        findings.append(Finding(MISSING, 'backend', 'none is installed: pip install openvino'))
    return findings


def _gpu() -> Finding:
    if not shutil.which('nvidia-smi'):
        return Finding(OK, 'NVIDIA GPU', 'none: labelling runs on the processor')
    try:
        found = subprocess.run(
            ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader'],
            capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(HINT, 'NVIDIA GPU', f'{error}: check the driver; labelling runs on the '
                       'processor')
    return Finding(OK, 'NVIDIA GPU', '; '.join(found.stdout.strip().splitlines()))


def _bundle(path: Path) -> Finding:
    try:
        bundle = Bundle.load(path)
        backend = backends.load(bundle)
    except VsegError as error:
        return Finding(MISSING, 'bundle', str(error))
    return Finding(OK, 'bundle', f'{bundle.info.name} ({path}) runs on {backend.name}, '
                   f'{backend.device}')
