# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
TensorRT on NVIDIA GPUs: a frame goes up once, its labels come down, all else stays on the GPU.

Upload, resize, network, decoding and download are queued by one CUDA graph launch per frame, and
waited for once.
"""
import logging

import numpy as np

from ros_vseg.backends.base import Labels, probability, RingStream
from ros_vseg.engines import build
from ros_vseg.engines.engine import engine_for
from ros_vseg.engines.jit import Contexts
from ros_vseg.errors import BackendError, DeviceError, EngineError
from ros_vseg.gpu.cuda import Gpu
from ros_vseg.gpu.kernels import Axes, Kernels, Taps

STAGES = ('start', 'upload', 'resize', 'network', 'decode', 'download')

log = logging.getLogger(__name__)


def missing(name='tensorrt'):
    """Return None, or why this backend cannot be used here."""
    try:
        build.find_module()
        Gpu()
    except BackendError as error:
        return str(error)
    return None


def load(bundle, options, name='tensorrt'):
    """
    Backend of a bundle on the first GPU, with its engine from the cache or built now.

    DeviceError: no GPU or driver, out of memory. EngineError: see engine_for.
    """
    gpu = Gpu()
    path, header, engine = engine_for(
        bundle, gpu.capability, options.precision, folder=options.engines,
        may_build=options.may_build)
    gpu.use()
    contexts = Contexts(deserialize(engine, path, gpu), path.with_suffix('.jit'))
    backend = TensorRtBackend(bundle, gpu, contexts, header['precision'])
    # whatever has no memory, or is compiled at first use, is to be so now
    backend.stream().label(np.zeros((bundle.info.height, bundle.info.width, 3), np.uint8))
    contexts.keep(log)
    return backend


def deserialize(engine, path, gpu):
    """Return TensorRT's ICudaEngine; EngineError names the file, DeviceError the driver."""
    trt = build.find_module()
    logger = build.make_logger(trt)
    logger.errors.clear()
    runtime = trt.Runtime(logger)
    loaded = runtime.deserialize_cuda_engine(engine) if runtime else None
    if loaded is None:
        reason = build.first_line(logger.errors)
        if 'cudaError 35' in reason or 'insufficient' in reason:
            raise DeviceError(f'the driver knows CUDA up to {gpu.cuda_version}, too old for '
                              f'{trt.__name__} {trt.__version__}: update the NVIDIA driver')
        if 'memory' in reason.lower():
            raise DeviceError(f'no GPU memory for engine {path} ({reason}): end other programs')
        raise EngineError(f'{trt.__name__} {trt.__version__} refuses engine {path} ({reason}): '
                          'remove the file, it is then built anew')
    return loaded


class TensorRtBackend:
    """Backend that runs a bundle's engine; all cameras share the engine and its weights."""

    name, problem = 'tensorrt', None

    def __init__(self, bundle, gpu, contexts, precision):
        self.bundle, self.gpu, self.contexts = bundle, gpu, contexts
        self.device = f'{gpu.name} {precision}'
        self.kernels = Kernels(gpu)

    def stream(self, table=None):
        """See Backend."""
        return TensorRtStream(self, table)


