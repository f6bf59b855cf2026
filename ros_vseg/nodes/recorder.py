# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
A node that keeps one camera's labels: bag, overlay video, contact sheet, summary of the run.

Subscribes ``label`` (mono8), ``overlay`` (rgb8), ``image``, ``exact_label`` (mono8, where a
replayed source has exact labels), ``label_info_json``, ``ended`` (std_msgs/UInt32: the player's
last word) and ``/diagnostics``; remap them to the camera. Ends when the player has, or by Ctrl-C:
``ros2 run ros_vseg record drive --ros-args -r label:=/vseg_node/front/label``.
"""
from collections import Counter
from collections.abc import Callable
import json
import os
from pathlib import Path
import shutil
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String, UInt32

from ros_vseg import interrupts
from ros_vseg.errors import ImageError, LabelSetError, MediaError
from ros_vseg.files import to_json, write_whole
from ros_vseg.image import stamp_of, to_label_array, to_rgb
from ros_vseg.labels import LabelSet
from ros_vseg.media.contact_sheet import contact_sheet, Samples
from ros_vseg.media.summary import Summary
from ros_vseg.media.writers import BagWriter, hold_folder, VideoWriter, write_png
from ros_vseg.nodes.parameters import declare, Parameter, path
from ros_vseg.nodes.qos import EXACT, LATCHED
from ros_vseg.nodes.start import Program

RECORD = (
    Parameter('output', 'vseg_record', 'Folder to write to.'),
    Parameter('clear', False,
              'Whether an earlier recording in the folder is removed; false: it is refused.'),
    Parameter('title', 'ros_vseg', 'Title of the contact sheet.'),
    Parameter('end_after', 0.0,
              'End when no label has come for so many seconds; 0: only when the player has ended.',
              minimum=0.0, maximum=86400.0),
    Parameter('patience', 60.0, 'Give up when no first label has come for so many seconds.',
              minimum=0.1, maximum=86400.0),
)
READY = 'recording to'      # logged once the camera's outputs are there
LAST_LABELS = 3.0           # seconds without a label after the player has ended
RESULTS = ('labels', 'overlay.mp4', 'contact_sheet.png', 'summary.json')

Pixels = npt.NDArray[np.uint8]


class OverlayVideo:
    """
    A video whose frame rate is taken from the stamps of its first frames.

    When it cannot be written ``problem`` says why, and it is given up.
    """

    FRAMES_FOR_RATE = 15

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: VideoWriter | None = None
        self._images: list[Pixels] = []
        self._stamps: list[int] = []
        self.problem: str | None = None

    def add(self, image: Pixels, stamp: int) -> None:
        """Append ``image`` uint8 [H,W,3] RGB of time ``stamp``, ns."""
        if self.problem:
            return
        self._images.append(image)
        if not self._writer:
            self._stamps.append(stamp)
        if self._writer or len(self._images) == self.FRAMES_FOR_RATE:
            self._try(self._flush)

    def _flush(self) -> None:
        if not self._writer:
            gaps = [gap for gap in np.diff(self._stamps) if gap > 0]
            self._writer = VideoWriter(self._path, 1e9 / np.median(gaps) if gaps else 15.0)
        for image in self._images:
            self._writer.write(image)
        self._images.clear()

    def _finish(self) -> None:
        if self._images:
            self._flush()
        if self._writer:
            self._writer.close()

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except MediaError as error:
            self.problem = str(error)
            self._images.clear()

    def close(self) -> None:
        """Complete the file; without frames there is none."""
        if not self.problem:
            self._try(self._finish)

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._writer:
            self._writer.discard()


class Recorder(Node):
    """
    Records into the folder ``output``; ``done`` once no more labels are to come.

    MediaError when the folder cannot be written, or another recorder writes to it.
    """

    def __init__(self, overrides: list[Any] | None = None) -> None:
        super().__init__('record', parameter_overrides=overrides)
        declare(self, RECORD)
        output = path(self, 'output')
        if not output:      # it would be the current folder
            raise MediaError('no output: name a folder to write to: record FOLDER')
        self.output = Path(output)
        self._hold = hold_folder(self.output)
        clear_results(self.output, self.get_parameter('clear').value)
        self.done = False
        self._bag = BagWriter(self.output / 'labels')
        self._video = OverlayVideo(self.output / 'overlay.mp4')
        self._summary, self._samples = Summary(), Samples()
        self._label_set: LabelSet | None = None
        self._overlays = 0
        self._diagnostics: dict[str, dict[str, str]] = {}
        self._damaged: Counter[str] = Counter()     # messages by topic
        self._ready, self._ended, self._last = False, False, time.monotonic()
        self._outputs = (self.create_subscription(Image, 'label', self._on_label, 10),
                         self.create_subscription(Image, 'overlay', self._on_overlay, 10))
        self.create_subscription(Image, 'exact_label', self._on_exact, EXACT)
        self.create_subscription(String, 'label_info_json', self._on_label_info, LATCHED)
        self.create_subscription(UInt32, 'ended', self._on_ended, LATCHED)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)    # ticks while simulated time stands
        self.create_timer(0.1, self._watch, clock=steady)
        self.create_timer(1.0, self._tell, clock=steady)

    def _read(self, topic: str, read: Callable[[Image], Pixels], msg: Image) -> Pixels | None:
        """Return the pixels of a message, None if it is damaged: counted, and the first told."""
        try:
            return read(msg)
        except ImageError as error:
            if not self._damaged[topic]:
                self.get_logger().error(f'a message on {topic} is left out: {error}')
            self._damaged[topic] += 1
            return None

    def _on_label(self, msg: Image) -> None:
        now = self.get_clock().now().nanoseconds
        stamp, labels = stamp_of(msg), self._read('label', to_label_array, msg)
        if labels is None:
            return
        self._last = time.monotonic()
        if not self._summary.labels:
            # Not earlier: a replay that waits for a first subscriber is to wait for the labeller.
            self.create_subscription(Image, 'image', self._on_image, qos_profile_sensor_data)
        self._summary.add_label(labels, stamp, now)
        self._samples.add_labels(labels, stamp)
        self._bag.image('label', labels, 'mono8', stamp, msg.header.frame_id)

    def _on_overlay(self, msg: Image) -> None:
        image = self._read('overlay', to_rgb, msg)
        if image is not None:
            self._overlays += 1
            self._video.add(image, stamp_of(msg))

    def _on_image(self, msg: Image) -> None:
        image = self._read('image', to_rgb, msg)
        if image is not None:
            self._samples.add_image(image, stamp_of(msg))

    def _on_exact(self, msg: Image) -> None:
        labels = self._read('exact_label', to_label_array, msg)
        if labels is not None:
            self._summary.add_exact(labels, stamp_of(msg))

    def _on_label_info(self, msg: String) -> None:
        try:
            self._label_set = LabelSet.from_dict(json.loads(msg.data))
        except (ValueError, TypeError, RecursionError) as error:    # LabelSetError is a ValueError
            reason = error if isinstance(error, LabelSetError) else 'it is not such JSON'
            self.get_logger().error(f'label_info is left out: {reason}')
            self._damaged['label_info_json'] += 1

    def _on_ended(self, msg: UInt32) -> None:
        self.get_logger().info(f'the player has sent its last image, number {msg.data}')
        self._ended, self._last = True, time.monotonic()

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            self._diagnostics[status.name] = {item.key: item.value for item in status.values}

    def _tell(self) -> None:
        print(f'labels {self._summary.labels}', flush=True)

    def _watch(self) -> None:
        # without the classes there is no contact sheet: they are latched, but may come late
        if not self._ready and self._label_set and all(map(self._matched, self._outputs)):
            self._ready = True
            self.get_logger().info(f'{READY} {self.output}')
        limit = self.get_parameter('patience').value
        if self._ended:
            limit = LAST_LABELS
        elif self._summary.labels:
            limit = self.get_parameter('end_after').value or float('inf')
        self.done = time.monotonic() - self._last > limit

    def _matched(self, subscription: Any) -> bool:
        if hasattr(subscription, 'get_publisher_count'):    # this end knows it, not only the graph
            return bool(subscription.get_publisher_count())
        return bool(self.count_publishers(subscription.topic_name))     # Humble

    def close(self) -> dict[str, Any]:
        """
        Complete bag, video, contact sheet and summary.json.

        Returns the summary, without labels if none came; its ``problems`` say what was left out
        and which outputs could not be written. One that fails does not take the others with it.
        """
        try:
            return self._close()
        finally:
            os.close(self._hold)

    def _close(self) -> dict[str, Any]:
        problems = self._left_out()
        foreign = [name for name in ('labels', 'summary.json') if (self.output / name).exists()]
        if not self._summary.labels or foreign:
            self._bag.discard()
            self._video.discard()
            if foreign:     # where folders cannot be held, or this one was replaced meanwhile
                problems.append(f'{self.output} got {", ".join(foreign)} of another recording '
                                'meanwhile, so that this one is lost: choose another output')
            return {'labels': self._summary.labels, 'problems': problems}
        names = self._label_set.names if self._label_set else ()
        problems += self._summary.problems(names)
        if not names:
            problems.append('no label_info came, so that there is no contact sheet and no IoU: '
                            'remap label_info_json to that of the node')
        result = self._summary.to_dict(names)
        result.update(overlays=self._overlays, damaged=dict(self._damaged),
                      diagnostics=self._diagnostics, problems=problems)
        if names and (missing := self._samples.missing()):
            result['no_contact_sheet'] = missing    # no problem: who wants none sends no images
            self.get_logger().warning(f'no contact sheet: {missing}')
        self._video.close()
        if self._video.problem:
            problems.append(self._video.problem)
        for write in (self._bag.close, lambda: self._write_sheet(result)):
            try:
                write()
            except MediaError as error:
                problems.append(str(error))
        try:
            write_whole(self.output / 'summary.json', f'{to_json(result, indent=2)}\n'.encode())
        except OSError as error:
            problems.append(f'{self.output}/summary.json cannot be written ({error.strerror})')
        return result

    def _left_out(self) -> list[str]:
        return [f'{count} damaged messages on {topic} were left out; the log says why'
                for topic, count in sorted(self._damaged.items())]

    def _write_sheet(self, result: dict[str, Any]) -> None:
        rows = self._samples.rows()
        if rows and self._label_set:
            title = self.get_parameter('title').value
            write_png(self.output / 'contact_sheet.png',
                      contact_sheet(rows, self._label_set, title, _subtitle(result)))


def clear_results(output: Path, clear: bool) -> None:
    """Remove or refuse an earlier recording in a folder; MediaError for what is not one."""
    found = [name for name in RESULTS if (output / name).exists()]
    if found and not clear:
        raise MediaError(f'{output} has {", ".join(found)} of an earlier recording: choose '
                         'another output, or have it removed with clear:=true')
    folder = output / 'labels'
    if folder.exists() and not (folder / 'metadata.yaml').exists():
        raise MediaError(f'{folder} exists and is not a bag: remove it or choose another output')
    for name in found:
        if (output / name).is_dir():
            shutil.rmtree(output / name)
        else:
            (output / name).unlink()


def _subtitle(result: dict[str, Any]) -> str:
    latency = result['latency_ms']
    text = f'{result["labels"]} label images, {result["fps"]:.1f} a second, latency '
    text += (f'{latency["p50"]:.0f} ms (p99 {latency["p99"]:.0f} ms)' if latency else
             result['latency'])
    if 'miou' in result:
        text += f', mIoU {100 * result["miou"]:.1f} % against exact labels'
    return text


def _run(recorder: Recorder) -> int:
    interrupts.defer()  # never in the middle of a message of the bag
    try:
        while not (recorder.done or interrupts.asked()):
            rclpy.spin_once(recorder, timeout_sec=0.2)
    finally:
        result = recorder.close()
    problems = result['problems']
    if not result['labels'] and not problems:
        problems = ['no label image came: is vseg_node active, and does its camera publish?']
    for problem in problems:
        print(f'record: error: {problem}', file=sys.stderr)
    return 1 if problems else 0


PROGRAM = Program('record', str(__doc__).strip(), RECORD, 'output', Recorder, _run)
