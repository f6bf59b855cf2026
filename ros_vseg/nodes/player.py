# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
A node that plays a bag's, a video's or a folder's images over DDS, for want of rosbag2.

Publishes ``camera/image`` (rgb8) and, where the source has exact labels, ``camera/exact_label``
(mono8, the same stamp); remap them to any camera. Ends by itself after the last image, and says
so on ``camera/ended`` (std_msgs/UInt32, latched: the number of images sent):
``ros2 run ros_vseg replay drive.mcap --ros-args -p rate:=2.0``.
"""
import time
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header, UInt32

from ros_vseg import interrupts
from ros_vseg.errors import VsegError
from ros_vseg.image import fill_image
from ros_vseg.media.frames import Frame
from ros_vseg.media.sources import open_source
from ros_vseg.nodes.parameters import declare, Parameter, path
from ros_vseg.nodes.qos import EXACT, LATCHED
from ros_vseg.nodes.start import Program

REPLAY = (
    Parameter('path', '', 'Bag, video file or folder of images to play.'),
    Parameter('source_topic', '', 'Image topic in the bag; empty: its only one.'),
    Parameter('rate', 1.0, 'Speed: 2.0 is twice as fast as recorded.',
              minimum=0.01, maximum=100.0),
    Parameter('loop', False, 'Start again at the end, until interrupted.'),
    Parameter('clock', False,
              "Keep the source's stamps and publish them as /clock; false: stamp images now."),
    Parameter('wait', 10.0, 'Seconds to wait at most for a first subscriber of the images.',
              minimum=0.0, maximum=3600.0),
    Parameter('max_pause', 10.0,
              'Longest pause between two images, in seconds of the recording; a longer one, or a '
              'jump of the stamps, is shortened to it; 0: images as fast as they can be sent.',
              minimum=0.0, maximum=1e9),
)
PERIOD = 1 / 15         # seconds from a single image to itself, played in a loop
SETTLE = 0.5            # seconds from the first subscriber to the first image, for the others;
#                         and from the last image to the end: best effort readers never confirm
LATE = 2.0              # seconds; how late a recorder may be discovered
CLOCK_PERIOD = 0.01     # seconds between two /clock messages
WORTH_TELLING = 2.0     # seconds; a longer pause is announced


class Replay(Node):
    """Plays one source; ``run`` returns what was sent, in words. VsegError: a bad path."""

    def __init__(self, overrides: list[Any] | None = None) -> None:
        super().__init__('replay', parameter_overrides=overrides)
        declare(self, REPLAY)
        source = path(self, 'path')
        if not source:
            raise VsegError('no path: name a bag, a video or a folder: replay PATH')
        self._source = open_source(source, self._value('source_topic') or None)
        self._keep_stamps = self._value('clock')
        self._image = self.create_publisher(Image, 'camera/image', QoSProfile(depth=5))
        # Latched: who compares may be discovered only after the first frames.
        self._exact = self.create_publisher(Image, 'camera/exact_label', EXACT)
        self._ended = self.create_publisher(UInt32, 'camera/ended', LATCHED)
        self._sim_clock = self._keep_stamps and self.create_publisher(
            Clock, '/clock', QoSProfile(depth=1))
        self._sent = self._shortened = 0    # frames, pauses

    def run(self) -> str:
        """Play to the end, or for ever with ``loop``; VsegError if no frame could be sent."""
        self._wait_for_subscriber()
        try:
            self._play()
            while self._value('loop') and self._sent:
                self._play()
        finally:    # interrupted too: who waits for the rest need not
            self._ended.publish(UInt32(data=self._sent))
        self._wait_for_recorder()
        for publisher in (self._image, self._exact, self._ended):
            publisher.wait_for_all_acked(Duration(seconds=5))
        self._sleep(SETTLE)
        if not self._sent:
            raise VsegError(f'nothing could be sent: {self._source.name} has no readable frame '
                            f'(left out: {self._source.left_out() or "none"})')
        left_out = sum(self._source.refused.values())
        return f'sent {self._sent} frames' + (
            f', left out {left_out} damaged' if left_out else '') + (
            f', shortened {self._shortened} pauses to max_pause' if self._shortened else '')

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _wait_for_subscriber(self) -> None:
        deadline = time.monotonic() + self._value('wait')
        while not self._image.get_subscription_count():
            if time.monotonic() > deadline:
                self.get_logger().warning(
                    f'nobody subscribes to {self._image.topic_name}: playing all the same')
                return
            self._sleep(0.02)
        self._sleep(SETTLE)

    def _wait_for_recorder(self) -> None:
        """Give a recorder that has not been discovered yet a chance to hear of the end."""
        deadline = time.monotonic() + LATE
        while not self._ended.get_subscription_count() and time.monotonic() < deadline:
            self._sleep(0.02)

    def _play(self) -> None:
        """Send every frame at its time; late ones at once, none is left out."""
        rate, due, pause = self._value('rate'), time.monotonic(), PERIOD
        last: int | None = None
        for frame in self._source:
            if last is not None:
                pause = self._pause((frame.stamp - last) / 1e9)
                due += pause / rate
            last = frame.stamp
            self._sleep(due - time.monotonic(), frame.stamp)
            self._send(frame)
            self._sent += 1
        if self._value('loop') and self._sent:
            self._sleep(due + pause / rate - time.monotonic())  # as to a next image

    def _pause(self, seconds: float) -> float:
        """Return how long to wait for the next image, in seconds of the recording."""
        longest = self._value('max_pause')
        if seconds < 0:
            self.get_logger().warning(
                f'the stamps go back by {-seconds:.3f} s: the next image is sent at once')
            return 0.0
        if seconds > longest:
            self._shortened += 1
            self.get_logger().warning(
                f'the next image is stamped {seconds:.3f} s later: it is sent after {longest:g} s '
                '(parameter max_pause); further ones are counted', once=True)
            return float(longest)
        if seconds > WORTH_TELLING:
            self.get_logger().info(f'no image for {seconds:.1f} s in the recording')
        return seconds

    def _send(self, frame: Frame) -> None:
        now = self.get_clock().now()
        stamp = Time(nanoseconds=frame.stamp) if self._keep_stamps else now
        header = Header(stamp=stamp.to_msg(), frame_id=frame.frame_id)
        if frame.labels is not None:
            self._exact.publish(fill_image(Image(header=header), frame.labels, 'mono8'))
        self._image.publish(fill_image(Image(header=header), frame.image, 'rgb8'))

    def _sleep(self, seconds: float, until_stamp: int | None = None) -> None:
        """Serve parameters for ``seconds``; /clock runs up to ``until_stamp`` (ns) meanwhile."""
        rate, deadline = self._value('rate'), time.monotonic() + seconds
        while True:
            interrupts.raise_if_asked()
            left = deadline - time.monotonic()
            if self._sim_clock and until_stamp is not None:
                now = max(0, until_stamp - max(0, round(left * rate * 1e9)))
                self._sim_clock.publish(Clock(clock=Time(nanoseconds=now).to_msg()))
            if left <= 0:
                return
            rclpy.spin_once(self, timeout_sec=min(left, CLOCK_PERIOD))


def _run(replay: Replay) -> int:
    interrupts.defer()
    try:
        print(f'replay: {replay.run()}', flush=True)
    except interrupts.Interrupted:
        pass
    return 0


PROGRAM = Program('replay', str(__doc__).strip(), REPLAY, 'path', Replay, _run)
