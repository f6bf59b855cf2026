# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
TensorRT on NVIDIA GPUs: a frame goes up once, its labels come down, all else stays on the GPU.

Upload, resize, network, decoding and download are queued by one CUDA graph launch per frame, and
waited for once. Where processor and GPU share their memory (Jetson) there is nothing to copy.
"""
import logging
from pathlib import Path
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from ros_vseg.backends.base import Labels, Options, probability, RingStream
from ros_vseg.bundle import Bundle
from ros_vseg.encoding import Picture, RawImage
from ros_vseg.engines import build
from ros_vseg.engines.engine import engine_for
from ros_vseg.engines.jit import Contexts
from ros_vseg.errors import BackendError, DeviceError, EngineError
from ros_vseg.gpu import failures
from ros_vseg.gpu.cuda import Gpu
from ros_vseg.gpu.formats import RAW, RGB
from ros_vseg.gpu.frame import Frame, Key
from ros_vseg.gpu.kernels import Kernels, mask_bytes
from ros_vseg.gpu.ranges import in_range

STAGES = ('start', 'upload', 'resize', 'network', 'decode', 'download')
LONGEST_PAUSE = 256     # frames between two attempts to capture a graph

log = logging.getLogger(__name__)


def missing(name: str = 'tensorrt') -> str | None:
    """Return None, or why this backend cannot be used here."""
    try:
        build.find_module()
        build.parse_targets(Gpu().capability)   # TensorRT for RTX knows no data centre's
    except BackendError as error:
        return str(error)
    return None


def load(bundle: Bundle, options: Options, name: str = 'tensorrt') -> 'TensorRtBackend':
    """
    Return the backend of a bundle, with its engine from the cache or built now.

    Raises:
        DeviceError: no GPU or driver, out of memory, or a GPU that failed.
        EngineError: see engine_for.
    """
    gpu = Gpu(options.device, options.gpu_timeout)
    path, header, engine = engine_for(
        bundle, gpu.capability, options.precision, folder=options.engines,
        may_build=options.may_build, device=options.device, workspace=options.workspace)
    gpu.use()
    trt = build.find_module()
    contexts = Contexts(deserialize(engine, path, gpu), path.with_suffix('.jit'),
                        trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    backend = TensorRtBackend(bundle, gpu, contexts, header['precision'], path.parent)
    # what has no memory, or is compiled at first use, shall say so now
    backend.stream().label(np.zeros((bundle.info.height, bundle.info.width, 3), np.uint8))
    contexts.keep(log)
    return backend


def deserialize(engine: bytes, path: Path, gpu: Gpu) -> Any:
    """
    Return TensorRT's ICudaEngine.

    Raises:
        DeviceError: the driver is too old, or the GPU has no memory for it or failed.
        EngineError: TensorRT refuses the file.
    """
    trt = build.find_module()
    logger = build.make_logger(trt)
    logger.errors.clear()
    runtime = trt.Runtime(logger)
    loaded = runtime.deserialize_cuda_engine(engine) if runtime else None
    if loaded is not None:
        return loaded
    reason = build.first_line(logger.errors)
    if 'cudaError 35' in reason or 'insufficient' in reason:
        raise DeviceError(f'the driver knows CUDA up to {gpu.cuda_version}, too old for '
                          f'{trt.__name__} {trt.__version__}: update the NVIDIA driver')
    if failures.find(reason):
        raise failures.from_library(f'engine {path} could not be loaded', reason)
    raise EngineError(f'{trt.__name__} {trt.__version__} refuses engine {path} ({reason}): '
                      'remove the file, and it is built again')


class TensorRtBackend:
    """
    Backend that runs a bundle's engine; all cameras share the engine and its weights.

    Args:
        bundle: what the engine was built from.
        gpu: which runs it.
        contexts: of the engine.
        precision: of the engine, for people.
        folder: where compiled kernels are kept; None: nowhere.
    """

    name = 'tensorrt'
    problem: str | None = None
    raw_encodings = RAW

    def __init__(self, bundle: Bundle, gpu: Gpu, contexts: Contexts, precision: str,
                 folder: Path | None = None) -> None:
        self.bundle, self.gpu, self.contexts = bundle, gpu, contexts
        self.device = f'{gpu.name} {precision}'
        self.kernels = Kernels(gpu, folder)
        self.captures_failed = 0    # of all cameras
        self.turn = threading.Lock()    # the cameras' contexts share their working memory

    def stream(self, table: npt.NDArray[np.uint8] | None = None) -> 'TensorRtStream':
        """See Backend."""
        return TensorRtStream(self, table)

    def report(self) -> dict[str, str]:
        """Return what /diagnostics shows of this backend."""
        return {'graph_captures_failed': str(self.captures_failed)}


class TensorRtStream(RingStream):
    """BackendStream with a queue, an execution context and a ring of prototypes of its own."""

    def __init__(self, backend: TensorRtBackend,
                 table: npt.NDArray[np.uint8] | None = None) -> None:
        self._backend, self._gpu = backend, backend.gpu
        self._gpu.use()
        info = backend.bundle.info
        super().__init__(info)
        self._context, self._memory = backend.contexts.new(self._gpu)
        failures.protect(self, self._context)
        self._queue, shapes = self._gpu.queue(), info.shapes()
        classes, height, width = shapes['scores'][1:]
        self._coarse = classes, height, width
        self._network_image = self._gpu.allocate(int(np.prod(shapes['image'])))
        self._scores = self._gpu.allocate(4 * classes * height * width)
        self._masks = self._gpu.allocate(mask_bytes(self._coarse))
        self._table = self._gpu.upload(
            np.arange(256, dtype=np.uint8) if table is None else np.asarray(table, np.uint8))
        slot = 4 * info.num_prototypes * info.prototype_dim
        self._prototypes = self._gpu.allocate(slot) if slot else None
        self._pool = (
            self._gpu.allocate((self.ring.capacity + 1) * slot) if self.ring.capacity else None)
        self._frame: Frame | None = None
        self._failed, self._pause = 0, 0    # captures that failed, and frames until the next one

    def label(self, image: Picture, confidence: bool = False) -> Labels:
        """See BackendStream; times are the GPU's own, by events."""
        self._gpu.use()
        encoding, pixels = ((image.encoding, image.pixels) if isinstance(image, RawImage)
                            else (RGB, image))
        key = encoding, (image.shape[0], image.shape[1]), pixels.shape
        frame = self._frame
        if frame is None or frame.key != key:
            del frame       # its memory is freed first
            self._frame = None
            self._frame = frame = self._open(key)
        with in_range('vseg: copy the image'):
            np.copyto(frame.image, pixels)
        frame.mask[:] = self.ring.masks[self.ring.state]
        frame.slot[0] = self.ring.slot
        self.context_frames = self.ring.frames
        with self._backend.turn, in_range('vseg: frame on the GPU'):
            if confidence in frame.graphs:
                self._queue.replay(frame.graphs[confidence])
                self._queue.wait()
            else:
                self._step_by_step(frame, confidence)
        return Labels(frame.labels, frame.confidence if confidence else None,
                      self._queue.times(STAGES),
                      probability(frame.mean_confidence) if self.info.has_confidence else None)

    def step(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See BackendStream."""
        if image.shape[:2] != (self.info.height, self.info.width):
            raise ValueError(f'step takes images of {self.info.height}x{self.info.width}')
        if self.info.color_order == 'bgr':      # label turns it back
            image = image[:, :, ::-1]
        self.label(image)
        return self._gpu.download(self._scores, self._coarse)

    def layer_times(self, image: npt.NDArray[np.uint8], rounds: int) -> dict[str, list[float]]:
        """
        Return the seconds of each layer of the network in each round, by TensorRT's profiler.

        Args:
            image: uint8 [H, W, 3] RGB of any size.
            rounds: frames that are run for it, step by step: a graph has no layers.
        """
        self.label(image)
        frame, profiler = self._frame, build.make_profiler(build.find_module())
        assert frame is not None
        self._context.profiler = profiler
        for _ in range(rounds):
            with self._backend.turn:
                self._enqueue(frame, False)
                self._queue.wait()
        return profiler.seconds

    def _open(self, key: Key) -> Frame:
        """Make ready for images of another kind, and tell the engine where it reads and writes."""
        frame = Frame(self._gpu, key, self.info, self._coarse[1:])
        image = frame.gpu_image if self._fits(frame) else self._network_image
        places = {'image': image, 'scores': self._scores,
                  'confidence': frame.gpu_mean_confidence if self.info.has_confidence else None,
                  'prototypes': self._prototypes,
                  'pool': self._pool, 'pool_mask': frame.gpu_mask if self._pool else None}
        for name, place in places.items():
            if place and not self._context.set_tensor_address(name, place.address):
                raise DeviceError(f'TensorRT refuses address {place.address:#x} of tensor {name} '
                                  f'({said()}): build the engine again')
        return frame

    def _fits(self, frame: Frame) -> bool:
        """Whether the network reads the camera's image as it is."""
        return (frame.shape == (self.info.height, self.info.width)
                and frame.encoding == f'{self.info.color_order}8')

    def _step_by_step(self, frame: Frame, confidence: bool) -> None:
        """Do a frame without a graph, then capture its graphs: TensorRT asks for this order."""
        with self._gpu.lock:
            self._enqueue(frame, confidence)
            self._queue.wait()
            if self._pause:
                self._pause -= 1
            else:
                self._capture(frame)

    def _capture(self, frame: Frame) -> None:
        """Capture the graphs with and without confidence; what fails is tried again later."""
        try:
            capturable = getattr(self._context, 'is_stream_capturable', lambda handle: True)
            if not capturable(self._queue.handle):
                raise DeviceError('TensorRT says that this network cannot be captured')
            for flag in (False, True):
                frame.graphs[flag] = self._queue.capture(lambda: self._enqueue(frame, flag))
        except DeviceError as error:
            failures.refuse_if_lost()
            frame.graphs.clear()
            self._failed += 1
            self._pause = min(2 ** self._failed, LONGEST_PAUSE)
            self._backend.captures_failed += 1
            if self._failed == 1:
                log.warning('no CUDA graph yet, frames are queued step by step and it is tried '
                            'again: %s', error)

    def _enqueue(self, frame: Frame, confidence: bool) -> None:
        """Queue a frame; the marks stand where a stage ends."""
        queue, kernels = self._queue, self._backend.kernels
        queue.mark('start')
        if not frame.is_mapped:
            queue.copy_to_gpu(frame.gpu, frame.upload)
        queue.mark('upload')
        if not self._fits(frame):
            kernels.resize(queue, frame.gpu_image, frame.encoding, frame.shape,
                           self._network_image, (self.info.height, self.info.width), frame.taps,
                           self.info.color_order == 'bgr')
        queue.mark('resize')
        self._run_network()
        if self._pool and self._prototypes:
            kernels.store(queue, self._prototypes,
                          (self.info.num_prototypes, self.info.prototype_dim), frame.gpu_slot,
                          self._pool)
        queue.mark('network')
        kernels.candidates(queue, self._scores, self._coarse, self._masks)
        kernels.labels(queue, self._scores, self._coarse, self._masks, frame.axes, self._table,
                       frame.gpu_labels)
        if confidence:
            kernels.confidence(queue, self._scores, self._coarse, self._masks, frame.axes,
                               frame.gpu_confidence)
        queue.mark('decode')
        if not frame.is_mapped:
            self._download(frame, confidence)
        queue.mark('download')

    def _download(self, frame: Frame, confidence: bool) -> None:
        """Queue the copies of what the host reads."""
        self._queue.copy_to_host(frame.labels, frame.gpu_labels)
        if confidence:
            self._queue.copy_to_host(frame.confidence, frame.gpu_confidence)
        if self.info.has_confidence:
            self._queue.copy_to_host(frame.mean_confidence, frame.gpu_mean_confidence)

    def _run_network(self) -> None:
        """Queue the engine."""
        try:
            queued = self._context.execute_async_v3(self._queue.handle)
        except Exception as error:  # the bindings' own
            raise failures.from_library('TensorRT could not queue the network',
                                        str(error)) from error
        if queued:
            return
        if not self._queue.capturing:
            self._queue.wait()      # a GPU that is lost says so here
        raise failures.from_library('TensorRT could not queue the network', said())


def said() -> str:
    """Return TensorRT's last error in its own words."""
    try:
        return build.first_line(reversed(build.make_logger(build.find_module()).errors))
    except EngineError:
        return 'no reason given'
