# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Real processes and real DDS for tests: the program under test, and a probe that talks to it."""
import array
from contextlib import contextmanager
from itertools import count
import sys
import time

from builtin_interfaces.msg import Time
import cv2
from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from ros_vseg.nodes.camera import Camera
from ros_vseg.nodes.outputs import Extras
from ros_vseg.nodes.parameters import declare_cameras, declare_vseg_node
from ros_vseg.nodes.scheduler import Scheduler
from ros_vseg.processes import Child

RELIABLE = QoSProfile(depth=50)
SECOND = 10**9
FRAME = SECOND // 10
RESEND = 8.0        # s without an answer to a camera's first image, after which it is sent again
PATIENCE = 60.0     # s; a busy machine may take long, so only a hang uses it up
stamps = count(1_000 * SECOND, 100 * SECOND)    # a time of its own for each test


def pictures(number, height=120, width=160, seed=0):
    """Return smooth coloured pictures, uint8 [H, W, 3], that drift from one to the next."""
    rng = np.random.default_rng(seed)
    start, step = rng.integers(0, 256, (6, 8, 3)), rng.integers(-20, 20, (6, 8, 3))
    return [cv2.resize(np.clip(start + i * step, 0, 255).astype(np.uint8), (width, height))
            for i in range(number)]


def jpeg(picture):
    return cv2.imencode('.jpg', picture)[1].tobytes()


def start(module, log, *arguments, environment=None, **parameters):
    """Start ``python -m ros_vseg.nodes.<module>`` with ROS arguments and parameters; a Child."""
    argv = [sys.executable, '-m', f'ros_vseg.nodes.{module}', '--ros-args', *arguments]
    for name, value in parameters.items():
        argv += ['-p', f'{name}:={value}']
    return Child(module, argv, environment, log)


