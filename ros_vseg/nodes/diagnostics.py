# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says of a camera: counts, rates, latency, stage times, and what is wrong."""
from collections import Counter, defaultdict, deque
import threading
import time
from typing import Optional

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
import numpy as np

from ros_vseg.stream import Result

WINDOW = 300            # frames that times are taken over
SILENCE = 2.0           # seconds without an image that are worth a word
LATENCY_LIMIT = 60.0    # seconds; an older or a future stamp is of another clock
PROFILE = ('images do not fit in Fast DDS shared memory: start the camera driver with '
           'config/fastdds.xml too')


class Statistics:
    """
    Counts and times of one camera; its callback and its worker write, /diagnostics reads.

    ``received`` = ``labelled`` + all ``dropped_<cause>`` + the at most two frames on their way;
    ``lost_in_transport`` are images that DDS knows of but did not deliver.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._counts = Counter(
            received=0, labelled=0, dropped_superseded=0, held_back_from_pool=0)
        self._times = defaultdict(lambda: deque(maxlen=WINDOW))
        self._context_frames, self._oldest, self._rate_problem = 0, None, None
        self._reported = (time.monotonic(), Counter())

    def count(self, key, number=1):
        """Add to ``key``: received, lost_in_transport, dropped_<cause>, resets_<cause>."""
        with self._lock:
            self._counts[key] += number

    def labelled(self, result: Result, times: dict, rate_problem: Optional[str] = None) -> None:
        """
        Count a published label image, of a frame that may be held back from the pool.

        Args:
            result: what the stream made of the frame.
            times: seconds: 'latency' (now - stamp), 'processing' (callback to published label)
                and by stage ('image', 'resize', 'network', 'decode', 'publish').
            rate_problem: see FrameRate.
        """
        with self._lock:
            self._counts['labelled'] += 1
            self._counts['held_back_from_pool'] += result.held_back
            self._context_frames, self._oldest = result.context_frames, result.oldest
            self._rate_problem = rate_problem
            for name, seconds in times.items():
                if name != 'latency' or 0.0 <= seconds < LATENCY_LIMIT:
                    self._times[name].append(seconds)

    def report(self):
        """
        Return what /diagnostics says.

        ({key: text}, Counter of what was counted since the last, and in words what is wrong with
        the rate of the frames or None).
        """
        now = time.monotonic()
        with self._lock:
            counts = self._counts.copy()
            times = {name: np.array(window) for name, window in self._times.items()}
            then, before = self._reported
            self._reported = (now, counts)
        values = {key: str(count) for key, count in counts.items()}
        values['context_frames'] = str(self._context_frames)
        values['oldest_context_s'] = '-' if self._oldest is None else f'{self._oldest:.3f}'
        for key, name in (('received', 'input_hz'), ('labelled', 'output_hz')):
            values[name] = f'{(counts[key] - before[key]) / (now - then):.1f}'
        for name in ('latency', 'processing'):
            if name in times:
                for q, seconds in zip((50, 95, 99), np.percentile(times.pop(name), (50, 95, 99))):
                    values[f'{name}_p{q}_ms'] = f'{1e3 * seconds:.2f}'
        for name, window in times.items():
            values[f'stage_{name}_ms'] = f'{1e3 * np.median(window):.2f}'
        return values, counts - before, self._rate_problem


def camera_status(camera, node_name, backend):
    """Return the DiagnosticStatus of a ``camera.Camera``: what is wrong first, then all values."""
    values, recent, rate_problem = camera.statistics.report()
    level, message = _health(camera, recent, values['output_hz'], rate_problem)
    values.update(backend=backend.name, device=backend.device)
    return status(f'{node_name}: {camera.name}', level, message, values)


def status(name, level, message, values):
    """Return a DiagnosticStatus; ``values`` is a dict of strings."""
    return DiagnosticStatus(
        name=name, level=level, message=message, hardware_id='ros_vseg',
        values=[KeyValue(key=key, value=value) for key, value in values.items()])


def _health(camera, recent, rate, rate_problem):
    if not camera.active:
        return DiagnosticStatus.OK, 'inactive'
    if not camera.subscribed:
        return DiagnosticStatus.OK, 'idle: nothing subscribes to an output'
    silence = camera.silence()
    if silence > SILENCE:
        publishers = camera.publishers()
        if not publishers:
            return DiagnosticStatus.ERROR, (
                f'no publisher on {camera.topic}: start the camera, or remap the topic')
        return DiagnosticStatus.WARN, (
            f'no image for {silence:.0f} s from {publishers} publisher(s) on {camera.topic}: if '
            f'the camera sends, its QoS does not match, or its {PROFILE}')
    if recent['lost_in_transport']:
        return DiagnosticStatus.WARN, (
            f'{recent["lost_in_transport"]} images lost on the way from {camera.topic}: the '
            f'network is too slow, or {PROFILE}')
    refused = [f'{count} {key.removeprefix("dropped_")}' for key, count in recent.items()
               if key.startswith('dropped_') and key != 'dropped_superseded']
    if refused:
        return DiagnosticStatus.WARN, f'images refused: {", ".join(refused)}; the log says why'
    if rate_problem:
        return DiagnosticStatus.WARN, rate_problem
    return DiagnosticStatus.OK, f'labelling {rate} images a second'
