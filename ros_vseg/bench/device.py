# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmark of the TensorRT backend: each stage on the GPU's own clock, against its floor."""
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
import time

import numpy as np
import numpy.typing as npt
import onnx
from onnx import shape_inference

from ros_vseg import backends
from ros_vseg.backends import tensorrt
from ros_vseg.bench.network import no_reuse, per_frame
from ros_vseg.bench.tools import Context, Measurement
from ros_vseg.engines.engine import engine_for
from ros_vseg.engines.jit import Contexts
from ros_vseg.errors import VsegError
from ros_vseg.graph import ring_model

CAMERAS = 4
COPY = 64 * 2**20   # bytes, far beyond every cache
# dense float16 operations per clock and multiprocessor, by compute capability (data sheets)
HALF_RATE = {'sm75': 1024, 'sm80': 2048, 'sm86': 1024, 'sm87': 2048, 'sm89': 1024, 'sm90': 4096,
             'sm100': 8192, 'sm120': 1024, 'sm121': 1024}


def bench_device(context):
    """Time the stages, the reuse of prototypes, and several cameras, at the network's size."""
    if context.backend.name != 'tensorrt':
        raise VsegError('device measures backend tensorrt: add --backend tensorrt, on a GPU')
    backend, info = context.backend, context.bundle.info
    times = stage_times(backend, context)
    floors = stage_floors(backend, context.bundle)
    total = sum(np.median(values) for values in times.values())
    around = sum(np.median(times[name]) for name in ('resize', 'decode')) / total
    size = f'{info.height}x{info.width}, {backend.device}'
    rows = [Measurement(f'{name}, {size}', f'{1e3 * np.median(values):.3f} ms',
                        detail=f'floor of {name} {1e3 * floors[name]:.3f} ms')
            for name, values in times.items()]
    return [
        *rows,
        Measurement(f'all stages, {size}', f'{1e3 * total:.3f} ms, {1 / total:.0f} frames/s',
                    detail=f'floor of all {1e3 * sum(floors.values()):.3f} ms'),
        Measurement('resize and decode, of all stages', f'{100 * around:.1f} %', 'at most 10 %',
                    bool(around <= 0.1)),
        reuse_row(context, times['network']),
        *camera_rows(backend, context)]


def reuse_row(context: Context, times: npt.NDArray[np.float64]) -> Measurement:
    """Compare the network's seconds with those of the same network without a pool."""
    reason = no_reuse(context.bundle)
    if reason:
        return Measurement('network with prototypes reused', f'skipped: {reason}')
    alone = stage_times(backends.load(per_frame(context.bundle), 'tensorrt'), context)
    reuse = float(np.median(times) / np.median(alone['network']))
    return Measurement(
        f'network with T = {context.bundle.info.pool_frames} reused, against the per-frame '
        'network', f'{reuse:.3f} x', 'at most 1.02 x', bool(reuse <= 1.02))


def stage_times(backend, context):
    """Return seconds float64 [rounds] by stage, of camera images of the network's size."""
    stream, images, taken = backend.stream(), cycle(context.images), []
    warm_up = 2 * context.bundle.info.pool_frames + 5
    for number in range(warm_up + context.rounds):
        times = stream.label(next(images)).times
        stream.remember()
        if number >= warm_up:
            taken.append(times)
    return {name: np.array([one[name] for one in taken]) for name in taken[0]}


def stage_floors(backend, bundle):
    """Return seconds by stage below which it cannot be: bytes over bandwidth, operations."""
    info, gpu = bundle.info, backend.gpu
    up, down, inside = bandwidths(gpu)
    image, labels = 3 * info.height * info.width, info.height * info.width
    scores = 4 * int(np.prod(info.shapes()['scores']))
    operations, weights = cost(bundle)
    rate = (HALF_RATE.get(gpu.capability, 1024) * gpu.attribute('MULTIPROCESSOR_COUNT')
            * gpu.attribute('CLOCK_RATE') * 1e3)
    network = max(operations / rate, (weights / 2 + image + scores) / inside)
    return {'upload': image / up, 'resize': 2 * image / inside, 'network': network,
            'decode': (scores + labels) / inside, 'download': labels / down}


def bandwidths(gpu):
    """Return bytes a second to the GPU, from it, and inside it (read and written), by copies."""
    host, queue = gpu.pinned((COPY,)), gpu.queue()
    one, other = gpu.allocate(COPY), gpu.allocate(COPY)
    work = {'up': lambda: queue.copy_to_gpu(one, host),
            'down': lambda: queue.copy_to_host(host, one),
            'inside': lambda: queue.copy_inside(other, one)}
    rates = {}
    for name, copy in work.items():
        seconds = []
        for _ in range(6):
            queue.mark('start')
            copy()
            queue.mark(name)
            queue.wait()
            seconds.append(queue.times(('start', name))[name])
        rates[name] = COPY / min(seconds)
    return rates['up'], rates['down'], 2 * rates['inside']


def cost(bundle):
    """Return (operations, bytes of float32 weights) of a bundle's graph for one frame."""
    model = shape_inference.infer_shapes(onnx.load_model_from_string(ring_model(bundle)))
    graph = model.graph
    shapes = {one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim]
              for one in [*graph.value_info, *graph.input, *graph.output]}
    shapes.update({one.name: list(one.dims) for one in graph.initializer})
    operations = 0
    for node in graph.node:
        if node.op_type == 'Conv':      # per output: two for each weight of its filter
            operations += 2 * np.prod(shapes[node.output[0]]) * np.prod(
                shapes[node.input[1]][1:])
        elif node.op_type == 'MatMul':
            operations += 2 * np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return float(operations), sum(4 * np.prod(one.dims) for one in graph.initializer)


def camera_rows(backend, context):
    """Compare several cameras one by one, each with its own queue, with a batch of frames."""
    frames, images = context.rounds, context.images

    def drive(stream):
        for number in range(frames):
            stream.label(images[number % len(images)])
            stream.remember()

    streams = [backend.stream() for _ in range(CAMERAS)]
    for stream in streams:
        drive(stream)
    start = time.perf_counter()
    with ThreadPoolExecutor(CAMERAS) as workers:
        list(workers.map(drive, streams))
    single = CAMERAS * frames / (time.perf_counter() - start)
    batched = CAMERAS / batch_time(backend, context.bundle, frames)
    return [Measurement(f'{CAMERAS} cameras, one by one, all stages', f'{single:.0f} frames/s'),
            Measurement(f'{CAMERAS} cameras, a batch, network alone', f'{batched:.0f} frames/s')]


def batch_time(backend, bundle, rounds):
    """Return the median seconds of the network alone on a batch of CAMERAS frames."""
    gpu = backend.gpu
    path, header, engine = engine_for(bundle, gpu.capability, batch=CAMERAS)
    context = Contexts(tensorrt.deserialize(engine, path, gpu), path.with_suffix('.jit')).new()
    buffers = {}
    for name, (kind, shape) in {**header['inputs'], **header['outputs']}.items():
        size = int(np.prod(shape)) * (1 if kind == 'UINT8' else 4)
        buffers[name] = gpu.allocate(size)
        context.set_tensor_address(name, buffers[name].address)
    queue, seconds = gpu.queue(), []
    for _ in range(rounds + 5):
        queue.mark('start')
        context.execute_async_v3(queue.handle)
        queue.mark('network')
        queue.wait()
        seconds.append(queue.times(('start', 'network'))['network'])
    return float(np.median(seconds[5:]))
