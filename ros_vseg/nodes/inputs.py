# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What the node subscribes to for one camera: raw or compressed images, and camera_info."""
import time
from typing import Any, Callable

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ros_vseg.errors import VsegError
from ros_vseg.image import stamp_of
try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:     # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

SILENCE = 2.0       # seconds without a raw image after which compressed ones are taken too
NEVER = 2**31 - 1   # see lost_images
KINDS = {'raw': Image, 'compressed': CompressedImage, 'camera_info': CameraInfo}


class Inputs:
    """
    Subscriptions of one camera.

    The compressed images are looked for beside the raw ones, wherever these are remapped to,
    unless they are remapped themselves. With the camera's parameter transport at auto the raw
    images are taken, and the compressed ones where nobody publishes raw ones or these do not come.
    """

    def __init__(self, node: Node, name: str, on_image: Callable[[Any], None],
                 on_lost: Callable[[int], None]) -> None:
        """
        Subscribe to nothing yet; see ``update``.

        Args:
            node: the rclpy node.
            name: of the camera.
            on_image: called with each Image or CompressedImage.
            on_lost: called with the number of images that DDS lost on their way.
        """
        self._node, self._name = node, name
        self._on_image, self._on_lost = on_image, on_lost
        self.topic = node.resolve_topic_name(f'{name}/image')
        relative = f'{name}/image/compressed'
        compressed = node.resolve_topic_name(relative)
        if compressed == node.resolve_topic_name(relative, only_expand=True):
            relative = f'{self.topic}/compressed'
            compressed = node.resolve_topic_name(relative)
        self._topics = {'raw': self.topic, 'compressed': compressed}
        # to subscribe by: a topic that is remapped already may be the name of another rule
        self._names = {'raw': f'{name}/image', 'compressed': relative,
                       'camera_info': f'{name}/camera_info'}
        self.camera_info: Any | None = None     # the newest
        self._subscriptions: dict[str, Subscription] = {}
        self._since = 0.0                       # time.monotonic() of the subscription
        self._last = {'raw': 0.0, 'compressed': 0.0}    # of the newest image, or as _since
        self._taken = (0, '')                   # stamp of the newest image, and its transport
        if any(key.startswith('qos_overrides.') for key in node._parameter_overrides):
            for kind in KINDS:  # wrong ones are told now, and not when somebody listens
                node.destroy_subscription(self._subscribe(kind))

    @property
    def subscribed(self) -> bool:
        """Whether it takes images."""
        return bool(self._subscriptions)

    def topic_of(self, message: Any) -> str:
        """Return the topic that an image has come from."""
        return self._topics[_transport(message)]

    def transport(self) -> str:
        """Return what the newest image came as: 'raw', 'compressed', or '-' before the first."""
        newest = max(self._last, key=lambda name: self._last[name])
        return newest if self._last[newest] > self._since else '-'

    def silence(self) -> float:
        """Return the seconds since the last image, or since the subscription."""
        return time.monotonic() - max(self._last.values())

    def publishers(self) -> int:
        """Return how many publishers offer images of a transport that may be taken."""
        return sum(map(self._count, self._allowed()))

    def update(self, wanted: bool) -> None:
        """Subscribe and unsubscribe, to follow who publishes and whether images are wanted."""
        if wanted and not self._subscriptions:
            self._since = time.monotonic()
            self._last = {'raw': self._since, 'compressed': self._since}
        if not wanted:
            self.camera_info = None     # its camera may be another when it is wanted again
        names = {'camera_info', *self._transports()} if wanted else set()
        for name in names - self._subscriptions.keys():
            self._subscriptions[name] = self._subscribe(name)
        for name in self._subscriptions.keys() - names:
            self._node.destroy_subscription(self._subscriptions.pop(name))

    def _allowed(self) -> set[str]:
        choice = self._node.get_parameter(f'{self._name}.transport').value
        return {'raw', 'compressed'} if choice == 'auto' else {choice}

    def _transports(self) -> set[str]:
        """Return what to subscribe to: no compressed images, which cost work, beside raw ones."""
        allowed = self._allowed()
        return {'raw'} if 'raw' in allowed and self._raw_comes() else allowed

    def _raw_comes(self) -> bool:
        return self._count('raw') > 0 and time.monotonic() - self._last['raw'] < SILENCE

    def _count(self, transport: str) -> int:
        return self._node.count_publishers(self._topics[transport])

    def _subscribe(self, name: str) -> Subscription:
        # Best effort matches every publisher. The callbacks only store: the queue stays empty.
        callback, events = self._take_camera_info, None
        if name != 'camera_info':
            callback = self._take_image
            events = SubscriptionEventCallbacks(
                message_lost=lambda event: self._on_lost(lost_images(event.total_count_change)))
        try:
            return self._node.create_subscription(
                KINDS[name], self._names[name], callback,
                QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT),
                event_callbacks=events,
                qos_overriding_options=QoSOverridingOptions.with_default_policies())
        except Exception as error:  # rclpy's errors have no common base
            raise not_made(self._names[name], error) from error

    def _take_camera_info(self, message: Any) -> None:
        self.camera_info = message

    def _take_image(self, message: Any) -> None:
        transport = _transport(message)
        if transport == 'compressed' and 'raw' in self._subscriptions and self._last[
                'raw'] > max(self._since, time.monotonic() - SILENCE):
            return      # the same image came raw
        self._last[transport] = time.monotonic()
        stamp = stamp_of(message)
        is_twin = stamp and stamp == self._taken[0] and transport != self._taken[1]
        self._taken = stamp, transport
        if not is_twin:     # one image that came both ways
            self._on_image(message)


def lost_images(change: int) -> int:
    """
    Return how many images a message_lost event means.

    Args:
        change: its ``total_count_change``. Fast DDS adds 2**31 - 1 where none was lost, when an
            image in fragments is given up after a later one that came whole; it counts in 32 bits
            with a sign, which rmw widens to 64. Of several such in one event, where the executor
            stood still, the number is the least.
    """
    return change % 2**32 % NEVER


def not_made(topic: str, error: Exception) -> VsegError:
    """Return the error of a topic that ROS refuses."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return VsegError(f'{topic} cannot be a topic ({reason}): correct its qos_overrides, or choose '
                     'a shorter name')


def _transport(message: Any) -> str:
    return 'compressed' if isinstance(message, CompressedImage) else 'raw'
