# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
The node under fire, over real DDS.

``python tools/reliability/node.py messages [--count 20000]``: damaged messages between whole ones.
``python tools/reliability/node.py soak [--minutes 30]``: half an hour of faults, memory watched.
``python tools/reliability/node.py kill [--times 50]``: kill -9 at random moments, with respawn.
Each prints one line of JSON with its figures; exit code 1 if a target is missed.
"""
import argparse
from array import array
from collections.abc import Callable, Iterator
from itertools import islice
import json
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from ros_vseg.image import fill_image, stamp_of
from ros_vseg.media.sources import open_source
from ros_vseg.processes import Child, demo_clip, ros_environment

SIZE = (120, 160)
PARAMETERS = ['-p', 'size:=112x144', '-p', 'threads:=1', '-p', 'precision:=fp32']
ENCODINGS = ['rgb8', 'bgr8', 'mono8', 'mono16', 'rgba8', 'bayer_rggb8', 'bayer_grbg16', 'yuv422',
             'nv12', '16UC1', '32FC1', '32FC3', '8UC4', 'rgb16', '', 'rgb7', '\u00e4', 'a' * 300]
MEMORY, AGAIN = 10.0, 5.0   # targets: MB of growth, seconds until labels come again


class Camera(Node):
    """Sends images and remembers which labels came back."""

    def __init__(self) -> None:
        super().__init__('fire')
        self.raw = self.create_publisher(Image, 'camera/image', 5)
        self.compressed = self.create_publisher(CompressedImage, 'camera/image/compressed', 5)
        self.create_subscription(Image, 'vseg_node/camera/label', self._on_label, 50)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 5)
        frames = islice(open_source(demo_clip()), 30)
        self.pictures = [cv2.resize(frame.image, SIZE[::-1]) for frame in frames]
        self.sent: set[int] = set()
        self.labels: list[int] = []
        self.strange: list[int] = []
        self.status: dict[str, str] = {}

    def _on_label(self, message: Image) -> None:
        stamp = stamp_of(message)
        self.labels.append(stamp)
        if stamp not in self.sent:
            self.strange.append(stamp)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == 'vseg_node: camera':
                self.status = {item.key: item.value for item in status.values}

    def serve(self, seconds: float) -> None:
        """Receive for a while."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=left)

    def image(self, number: int) -> Image:
        """Return a whole image with the time of now."""
        message = fill_image(Image(), self.pictures[number % len(self.pictures)], 'rgb8')
        message.header.frame_id = 'camera'
        self.stamp(message)
        return message

    def stamp(self, message: Any) -> None:
        """Give a message the time of now, and remember it."""
        now = self.get_clock().now()
        message.header.stamp = now.to_msg()
        self.sent.add(now.nanoseconds)

    def label_of_a_whole_image(self, patience: float) -> float | None:
        """Send whole images till a label comes back; return the seconds it took."""
        begin, before, number = time.monotonic(), len(self.labels), 0
        while time.monotonic() < begin + patience:
            self.raw.publish(self.image(number))
            number += 1
            self.serve(0.07)
            if len(self.labels) > before:
                return time.monotonic() - begin
        return None


def memory(child: Child) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f'/proc/{child.process.pid}/status').read_text()
    return int(status.split('VmRSS:')[1].split()[0]) / 1024


def start(folder: Path, environment: dict[str, str], *more: str) -> Child:
    """Start a node."""
    argv = [sys.executable, '-m', 'ros_vseg.nodes.vseg_node', '--ros-args', *PARAMETERS, *more]
    return Child('node', argv, environment, folder / f'node-{time.monotonic_ns()}.log')


def damaged(camera: Camera, rng: np.random.Generator) -> Image | CompressedImage:
    """Return an image message with one to three of its fields wrong."""
    if rng.random() < 0.3:
        return _damaged_jpeg(camera, rng)
    message = camera.image(int(rng.integers(0, 30)))
    for _ in range(rng.integers(1, 4)):
        field = rng.integers(0, 8)
        if field == 0:
            message.encoding = str(rng.choice(ENCODINGS))
        elif field == 1:
            message.height = int(rng.choice([0, 1, 119, 121, 2**31, 2**32 - 1]))
        elif field == 2:
            message.width = int(rng.choice([0, 1, 159, 161, 2**31, 2**32 - 1]))
        elif field == 3:
            message.step = int(rng.choice([0, 1, 479, 481, 2**32 - 1]))
        elif field == 4:
            message.data = array('B', rng.bytes(int(rng.choice([0, 1, 1000, 57599, 57601]))))
        elif field == 5:
            message.is_bigendian = int(rng.integers(0, 256))
        elif field == 6:
            message.header.stamp.sec = int(rng.choice([-2**31, -1, 0, 2**31 - 1]))
            camera.sent.add(stamp_of(message))
        else:
            message.header.frame_id = str(rng.choice(['', '\u00e4/\n', 'x' * 5000]))
    return message


def _damaged_jpeg(camera: Camera, rng: np.random.Generator) -> CompressedImage:
    picture = camera.pictures[int(rng.integers(0, 30))]
    kind = str(rng.choice(['.jpg', '.png', '.bmp']))
    data = bytearray(cv2.imencode(kind, picture)[1].tobytes())
    place = int(rng.integers(0, len(data)))
    if rng.random() < 0.5:
        data[place:place + int(rng.integers(1, 100))] = rng.bytes(int(rng.integers(1, 100)))
    else:
        del data[place:]
    message = CompressedImage(data=array('B', bytes(data)))
    message.format = str(rng.choice(['jpeg', 'png', '', 'bgr8; jpeg compressed bgr8',
                                     '16UC1; png compressed', 'bayer_rggb8; jpeg compressed mono8',
                                     '32FC1; compressedDepth', ';;;', 'h264']))
    camera.stamp(message)
    return message


