# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmark: the boundary-following decoder against dense upsampling and argmax."""
from typing import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from onnx import helper, TensorProto

from ros_vseg.bench.tools import Context, interleave, Measurement, milliseconds, ratio
from ros_vseg.decode import decode, decode_dense

STRIDE, SIZE = 16, (1024, 2048)
Scores = npt.NDArray[np.float32]    # [K, h, w]
Labels = npt.NDArray[np.integer]    # [H, W]


def bench_decoder(context: Context) -> list[Measurement]:
    """Time one 1024x2048 label image from stride-16 scores; every contender is dense but ours."""
    scores = real_scores(context)
    dense = dense_contenders(scores)
    times = interleave({'ours': lambda: decode(scores, SIZE), **dense}, context.rounds)
    best = min(dense, key=lambda name: np.median(times[name]))
    factor = ratio(times[best], times['ours'])
    detail = ', '.join(f'{name} {milliseconds(values)}' for name, values in times.items())
    return [Measurement(
        f'decoder against dense upsampling + argmax (best: {best}), 1024x2048, stride 16',
        f'{factor:.1f} x faster', 'at least 5 x', factor >= 5, detail)]


def real_scores(context: Context) -> Scores:
    """Return scores of a street frame, resampled to the stride-16 grid: float32 [K, 64, 128]."""
    scores = context.backend.stream().step(context.images[0])
    size = (SIZE[1] // STRIDE, SIZE[0] // STRIDE)
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in scores])


def dense_contenders(scores: Scores) -> dict[str, Callable[[], Labels]]:
    """Return functions by name that each label every pixel from all its classes."""
    return {
        'numpy': lambda: decode_dense(scores, SIZE),
        'OpenCV': lambda: _opencv(scores),
        'ONNX Runtime graph': _onnxruntime_graph(scores),
        'OpenVINO graph': _openvino_graph(scores),
    }


def _opencv(scores: Scores) -> Labels:
    """Upsample class by class and keep the best: never holds more than two full-size maps."""
    labels = np.zeros(SIZE, np.uint8)
    best = cv2.resize(scores[0], SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    for index in range(1, len(scores)):
        score = cv2.resize(scores[index], SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        labels[score > best] = index
        np.maximum(best, score, out=best)
    return labels


def _graph(shape: Sequence[int]) -> bytes:
    """Return upsampling and argmax as a network would hold them: scores [1,K,h,w] to [1,H,W]."""
    nodes = [
        helper.make_node('Resize', ['scores', '', '', 'size'], ['full'], mode='linear',
                         coordinate_transformation_mode='half_pixel'),
        helper.make_node('ArgMax', ['full'], ['wide'], axis=1, keepdims=0),
        helper.make_node('Cast', ['wide'], ['labels'], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes, 'dense', [helper.make_tensor_value_info('scores', TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info('labels', TensorProto.UINT8, [1, *SIZE])],
        [helper.make_tensor('size', TensorProto.INT64, [4], [1, shape[0], *SIZE])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    return model.SerializeToString()


def _onnxruntime_graph(scores: Scores) -> Callable[[], Labels]:
    import onnxruntime
    session = onnxruntime.InferenceSession(
        _graph(scores.shape), providers=['CPUExecutionProvider'])
    return lambda: session.run(None, {'scores': scores[None]})[0][0]


def _openvino_graph(scores: Scores) -> Callable[[], Labels]:
    import openvino
    core = openvino.Core()
    options = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = core.compile_model(core.read_model(_graph(scores.shape)), 'CPU', options)
    request = compiled.create_infer_request()
    return lambda: request.infer([scores[None]])[0][0]
