# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
A node that keeps one camera's labels: bag, overlay video, contact sheet, summary of the run.

Subscribes ``label`` (mono8), ``overlay`` (rgb8), ``image``, ``exact_label`` (mono8, where a
replayed source has exact labels), ``label_info_json`` and ``/diagnostics``; remap them to the
camera: ``ros2 run ros_vseg record --ros-args -r label:=/vseg_node/front/label -p output:=drive``.
"""
import json
from pathlib import Path
import sys
import time

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, qos_profile_sensor_data, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ros_vseg.errors import VsegError
from ros_vseg.image import to_label_array, to_rgb
from ros_vseg.labels import LabelSet
from ros_vseg.media.contact_sheet import contact_sheet, Samples
from ros_vseg.media.summary import Summary
from ros_vseg.media.writers import BagWriter, VideoWriter, write_png
from ros_vseg.nodes.parameters import declare, Parameter

RECORD = (
    Parameter('output', 'vseg_record', 'Folder to write to.'),
    Parameter('end_after', 3.0, 'End when no label has come for so many seconds.',
              minimum=0.1, maximum=86400.0),
    Parameter('patience', 60.0, 'Give up when no first label has come for so many seconds.',
              minimum=0.1, maximum=86400.0),
)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
EXACT = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
READY = 'recording to'      # logged once the camera's outputs are there


class OverlayVideo:
    """A video whose frame rate is taken from the stamps of its first frames."""

    FRAMES_FOR_RATE = 15

    def __init__(self, path):
        self._path, self._writer = path, None
        self._images, self._stamps = [], []

    def add(self, image, stamp):
        """Append ``image`` uint8 [H,W,3] RGB of time ``stamp``, ns."""
        if self._writer:
            self._writer.write(image)
            return
        self._images.append(image)
        self._stamps.append(stamp)
        if len(self._images) == self.FRAMES_FOR_RATE:
            self._open()

    def _open(self):
        gap = np.median(np.diff(self._stamps)) if len(self._stamps) > 1 else 0
        self._writer = VideoWriter(self._path, 1e9 / gap if gap > 0 else 15.0)
        for image in self._images:
            self._writer.write(image)
        self._images.clear()

    def close(self):
        """Complete the file; without frames there is none."""
        if self._images:
            self._open()
        if self._writer:
            self._writer.close()


class Recorder(Node):
    """
    Records into the folder ``output``; ``done`` once no label comes any more.

    MediaError when the folder cannot be written.
    """

    def __init__(self):
        super().__init__('record')
        declare(self, RECORD)
        self.output = Path(self.get_parameter('output').value)
        self.done = False
        self._bag = BagWriter(self.output / 'labels')
        self._video = OverlayVideo(self.output / 'overlay.mp4')
        self._summary, self._samples = Summary(), Samples()
        self._label_set, self._overlays, self._diagnostics = None, 0, {}
        self._ready, self._last = False, time.monotonic()
        self._outputs = (self.create_subscription(Image, 'label', self._on_label, 10),
                         self.create_subscription(Image, 'overlay', self._on_overlay, 10))
        self.create_subscription(Image, 'exact_label', self._on_exact, EXACT)
        self.create_subscription(String, 'label_info_json', self._on_label_info, LATCHED)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.create_timer(0.1, self._watch)
        self.create_timer(1.0, lambda: print(f'labels {self._summary.labels}', flush=True))

    def _on_label(self, msg):
        now, self._last = self.get_clock().now().nanoseconds, time.monotonic()
        stamp, labels = _nanoseconds(msg), to_label_array(msg)
        if not self._summary.labels:
            # Not earlier: a replay that waits for a first subscriber is to wait for the labeller.
            self.create_subscription(Image, 'image', self._on_image, qos_profile_sensor_data)
        self._summary.add_label(labels, stamp, now)
        self._samples.add_labels(labels, stamp)
        self._bag.image('label', labels, 'mono8', stamp, msg.header.frame_id)

    def _on_overlay(self, msg):
        self._overlays += 1
        self._video.add(to_rgb(msg), _nanoseconds(msg))

    def _on_image(self, msg):
        self._samples.add_image(to_rgb(msg), _nanoseconds(msg))

    def _on_exact(self, msg):
        self._summary.add_exact(to_label_array(msg), _nanoseconds(msg))

    def _on_label_info(self, msg):
        self._label_set = LabelSet.from_dict(json.loads(msg.data))

    def _on_diagnostics(self, msg):
        for status in msg.status:
            self._diagnostics[status.name] = {item.key: item.value for item in status.values}

    def _watch(self):
        # without the classes there is no contact sheet: they are latched, but may come late
        if not self._ready and self._label_set and all(map(self._matched, self._outputs)):
            self._ready = True
            self.get_logger().info(f'{READY} {self.output}')
        limit = 'end_after' if self._summary.labels else 'patience'
        self.done = time.monotonic() - self._last > self.get_parameter(limit).value

    def _matched(self, subscription):
        if hasattr(subscription, 'get_publisher_count'):    # this end knows it, not only the graph
            return subscription.get_publisher_count()
        return self.count_publishers(subscription.topic_name)   # Humble

    def close(self):
        """Complete bag, video, contact sheet and summary.json; return the summary."""
        self._video.close()
        if not self._summary.labels:
            self._bag.discard()
            return self._summary.to_dict()
        self._bag.close()
        result = self._summary.to_dict(self._label_set.names if self._label_set else ())
        result.update(overlays=self._overlays, diagnostics=self._diagnostics)
        rows = self._samples.rows()
        if rows and self._label_set:
            write_png(self.output / 'contact_sheet.png',
                      contact_sheet(rows, self._label_set, 'ros_vseg', _subtitle(result)))
        (self.output / 'summary.json').write_text(json.dumps(result, indent=2) + '\n')
        return result


def _nanoseconds(msg):
    return msg.header.stamp.sec * 10**9 + msg.header.stamp.nanosec


def _subtitle(result):
    latency = result['latency_ms']
    text = (f'{result["labels"]} label images, {result["fps"]:.1f} a second, '
            f'latency {latency["p50"]:.0f} ms (p99 {latency["p99"]:.0f} ms)')
    if 'miou' in result:
        text += f', mIoU {100 * result["miou"]:.1f} % against exact labels'
    return text


def main(args=None):
    """Record until the labels end or Ctrl-C; the exit code is 1 when no label came."""
    rclpy.init(args=args)
    recorder = None
    try:
        recorder = Recorder()
        while not recorder.done:
            rclpy.spin_once(recorder, timeout_sec=0.2)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except VsegError as error:
        rclpy.logging.get_logger('record').fatal(str(error))
        return 1
    finally:
        result = recorder.close() if recorder else None
        rclpy.try_shutdown()
    if result['labels']:
        return 0
    print('record: no label image came: is vseg_node active, and does its camera publish?',
          file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())
