# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Sends images as a camera driver does, and counts in another process how many arrive.

``python -m ros_vseg.nodes.burst receive CAMERAS`` counts; ``... send CAMERAS HEIGHT WIDTH`` sends
rgb8 images of that size for each camera, and prints one JSON line at its end: ``sent`` and
``arrived``. Small images before and after tell that the two have met and that all has come through
that will come, so no count depends on how fast the machine is. ``vseg doctor --dds`` starts both.
"""
from array import array
import json
import sys
import time
from typing import Callable, NoReturn

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ros_vseg import interrupts
from ros_vseg.nodes import start

BURSTS = 20         # images of each camera
PERIOD = 1 / 15     # seconds between two images of a camera
PATIENCE = 60.0     # seconds for the other process; only one that cannot be reached uses them up
REPEAT = 0.2        # seconds after which a small image or an answer is sent again
HELLO, END = 'hello', 'end'     # frame_id of the small images; the others' is their number


def topics(cameras: int) -> list[str]:
    """Return the image topics of so many cameras."""
    return [f'burst/camera{number}' for number in range(cameras)]


def rgb8(height: int, width: int) -> Image:
    """Return a black image."""
    return Image(height=height, width=width, encoding='rgb8', step=3 * width,
                 data=array('B', bytes(3 * width * height)))


class Sender(Node):
    """Publishes with the QoS that camera drivers have: reliable, a short queue."""

    def __init__(self, cameras: int) -> None:
        super().__init__('burst_sender')
        self._images = {topic: self.create_publisher(Image, topic, 5) for topic in topics(cameras)}
        self._answer: dict[str, list[str]] = {}     # frame_ids that have arrived, by topic
        self.create_subscription(String, 'burst/answer', self._on_answer, 10)

    def _on_answer(self, message: String) -> None:
        self._answer = json.loads(message.data)

    def run(self, image: Image) -> dict[str, int]:
        """Send BURSTS copies of an image for each camera; return how many, and how many came."""
        self._repeat(HELLO)
        begin = time.monotonic()
        for number in range(BURSTS):
            self._serve(begin + number * PERIOD - time.monotonic(), lambda: False)
            image.header.frame_id = str(number)
            for publisher in self._images.values():
                publisher.publish(image)
        self._repeat(END)
        arrived = sum(len(set(seen) - {HELLO, END}) for seen in self._answer.values())
        return {'sent': BURSTS * len(self._images), 'arrived': arrived}

    def _repeat(self, name: str) -> None:
        """Send a small image for each camera until all of them have arrived."""
        small, deadline = rgb8(1, 1), time.monotonic() + PATIENCE
        small.header.frame_id = name

        def arrived() -> bool:
            return all(name in self._answer.get(topic, ()) for topic in self._images)
        while not arrived():
            if interrupts.asked() or time.monotonic() > deadline:
                sys.exit(f'burst: the receiver did not answer within {PATIENCE:.0f} s')
            for publisher in self._images.values():
                publisher.publish(small)
            self._serve(REPEAT, arrived)

    def _serve(self, seconds: float, ended: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not ended():
            rclpy.spin_once(self, timeout_sec=left)


class Receiver(Node):
    """Takes images as vseg_node does, best effort, and tells again and again which have come."""

    def __init__(self, cameras: int) -> None:
        super().__init__('burst_receiver')
        # a queue that holds all: what is missing was lost on its way, not here
        qos = QoSProfile(depth=2 * BURSTS, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._seen: dict[str, list[str]] = {topic: [] for topic in topics(cameras)}
        for topic in self._seen:
            self.create_subscription(
                Image, topic, lambda message, topic=topic: self._on_image(topic, message), qos)
        self._answers = self.create_publisher(String, 'burst/answer', 10)
        self.create_timer(REPEAT, self._answer)

    def _on_image(self, topic: str, message: Image) -> None:
        if message.header.frame_id not in self._seen[topic]:
            self._seen[topic].append(message.header.frame_id)

    def _answer(self) -> None:
        self._answers.publish(String(data=json.dumps(self._seen)))


def main() -> NoReturn:
    """Send and print the counts, or receive until the process is asked to end."""
    role, cameras, *size = sys.argv[1], *map(int, sys.argv[2:])
    interrupts.defer()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node: Sender | Receiver
    if role == 'send':
        node = Sender(cameras)
        print('result ' + json.dumps(node.run(rgb8(*size))))
    else:
        node = Receiver(cameras)
        while not interrupts.asked():
            rclpy.spin_once(node, timeout_sec=REPEAT)
    start.close(node)
    interrupts.leave(0)


if __name__ == '__main__':
    main()
