# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmark of the network's layers, one by one, by the profiler of the library that runs them."""
from collections import defaultdict
import json
from pathlib import Path
import tempfile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ros_vseg.backends.base import Ring
from ros_vseg.backends.tensorrt import TensorRtBackend
from ros_vseg.bench.tools import Context, Measurement
from ros_vseg.bundle import Bundle
from ros_vseg.errors import VsegError

SHOWN = 20      # layers that have a row of their own
WARM_UP = 3     # rounds that do not count


class Layer(NamedTuple):
    """A layer as the library names it, what it computes, and seconds of one frame."""

    name: str
    kind: str
    seconds: float


def bench_layers(context: Context) -> list[Measurement]:
    """Return the layers of the backend's network, longest first, with their shares."""
    layers = sorted(layer_times(context), key=lambda layer: -layer.seconds)
    total = sum(layer.seconds for layer in layers)
    rows = [_row(f'{layer.kind} {layer.name}', layer.seconds, total) for layer in layers[:SHOWN]]
    rest = layers[SHOWN:]
    if rest:
        seconds = sum(each.seconds for each in rest)
        rows.append(_row(f'the other {len(rest)} layers', seconds, total))
    backend = context.backend
    rows.append(Measurement(f'all {len(layers)} layers, {backend.name}, {backend.device}',
                            f'{1e3 * total:.3f} ms'))
    return rows


def _row(what: str, seconds: float, total: float) -> Measurement:
    return Measurement(what, f'{1e3 * seconds:.3f} ms, {100 * seconds / total:.1f} %')


def layer_times(context: Context) -> list[Layer]:
    """
    Return the layers of the network in the backend under test, by means of its own profiler.

    Raises:
        VsegError: a backend without one here.
    """
    backend = context.backend
    if isinstance(backend, TensorRtBackend):
        return _of_tensorrt(backend, context)
    if backend.name == 'onnxruntime':
        return _of_onnxruntime(context)
    if backend.name == 'openvino':
        return _of_openvino(backend, context)
    raise VsegError(f'layers are not told by backend {backend.name}: use tensorrt, onnxruntime or '
                    'openvino')


def _inputs(bundle: Bundle, image: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Return the inputs of a frame that sees a full pool."""
    info = bundle.info
    inputs: dict[str, npt.NDArray[Any]] = {'image': image[None]}
    if info.pool_frames:
        ring = Ring(info)
        slots = (ring.capacity + 1) * info.num_prototypes
        inputs['pool'] = np.zeros((1, slots, info.prototype_dim), np.float32)
        inputs['pool_mask'] = ring.masks[-1:]
    return inputs


def _of_onnxruntime(context: Context) -> list[Layer]:
    import onnxruntime
    with tempfile.TemporaryDirectory(prefix='vseg-') as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / 'layers')
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            context.backend.graph, options, providers=['CPUExecutionProvider'])
        inputs = _inputs(context.bundle, context.images[0])
        for _ in range(WARM_UP + context.rounds):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get('cat') == 'Node' and event['name'].endswith('_kernel_time'):
            key = event['name'][:-len('_kernel_time')], event['args']['op_name']
            times[key].append(1e-6 * event['dur'])
    return [Layer(name, kind, _median(values)) for (name, kind), values in times.items()]


def _of_openvino(backend: Any, context: Context) -> list[Layer]:
    from ros_vseg.backends.openvino import compile_graph
    request = compile_graph(
        backend.graph, backend.precision, PERF_COUNT=True).create_infer_request()
    inputs = _inputs(context.bundle, context.images[0])
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(WARM_UP):
        request.infer(inputs)
    for _ in range(context.rounds):
        request.infer(inputs)
        for layer in request.profiling_info:
            if layer.status == layer.Status.EXECUTED:   # not so one below a microsecond
                times[layer.node_name, f'{layer.node_type} ({layer.exec_type})'].append(
                    layer.real_time.total_seconds())
    return [Layer(name, kind, float(np.median(values)))
            for (name, kind), values in times.items()]


def _of_tensorrt(backend: TensorRtBackend, context: Context) -> list[Layer]:
    times = backend.stream().layer_times(context.images[0], WARM_UP + context.rounds)
    return [Layer(name, 'layer', _median(values)) for name, values in times.items()]


def _median(values: list[float]) -> float:
    """Return the median of those after the warm-up."""
    return float(np.median(values[WARM_UP:]))
