# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Several cameras on one device: how old their labels are, and how evenly they are served.

``python -m ros_vseg.bench.cameras RATE SECONDS CAMERA [CAMERA ...]`` plays the cameras of a node
that runs already, and prints one JSON line: by camera how many labels came and their ages in ms.
"""
from itertools import islice
import json
from pathlib import Path
import sys
import tempfile
import threading
import time
from typing import Sequence

import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from ros_vseg.bench.tools import Context, Measurement
from ros_vseg.image import fill_image, stamp_of
from ros_vseg.media.sources import open_source
from ros_vseg.processes import Child, demo_clip, ros_environment

CAMERAS = ('front', 'left', 'right', 'rear')
RATE = 15.0         # Hz of each camera
SECONDS = 20.0
LEAD = 2.0          # seconds of driving before anything is counted


class Cameras(Node):
    """Publishes the demo clip as several cameras in turn, and notes the ages of their labels."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__('bench_cameras')
        self._images = [fill_image(Image(), frame.image, 'rgb8')
                        for frame in islice(open_source(demo_clip()), 8)]
        self._publishers_of = [self.create_publisher(Image, f'{name}/image', 5) for name in names]
        self.ages: dict[str, list[float]] = {name: [] for name in names}
        self._counting = False
        for name in names:
            self.create_subscription(
                Image, f'vseg_node/{name}/label',
                lambda message, name=name: self._on_label(name, message), 5)

    def wait_for_subscriptions(self, timeout: float) -> bool:
        """Return whether the node subscribes to every camera within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not all(publisher.get_subscription_count() for publisher in self._publishers_of):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def drive(self, rate: float, seconds: float) -> None:
        """Send ``rate`` images a second of each camera, one camera after the other, none late."""
        begin, count = time.monotonic(), len(self._publishers_of)
        for number in range(round((LEAD + seconds) * rate * count)):
            due = number / (rate * count)
            self._counting = due >= LEAD
            early = begin + due - time.monotonic()
            if early < -1 / rate:
                continue
            time.sleep(max(0, early))
            image = self._images[number // count % len(self._images)]
            image.header.stamp = self.get_clock().now().to_msg()
            self._publishers_of[number % count].publish(image)

    def _on_label(self, name: str, message: Image) -> None:
        if self._counting:
            stamp = stamp_of(message)
            self.ages[name].append((self.get_clock().now().nanoseconds - stamp) / 1e6)


def drive_node(context: Context, names: Sequence[str], rate: float,
               **parameters: object) -> dict[str, list[float]]:
    """Run node and cameras as processes; return by camera the ages of its labels in ms."""
    environment = ros_environment()
    parameters = {'bundle': context.bundle.path, 'cameras': f'[{", ".join(names)}]',
                  **parameters}
    node_command = [sys.executable, '-m', 'ros_vseg.nodes.vseg_node', '--ros-args']
    for key, value in parameters.items():
        node_command += ['-p', f'{key}:={value}']
    camera_command = [sys.executable, '-m', 'ros_vseg.bench.cameras', str(rate), str(SECONDS),
                      *names]
    with tempfile.TemporaryDirectory() as folder, \
            Child('node', node_command, environment, Path(folder, 'node.log')), \
            Child('cameras', camera_command, environment, Path(folder, 'cameras.log')) as cameras:
        cameras.process.wait(120)
        cameras.check()
        return json.loads(cameras.log.read_text().rpartition('result ')[2])


def bench_cameras(context: Context) -> list[Measurement]:
    """Compare four cameras with one that sends as many images as the node labelled of all four."""
    many = drive_node(context, CAMERAS, RATE)
    labels = [len(ages) for ages in many.values()]
    total = sum(labels) / SECONDS
    single = np.array(drive_node(context, CAMERAS[:1], max(1.0, total))[CAMERAS[0]])
    together = np.concatenate(list(many.values()))
    ratio = float(np.median(together) / np.median(single))
    spread = (max(labels) - min(labels)) / np.mean(labels)
    detail = (f'{len(CAMERAS)} cameras at {RATE:g} Hz: {total:.1f} labels a second, age '
              f'{_ages(together)}; one camera at {max(1.0, total):.1f} Hz: {_ages(single)}')
    return [
        Measurement("age of four cameras' labels, p50, against one camera's at the same total "
                    'rate', f'{ratio:.2f} x', 'at most 1.4 x', ratio <= 1.4, detail),
        Measurement('labels of the four cameras, most less fewest over their mean',
                    f'{100 * spread:.1f} %', 'at most 10 %', bool(spread <= 0.1))]


def _ages(milliseconds: npt.NDArray[np.float64] | Sequence[float]) -> str:
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return f'p50 {p50:.0f} ms, p99 {p99:.0f} ms'


def main() -> None:
    """Drive the cameras and print the result; exit code 1 if the node never subscribed."""
    rate, seconds = float(sys.argv[1]), float(sys.argv[2])
    rclpy.init()
    cameras, executor = Cameras(sys.argv[3:]), SingleThreadedExecutor()
    executor.add_node(cameras)
    # labels are taken at once, however late the sending is
    threading.Thread(target=executor.spin, daemon=True).start()
    if not cameras.wait_for_subscriptions(60):
        sys.exit('bench.cameras: vseg_node did not subscribe to every camera within 60 s')
    cameras.drive(rate, seconds)
    print('result ' + json.dumps(cameras.ages), flush=True)
    executor.shutdown()     # before its node: DDS gives back its shared memory
    cameras.destroy_node()
    rclpy.shutdown()


if __name__ == '__main__':
    main()
