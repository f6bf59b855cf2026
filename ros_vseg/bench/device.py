# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmark of the TensorRT backend: each stage on the GPU's own clock, against its floor."""
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
import time

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import shape_inference

from ros_vseg import backends
from ros_vseg.backends import tensorrt
from ros_vseg.backends.tensorrt import TensorRtBackend, TensorRtStream
from ros_vseg.bench.network import no_reuse, per_frame
from ros_vseg.bench.tools import Context, Measurement
from ros_vseg.bundle import Bundle
from ros_vseg.engines.engine import engine_for
from ros_vseg.engines.jit import Contexts
from ros_vseg.errors import VsegError
from ros_vseg.gpu.bandwidth import bandwidths
from ros_vseg.gpu.cuda import Gpu
from ros_vseg.graph import ring_model

CAMERAS = 4
CAMERA = (1024, 2048)   # height, width of the images: few cameras send the network's size
# dense float16 operations per clock and multiprocessor, by compute capability (data sheets)
HALF_RATE = {'sm75': 1024, 'sm80': 2048, 'sm86': 1024, 'sm87': 2048, 'sm89': 1024, 'sm90': 4096,
             'sm100': 8192, 'sm120': 1024, 'sm121': 1024}
Times = dict[str, npt.NDArray[np.float64]]


def bench_device(context: Context) -> list[Measurement]:
    """
    Time the stages, a whole frame, the reuse of prototypes, and several cameras.

    The images have the size of a camera. A stage is timed by the GPU's clock; a whole frame by
    the host's, with the copy of the image, the launch and Python.
    """
    backend = context.backend
    if not isinstance(backend, TensorRtBackend):
        raise VsegError('device measures backend tensorrt: add --backend tensorrt, on a GPU')
    images = camera_images(context)
    times = stage_times(backend, images, context.rounds)
    whole = times.pop('whole frame')
    floors = stage_floors(backend, context.bundle)
    total = sum(float(np.median(values)) for values in times.values())
    around = sum(float(np.median(times[name])) for name in ('resize', 'decode')) / total
    info = context.bundle.info
    size = f'camera {CAMERA[0]}x{CAMERA[1]}, network {info.height}x{info.width}, {backend.device}'
    frame = float(np.median(whole))
    return [
        *(Measurement(f'{name}, {size}', f'{1e3 * np.median(values):.3f} ms',
                      detail=_floor_text(name, floors[name], backend.gpu))
          for name, values in times.items()),
        Measurement(f'all stages, {size}', f'{1e3 * total:.3f} ms'),
        Measurement(f'whole frame with host copy, launch and Python, {size}',
                    f'{1e3 * frame:.3f} ms, {1 / frame:.0f} frames/s'),
        Measurement('resize and decode, of all stages', f'{100 * around:.1f} %', 'at most 10 %',
                    bool(around <= 0.1)),
        reuse_row(context, images, times['network']),
        *camera_rows(backend, context, images)]


def _floor_text(name: str, seconds: float | None, gpu: Gpu) -> str:
    if seconds is None:
        return f'floor of {name}: not known for {gpu.capability}'
    return f'floor of {name} {1e3 * seconds:.3f} ms'


def camera_images(context: Context) -> list[npt.NDArray[np.uint8]]:
    """Return images uint8 [H, W, 3] of a camera's size."""
    return [np.ascontiguousarray(cv2.resize(image, CAMERA[::-1])) for image in context.images]


def reuse_row(context: Context, images: list[npt.NDArray[np.uint8]],
              times: npt.NDArray[np.float64]) -> Measurement:
    """Compare the network's seconds with those of the same network without a pool."""
    reason = no_reuse(context.bundle)
    if reason:
        return Measurement('network with prototypes reused', f'skipped: {reason}')
    backend = backends.load(per_frame(context.bundle), 'tensorrt')
    assert isinstance(backend, TensorRtBackend)
    alone = stage_times(backend, images, context.rounds)
    reuse = float(np.median(times) / np.median(alone['network']))
    return Measurement(
        f'network with T = {context.bundle.info.pool_frames} reused, against the per-frame '
        'network', f'{reuse:.3f} x', 'at most 1.02 x', bool(reuse <= 1.02))


