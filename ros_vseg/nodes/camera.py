# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: its images in, its turn on the device, its label images out."""
import time
import traceback
from typing import Any

from rclpy.node import Node

from ros_vseg.errors import BackendError, ImageError
from ros_vseg.image import ImageReader, stamp_of
from ros_vseg.labels import LabelSet
from ros_vseg.nodes.diagnostics import Statistics
from ros_vseg.nodes.inputs import Inputs
from ros_vseg.nodes.outputs import Extras, Outputs
from ros_vseg.nodes.scheduler import Arrival, RateLimit, Scheduler
from ros_vseg.stream import Stream

LOG_PERIOD = 10.0     # seconds between two log lines about the same cause


class Camera:
    """
    Labels the images of ``<name>/image`` or ``<name>/image/compressed`` with one stream.

    While active it is subscribed only as long as something subscribes to one of its outputs. The
    parameters max_gap, overlay_alpha, and those of the camera itself, apply at once.
    """

    def __init__(self, node: Node, name: str, stream: Stream, label_set: LabelSet,
                 extras: Extras = Extras()) -> None:
        """
        Create the publishers.

        Args:
            node: the rclpy node.
            name: of the camera, such as front.
            stream: of the backend, for this camera alone.
            label_set: what the published ids mean.
            extras: masks and probabilities to publish.
        """
        self.name = name
        self.priority = 1.0     # see scheduler.Served
        self.statistics = Statistics()
        self.inputs = Inputs(node, name, self._on_image,
                             lambda number: self.statistics.count('lost_in_transport', number))
        self.outputs = Outputs(
            node, name, label_set, stream.info, extras, self.statistics.count)
        self._node = node
        self._logger = node.get_logger()
        self._stream = stream
        self._reader = ImageReader(
            self.inputs.topic, self._value('bit_depth'), self._value('depth_as_grey'))
        self._scheduler: Scheduler | None = None    # while active
        self._limit = RateLimit()
        self._reset_cause: str | None = None
        self._logged: dict[str, float] = {}         # time of the last log line by cause
        self._rate_logged = False

    @property
    def active(self) -> bool:
        """Whether it labels."""
        return self._scheduler is not None

    @property
    def topic(self) -> str:
        """Topic of its raw images."""
        return self.inputs.topic

    def activate(self, scheduler: Scheduler) -> None:
        """Hand frames to ``scheduler``, which calls ``serve``."""
        self._scheduler = scheduler

    def deactivate(self) -> None:
        """Unsubscribe; the scheduler is stopped by who started it."""
        self._scheduler = None
        self.update_subscriptions()

    def destroy(self) -> None:
        """Unsubscribe, and take the topics away."""
        self.deactivate()
        self.outputs.destroy()

    def request_reset(self) -> None:
        """Empty the prototype pool before the next frame."""
        self._reset_cause = 'request'

    def update_subscriptions(self) -> None:
        """Subscribe and unsubscribe, to follow who listens and who publishes; call it often."""
        self.inputs.update(self.active and self.outputs.any_wanted())

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(f'{self.name}.{name}').value

    def _on_image(self, message: Any) -> None:
        now, scheduler = time.monotonic(), self._scheduler
        self.statistics.count('received')
        self.priority = self._value('priority')     # the scheduler's threads ask for it
        if scheduler is None:
            self.statistics.count('dropped_inactive')
        elif not self._limit.admits(now, self._value('max_rate')):
            self.statistics.count('dropped_max_rate')
        elif scheduler.put(self, Arrival(message, now)):
            self.statistics.count('dropped_superseded')

    def serve(self, frame: Arrival) -> None:
        """Label a frame and publish the result; what goes wrong is counted and logged."""
        try:
            self._label(frame.message, frame.time)
        except ImageError as error:
            self._refuse(frame.message, error.cause, str(error))
        except BackendError as error:   # a GPU that is lost, and no backend stands by
            self._refuse(frame.message, 'backend', str(error))
        except Exception as error:      # a bug or a device: say all, go on with the next
            known = 'internal' in self._logged
            self._refuse(
                frame.message, 'internal', repr(error) if known else traceback.format_exc())
            self._reset_cause = 'internal'

    def turn_away(self, frame: Arrival) -> None:
        """See scheduler.Served."""
        self.statistics.count('dropped_inactive')

    def _refuse(self, message: Any, cause: str, reason: str) -> None:
        self.statistics.count(f'dropped_{cause}')
        self._complain(cause, f'image on {self.inputs.topic_of(message)} not labelled: {reason}')

    def _complain(self, cause: str, text: str) -> None:
        now = time.monotonic()
        if now - self._logged.get(cause, -LOG_PERIOD) >= LOG_PERIOD:
            self._logged[cause] = now
            self._logger.error(text)

    def _label(self, message: Any, arrival: float) -> None:
        start = time.monotonic()
        image = self._reader.read_raw(message, self._stream.raw_encodings)
        converted = time.monotonic()

        cause, self._reset_cause = self._reset_cause, None  # a request may come meanwhile
        if cause:
            self._stream.reset(cause)
        self._stream.max_gap = self._node.get_parameter('max_gap').value
        stamp = stamp_of(message)
        result = self._stream.step(
            image, stamp, message.header.frame_id, confidence=self.outputs.wanted('confidence'))
        if result.reset:
            self.statistics.count(f'resets_{result.reset}')

        computed = time.monotonic()
        self.outputs.publish_label(message.header, result.labels)
        published = time.monotonic()
        self.statistics.labelled(result, {
            'latency': (self._node.get_clock().now().nanoseconds - stamp) / 1e9,
            'processing': published - arrival,
            'wait': start - arrival,
            'image': converted - start,
            **result.times,
            'publish': published - computed}, self._stream.rate.problem)
        self._warn_of_rate()
        try:
            self.outputs.publish_rest(message.header, image, result, self.inputs.camera_info)
        except Exception:   # the frame is labelled all the same
            self.statistics.count('failed_outputs')
            self._complain('publish', f'{self.topic}: an output beside the label is not '
                           f'published: {traceback.format_exc()}')

    def _warn_of_rate(self) -> None:
        problem = self._stream.rate.problem
        if problem and not self._rate_logged:
            self._rate_logged = True
            self._logger.warning(f'{self.topic}: {problem}')
