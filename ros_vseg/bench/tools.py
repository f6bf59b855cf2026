# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What every benchmark shares: interleaved timing, medians, and the student under test."""
from functools import cached_property
import os
from pathlib import Path
import platform
import statistics
import time
from typing import Any, Callable, Iterable, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg import backends
from ros_vseg.backends.base import BackendStream
from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.graph import at_size
from ros_vseg.media.sources import open_source
from ros_vseg.processes import demo_clip


class Measurement(NamedTuple):
    """One row of the table; ``met`` is None where there is no target."""

    what: str
    measured: str
    target: str = ''
    met: bool | None = None
    detail: str = ''


class Context:
    """
    The student under test and frames for it, loaded once for all benchmarks.

    Args:
        bundle_path: None: the student that is shipped.
        rounds: of interleaved timing.
        backend: its name, or 'auto'.
        size: (height, width) at which the network runs; None: the bundle's own.
    """

    def __init__(self, bundle_path: Path | None = None, rounds: int = 40, backend: str = 'auto',
                 size: tuple[int, int] | None = None) -> None:
        self.bundle_path = bundle_path or default_bundle_path()
        self.rounds, self._backend, self._size = rounds, backend, size

    @cached_property
    def bundle(self) -> Bundle:
        """The student under test."""
        return at_size(Bundle.load(self.bundle_path), self._size)

    @cached_property
    def backend(self) -> Any:
        """The backend under test, loaded."""
        return backends.load(self.bundle, self._backend)

    @cached_property
    def images(self) -> list[npt.NDArray[np.uint8]]:
        """The first frames of the demo clip, uint8 [H,W,3], as the network takes them."""
        info = self.bundle.info
        frames = []
        for frame in open_source(demo_clip()):
            image = cv2.resize(frame.image, (info.width, info.height))
            image = image if info.color_order == 'rgb' else image[..., ::-1]
            frames.append(np.ascontiguousarray(image))
            if len(frames) == 8:
                break
        return frames


def advance(stream: BackendStream,
            image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the scores of a BackendStream's next frame, which it then remembers."""
    scores = stream.step(image)
    stream.remember()
    return scores


def interleave(contenders: dict[str, Callable[[], object]], rounds: int,
               warmup: int = 5) -> dict[str, npt.NDArray[np.float64]]:
    """
    Time each function once per round, in turn, so that a drifting machine hits all alike.

    Args:
        contenders: functions by name.
        rounds: that are timed.
        warmup: rounds before these.

    Returns:
        Seconds, float64 [rounds], by name.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warmup + rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if number >= warmup:
                times[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in times.items()}


def ratio(numerator: npt.NDArray[np.float64], denominator: npt.NDArray[np.float64]) -> float:
    """Return the median over rounds of the ratio within each round."""
    return float(np.median(numerator / denominator))


def milliseconds(times: Iterable[float]) -> str:
    """Return the median of ``times`` in seconds as text."""
    return f'{1e3 * statistics.median(times):.1f} ms'


def machine() -> str:
    """Return the kind of machine in words, without its name."""
    try:
        with open('/proc/cpuinfo') as file:
            model = next(line.split(':')[1].strip() for line in file if 'model name' in line)
    except (OSError, StopIteration):
        model = platform.machine()
    return f'{len(os.sched_getaffinity(0))} cores, {model}'
