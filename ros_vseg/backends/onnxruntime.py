# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: on the CPU, and on NVIDIA GPUs by its CUDA and TensorRT providers."""
import contextlib
from functools import lru_cache
import io
from pathlib import Path
import tempfile
from typing import Any, NamedTuple, Optional

import numpy as np
import numpy.typing as npt
from onnx import helper, TensorProto
import onnxruntime

from ros_vseg.backends.base import HostStream, Options, probability
from ros_vseg.bundle import Bundle
from ros_vseg.engines.cache import default_folder
from ros_vseg.errors import BackendError, DeviceError
from ros_vseg.graph import ring_model


class Provider(NamedTuple):
    """What a backend asks ONNX Runtime for: a provider's name, its memory, and precisions."""

    name: str
    memory: str
    precisions: tuple[str, ...]


PROVIDERS = {
    'onnxruntime': Provider('CPUExecutionProvider', 'cpu', ('fp32',)),
    'onnxruntime_cuda': Provider('CUDAExecutionProvider', 'cuda', ('fp32',)),
    'onnxruntime_tensorrt': Provider('TensorrtExecutionProvider', 'cuda', ('fp16', 'fp32')),
}
SILENT, WARNINGS = 4, 2     # severities of its log; the second is its default


class OnnxRuntimeStream(HostStream):
    """
    BackendStream over a shared session; the pool stays where the provider computes.

    One I/O binding for each state of the ring: the graph reads the pool at one address, and writes
    the frame's prototypes into its slot.
    """

    def __init__(self, session: onnxruntime.InferenceSession, bundle: Bundle,
                 table: Optional[npt.NDArray[np.uint8]], memory: str, stabilize: bool) -> None:
        super().__init__(bundle, table, stabilize)
        self._session = session
        info, shapes = self.info, self.info.shapes()
        self._image = onnxruntime.OrtValue.ortvalue_from_numpy(
            np.zeros(shapes['image'], np.uint8), memory, 0)
        self._scores = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            shapes['scores'], np.float32, 'cpu', 0)
        self._confidence = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            [1], np.float32, 'cpu', 0) if bundle.has_confidence else None
        self._depth = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            shapes['depth'], np.float32, 'cpu', 0) if info.depth else None
        slots = self.ring.capacity + 1
        self._pool = onnxruntime.OrtValue.ortvalue_from_numpy(
            np.zeros((1, slots * info.num_prototypes, info.prototype_dim), np.float32), memory, 0)
        self._masks = [onnxruntime.OrtValue.ortvalue_from_numpy(row[None], memory, 0)
                       for row in self.ring.masks]
        self._bindings = [self._bind(slot, mask, memory)
                          for slot, mask in zip(self.ring.slots, self._masks)]

    def _bind(self, slot: int, mask: onnxruntime.OrtValue, memory: str) -> Any:
        """Return the binding for a frame that writes a slot and sees what the mask shows."""
        info, binding = self.info, self._session.io_binding()
        binding.bind_ortvalue_input('image', self._image)
        if self.ring.capacity:
            binding.bind_ortvalue_input('pool', self._pool)
            binding.bind_ortvalue_input('pool_mask', mask)
        binding.bind_ortvalue_output('scores', self._scores)
        if self._confidence is not None:
            binding.bind_ortvalue_output('confidence', self._confidence)
        if self._depth is not None:
            binding.bind_ortvalue_output('depth', self._depth)
        if info.num_prototypes:
            slot_bytes = 4 * info.num_prototypes * info.prototype_dim
            binding.bind_output('prototypes', memory, 0, np.float32, info.shapes()['prototypes'],
                                self._pool.data_ptr() + slot * slot_bytes)
        return binding

    def step(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See BackendStream."""
        self.context_frames = self.ring.frames
        try:
            self._image.update_inplace(np.ascontiguousarray(image)[None])
            self._session.run_with_iobinding(self._bindings[self.ring.state])
        except Exception as error:  # its errors have no common base
            raise DeviceError(f'onnxruntime failed: {_first_line(error)}') from error
        if self._confidence is not None:
            self.mean_confidence = probability(self._confidence.numpy())
        if self._depth is not None:
            self.depth = self._depth.numpy()[0]
        scores: npt.NDArray[np.float32] = self._scores.numpy()[0]
        return scores

    def inputs(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return copies of the pool and its mask as the next step will see them, by name."""
        if not self.ring.capacity:
            return {}
        return {'pool': np.array(self._pool.numpy()),
                'pool_mask': self.ring.masks[self.ring.state][None]}


class OnnxRuntimeBackend:
    """Backend that runs ``graph``, the bundle's, in ONNX Runtime."""

    problem: Optional[str] = None

    def __init__(self, bundle: Bundle, graph: bytes, session: onnxruntime.InferenceSession,
                 name: str, precision: str, stabilize: bool = False) -> None:
        self.bundle, self.graph, self.name, self._session = bundle, graph, name, session
        self._stabilize = stabilize
        self._memory = PROVIDERS[name].memory
        self.device = f'{"CPU" if self._memory == "cpu" else "GPU"} {precision}'

    def stream(self, table: Optional[npt.NDArray[np.uint8]] = None) -> OnnxRuntimeStream:
        """See Backend."""
        return OnnxRuntimeStream(
            self._session, self.bundle, table, self._memory, self._stabilize)


def missing(name: str) -> Optional[str]:
    """Return None, or why a backend's provider cannot be used here."""
    provider = PROVIDERS[name]
    if provider.name not in onnxruntime.get_available_providers():
        return (f'this onnxruntime has no {provider.name}: pip install onnxruntime-gpu in its '
                'place')
    return None if provider.memory == 'cpu' else _try(provider.name)


@lru_cache(maxsize=None)
def _try(provider: str) -> Optional[str]:
    """
    Return None if a network of one node runs on a provider, else the reason.

    onnxruntime-gpu lists its providers where there is no GPU too, and then computes on the CPU.
    """
    node = helper.make_node('Neg', ['x'], ['y'])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in 'xy']
    model = helper.make_model(helper.make_graph([node], 'try', ends[:1], ends[1:]),
                              opset_imports=[helper.make_opsetid('', 13)], ir_version=7)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    _load_libraries()
    onnxruntime.set_default_logger_severity(SILENT)     # libraries that it does not find
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=[provider], enable_fallback=0)
        if provider in session.get_providers():
            session.run(None, {'x': np.ones(1, np.float32)})
            return None
        reason = 'it falls back to the CPU'
    except Exception as error:  # its errors have no common base
        reason = _first_line(error)
    finally:
        onnxruntime.set_default_logger_severity(WARNINGS)
    return (f'{provider} does not start ({reason}): it needs an NVIDIA GPU, its driver, and the '
            'libraries of the CUDA version that this onnxruntime is for')