def messages(camera: Camera, folder: Path, count: int) -> dict[str, Any]:
    """Send damaged messages; every 200 of them a whole image must still be labelled."""
    rng, served = np.random.default_rng(0), 0
    with start(folder, dict(os.environ)) as node:
        node.wait_for_line('labels camera', 60)
        for number in range(count):
            message = damaged(camera, rng)
            (camera.raw if isinstance(message, Image) else camera.compressed).publish(message)
            camera.serve(0.003)
            if number % 200 == 199:
                if camera.label_of_a_whole_image(20) is None:
                    break
                served += 1
        camera.serve(2)
        alive = node.process.poll() is None
        tracebacks = node.log.read_text(errors='replace').count('Traceback')
    dropped = {key: int(value) for key, value in camera.status.items()
               if key.startswith('dropped') and value != '0'}
    good = alive and not tracebacks and served == count // 200 and not camera.strange
    return {'sent': count, 'whole images labelled between': served, 'alive': alive,
            'tracebacks': tracebacks, 'labels of no image': len(camera.strange),
            'received': camera.status.get('received'), **dropped, 'met': good}


def faults(camera: Camera, rng: np.random.Generator) -> Iterator[Callable[[], None]]:
    """Yield what goes wrong next, for ever."""
    while True:
        number = rng.integers(0, 5)
        if number == 0:
            yield lambda: camera.raw.publish(damaged_image(camera, rng))
        elif number == 1:
            yield lambda: camera.serve(float(rng.uniform(1.0, 3.0)))    # a pause
        elif number == 2:
            yield lambda: camera.pictures.reverse()                     # a cut
        elif number == 3:
            yield lambda: resize(camera, rng)
        else:
            yield lambda: camera.compressed.publish(_damaged_jpeg(camera, rng))


def damaged_image(camera: Camera, rng: np.random.Generator) -> Image:
    """Return a damaged message that is not compressed."""
    while not isinstance(message := damaged(camera, rng), Image):
        pass
    return message


def resize(camera: Camera, rng: np.random.Generator) -> None:
    """Let the camera send another size from now on."""
    size = [(120, 160), (100, 140), (121, 161), (240, 320)][int(rng.integers(0, 4))]
    camera.pictures = [cv2.resize(picture, size[::-1]) for picture in camera.pictures]


def soak(camera: Camera, folder: Path, minutes: float) -> dict[str, Any]:
    """Send at 15 Hz with a fault every 2 s; memory is compared after a tenth of the time."""
    rng, number = np.random.default_rng(0), 0
    with start(folder, dict(os.environ)) as node:
        node.wait_for_line('labels camera', 60)
        begin, first, next_fault = time.monotonic(), None, 0.0
        trouble = faults(camera, rng)
        while (elapsed := time.monotonic() - begin) < 60 * minutes:
            camera.raw.publish(camera.image(number))
            number += 1
            camera.serve(1 / 15)
            if elapsed > next_fault:
                next(trouble)()
                next_fault = elapsed + 2
            if first is None and elapsed > 6 * minutes:
                first = memory(node)
        last = memory(node)
        tracebacks = node.log.read_text(errors='replace').count('Traceback')
    growth = last - (first or last)
    good = growth <= MEMORY and not tracebacks and not camera.strange and len(camera.labels) > 0
    return {'minutes': minutes, 'whole images': number, 'labels': len(camera.labels),
            'labels of no image': len(camera.strange), 'memory MB': round(last, 1),
            'growth MB': round(growth, 1), 'tracebacks': tracebacks, 'met': good}


def kill(camera: Camera, folder: Path, times: int) -> dict[str, Any]:
    """Kill the node at random moments and start it again, as a launch file's respawn does."""
    rng, gaps, missing = np.random.default_rng(0), [], 0
    before = _checksums()
    for number in range(times + 1):
        with start(folder, dict(os.environ)) as node:
            begin = time.monotonic()
            if camera.label_of_a_whole_image(30) is None:
                missing += 1
            elif number:
                gaps.append(time.monotonic() - begin)
            camera.serve(float(rng.uniform(0, 1.5)))
            node.process.kill()
            node.process.wait()
    damaged_files = [name for name, value in _checksums().items() if before.get(name) != value]
    worst = max(gaps, default=float('inf'))
    return {'times': times, 'seconds till labels, median': round(float(np.median(gaps)), 2),
            'worst': round(worst, 2), 'never': missing, 'files changed': damaged_files,
            'met': worst <= AGAIN and not missing and not damaged_files}


def _checksums() -> dict[str, int]:
    """Return a checksum of every file of the package that a run must leave alone."""
    root = demo_clip().parents[1]
    return {str(path): hash(path.read_bytes()) for path in root.rglob('*')
            if path.is_file() and '__pycache__' not in path.parts}


def main() -> int:
    """Run one of the three and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n')[0])
    parser.add_argument('what', choices=('messages', 'soak', 'kill'))
    parser.add_argument('--count', type=int, default=20000)
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--times', type=int, default=50)
    options = parser.parse_args()
    os.environ.update(ros_environment())
    rclpy.init()
    with tempfile.TemporaryDirectory() as folder:
        camera, work = Camera(), Path(folder)
        if options.what == 'messages':
            found = messages(camera, work, options.count)
        elif options.what == 'soak':
            found = soak(camera, work, options.minutes)
        else:
            found = kill(camera, work, options.times)
    print(json.dumps(found), flush=True)
    rclpy.try_shutdown()
    return 0 if found['met'] else 1


if __name__ == '__main__':
    sys.exit(main())
