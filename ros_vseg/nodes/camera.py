# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: subscriptions, latest-frame slot, worker thread, publishers."""
import threading
import time
import traceback

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:     # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ros_vseg.errors import BackendError, ImageError
from ros_vseg.image import fill_image, ImageReader
from ros_vseg.labels import colorize, overlay
from ros_vseg.nodes.diagnostics import Statistics

LOG_PERIOD = 10.0     # seconds between two log lines about the same cause

INPUTS = {'image': Image, 'image/compressed': CompressedImage, 'camera_info': CameraInfo}
OUTPUTS = {
    'label': Image, 'color': Image, 'overlay': Image, 'confidence': Image,
    'camera_info': CameraInfo}


class LatestSlot:
    """Holds one item between two threads; a newer one replaces it."""

    def __init__(self):
        self._changed = threading.Condition()
        self._item = None
        self._closed = False

    def put(self, item):
        """Store ``item``; return whether it replaced one that nobody took."""
        with self._changed:
            replaced = self._item is not None
            self._item = item
            self._changed.notify()
            return replaced

    def take(self):
        """Wait for an item and return it; None once the slot is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed)
            item, self._item = self._item, None
            return None if self._closed else item

    def close(self):
        with self._changed:
            self._closed = True
            self._changed.notify()


class Camera:
    """
    Labels the images of ``<name>/image`` or ``<name>/image/compressed`` with one stream.

    ``node`` is the rclpy node (its parameters max_gap and overlay_alpha apply at once), ``stream``
    a ``stream.Stream`` of the backend. While active it is subscribed only as long as something
    subscribes to one of its outputs, to the compressed images only as long as nobody publishes
    the raw ones.
    """

    def __init__(self, node, name, stream, label_set):
        self.name = name
        self.topic = node.resolve_topic_name(f'{name}/image')
        self._reader = ImageReader(self.topic)
        self._compressed_topic = node.resolve_topic_name(f'{name}/image/compressed')
        self.statistics = Statistics()
        self.active = False
        self._node = node
        self._logger = node.get_logger()
        self._stream = stream
        self._label_set = label_set
        self._reset_cause = None
        self._logged = {}           # cause -> time of its last log line
        self._rate_logged = False
        self._last_image = 0.0      # time.monotonic()
        self._camera_info = None
        self._subscriptions = {}
        self._publishers = {
            output: node.create_publisher(
                kind, f'~/{name}/{output}', QoSProfile(depth=5),
                qos_overriding_options=QoSOverridingOptions.with_default_policies())
            for output, kind in OUTPUTS.items()}

    def activate(self):
        """Start the worker; ``update_subscriptions`` does the rest."""
        self._slot = LatestSlot()
        self._worker = threading.Thread(
            target=self._work, args=(self._slot,), name=f'camera {self.name}', daemon=True)
        self._worker.start()
        self.active = True

    def deactivate(self):
        """Unsubscribe, and stop the worker after the frame it is at."""
        if self.active:
            self.active = False
            self.update_subscriptions()
            self._slot.close()
            self._worker.join()

    def destroy(self):
        self.deactivate()
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def request_reset(self):
        """Empty the prototype pool before the next frame."""
        self._reset_cause = 'request'

    @property
    def subscribed(self):
        return bool(self._subscriptions)

    def silence(self):
        """Return the seconds since the last image, or since the subscription."""
        return time.monotonic() - self._last_image

    def publishers(self):
        """Return how many publishers offer images, raw or compressed."""
        return sum(self._node.count_publishers(topic)
                   for topic in (self.topic, self._compressed_topic))

    def update_subscriptions(self):
        """Subscribe and unsubscribe, to follow who listens and who publishes; call it often."""
        wanted = set()
        if self.active and any(map(self._listened, OUTPUTS)):
            wanted = {'image', 'camera_info'}
            if not self._node.count_publishers(self.topic):
                wanted.add('image/compressed')
        if wanted and not self._subscriptions:
            self._last_image = time.monotonic()
        for name in wanted - self._subscriptions.keys():
            self._subscriptions[name] = self._subscribe(name)
        for name in self._subscriptions.keys() - wanted:
            self._node.destroy_subscription(self._subscriptions.pop(name))

    def _subscribe(self, name):
        # Best effort matches every publisher. The callbacks only store: the queue stays empty.
        callback, events = self._on_camera_info, None
        if name != 'camera_info':
            callback = self._on_image
            events = SubscriptionEventCallbacks(message_lost=self._on_lost)
        return self._node.create_subscription(
            INPUTS[name], f'{self.name}/{name}', callback,
            QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT),
            event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def _listened(self, output):
        return self._publishers[output].get_subscription_count() > 0

    def _on_camera_info(self, message):
        self._camera_info = message

    def _on_lost(self, event):
        self.statistics.count('lost_in_transport', event.total_count_change)

    def _on_image(self, message):
        self._last_image = time.monotonic()
        self.statistics.count('received')
        if self._slot.put((message, self._last_image)):
            self.statistics.count('dropped_superseded')

    def _work(self, slot):
        while (item := slot.take()) is not None:
            message, arrival = item
            try:
                self._label(message, arrival)
            except ImageError as error:
                self._refuse(message, error.cause, str(error))
            except BackendError as error:   # a GPU that is lost, and no backend stands by
                self._refuse(message, 'backend', str(error))
            except Exception as error:      # a bug or a device: say all, go on with the next
                known = 'internal' in self._logged
                self._refuse(
                    message, 'internal', repr(error) if known else traceback.format_exc())
                self._reset_cause = 'internal'

    def _refuse(self, message, cause, reason):
        self.statistics.count(f'dropped_{cause}')
        now = time.monotonic()
        if now - self._logged.get(cause, -LOG_PERIOD) >= LOG_PERIOD:
            self._logged[cause] = now
            compressed = isinstance(message, CompressedImage)
            topic = self._compressed_topic if compressed else self.topic
            self._logger.error(f'image on {topic} not labelled: {reason}')

    def _label(self, message, arrival):
        start = time.monotonic()
        image = self._reader.read(message)
        converted = time.monotonic()

        if self._reset_cause:
            self._stream.reset(self._reset_cause)
            self._reset_cause = None
        self._stream.max_gap = self._node.get_parameter('max_gap').value
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        result = self._stream.step(
            image, stamp, message.header.frame_id, confidence=self._listened('confidence'))
        if result.reset:
            self.statistics.count(f'resets_{result.reset}')

        computed = time.monotonic()
        self._publish('label', message.header, result.labels, 'mono8')
        published = time.monotonic()
        self.statistics.labelled(result, {
            'latency': (self._node.get_clock().now().nanoseconds - stamp) / 1e9,
            'processing': published - arrival,
            'image': converted - start,
            **result.times,
            'publish': published - computed}, self._stream.rate.problem)
        self._warn_of_rate()
        self._publish_extras(message.header, image, result)

    def _warn_of_rate(self) -> None:
        problem = self._stream.rate.problem
        if problem and not self._rate_logged:
            self._rate_logged = True
            self._logger.warning(f'{self.topic}: {problem}')

    def _publish_extras(self, header, image, result):
        if self._listened('color'):
            self._publish('color', header, colorize(result.labels, self._label_set), 'rgb8')
        if self._listened('overlay'):
            alpha = self._node.get_parameter('overlay_alpha').value
            blend = overlay(image, result.labels, self._label_set, alpha)
            self._publish('overlay', header, blend, 'rgb8')
        if result.confidence is not None:
            self._publish('confidence', header, result.confidence, 'mono8')
        if self._camera_info is not None and self._listened('camera_info'):
            self._camera_info.header = header
            self._publishers['camera_info'].publish(self._camera_info)

    def _publish(self, output, header, pixels, encoding):
        if self._listened(output):
            message = fill_image(Image(header=header), pixels, encoding)
            self._publishers[output].publish(message)
