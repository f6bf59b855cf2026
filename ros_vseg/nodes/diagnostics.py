# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says of a camera: counts, rates, latency, stage times, and what is wrong."""
from collections import Counter, defaultdict, deque
import math
import threading
import time
from typing import Mapping, Protocol

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
import numpy as np
from rclpy.node import Node
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image

from ros_vseg.backends.base import Backend
from ros_vseg.gpu import failures
from ros_vseg.media.summary import is_latency, LATENCY_UNKNOWN
from ros_vseg.nodes.inputs import Inputs
from ros_vseg.rmw import middleware
from ros_vseg.stream import Result

WINDOW = 300            # frames that times are taken over
SILENCE = 2.0           # seconds without an image before it is reported
TRANSPORTS = (
    ('raw', Image, 'sensor_msgs/msg/Image'),
    ('compressed', CompressedImage, 'sensor_msgs/msg/CompressedImage'))
INTENDED = ('dropped_superseded', 'dropped_max_rate', 'dropped_inactive')   # nothing is wrong


class Labeller(Protocol):
    """A ``camera.Camera`` as it is reported."""

    name: str
    inputs: Inputs
    statistics: 'Statistics'

    @property
    def active(self) -> bool:
        """Whether it labels."""


class Statistics:
    """
    Counts and times of one camera; its callback and its worker write, /diagnostics reads.

    ``received`` = ``labelled`` + all ``dropped_<cause>`` + the at most two frames on their way.
    Causes that are no fault: superseded (a newer frame came before the camera's turn), max_rate
    (the camera's parameter) and inactive; the others are kinds of bad images.
    ``failed_outputs`` are labelled frames of which another output could not be published.
    ``lost_in_transport`` are images that the middleware knows of but did not deliver.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter(
            received=0, labelled=0, dropped_superseded=0, held_back_from_pool=0)
        self._times: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._context_frames = 0
        self._oldest: float | None = None
        self._rate_problem: str | None = None
        self._reported: tuple[float, Counter[str]] = (time.monotonic(), Counter())

    def count(self, key: str, number: int = 1) -> None:
        """Add to ``key``, such as received, lost_in_transport, dropped_<cause>, resets_<cause>."""
        with self._lock:
            self._counts[key] += number

    def labelled(self, result: Result, times: Mapping[str, float],
                 rate_problem: str | None = None) -> None:
        """
        Count a published label image, of a frame that may be held back from the pool.

        Args:
            result: what the stream made of the frame.
            times: seconds: 'latency' (now - stamp, unknown for stamps of another clock),
                'processing' (callback to published label) and by stage ('wait' for its turn,
                'image', 'resize', 'network', 'decode', 'publish').
            rate_problem: see FrameRate.
        """
        with self._lock:
            self._counts['labelled'] += 1
            self._counts['held_back_from_pool'] += result.held_back
            self._context_frames, self._oldest = result.context_frames, result.oldest
            self._rate_problem = rate_problem
            for name, seconds in times.items():
                known = name != 'latency' or is_latency(seconds)
                self._times[name].append(seconds if known else math.nan)

    def report(self) -> tuple[dict[str, str], Counter[str], str | None]:
        """
        Return what /diagnostics says.

        Returns:
            text by key; what was counted since the last report; and in words what is wrong with
            the rate of the frames, or None.
        """
        now = time.monotonic()
        with self._lock:
            counts = self._counts.copy()
            times = {name: np.array(window) for name, window in self._times.items()}
            then, before = self._reported
            self._reported = (now, counts)
            context_frames, oldest = self._context_frames, self._oldest
            rate_problem = self._rate_problem
        values = {key: str(count) for key, count in counts.items()}
        values['context_frames'] = str(context_frames)
        values['oldest_context_s'] = '-' if oldest is None else f'{oldest:.3f}'
        for key, name in (('received', 'input_hz'), ('labelled', 'output_hz')):
            values[name] = f'{(counts[key] - before[key]) / (now - then):.1f}'
        for name in ('latency', 'processing'):
            if name in times:
                window = times.pop(name)
                window = window[~np.isnan(window)]
                if not window.size:
                    values[name] = LATENCY_UNKNOWN
                    continue
                for q in (50, 95, 99):
                    values[f'{name}_p{q}_ms'] = f'{1e3 * np.percentile(window, q):.2f}'
        for name, window in times.items():
            values[f'stage_{name}_ms'] = f'{1e3 * np.median(window):.2f}'
        return values, counts - before, rate_problem


def camera_status(camera: Labeller, node: Node, backend: Backend) -> DiagnosticStatus:
    """Return what a camera of a node says: what is wrong first, then all values."""
    values, recent, rate_problem = camera.statistics.report()
    level, message = _health(camera, node, recent, values['output_hz'], rate_problem)
    values.update(backend=backend.name, device=backend.device,
                  transport=camera.inputs.transport())
    name = node.get_fully_qualified_name().lstrip('/')
    return status(f'{name}: {camera.name}', level, message, values)


def node_status(node_name: str, backend: Backend | None, problem: str) -> DiagnosticStatus:
    """Return what the node says; ``problem``: why it could not be configured, or empty."""
    name, rmw = f'{node_name}: node', get_rmw_implementation_identifier()
    if backend is None:
        level = DiagnosticStatus.ERROR if problem else DiagnosticStatus.OK
        return status(name, level, problem or 'not configured', {'rmw': rmw})
    wrong = backend.problem or failures.lost()
    level = DiagnosticStatus.WARN if wrong else DiagnosticStatus.OK
    return status(name, level, wrong or 'configured', {
        'backend': backend.name, 'device': backend.device, 'bundle': str(backend.bundle.path),
        'rmw': rmw, **getattr(backend, 'report', dict)()})


def status(name: str, level: bytes, message: str, values: Mapping[str, str]) -> DiagnosticStatus:
    """Return a DiagnosticStatus."""
    return DiagnosticStatus(
        name=name, level=level, message=message, hardware_id='ros_vseg',
        values=[KeyValue(key=key, value=value) for key, value in values.items()])


def _health(camera: Labeller, node: Node, recent: Counter[str], rate: str,
            rate_problem: str | None) -> tuple[bytes, str]:
    """Return level and words, of the worst that is wrong."""
    if not camera.active:
        return DiagnosticStatus.OK, 'inactive'
    if not camera.inputs.subscribed:
        return DiagnosticStatus.OK, 'idle: nothing subscribes to an output'
    if recent['lost_in_transport']:
        return DiagnosticStatus.WARN, (
            f'{recent["lost_in_transport"]} images lost on the way from {camera.inputs.topic}: '
            f'the network is too slow, or {_remedy()}')
    if camera.inputs.silence() > SILENCE:
        return _silent(camera, node)
    refused = [f'{count} {key.removeprefix("dropped_")}' for key, count in recent.items()
               if key.startswith('dropped_') and key not in INTENDED]
    if refused:
        return DiagnosticStatus.WARN, f'images refused: {", ".join(refused)}; the log says why'
    if recent['failed_outputs']:
        return DiagnosticStatus.WARN, 'outputs beside the label failed; the log says why'
    if recent['depth_without_focal_length']:
        return DiagnosticStatus.WARN, 'depth is not published: no focal length; the log says why'
    if recent['camera_info_of_other_size']:
        return DiagnosticStatus.WARN, (
            'camera_info is of another size than the images; the log says why')
    if rate_problem:
        return DiagnosticStatus.WARN, rate_problem
    return DiagnosticStatus.OK, f'labelling {rate} images a second'


def _silent(camera: Labeller, node: Node) -> tuple[bytes, str]:
    choice = node.get_parameter(f'{camera.name}.transport').value
    topics = {camera.inputs.topic_of(kind()): text for transport, kind, text in TRANSPORTS
              if choice in ('auto', transport)}
    offers = {topic: node.count_publishers(topic) for topic in topics}
    if not any(offers.values()):
        return DiagnosticStatus.ERROR, (
            f'no publisher on {" or ".join(topics)}: start the camera, or remap the topic')
    for topic, text in topics.items():
        types = {info.topic_type for info in node.get_publishers_info_by_topic(topic)}
        if types and text not in types:
            return DiagnosticStatus.ERROR, (
                f'{topic} is {types.pop()}, not {text}: remap {camera.name}/image to the topic of '
                'the raw images, without /compressed')
    where = ' and '.join(f'{number} publisher(s) on {topic}'
                         for topic, number in offers.items() if number)
    return DiagnosticStatus.WARN, (
        f'no image for {camera.inputs.silence():.0f} s from {where}: '
        f'if the camera sends, its QoS does not match, or {_remedy()}')


def _remedy() -> str:
    return middleware(get_rmw_implementation_identifier()).remedy
