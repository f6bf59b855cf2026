# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Torch eager against the runtime's backends: the same student, interleaved, in one run."""
from functools import partial
from pathlib import Path
import tempfile
import time
from typing import Any, Callable

import numpy as np
import numpy.typing as npt

from ros_vseg import backends
from ros_vseg.bench.tools import advance
from ros_vseg.bundle import Bundle

from .checkpoint import load_student
from .export import export_bundle


WARM_UP = 5  # frames
Step = Callable[[npt.NDArray[np.uint8]], Any]


def bench(checkpoint: str | Path, frames: int) -> str:
    """
    Time a student in torch and in every backend that is installed.

    Args:
        checkpoint: Of ``vseg-train fit``.
        frames: How many to time in each, after a warm-up.

    Returns:
        Markdown table of the median milliseconds per frame, and their ratio to torch eager.
    """
    student, recipe = load_student(checkpoint)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, *recipe.data.size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'student.onnx'
        export_bundle(student, recipe, path)
        steps: dict[str, Step] = {'torch eager': student.stream().step}
        for name, reason in backends.available().items():
            if reason is None:
                backend = backends.load(Bundle.load(path), name)
                steps[f'{name} ({backend.device})'] = partial(advance, backend.stream())
        seconds = _interleaved(steps, images, frames)
    medians = {name: 1000 * float(np.median(values)) for name, values in seconds.items()}
    eager = medians['torch eager']
    rows = [f'| {name} | {value:.1f} | {eager / value:.1f} x |' for name, value in medians.items()]
    return '\n'.join(['| step | ms | faster than eager |', '|---|---|---|', *rows])


def _interleaved(steps: dict[str, Step], images: npt.NDArray[np.uint8],
                 frames: int) -> dict[str, list[float]]:
    """Seconds per frame of each step after a warm-up; they take turns, as the machine varies."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(frames + WARM_UP):
        for name, step in steps.items():
            start = time.perf_counter()
            step(images[number % len(images)])
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return seconds
