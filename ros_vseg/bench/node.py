# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the real node over real DDS: latency, large images, memory."""
import json
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

import numpy as np

from ros_vseg.bench.tools import advance, Context, interleave, Measurement
from ros_vseg.processes import Child, ros_environment

WARM_UP = 0.25      # of a run's frames, before memory counts


def bench_latency(context: Context) -> list[Measurement]:
    """Time camera callback to published label at 360x480, and compare with the network alone."""
    steps = [_own_step(context)]
    fast = run_node(context, (360, 480), rate=60, count=300)
    calm = run_node(context, (360, 480), rate=20, count=200)
    steps.append(_own_step(context))
    step = float(np.mean(steps))
    p50, p95 = (float(calm['camera'][f'processing_{q}_ms']) for q in ('p50', 'p95'))
    detail = f'callback to label p50 {p50:.1f} ms, p95 {p95:.1f} ms; own step {step:.1f} ms; ' + (
        ', '.join(f'{key.split("_")[1]} {calm["camera"][key]}' for key in sorted(calm['camera'])
                  if key.startswith('stage_')))
    return [
        Measurement('label images a second from a 60 Hz camera, 360x480', f'{fast["fps"]:.0f}',
                    'at least 40', fast['fps'] >= 40),
        Measurement("camera callback to published label, p95, against the backend's own step",
                    f'{p95 / step:.2f} x', 'at most 1.3 x', p95 <= 1.3 * step, detail)]


def bench_dds(context: Context) -> list[Measurement]:
    """Run a 1024x2048 camera at 10 Hz: what arrives, and what all but the network costs."""
    result = run_node(context, (1024, 2048), rate=10, count=100)
    received, sent = int(result['camera']['received']), result['sent']
    around = result['latency_ms']['p50'] - float(result['camera']['stage_network_ms'])
    return [
        Measurement('1024x2048 camera at 10 Hz over DDS: frames that arrive',
                    f'{received} of {sent}', 'every frame', received == sent),
        Measurement('the same: camera stamp to received label without the network, p50',
                    f'{around:.1f} ms', 'at most 25 ms', around <= 25)]


def bench_memory(context: Context) -> list[Measurement]:
    """Watch the resident memory of the node over 2,000 frames."""
    result = run_node(context, (360, 480), rate=40, count=2000)
    memory = np.array(result['memory_mb'])
    after = memory[round(WARM_UP * len(memory)):]
    third = max(1, len(after) // 3)
    growth = float(np.median(after[-third:]) - np.median(after[:third]))
    return [Measurement(
        'memory of the node over 2,000 frames, growth after warm-up', f'{growth:+.1f} MB',
        'within 5 MB', abs(growth) <= 5, f'{np.median(after):.0f} MB resident')]


def _own_step(context: Context) -> float:
    """Return the median of the backend's own step in this process, in ms."""
    stream, image = context.backend.stream(), context.images[0]
    times = interleave({'step': lambda: advance(stream, image)}, context.rounds)['step']
    return 1e3 * float(np.median(times))


def run_node(context: Context, size: tuple[int, int], rate: float, count: int) -> dict[str, Any]:
    """
    Run node and camera as processes.

    Args:
        context: has the bundle to run.
        size: (height, width) of the images.
        rate: of the camera in Hz.
        count: of the images.

    Returns:
        What bench.camera prints, and ``memory_mb``: resident memory of the node, every 0.25 s.
    """
    environment, memory = ros_environment(), []
    with tempfile.TemporaryDirectory() as folder:
        node_command = [sys.executable, '-m', 'ros_vseg.nodes.vseg_node', '--ros-args',
                        '-p', f'bundle:={context.bundle.path}']
        camera_command = [sys.executable, '-m', 'ros_vseg.bench.camera',
                          *map(str, (*size, rate, count))]
        with Child('node', node_command, environment, Path(folder, 'node.log')) as node, \
                Child('camera', camera_command, environment, Path(folder, 'camera.log')) as camera:
            while camera.process.poll() is None:
                node.check_alive()
                memory.append(_resident_mb(node.process.pid))
                time.sleep(0.25)
            camera.check()
            line = camera.log.read_text().rpartition('result ')[2]
    return {**json.loads(line), 'memory_mb': memory}


def _resident_mb(pid: int) -> float:
    for line in Path(f'/proc/{pid}/status').read_text().splitlines():
        if line.startswith('VmRSS:'):
            return int(line.split()[1]) / 1024
    return 0.0