def header(stamp, frame_id='camera'):
    """Return a Header; stamp in nanoseconds."""
    return Header(frame_id=frame_id, stamp=Time(sec=stamp // SECOND, nanosec=stamp % SECOND))


def image(pixels, stamp, encoding='rgb8', frame_id='camera', **changes):
    """Return an Image of uint8 [H, W, C] or [H, W]; ``changes`` spoil its fields."""
    data = array.array('B')
    data.frombytes(pixels.tobytes())
    fields = {'height': pixels.shape[0], 'width': pixels.shape[1], 'encoding': encoding,
              'step': pixels.strides[0], 'data': data}
    return Image(header=header(stamp, frame_id), **{**fields, **changes})


def compressed(data, stamp, kind='jpeg', frame_id='camera'):
    """Return a CompressedImage of the bytes of a file."""
    return CompressedImage(
        header=header(stamp, frame_id), format=kind, data=array.array('B', bytes(data)))


def stamp_of(message):
    """Return the stamp of a message in nanoseconds."""
    return message.header.stamp.sec * SECOND + message.header.stamp.nanosec


class Probe:
    """A node of the test process: publishes, collects, calls; every wait is bounded in time."""

    def __init__(self):
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self.node = self.create_node('probe')
        self._statuses = {}
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def create_node(self, name, arguments=()):
        """Return a new node that is served while the probe waits."""
        node = rclpy.create_node(name, context=self._context, cli_args=[
            '--ros-args', *arguments] if arguments else None)
        self._executor.add_node(node)
        return node

    def close(self):
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def spin(self, seconds):
        """Receive for a while."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def wait(self, condition, what, timeout=PATIENCE):
        """Receive until ``condition()`` is true, and return its value."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < deadline, f'waited {timeout} s for {what}'
            self._executor.spin_once(timeout_sec=0.05)
        return value

    def collect(self, topic, kind=Image, qos=RELIABLE):
        """Subscribe; return the list that messages are appended to."""
        received = []
        self.node.create_subscription(kind, topic, received.append, qos)
        return received

    def call(self, kind, service, **request):
        """Call a service and return its response."""
        client = self.node.create_client(kind, service)
        self.wait(client.service_is_ready, service)
        future = client.call_async(kind.Request(**request))
        self.wait(future.done, f'the answer of {service}')
        self.node.destroy_client(client)
        return future.result()

    def status(self, name):
        """Wait for a /diagnostics status made from now on: (level 0..2, message, {key: text})."""
        now = self.node.get_clock().now().nanoseconds   # an older one may still be on its way
        self.wait(lambda: self._statuses.get(name, (0, None))[0] > now, f'diagnostics of {name}')
        return self.last(name)

    def last(self, name):
        """Return the last status ``name`` like ``status``, or None if there was none."""
        _, found = self._statuses.get(name, (0, None))
        return found and (
            found.level[0], found.message, {pair.key: pair.value for pair in found.values})

    def _on_diagnostics(self, message):
        stamp = stamp_of(message)
        self._statuses.update({status.name: (stamp, status) for status in message.status})


@contextmanager
def inner_camera(probe, stream, label_set, extras=Extras(), arguments=()):
    """Give a Camera in a node of this process, both named inner; ``arguments`` are ROS's."""
    node = probe.create_node('inner', arguments)
    declare_vseg_node(node)
    declare_cameras(node, ['inner'])
    camera, scheduler = Camera(node, 'inner', stream, label_set, extras), Scheduler()
    timer = node.create_timer(0.05, camera.update_subscriptions)
    scheduler.start()
    camera.activate(scheduler)
    try:
        yield camera
    finally:
        timer.cancel()
        scheduler.stop()
        camera.destroy()
        node.destroy_node()


class CameraProbe:
    """
    One camera of the node as a user sees it: publishes images, collects what comes out.

    node: its name and namespace; topic: of the images, by default /<name>/image; raw: whether
    uncompressed images are published.
    """

    def __init__(self, probe, node, name, outputs=('label',), raw=True, topic=None):
        self.probe, self.name, self.answered = probe, f'{node}: {name}', False
        create, topic = probe.node.create_publisher, topic or f'/{name}/image'
        self.images = create(Image, topic, RELIABLE) if raw else None
        self.compressed = create(CompressedImage, f'{topic}/compressed', RELIABLE)
        self.info = create(CameraInfo, f'/{name}/camera_info', RELIABLE)
        self.received = {output: [] for output in outputs}
        self._topic, self._subscriptions = f'/{node}/{name}', {}
        for output in outputs:
            self.listen(output)
        main = self.images if raw else self.compressed
        probe.wait(main.get_subscription_count, f'the node to subscribe to {main.topic_name}')
        probe.spin(0.3)     # best effort: the node must know this end too, or misses the first

    def listen(self, output):
        """Subscribe to an output."""
        self._subscriptions[output] = self.probe.node.create_subscription(
            {'camera_info': CameraInfo, 'label/compressed': CompressedImage}.get(output, Image),
            f'{self._topic}/{output}', self.received[output].append, RELIABLE)

    def turn_away(self, output):
        """Unsubscribe from an output."""
        self.probe.node.destroy_subscription(self._subscriptions.pop(output))

    def close(self):
        """Subscribe to nothing and publish nothing any more."""
        for output in list(self._subscriptions):
            self.turn_away(output)
        for publisher in filter(None, (self.images, self.compressed, self.info)):
            self.probe.node.destroy_publisher(publisher)

    def label(self, message, output='label', timeout=PATIENCE):
        """Publish an image and return what the node answers: the message of the same stamp."""
        publisher = self.images if isinstance(message, Image) else self.compressed
        publisher.publish(message)
        while not self.answered and timeout > RESEND:    # the first one may be lost: best effort
            try:
                self.wait_for(stamp_of(message), output, RESEND)
                self.answered = True
            except AssertionError:
                timeout -= RESEND
                publisher.publish(message)
        return self.wait_for(stamp_of(message), output, timeout)

    def wait_for(self, stamp, output='label', timeout=PATIENCE):
        """Return the output message of ``stamp``."""
        def arrived():
            return next((m for m in self.received[output] if stamp_of(m) == stamp), None)
        try:
            return self.probe.wait(arrived, f'{output} of {self.name} at {stamp}', timeout)
        except AssertionError as late:
            raise AssertionError(f'{late}; the node says {self.probe.last(self.name)}') from late

    def dropped(self, cause):
        """Return how many images were dropped for ``cause`` by the last status known."""
        status = self.probe.last(self.name) or self.probe.status(self.name)
        return int(status[2].get(f'dropped_{cause}', 0))

    def values(self):
        """Return the camera's next /diagnostics values as numbers where they are numbers."""
        values = self.probe.status(self.name)[2]
        return {k: float(v) if v.replace('.', '').isdigit() else v for k, v in values.items()}
