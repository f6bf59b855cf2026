# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""``vseg compare``: how far two backends or precisions agree on the same frames."""
from dataclasses import dataclass
from itertools import islice
from typing import Any, Iterable, NamedTuple, Optional

import numpy as np
import numpy.typing as npt
import onnx
from onnx import shape_inference, TensorProto

from ros_vseg import backends
from ros_vseg.backends.base import Backend
from ros_vseg.bundle import Bundle
from ros_vseg.errors import VsegError
from ros_vseg.interrupts import until_interrupted

DEPARTS = 0.01      # difference that counts, of the largest value that a layer gives

Tensors = dict[str, npt.NDArray[Any]]


class Departure(NamedTuple):
    """A layer whose outputs differ, and by how much of its largest value."""

    name: str
    kind: str
    share: float


@dataclass
class Comparison:
    """
    What two backends made of the same frames.

    Attributes:
        frames: their number.
        agreement: share of the pixels with the same label.
        worst: number of the frame with the fewest, from 0.
        worst_agreement: its share.
        score_difference: the largest between two scores, or None where one stays on the GPU.
        departure: the first layer that departs on the worst frame, None if none does.
        no_layers: why layers could not be compared, or None.
    """

    frames: int
    agreement: float
    worst: int
    worst_agreement: float
    score_difference: Optional[float]
    departure: Optional[Departure] = None
    no_layers: Optional[str] = None

    def lines(self) -> list[str]:
        """Return it for people."""
        scores = ('not compared: one of them leaves its scores on the GPU'
                  if self.score_difference is None else f'{self.score_difference:.4g}')
        if self.no_layers:
            layer = f'not looked for: {self.no_layers}'
        elif self.departure is None:
            layer = f'none: no layer differs by {DEPARTS:.0%} of its largest value'
        else:
            layer = (f'{self.departure.kind} {self.departure.name}: {self.departure.share:.1%} of '
                     'its largest value')
        return [f'{"labels that agree":<25} {100 * self.agreement:.3f} % of {self.frames} frames',
                f'{"worst frame":<25} number {self.worst}: {100 * self.worst_agreement:.3f} %',
                f'{"largest score difference":<25} {scores}',
                f'{"first layer that departs":<25} {layer}']


def load(bundle: Bundle, text: str, **options: Any) -> Backend:
    """Return the backend that ``text`` names, such as 'openvino' or 'tensorrt:int8'."""
    name, _, precision = text.partition(':')
    return backends.load(bundle, name, precision=precision or 'auto', **options)


def compare(first: Backend, second: Backend, images: Iterable[npt.NDArray[np.uint8]],
            limit: Optional[int] = None) -> Comparison:
    """
    Label the same frames by two backends of one bundle.

    Args:
        first: whose scores the differences are from.
        second: the other.
        images: RGB uint8 [H, W, 3], in their order; each is remembered.
        limit: of frames.

    Raises:
        VsegError: there are no frames.
    """
    streams = first.stream(), second.stream()
    shares: list[float] = []
    difference: Optional[float] = 0.0
    recent: list[npt.NDArray[np.uint8]] = []
    worst: list[npt.NDArray[np.uint8]] = []     # the worst frame, after those that it attends to
    for image in until_interrupted(islice(images, limit)):
        made = [stream.label(image) for stream in streams]
        for stream in streams:
            stream.remember()
        recent = [*recent, image][-1 - first.bundle.info.pool_frames:]
        share = float((made[0].labels == made[1].labels).mean())
        if not shares or share < min(shares):
            worst = recent
        shares.append(share)
        scores = [each.scores for each in made]
        if scores[0] is None or scores[1] is None or difference is None:
            difference = None
        else:
            difference = max(difference, float(np.abs(scores[0] - scores[1]).max()))
    if not shares:
        raise VsegError('there are no frames to compare')
    found = Comparison(len(shares), float(np.mean(shares)), int(np.argmin(shares)), min(shares),
                       difference)
    graphs = [getattr(backend, 'graph', None) for backend in (first, second)]
    if None in graphs or any('GPU' in backend.device for backend in (first, second)):
        found.no_layers = 'that takes two ONNX graphs on the processor'
    elif graphs[0] != graphs[1]:
        found.no_layers = 'the two run different graphs'
    else:
        found.departure = _first_departure(first, second, worst)
    return found


def _first_departure(first: Backend, second: Backend,
                     images: list[npt.NDArray[np.uint8]]) -> Optional[Departure]:
    """Return the first layer that departs on the last of some frames, in the graph's order."""
    from ros_vseg.backends import onnxruntime
    from ros_vseg.backends.base import Options
    stream = onnxruntime.load(first.bundle, Options()).stream()     # gives both the same pool
    for image in images[:-1]:
        stream.label(image)
        stream.remember()
    inputs: Tensors = {'image': stream.resize(images[-1])[None], **stream.inputs()}
    graph = _with_all_outputs(getattr(first, 'graph'))
    ours, theirs = (_run(backend, graph, inputs) for backend in (first, second))
    for node in onnx.load_model_from_string(graph).graph.node:
        for name in node.output:
            if name not in ours:
                continue
            most = float(np.abs(ours[name]).max(initial=0))
            share = float(np.abs(ours[name] - theirs[name]).max(initial=0)) / (most or 1.0)
            if not share <= DEPARTS:
                return Departure(node.name or name, node.op_type, share)
    return None


def _with_all_outputs(graph: bytes) -> bytes:
    """Return an ONNX graph that gives whatever floats its nodes compute."""
    model = shape_inference.infer_shapes(onnx.load_model_from_string(graph))
    known = {entry.name for entry in model.graph.output}
    made = {name for node in model.graph.node for name in node.output}
    model.graph.output.extend(
        entry for entry in model.graph.value_info if entry.name in made - known
        and entry.type.tensor_type.elem_type == TensorProto.FLOAT)
    return model.SerializeToString()


def _run(backend: Backend, graph: bytes, inputs: Tensors) -> Tensors:
    """Return what a backend's library computes for each of a graph's outputs, by name."""
    if backend.name == 'openvino':
        from ros_vseg.backends.openvino import compile_graph
        compiled = compile_graph(graph, getattr(backend, 'precision'))
        made = compiled.create_infer_request().infer(inputs)
        return {name: np.array(made[port]) for port in compiled.outputs for name in port.names}
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=['CPUExecutionProvider'])
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))