class TensorRtStream(RingStream):
    """BackendStream with a queue, an execution context and a ring of prototypes of its own."""

    def __init__(self, backend, table):
        self._backend, self._gpu = backend, backend.gpu
        self._gpu.use()
        info = backend.bundle.info
        super().__init__(info)
        self._context = backend.contexts.new()
        if self._context is None:
            free, total = self._gpu.memory()
            raise DeviceError(f'no GPU memory for another camera ({free / 1e6:.0f} of '
                              f'{total / 1e6:.0f} MB free): use fewer, or a smaller size')
        self._queue, shapes = self._gpu.queue(), info.shapes()
        self._coarse = tuple(shapes['scores'][1:])
        self._network_image = self._gpu.allocate(int(np.prod(shapes['image'])))
        self._scores = self._gpu.allocate(4 * int(np.prod(self._coarse)))
        self._best = self._gpu.allocate(int(np.prod(self._coarse[1:])))
        self._table = self._gpu.upload(
            np.arange(256, dtype=np.uint8) if table is None else np.asarray(table, np.uint8))
        self._confidence = self._gpu.allocate(4) if info.has_confidence else None
        self._slot_bytes = 4 * info.num_prototypes * info.prototype_dim
        if info.num_prototypes:
            self._pool = self._gpu.allocate((self.ring.capacity + 1) * self._slot_bytes)
            self._masks = self._gpu.upload(self.ring.masks)
        self._camera, self._capturable = None, True

    def label(self, image, confidence=False):
        """See BackendStream; times are the GPU's own, by events."""
        self._gpu.use()
        camera = self._camera
        if camera is None or camera.shape != image.shape[:2]:
            self._camera = camera = _Camera(self._gpu, image.shape[:2], self.info, self._coarse)
        np.copyto(camera.image, image)
        self.context_frames = self.ring.frames
        key = self.ring.state, confidence
        if key in camera.graphs:
            self._queue.replay(camera.graphs[key])
            self._queue.wait()
        else:
            self._step_by_step(camera, key)
        return Labels(camera.labels, camera.confidence if confidence else None,
                      self._queue.times(STAGES),
                      probability(camera.mean_confidence) if self._confidence else None)

    def step(self, image):
        """See BackendStream."""
        if image.shape[:2] != (self.info.height, self.info.width):
            raise ValueError(f'step takes images of {self.info.height}x{self.info.width}')
        if self.info.color_order == 'bgr':      # label turns it back
            image = image[:, :, ::-1]
        self.label(image)
        return self._gpu.download(self._scores, self._coarse)

    def _step_by_step(self, camera, key):
        """Do a frame without a graph, then keep it as one: TensorRT wants this order."""
        self._bind()
        self._enqueue(camera, key[1])
        self._queue.wait()
        if not self._capturable:
            return
        try:
            camera.graphs[key] = self._queue.capture(lambda: self._enqueue(camera, key[1]))
        except DeviceError as error:
            self._capturable = False
            log.warning('no CUDA graph, frames are queued step by step: %s', error)

    def _bind(self):
        """Tell the context where the frame at work reads and writes."""
        addresses = {'image': self._network_image.address, 'scores': self._scores.address}
        if self._confidence:
            addresses['confidence'] = self._confidence.address
        if self.info.num_prototypes:
            addresses['prototypes'] = self._pool.address + self.ring.slot * self._slot_bytes
        if self.ring.capacity:
            row = 4 * self.ring.masks.shape[1]
            addresses['pool'] = self._pool.address
            addresses['pool_mask'] = self._masks.address + self.ring.state * row
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise EngineError(f'the engine has no tensor {name}: build it anew')

    def _enqueue(self, camera, confidence):
        """Queue a frame; the marks stand where a stage ends."""
        queue, kernels = self._queue, self._backend.kernels
        queue.mark('start')
        queue.copy_to_gpu(camera.gpu_image, camera.image)
        queue.mark('upload')
        kernels.resize(queue, camera.gpu_image, camera.shape, self._network_image,
                       (self.info.height, self.info.width), camera.taps,
                       self.info.color_order == 'bgr')
        queue.mark('resize')
        if not self._context.execute_async_v3(queue.handle):
            raise DeviceError('TensorRT could not queue the network: see its log, and nvidia-smi')
        queue.mark('network')
        kernels.best_class(queue, self._scores, self._coarse, self._best)
        kernels.labels(queue, self._scores, self._coarse, self._best, camera.axes, self._table,
                       camera.gpu_labels)
        if confidence:
            kernels.confidence(queue, self._scores, self._coarse, camera.axes,
                               camera.gpu_confidence)
        queue.mark('decode')
        queue.copy_to_host(camera.labels, camera.gpu_labels)
        if confidence:
            queue.copy_to_host(camera.confidence, camera.gpu_confidence)
        if self._confidence:
            queue.copy_to_host(camera.mean_confidence, self._confidence)
        queue.mark('download')


class _Camera:
    """Buffers and graphs for camera images of one size."""

    def __init__(self, gpu, shape, info, coarse):
        self.shape, self.graphs = tuple(shape), {}
        pixels = shape[0] * shape[1]
        # one buffer, of whole floats: two small ones could lie in one page of memory
        host = gpu.pinned((-(-3 * pixels // 4) * 4 + 4,))
        self.image = host[:3 * pixels].reshape(*shape, 3)
        self.mean_confidence = host[-4:].view(np.float32)
        self.labels, self.confidence = gpu.pinned(shape), gpu.pinned(shape)
        self.gpu_image = gpu.allocate(3 * pixels)
        self.gpu_labels, self.gpu_confidence = gpu.allocate(pixels), gpu.allocate(pixels)
        self.taps = Taps(gpu, self.shape, (info.height, info.width))
        self.axes = Axes(gpu, coarse[1:], self.shape)
