# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Torch eager against the runtime's backends: the same student, interleaved, in one run."""
from functools import partial
from pathlib import Path
import tempfile
import time

import numpy as np

from ros_vseg import backends
from ros_vseg.bench.tools import advance
from ros_vseg.bundle import Bundle

from .checkpoint import load_student
from .export import export_bundle


def bench(checkpoint, frames):
    """Markdown table of the median milliseconds per frame, and their ratio to torch eager."""
    student, recipe = load_student(checkpoint)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, *recipe.data.size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'student.onnx'
        export_bundle(student, recipe, path)
        steps = {'torch eager': student.stream().step}
        for name, reason in backends.available().items():
            if reason is None:
                backend = backends.load(Bundle.load(path), name)
                steps[f'{name} ({backend.device})'] = partial(advance, backend.stream())
        seconds = {name: [] for name in steps}
        for number in range(frames + 5):
            for name, step in steps.items():
                start = time.perf_counter()
                step(images[number % len(images)])
                if number >= 5:
                    seconds[name].append(time.perf_counter() - start)
    medians = {name: 1000 * float(np.median(values)) for name, values in seconds.items()}
    eager = medians['torch eager']
    rows = [f'| {name} | {value:.1f} | {eager / value:.1f} x |' for name, value in medians.items()]
    return '\n'.join(['| step | ms | faster than eager |', '|---|---|---|', *rows])
