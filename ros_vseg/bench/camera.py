# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
A camera for the benchmarks: sends ready-made images at a fixed rate and takes the labels.

``python -m ros_vseg.bench.camera HEIGHT WIDTH RATE COUNT`` prints one JSON line at its end:
``sent``, ``labels``, ``latency_ms``, ``fps`` (see Summary) and ``diagnostics`` of the node.
"""
from itertools import islice
import json
import sys
import time

import cv2
from diagnostic_msgs.msg import DiagnosticArray
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

from ros_vseg.image import fill_image, stamp_of, to_label_array
from ros_vseg.media.sources import open_source
from ros_vseg.media.summary import Summary
from ros_vseg.processes import demo_clip


class BenchCamera(Node):
    """Publishes ``count`` images of ``size`` (H, W) at ``rate`` Hz once the node listens."""

    def __init__(self, size: tuple[int, int], rate: float, count: int) -> None:
        super().__init__('bench_camera')
        self._images = [
            fill_image(Image(), cv2.resize(frame.image, size[::-1]), 'rgb8')
            for frame in islice(open_source(demo_clip()), 8)]
        self._period, self._count = 1 / rate, count
        self.summary, self.sent = Summary(), 0
        self.camera: dict[str, str] = {}    # the last values of /diagnostics
        self._publisher = self.create_publisher(Image, 'camera/image', 5)
        self.create_subscription(Image, 'vseg_node/camera/label', self._on_label, 5)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 5)

    def wait_for_subscriber(self, timeout: float) -> bool:
        """Serve until the node subscribes; whether it did within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not self._publisher.get_subscription_count():
            if time.monotonic() > deadline:
                return False
            rclpy.spin_once(self, timeout_sec=0.05)
        self._serve(0.5)
        return True

    def run(self) -> None:
        """Send all images, each at its time, and take labels until 2 s after the last."""
        begin = time.monotonic()
        for number in range(self._count):
            self._serve(begin + number * self._period - time.monotonic())
            image = self._images[number % len(self._images)]
            image.header.stamp = self.get_clock().now().to_msg()
            self._publisher.publish(image)
            self.sent += 1
        self._serve(2.0)

    def _serve(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=left)

    def _on_label(self, msg: Image) -> None:
        now = self.get_clock().now().nanoseconds
        self.summary.add_label(to_label_array(msg), stamp_of(msg), now)

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name == 'vseg_node: camera':
                self.camera = {item.key: item.value for item in status.values}


def main() -> None:
    """Send the images and print the result; exit code 1 if the node never listened."""
    height, width, rate, count = (float(text) for text in sys.argv[1:5])
    rclpy.init()
    camera = BenchCamera((int(height), int(width)), rate, int(count))
    if not camera.wait_for_subscriber(30):
        sys.exit('bench_camera: vseg_node did not subscribe within 30 s')
    camera.run()
    result = {'sent': camera.sent, 'camera': camera.camera, **camera.summary.to_dict()}
    print('result ' + json.dumps(result), flush=True)
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
