# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: on the CPU, and on NVIDIA GPUs by its CUDA and TensorRT providers."""
from pathlib import Path

import numpy as np
import onnxruntime

from ros_vseg.backends.base import HostStream, probability
from ros_vseg.engines.cache import default_folder
from ros_vseg.errors import BackendError, DeviceError
from ros_vseg.graph import ring_model

# backend -> (provider, kind of memory, precisions)
PROVIDERS = {
    'onnxruntime': ('CPUExecutionProvider', 'cpu', ('fp32',)),
    'onnxruntime_cuda': ('CUDAExecutionProvider', 'cuda', ('fp32',)),
    'onnxruntime_tensorrt': ('TensorrtExecutionProvider', 'cuda', ('fp16', 'fp32')),
}


class OnnxRuntimeStream(HostStream):
    """
    BackendStream over a shared session; the pool stays where the provider computes.

    One I/O binding for each state of the ring: the graph reads the pool at one address, and writes
    the frame's prototypes into its slot.
    """

    def __init__(self, session, bundle, table, memory, stabilize):
        super().__init__(bundle, table, stabilize)
        self._session, self._pool = session, None
        info, shapes = self.info, self.info.shapes()
        self._image = onnxruntime.OrtValue.ortvalue_from_numpy(
            np.zeros(shapes['image'], np.uint8), memory, 0)
        self._scores = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            shapes['scores'], np.float32, 'cpu', 0)
        self._confidence = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            [1], np.float32, 'cpu', 0) if bundle.has_confidence else None
        slots, values = self.ring.capacity + 1, info.num_prototypes * info.prototype_dim
        self._pool = onnxruntime.OrtValue.ortvalue_from_numpy(
            np.zeros((1, slots * info.num_prototypes, info.prototype_dim), np.float32), memory, 0)
        self._masks = [onnxruntime.OrtValue.ortvalue_from_numpy(row[None], memory, 0)
                       for row in self.ring.masks]
        self._bindings = []
        for slot, mask in zip(self.ring.slots, self._masks):
            binding = session.io_binding()
            binding.bind_ortvalue_input('image', self._image)
            if self.ring.capacity:
                binding.bind_ortvalue_input('pool', self._pool)
                binding.bind_ortvalue_input('pool_mask', mask)
            binding.bind_ortvalue_output('scores', self._scores)
            if self._confidence is not None:
                binding.bind_ortvalue_output('confidence', self._confidence)
            if info.num_prototypes:
                binding.bind_output('prototypes', memory, 0, np.float32, shapes['prototypes'],
                                    self._pool.data_ptr() + 4 * slot * values)
            self._bindings.append(binding)

    def step(self, image):
        """See BackendStream."""
        self.context_frames = self.ring.frames
        try:
            self._image.update_inplace(np.ascontiguousarray(image)[None])
            self._session.run_with_iobinding(self._bindings[self.ring.state])
        except Exception as error:  # its errors have no common base
            raise DeviceError(f'onnxruntime failed: {str(error).splitlines()[0]}') from error
        if self._confidence is not None:
            self.mean_confidence = probability(self._confidence.numpy())
        return self._scores.numpy()[0]

    def inputs(self):
        """Return copies of the pool and its mask as the next step will see them, by name."""
        if not self.ring.capacity:
            return {}
        return {'pool': np.array(self._pool.numpy()),
                'pool_mask': self.ring.masks[self.ring.state][None]}


class OnnxRuntimeBackend:
    """Backend that runs the bundle's graph in ONNX Runtime."""

    problem = None

    def __init__(self, bundle, session, name, precision, stabilize=False):
        self.bundle, self.name, self._session = bundle, name, session
        self._stabilize = stabilize
        self._memory = PROVIDERS[name][1]
        self.device = f'{"CPU" if self._memory == "cpu" else "GPU"} {precision}'

    def stream(self, table=None):
        """See Backend."""
        return OnnxRuntimeStream(
            self._session, self.bundle, table, self._memory, self._stabilize)


def missing(name):
    """Return None, or why this installation of onnxruntime lacks the provider of a backend."""
    provider = PROVIDERS[name][0]
    if provider in onnxruntime.get_available_providers():
        return None
    return f'this onnxruntime has no {provider}: pip install onnxruntime-gpu in its place'


def load(bundle, options, name='onnxruntime'):
    """Backend of a bundle; BackendError for a precision or a provider that is not there."""
    provider, memory, precisions = PROVIDERS[name]
    precision = precisions[0] if options.precision == 'auto' else options.precision
    if precision not in precisions:
        where = 'a CPU' if memory == 'cpu' else 'a GPU'
        raise BackendError(f'{name} runs in {" or ".join(precisions)} on {where}: set precision '
                           'to auto or one of these, or use another backend')
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session_options.log_severity_level = 3
    session_options.add_free_dimension_override_by_name('batch', 1)
    try:
        session = onnxruntime.InferenceSession(
            ring_model(bundle), session_options,
            providers=_providers(provider, precision, options), enable_fallback=0)
    except Exception as error:  # its errors have no common base
        raise BackendError(f'onnxruntime {onnxruntime.__version__} refuses {bundle.path}: '
                           f'{str(error).splitlines()[0]}') from error
    if provider not in session.get_providers():     # it falls back without an error
        raise DeviceError(f'{name} could not be started: {provider} needs an NVIDIA driver and '
                          'the CUDA libraries of its version')
    return OnnxRuntimeBackend(bundle, session, name, precision, options.stabilize)


def _providers(provider, precision, options):
    if provider != 'TensorrtExecutionProvider':
        return [provider]
    folder = Path(options.engines or default_folder()).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return [(provider, {'trt_fp16_enable': precision == 'fp16', 'trt_engine_cache_enable': True,
                        'trt_engine_cache_path': str(folder)}), 'CUDAExecutionProvider']
