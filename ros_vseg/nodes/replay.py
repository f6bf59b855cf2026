# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
A node that plays a bag's, a video's or a folder's images over DDS, for want of rosbag2.

Publishes ``camera/image`` (rgb8) and, where the source has exact labels, ``camera/exact_label``
(mono8, the same stamp); remap them to any camera. Ends by itself after the last image:
``ros2 run ros_vseg replay --ros-args -p path:=drive.mcap -p rate:=2.0``.
"""
import signal
import sys
import time

import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ros_vseg.errors import VsegError
from ros_vseg.image import fill_image
from ros_vseg.media.sources import open_source
from ros_vseg.nodes.parameters import declare, Parameter

REPLAY = (
    Parameter('path', '', 'Bag, video file or folder of images to play.'),
    Parameter('source_topic', '', 'Image topic in the bag; empty: its first.'),
    Parameter('rate', 1.0, 'Speed: 2.0 is twice as fast as recorded.',
              minimum=0.01, maximum=100.0),
    Parameter('loop', False, 'Start again at the end, until interrupted.'),
    Parameter('clock', False,
              "Keep the source's stamps and publish them as /clock; false: stamp images now."),
    Parameter('wait', 10.0, 'Seconds to wait at most for a first subscriber of the images.',
              minimum=0.0, maximum=3600.0),
)
SETTLE = 0.5            # seconds from the first subscriber to the first image, for the others;
#                         and from the last image to the end: best effort readers never confirm
CLOCK_PERIOD = 0.01     # seconds between two /clock messages


class Replay(Node):
    """Plays one source; ``run`` returns what was sent, in words. VsegError: a bad path."""

    def __init__(self, executor):
        super().__init__('replay')
        declare(self, REPLAY)
        path = self._value('path')
        if not path:
            raise VsegError('no path: name a bag, a video or a folder with -p path:=...')
        self._source = open_source(path, self._value('source_topic') or None)
        self._keep_stamps = self._value('clock')
        self._image = self.create_publisher(Image, 'camera/image', QoSProfile(depth=5))
        # Latched: who compares may be discovered only after the first frames.
        self._exact = self.create_publisher(Image, 'camera/exact_label', QoSProfile(
            depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        self._sim_clock = self._keep_stamps and self.create_publisher(
            Clock, '/clock', QoSProfile(depth=1))
        self._executor = executor
        executor.add_node(self)

    def run(self):
        """Play to the end, or for ever with ``loop``."""
        self._wait_for_subscriber()
        sent = self._play()
        while self._value('loop'):
            sent += self._play()
        for publisher in (self._image, self._exact):
            publisher.wait_for_all_acked(Duration(seconds=5))
        self._sleep(SETTLE)
        left_out = self._source.refused.total()
        return f'sent {sent} frames' + (f', left out {left_out} damaged' if left_out else '')

    def _value(self, name):
        return self.get_parameter(name).value

    def _wait_for_subscriber(self):
        deadline = time.monotonic() + self._value('wait')
        while not self._image.get_subscription_count():
            if time.monotonic() > deadline:
                self.get_logger().warning(
                    f'nobody subscribes to {self._image.topic_name}: playing all the same')
                return
            self._sleep(0.02)
        self._sleep(SETTLE)

    def _play(self):
        """Send every frame at its time; late ones at once, none is left out."""
        rate, begin, sent = self._value('rate'), time.monotonic(), 0
        first = None
        for frame in self._source:
            first = frame.stamp if first is None else first
            due = begin + (frame.stamp - first) / 1e9 / rate
            self._sleep(due - time.monotonic(), frame.stamp)
            self._send(frame)
            sent += 1
        return sent

    def _send(self, frame):
        now = self.get_clock().now()
        stamp = Time(nanoseconds=frame.stamp) if self._keep_stamps else now
        header = Header(stamp=stamp.to_msg(), frame_id=frame.frame_id)
        if frame.labels is not None:
            self._exact.publish(fill_image(Image(header=header), frame.labels, 'mono8'))
        self._image.publish(fill_image(Image(header=header), frame.image, 'rgb8'))

    def _sleep(self, seconds, until_stamp=None):
        """Serve parameters for ``seconds``; /clock runs up to ``until_stamp`` (ns) meanwhile."""
        rate, deadline = self._value('rate'), time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if self._sim_clock and until_stamp is not None:
                now = until_stamp - max(0, round(left * rate * 1e9))
                self._sim_clock.publish(Clock(clock=Time(nanoseconds=now).to_msg()))
            if left <= 0:
                return
            self._executor.spin_once(timeout_sec=min(left, CLOCK_PERIOD))


def main(args=None):
    """Play the source and return the exit code."""
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        print(f'replay: {Replay(SingleThreadedExecutor()).run()}', flush=True)
    except KeyboardInterrupt:
        pass
    except VsegError as error:
        rclpy.logging.get_logger('replay').fatal(str(error))
        return 1
    finally:
        rclpy.shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
