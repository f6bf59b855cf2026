# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
A node that puts labels on points: depth, image, label and confidence -> ``PointCloud2``.

Subscribes to ``depth`` (registered to the camera), ``image``, ``label`` and ``confidence`` of one
camera while somebody listens to ``~/points``; ``camera_info`` is the depth's. Stamp and frame of
the points are the depth's.
``ros2 run ros_vseg cloud --ros-args -r label:=/vseg_node/camera/label``
"""
from collections import Counter
import math
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from ros_vseg import interrupts
from ros_vseg.cloud import back_project, depth_in_metres, FIELDS, labelled_points, POINT
from ros_vseg.errors import ImageError
from ros_vseg.image import stamp_of, to_label_array, to_rgb
from ros_vseg.nodes import start
from ros_vseg.nodes.calibration import fits, intrinsics
from ros_vseg.nodes.diagnostics import status
from ros_vseg.nodes.matching import Matcher
from ros_vseg.nodes.parameters import declare, Parameter
from ros_vseg.nodes.start import Program

CLOUD = (
    Parameter('slop', 0.0, 'Seconds that the stamp of depth may differ from that of the label '
              'image; 0: they are equal.', minimum=0.0, maximum=1.0),
    Parameter('confidence', True,
              'Whether to wait for the confidence image; false: 1 everywhere.'),
)
LOOK = 0.5      # seconds between two looks for listeners
PATIENCE = 5.0  # seconds without points before a warning says what is missing
SENSOR = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
POINT_FIELDS = [PointField(name=name, offset=4 * place, count=1,
                           datatype=PointField.UINT32 if name == 'label' else PointField.FLOAT32)
                for place, name in enumerate(FIELDS)]


class Cloud(Node):
    """Publishes an organised cloud for every label image that has a depth image."""

    def __init__(self, overrides: list[Any] | None = None) -> None:
        super().__init__('cloud', parameter_overrides=overrides)
        declare(self, CLOUD)
        self._topics = ['label', 'depth', 'image']
        if self.get_parameter('confidence').value:
            self._topics.append('confidence')
        self._slop = round(self.get_parameter('slop').value * 1e9)
        self._info: CameraInfo | None = None
        self._points = self.create_publisher(PointCloud2, '~/points', QoSProfile(depth=5))
        self._inputs: list[Any] = []
        self._unstamped: set[str] = set()
        self._heard: dict[str, float] = {}  # when the newest message of each topic came
        self._refusal: str | None = None    # why the newest set became no points
        self._matcher = Matcher(self._topics, self._slop)
        self._counts = Counter(published=0, refused=0, without_camera_info=0)
        self._reported = self._counts.copy()
        self._last = time.monotonic()   # of the newest points, or of the subscription
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)    # ticks while simulated time stands
        self.create_timer(LOOK, self._look, clock=steady)
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)
        self.get_logger().info(f'points on {self._points.topic_name}')

    def _look(self) -> None:
        """Subscribe while somebody listens: labels that nobody wants are not computed."""
        wanted = self._points.get_subscription_count() > 0
        if wanted and not self._inputs:
            self._subscribe()
        elif not wanted and self._inputs:
            for subscription in self._inputs:
                self.destroy_subscription(subscription)
            self._inputs = []
        elif self._is_silent():
            self.get_logger().warning(self._silence(), throttle_duration_sec=PATIENCE)

    def _publish_diagnostics(self) -> None:
        """Tell how many clouds were published, and what was lost."""
        counts = {key: str(count) for key, count in self._counts.items()}
        unmatched = {f'unmatched_{topic}': str(count)
                     for topic, count in self._matcher.unmatched.items()}
        recent, self._reported = self._counts - self._reported, self._counts.copy()
        lost = [key for key in ('refused', 'without_camera_info') if recent[key]]
        level, text = DiagnosticStatus.OK, 'points' if self._inputs else 'nobody listens'
        if lost or self._is_silent():
            level = DiagnosticStatus.WARN
            text = f'no points: {", ".join(lost)}' if lost else self._silence()
        name = self.get_fully_qualified_name().lstrip('/')
        message = DiagnosticArray(
            status=[status(f'{name}: points', level, text, counts | unmatched)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _subscribe(self) -> None:
        self._matcher.forget()
        self._info, self._last = None, time.monotonic()     # the camera may be another now
        self._refusal = None
        self._heard.clear()
        self._inputs = [self.create_subscription(CameraInfo, 'camera_info', self._on_info, SENSOR)]
        for topic in self._topics:
            self._inputs.append(self.create_subscription(
                Image, topic, lambda message, topic=topic: self._on_image(topic, message), SENSOR))

    def _is_silent(self) -> bool:
        return bool(self._inputs) and time.monotonic() - self._last > PATIENCE

    def _silence(self) -> str:
        """Return why there are no points, though somebody listens."""
        since = time.monotonic() - PATIENCE
        missing = [topic for topic in self._topics if self._heard.get(topic, -math.inf) < since]
        missing += [] if self._info else ['camera_info']
        reason = 'stamps of depth and label image differ: raise slop'
        if missing:
            reason = f'nothing arrives on {", ".join(map(self.resolve_topic_name, missing))}'
        elif self._unstamped:
            reason = self._stamps_are_0()
        elif self._refusal:
            reason = self._refusal
        return f'no points for {PATIENCE:.0f} s: {reason}'

    def _stamps_are_0(self) -> str:
        return (f'stamps are 0: {", ".join(sorted(map(self.resolve_topic_name, self._unstamped)))}'
                ' cannot be joined by time; let the driver set header.stamp')

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_image(self, topic: str, message: Image) -> None:
        stamp = stamp_of(message)
        self._heard[topic] = time.monotonic()
        self._unstamped.discard(topic)
        if stamp == 0:
            self._unstamped.add(topic)
            self.get_logger().warning(self._stamps_are_0(), once=True)
        found = self._matcher.add(topic, stamp, message)
        if found is None:
            return
        if self._info is None:
            self._counts['without_camera_info'] += 1
            return
        try:
            self._points.publish(cloud_message(found, self._info))
            self._counts['published'] += 1
            self._last, self._refusal = time.monotonic(), None
        except ImageError as error:
            self._counts['refused'] += 1
            self._refusal = str(error)
            self.get_logger().error(str(error), throttle_duration_sec=PATIENCE)


def cloud_message(found: dict[str, Image], info: CameraInfo) -> PointCloud2:
    """
    Return the organised cloud of one time.

    Args:
        found: label (mono8), depth (16UC1 or 32FC1), image, and confidence (mono8) if wanted.
        info: of the depth; its projection matrix P, or K where P is empty.

    Raises:
        ImageError: for a depth encoding that is none, sizes that differ, or no calibration.
    """
    depth = found['depth']
    size = depth.height, depth.width
    if not fits(info, size):
        raise ImageError(
            f'camera_info is of {info.height}x{info.width}, depth is {depth.height}x'
            f'{depth.width}: remap camera_info to that of the depth', 'size')
    lens = intrinsics(info, size)
    if not (0 < lens.fx < math.inf and 0 < lens.fy < math.inf):
        raise ImageError('camera_info has no focal length: calibrate the camera', 'data')
    metres = depth_in_metres(bytes(depth.data), depth.height, depth.width, depth.step,
                             depth.encoding, bool(depth.is_bigendian))
    confidence = found.get('confidence')
    points = labelled_points(
        back_project(metres, lens), to_rgb(found['image']), to_label_array(found['label']),
        None if confidence is None else to_label_array(confidence))
    message = PointCloud2(
        header=depth.header, height=depth.height, width=depth.width, fields=POINT_FIELDS,
        is_bigendian=False, point_step=POINT.itemsize, row_step=POINT.itemsize * depth.width,
        is_dense=False)
    message.data.frombytes(points.tobytes())
    return message


def _run(cloud: Cloud) -> int:
    interrupts.defer()
    while not interrupts.asked():
        rclpy.spin_once(cloud, timeout_sec=0.2)
    return 0


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted, and return the exit code."""
    program = Program('cloud', str(__doc__).strip(), CLOUD, None, Cloud, _run)
    return start.run(lambda: program, args)


if __name__ == '__main__':
    sys.exit(main())