def stage_times(backend: TensorRtBackend, images: list[npt.NDArray[np.uint8]],
                rounds: int) -> Times:
    """Return seconds float64 [rounds] by stage, and of the 'whole frame' by the host's clock."""
    stream, source = backend.stream(), cycle(images)
    taken: list[dict[str, float]] = []
    warm_up = 2 * backend.bundle.info.pool_frames + 5
    for number in range(warm_up + rounds):
        image = next(source)
        start = time.perf_counter()
        times = stream.label(image).times
        seconds = time.perf_counter() - start
        stream.remember()
        if number >= warm_up:
            taken.append({**times, 'whole frame': seconds})
    return {name: np.array([times[name] for times in taken]) for name in taken[0]}


def stage_floors(backend: TensorRtBackend, bundle: Bundle) -> dict[str, float | None]:
    """
    Return seconds by stage below which it cannot be: bytes over bandwidth, operations over rate.

    That of the network is None where we do not know the GPU's rate.
    """
    info, gpu = bundle.info, backend.gpu
    up, down, inside = bandwidths(gpu)
    image, labels = 3 * CAMERA[0] * CAMERA[1], CAMERA[0] * CAMERA[1]
    resized = 3 * info.height * info.width
    scores = 4 * int(np.prod(info.shapes()['scores']))
    if gpu.maps_host:   # nothing is copied
        up = down = float('inf')
    return {'upload': image / up, 'resize': (image + resized) / inside,
            'network': network_floor(gpu, bundle, (resized + scores) / inside, inside),
            'decode': (scores + labels) / inside, 'download': labels / down}


def network_floor(gpu: Gpu, bundle: Bundle, ends: float, inside: float) -> float | None:
    """Return the network's floor in seconds; ends: seconds to read its input, write its output."""
    if gpu.capability not in HALF_RATE:
        return None
    operations, weights = cost(bundle)
    rate = (HALF_RATE[gpu.capability] * gpu.attribute('MULTIPROCESSOR_COUNT')
            * gpu.attribute('CLOCK_RATE') * 1e3)
    return max(operations / rate, weights / 2 / inside + ends)


def cost(bundle: Bundle) -> tuple[float, float]:
    """Return (operations, bytes of float32 weights) of a bundle's graph for one frame."""
    model = shape_inference.infer_shapes(onnx.load_model_from_string(ring_model(bundle)))
    graph = model.graph
    shapes = {entry.name: [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
              for entry in [*graph.value_info, *graph.input, *graph.output]}
    shapes.update({tensor.name: list(tensor.dims) for tensor in graph.initializer})
    operations = 0.0
    for node in graph.node:
        if node.op_type == 'Conv':      # per output: two for each weight of its filter
            operations += 2.0 * float(np.prod(shapes[node.output[0]]) * np.prod(
                shapes[node.input[1]][1:]))
        elif node.op_type == 'MatMul':
            operations += 2.0 * float(
                np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1])
    weights = sum(4.0 * float(np.prod(tensor.dims)) for tensor in graph.initializer)
    return operations, weights


def camera_rows(backend: TensorRtBackend, context: Context,
                images: list[npt.NDArray[np.uint8]]) -> list[Measurement]:
    """
    Compare several cameras one by one with a batch of frames, by the network's time alone.

    The first row has the whole frames of cameras in threads of their own, as in the node.
    """
    frames = context.rounds
    network: list[float] = []

    def drive(stream: TensorRtStream) -> None:
        for number in range(frames):
            network.append(stream.label(images[number % len(images)]).times['network'])
            stream.remember()

    streams = [backend.stream() for _ in range(CAMERAS)]
    for stream in streams:
        drive(stream)
    network.clear()
    start = time.perf_counter()
    with ThreadPoolExecutor(CAMERAS) as workers:
        list(workers.map(drive, streams))
    together = CAMERAS * frames / (time.perf_counter() - start)
    drive(streams[0])
    alone = 1 / float(np.median(network[-frames:]))
    batched = CAMERAS / batch_time(backend, context.bundle, frames)
    return [
        Measurement(f'{CAMERAS} cameras, whole frames', f'{together:.0f} frames/s'),
        Measurement('network alone, one by one', f'{alone:.0f} frames/s'),
        Measurement(f'network alone, a batch of {CAMERAS}', f'{batched:.0f} frames/s')]


def batch_time(backend: TensorRtBackend, bundle: Bundle, rounds: int) -> float:
    """Return the median seconds of the network alone on a batch of CAMERAS frames."""
    gpu = backend.gpu
    path, header, engine = engine_for(bundle, gpu.capability, batch=CAMERAS)
    contexts = Contexts(tensorrt.deserialize(engine, path, gpu), path.with_suffix('.jit'))
    context, memory = contexts.new(gpu)
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
    del memory      # of the context, which ends here
    return float(np.median(seconds[5:]))
