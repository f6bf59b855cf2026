# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the network itself: what the reuse of prototypes costs and saves; backends."""
from dataclasses import replace
from itertools import cycle
from typing import Callable

import numpy as np
import numpy.typing as npt
import onnx

from ros_vseg import backends
from ros_vseg.backends.base import Backend, BackendStream
from ros_vseg.bench.tools import (
    advance, Context, interleave, Measurement, milliseconds, ratio)
from ros_vseg.bundle import Bundle
from ros_vseg.graph import with_pool_frames


def bench_stream(context: Context) -> list[Measurement]:
    """Time a stream that reuses T frames, against the per-frame network and recomputing."""
    reason = no_reuse(context.bundle)
    if reason:
        return [Measurement('stream with prototypes reused', f'skipped: {reason}')]
    images, frames = cycle(context.images), context.bundle.info.pool_frames
    stream = context.backend.stream()
    alone = backends.load(per_frame(context.bundle), context.backend.name).stream()
    prototypes = _runner(context.backend, prototypes_only(context.bundle))

    def recompute() -> npt.NDArray[np.float32]:
        for _ in range(frames):
            prototypes(next(images))
        return advance(stream, next(images))

    times = interleave({
        'reused': lambda: advance(stream, next(images)),
        'per frame': lambda: advance(alone, next(images)),
        'recomputed': recompute}, context.rounds, warmup=frames + 5)
    cost = ratio(times['reused'], times['per frame'])
    gain = ratio(times['recomputed'], times['reused'])
    detail = ', '.join(f'{name} {milliseconds(values)}' for name, values in times.items())
    return [
        Measurement(f'stream with T = {frames} reused, against the per-frame network',
                    f'{cost:.3f} x', 'at most 1.03 x', cost <= 1.03, detail),
        Measurement(f'stream with T = {frames} reused, against recomputing the {frames} frames',
                    f'{gain:.2f} x faster', 'at least 3.5 x', gain >= 3.5, detail)]


def bench_backends(context: Context) -> list[Measurement]:
    """Time one step of every backend and precision that this machine has."""
    streams: dict[str, BackendStream] = {}
    for name, missing in backends.available().items():
        if missing is None:
            for precision in ('fp32', 'auto'):
                backend = backends.load(context.bundle, name, precision=precision)
                streams.setdefault(f'{name}, {backend.device}', backend.stream())
    images = cycle(context.images)

    def stepper(stream: BackendStream) -> Callable[[], npt.NDArray[np.float32]]:
        return lambda: advance(stream, next(images))

    times = interleave({name: stepper(stream) for name, stream in streams.items()},
                       context.rounds)
    info = context.bundle.info
    return [Measurement(f'{info.name}, {info.height}x{info.width}, one step of {name}',
                        milliseconds(values)) for name, values in times.items()]


def no_reuse(bundle: Bundle) -> str | None:
    """Return why a bundle has no prototypes to reuse, or None if it has."""
    if not bundle.info.num_prototypes:
        return 'the bundle has no prototypes'
    return None if bundle.info.pool_frames else 'the bundle has no pool (T = 0)'


def per_frame(bundle: Bundle) -> Bundle:
    """Return the bundle with a pool of no frames: attention to the frame's own prototypes only."""
    model = with_pool_frames(onnx.load_model_from_string(bundle.model), bundle.info, 0)
    return replace(bundle, info=replace(bundle.info, pool_frames=0),
                   model=model.SerializeToString())


def prototypes_only(bundle: Bundle) -> bytes:
    """Return the part of the graph that an earlier frame needs: image to prototypes, as ONNX."""
    model = onnx.load_model_from_string(bundle.model)
    part = onnx.utils.Extractor(model).extract_model(['image'], ['prototypes'])
    return part.SerializeToString()


def _runner(backend: Backend,
            model: bytes) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Return a function of one image that runs ``model`` as ``backend`` runs its own."""
    if backend.name == 'onnxruntime':
        import onnxruntime
        session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
        return lambda image: session.run(None, {'image': image[None]})[0]
    import openvino
    core = openvino.Core()
    options = {'PERFORMANCE_HINT': 'LATENCY',
               'INFERENCE_PRECISION_HINT': 'bf16' if 'bf16' in backend.device else 'f32'}
    request = core.compile_model(core.read_model(model), 'CPU', options).create_infer_request()
    return lambda image: request.infer([image[None]], share_inputs=True, share_outputs=True)[0]
