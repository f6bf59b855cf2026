# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU: float32 everywhere."""
import onnxruntime

from ros_vseg.backends.base import Pool
from ros_vseg.errors import BackendError


class OnnxRuntimeStream:
    """BackendStream over a shared session."""

    def __init__(self, session, info):
        self._session, self._pool = session, Pool(info)
        self._inputs = {'pool': self._pool.pool, 'pool_mask': self._pool.mask}
        if not info.pool_frames:
            self._inputs = {}
        self.context_frames = 0

    def step(self, image):
        """See BackendStream."""
        self.context_frames = self._pool.frames
        scores, prototypes = self._session.run(
            ('scores', 'prototypes'), {'image': image[None], **self._inputs})
        self._pool.push(prototypes)
        return scores[0]

    def reset(self):
        """See BackendStream."""
        self._pool.reset()


class OnnxRuntimeBackend:
    """Backend that runs the bundle's graph in ONNX Runtime."""

    name, device = 'onnxruntime', 'CPU fp32'

    def __init__(self, bundle, session):
        self.bundle, self._session = bundle, session

    def stream(self):
        """See Backend."""
        return OnnxRuntimeStream(self._session, self.bundle.info)


def load(bundle, threads, precision):
    """Backend of a bundle; BackendError for a precision other than fp32."""
    if precision == 'bf16':
        raise BackendError('onnxruntime runs in fp32 on a CPU: set precision to auto or fp32, '
                           'or use openvino')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name('batch', 1)
    try:
        session = onnxruntime.InferenceSession(
            bundle.model, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # its errors have no common base
        raise BackendError(f'onnxruntime {onnxruntime.__version__} refuses {bundle.path}: '
                           f'{str(error).splitlines()[0]}') from error
    return OnnxRuntimeBackend(bundle, session)
