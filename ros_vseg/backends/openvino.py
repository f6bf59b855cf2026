# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU: bfloat16 where the processor computes in it, else float32; or int8."""
from typing import Any, Optional

import numpy as np
import numpy.typing as npt
import openvino

from ros_vseg.backends.base import HostStream, Options, probability
from ros_vseg.bundle import Bundle
from ros_vseg.engines import cpu_int8
from ros_vseg.errors import BackendError
from ros_vseg.graph import ring_model


class OpenVinoStream(HostStream):
    """BackendStream with an infer request of its own, whose prototypes go straight to the ring."""

    def __init__(self, compiled: openvino.CompiledModel, bundle: Bundle,
                 table: Optional[npt.NDArray[np.uint8]], stabilize: bool) -> None:
        super().__init__(bundle, table, stabilize)
        self._request = compiled.create_infer_request()
        self._image = self._request.get_tensor('image')
        self._scores = self._request.get_tensor('scores')
        self._confidence = (
            self._request.get_tensor('confidence') if bundle.has_confidence else None)
        self._depth = self._request.get_tensor('depth') if bundle.info.depth else None
        if not self.ring.capacity:
            return
        shape = (self.ring.capacity + 1, 1, self.info.num_prototypes, self.info.prototype_dim)
        pool = np.zeros(shape, np.float32)
        self._slots = [openvino.Tensor(slot, shared_memory=True) for slot in pool]
        self._masks = [openvino.Tensor(row[None], shared_memory=True) for row in self.ring.masks]
        flat = pool.reshape(1, -1, self.info.prototype_dim)
        self._request.set_tensor('pool', openvino.Tensor(flat, shared_memory=True))

    def step(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See BackendStream."""
        ring = self.ring
        self.context_frames = ring.frames
        self._image.data[0] = image  # sharing it is refused where the message is read-only
        if ring.capacity:
            self._request.set_tensor('pool_mask', self._masks[ring.state])
            self._request.set_tensor('prototypes', self._slots[ring.slot])
        self._request.infer()
        if self._confidence is not None:
            self.mean_confidence = probability(self._confidence.data)
        if self._depth is not None:
            self.depth = self._depth.data[0]
        scores: npt.NDArray[np.float32] = self._scores.data[0]
        return scores


class OpenVinoBackend:
    """
    Backend that runs the bundle's graph in OpenVINO, tuned for latency.

    Attributes:
        graph: the ONNX file that it runs.
        precision: in which it does.
    """

    name = 'openvino'
    problem: Optional[str] = None

    def __init__(self, bundle: Bundle, graph: bytes, precision: str, threads: int = 0,
                 stabilize: bool = False) -> None:
        self.bundle, self.graph, self.precision = bundle, graph, precision
        self.device = f'CPU {precision}'
        try:
            self._compiled = compile_graph(graph, precision, INFERENCE_NUM_THREADS=threads)
        except RuntimeError as error:
            raise BackendError(f'openvino {openvino.__version__} refuses {bundle.path}: '
                               f'{str(error).strip().splitlines()[-1]}') from error
        self._stabilize = stabilize

    def stream(self, table: Optional[npt.NDArray[np.uint8]] = None) -> OpenVinoStream:
        """See Backend."""
        return OpenVinoStream(self._compiled, self.bundle, table, self._stabilize)


def compile_graph(graph: bytes, precision: str, **properties: Any) -> openvino.CompiledModel:
    """
    Return an ONNX graph compiled for one frame at a time.

    Args:
        graph: ONNX, whose inputs have a batch as their first axis.
        precision: 'fp32', 'bf16', or 'int8' for a graph that is quantised.
        **properties: of OpenVINO's own, beside those that this sets.

    Raises:
        RuntimeError: OpenVINO refuses it.
    """
    core = openvino.Core()
    model = core.read_model(graph)
    model.reshape({port: [1, *(dim.get_length() for dim in list(port.partial_shape)[1:])]
                   for port in model.inputs})
    return core.compile_model(model, 'CPU', {
        'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_PRECISION_HINT': 'bf16' if precision == 'bf16' else 'f32', **properties})


def missing(name: str) -> Optional[str]:
    """Return None: what can be imported can be used."""
    return None


def load(bundle: Bundle, options: Options, name: str = 'openvino') -> OpenVinoBackend:
    """Return the backend of a bundle; BackendError where the processor lacks the precision."""
    native = 'BF16' in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    if options.precision not in ('auto', 'fp32', 'bf16', 'int8'):
        raise BackendError(f'openvino runs in fp32, bf16 or int8 here, not in {options.precision}:'
                           ' set precision to auto or one of these, or use another backend')
    if options.precision == 'int8':
        return OpenVinoBackend(bundle, cpu_int8.read(bundle, options.engines), 'int8',
                               options.threads, options.stabilize)
    if options.precision == 'bf16' and not native:
        raise BackendError('this processor has no bf16 arithmetic: set precision to auto or fp32')
    precision = 'bf16' if native and options.precision != 'fp32' else 'fp32'
    return OpenVinoBackend(
        bundle, ring_model(bundle), precision, options.threads, options.stabilize)