def _load_libraries() -> None:
    """Load the CUDA libraries that pip installed, which the system's linker does not find."""
    preload = getattr(onnxruntime, 'preload_dlls', None)    # since 1.21
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):     # it prints those that are not there
            preload()


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.rsplit('&) ', 1)[-1]    # without the C++ function that it comes from


def load(bundle: Bundle, options: Options, name: str = 'onnxruntime') -> OnnxRuntimeBackend:
    """Return the backend of a bundle; BackendError for a precision or provider that it lacks."""
    provider = PROVIDERS[name]
    precision = provider.precisions[0] if options.precision == 'auto' else options.precision
    if precision not in provider.precisions:
        where = 'a CPU' if provider.memory == 'cpu' else 'a GPU'
        raise BackendError(f'{name} runs in {" or ".join(provider.precisions)} on {where}: set '
                           'precision to auto or one of these, or use another backend')
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session_options.log_severity_level = 3
    session_options.add_free_dimension_override_by_name('batch', 1)
    providers, graph = _providers(provider.name, precision, options), ring_model(bundle)
    try:
        session = onnxruntime.InferenceSession(
            graph, session_options, providers=providers, enable_fallback=0)
    except Exception as error:  # its errors have no common base
        raise BackendError(f'onnxruntime {onnxruntime.__version__} refuses {bundle.path}: '
                           f'{_first_line(error)}') from error
    if provider.name not in session.get_providers():    # it falls back without an error
        raise DeviceError(f'{name} could not be started: {provider.name} needs an NVIDIA driver '
                          'and the CUDA libraries of its version')
    return OnnxRuntimeBackend(bundle, graph, session, name, precision, options.stabilize)


def _providers(provider: str, precision: str, options: Options) -> list[Any]:
    """Return what to ask of ONNX Runtime; BackendError if engines cannot be kept."""
    if provider == 'CUDAExecutionProvider':
        return [(provider, {'use_tf32': '0'})]      # fp32 is to be float32
    if provider != 'TensorrtExecutionProvider':
        return [provider]
    folder = Path(options.engines or default_folder()).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:      # ValueError: a NUL in its name
        raise BackendError(f'{folder} cannot be written ({getattr(error, "strerror", error)}): '
                           'choose another folder for engines') from error
    return [(provider, {'trt_fp16_enable': precision == 'fp16', 'trt_engine_cache_enable': True,
                        'trt_engine_cache_path': str(folder)}), 'CUDAExecutionProvider']
