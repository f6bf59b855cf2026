# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU: bfloat16 where the processor computes in it, else float32."""
import openvino

from ros_vseg.backends.base import Pool
from ros_vseg.errors import BackendError


class OpenVinoStream:
    """BackendStream with an infer request of its own; the pool is shared with it, not copied."""

    def __init__(self, compiled, info):
        self._request, self._pool = compiled.create_infer_request(), Pool(info)
        if info.pool_frames:
            for name, array in (('pool', self._pool.pool), ('pool_mask', self._pool.mask)):
                self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        self._image = self._request.get_tensor('image')
        self._scores = self._request.get_tensor('scores')
        self._prototypes = self._request.get_tensor('prototypes')
        self.context_frames = 0

    def step(self, image):
        """See BackendStream."""
        self.context_frames = self._pool.frames
        self._image.data[0] = image  # sharing it is refused where the message is read-only
        self._request.infer()
        self._pool.push(self._prototypes.data)
        return self._scores.data[0]

    def reset(self):
        """See BackendStream."""
        self._pool.reset()


class OpenVinoBackend:
    """Backend that runs the bundle's graph in OpenVINO, tuned for latency."""

    name = 'openvino'

    def __init__(self, bundle, compiled, precision):
        self.bundle, self.device, self._compiled = bundle, f'CPU {precision}', compiled

    def stream(self):
        """See Backend."""
        return OpenVinoStream(self._compiled, self.bundle.info)


def load(bundle, threads, precision):
    """Backend of a bundle; BackendError where the processor lacks the precision."""
    core = openvino.Core()
    native = 'BF16' in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    if precision == 'bf16' and not native:
        raise BackendError('this processor has no bf16 arithmetic: set precision to auto or fp32')
    precision = 'bf16' if native and precision != 'fp32' else 'fp32'
    options = {'PERFORMANCE_HINT': 'LATENCY',
               'INFERENCE_PRECISION_HINT': {'bf16': 'bf16', 'fp32': 'f32'}[precision]}
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    try:
        model = core.read_model(bundle.model)
        shapes = bundle.info.shapes()
        model.reshape({port: shapes[port.get_any_name()] for port in model.inputs})
        compiled = core.compile_model(model, 'CPU', options)
    except RuntimeError as error:
        raise BackendError(f'openvino {openvino.__version__} refuses {bundle.path}: '
                           f'{str(error).strip().splitlines()[-1]}') from error
    return OpenVinoBackend(bundle, compiled, precision)
