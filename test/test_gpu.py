# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
On the GPU that is here, with TensorRT or without; where there is none, on a FAKE of its driver.

``python -m pytest test/test_gpu.py``. Without TensorRT a kernel of ours stands for the network.
"""
import ctypes
from itertools import islice
from pathlib import Path
import threading

from fake_backend import by_taps, frame
from fake_cuda import FakeCudaDriver, host_kernels
import numpy as np
import pytest
from streaming import label
from tiny_bundle import PROTOTYPES, write_tiny_bundle

from ros_vseg import backends
from ros_vseg.backends import tensorrt
from ros_vseg.backends.base import Options, Ring
from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.calibrate import calibrate
from ros_vseg.decode import decode
from ros_vseg.engines import build
from ros_vseg.errors import BackendError, EngineError
from ros_vseg.gpu import cuda
from ros_vseg.gpu.kernels import Axes, compile_kernels, Kernels, mask_bytes, Taps
from ros_vseg.processes import demo_clip
from ros_vseg.resize import resize_image

pytest.importorskip('cuda.bindings')
STAND_IN = Path(__file__).with_name('stand_in_network.cu')


@pytest.fixture(params=['real', 'fake'])
def gpu(request, monkeypatch, tmp_path):
    if request.param == 'fake':
        driver = FakeCudaDriver(host_kernels(tmp_path))
        monkeypatch.setattr(cuda, 'driver', lambda: driver)
    try:
        gpu = cuda.Gpu()
    except BackendError as error:
        pytest.skip(str(error))
    gpu.use()
    return gpu


class StandInContexts:
    """Stands for an engine's contexts where there is no TensorRT; runs stand_in_network.cu."""

    def __init__(self, gpu, info):
        self._gpu, self._info = gpu, info
        module = gpu.call('cuModuleLoadData', compile_kernels(gpu.capability, STAND_IN))
        self._function = gpu.call('cuModuleGetFunction', module, b'network')

    def new(self, gpu):
        return StandInContext(self._gpu, self._info, self._function), None


class StandInContext:
    """Queues the stand-in for the network on the addresses that it was told."""

    def __init__(self, gpu, info, function):
        self._gpu, self._function, self._addresses = gpu, function, {}
        classes, height, width = info.shapes()['scores'][1:]
        self._numbers = (info.width, classes, height, width, info.output_stride,
                         (info.pool_frames + 1) * info.num_prototypes, info.prototype_dim,
                         info.num_prototypes * info.prototype_dim)

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return True

    def execute_async_v3(self, handle):
        values = [self._addresses[name] for name in (
            'image', 'pool', 'pool_mask', 'scores', 'prototypes')] + list(self._numbers)
        types = [ctypes.c_void_p] * 5 + [ctypes.c_int] * 8
        self._gpu.call('cuLaunchKernel', self._function, 1, 2, 1, 64, 16, 1, 0, handle,
                       (tuple(values), tuple(types)), 0)
        return True


class StandInReference:
    """The stand-in for the network in NumPy, with a pool of its own."""

    def __init__(self, info):
        self._info, self.ring = info, Ring(info)
        self._pool = np.zeros((info.pool_frames + 1, PROTOTYPES, info.prototype_dim), np.float32)

    def step(self, image):
        """Scores float32 [K, h, w] of an image of the network's size."""
        info, ring = self._info, self.ring
        classes = info.shapes()['scores'][1]
        pixels = image[::info.output_stride, ::info.output_stride].astype(np.float32)
        scores = np.stack([pixels[..., c % 3] * np.float32(1 + c % 5) for c in range(classes)])
        for row, seen in zip(self._pool.reshape(-1, info.prototype_dim), ring.masks[ring.state]):
            if seen == 0:
                scores += row[:classes, None, None]
        values = np.arange(self._pool[0].size) * 97 % (info.width * info.output_stride)
        self._pool[ring.slot].flat = image.reshape(-1)[values] * np.float32(0.125)
        ring.advance()
        return scores


@pytest.fixture
def backend(gpu, tmp_path):
    """Return a backend of a tiny bundle whose network is the stand-in."""
    bundle = Bundle.load(write_tiny_bundle(tmp_path / 'tiny.onnx'))
    return tensorrt.TensorRtBackend(bundle, gpu, StandInContexts(gpu, bundle.info), 'fp32')


@pytest.mark.parametrize('shape, size', [
    ((11, 12, 16), (96, 128)), ((19, 25, 33), (135, 250)), ((5, 3, 4), (7, 9)),
    ((19, 65, 129), (270, 481))])
def test_kernels_decode_to_the_bit(gpu, shape, size):
    rng = np.random.default_rng(0)
    scores = rng.integers(-4, 5, shape).astype(np.float32) + rng.choice(
        [0, 0.25, np.nan, np.inf], shape, p=[0.6, 0.38, 0.01, 0.01]).astype(np.float32)
    kernels, queue = Kernels(gpu), gpu.queue()
    source, masks = gpu.upload(scores), gpu.allocate(mask_bytes(shape))
    labels, confidence = gpu.allocate(size[0] * size[1]), gpu.allocate(size[0] * size[1])
    table, axes = gpu.upload(np.arange(256, dtype=np.uint8)), Axes(gpu, shape[1:], size)
    kernels.candidates(queue, source, shape, masks)
    kernels.labels(queue, source, shape, masks, axes, table, labels)
    kernels.confidence(queue, source, shape, masks, axes, confidence)
    queue.wait()
    expected = decode(scores, size, confidence=True)
    np.testing.assert_array_equal(gpu.download(labels, size, np.uint8), expected[0])
    np.testing.assert_array_equal(gpu.download(confidence, size, np.uint8), expected[1])


@pytest.mark.parametrize('before, after', [
    ((135, 250), (96, 128)), ((64, 80), (96, 128)), ((200, 100), (96, 128)),
    ((96, 128), (96, 128))])
def test_kernel_resizes_as_opencv_does(gpu, before, after):
    image = frame(0, before)
    source, out, queue = gpu.upload(image), gpu.allocate(3 * after[0] * after[1]), gpu.queue()
    taps = Taps(gpu, before, after)
    Kernels(gpu).resize(queue, source, 'rgb8', before, out, after, taps, False)
    queue.wait()
    found = gpu.download(out, (*after, 3), np.uint8).astype(int)
    assert np.abs(found - resize_image(image, after)).max() <= 1


def test_ring_and_graphs_give_what_the_reference_gives(backend):
    info = backend.bundle.info
    stream, reference = backend.stream(), StandInReference(info)
    for number in [*range(9), 'reset', *range(9, 14)]:
        if number == 'reset':
            stream.reset(), reference.ring.reset()
            continue
        size = (135, 250) if number < 5 else (64, 80)
        found = label(stream, frame(number, size), confidence=number % 2 == 0)
        scores = reference.step(by_taps(frame(number, size), (info.height, info.width)))
        labels, confidence = decode(scores, size, confidence=True)
        np.testing.assert_array_equal(found.labels, labels)
        assert len(np.unique(labels)) > 1
        if number % 2 == 0:
            np.testing.assert_array_equal(found.confidence, confidence)


def test_cameras_in_threads_do_not_disturb_each_other(backend):
    alone = backend.stream()
    expected = [np.array(label(alone, frame(number)).labels) for number in range(40)][-1]
    results = {}

    def drive(name):
        stream = backend.stream()
        for number in range(40):
            labels = label(stream, frame(number)).labels
        results[name] = np.array(labels)

    threads = [threading.Thread(target=drive, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name in range(4):
        np.testing.assert_array_equal(results[name], expected)


def test_memory_is_steady(backend):
    stream = backend.stream()
    for number in range(20):
        label(stream, frame(number), confidence=number > 10)
    free = backend.gpu.memory()[0]
    for number in range(100):
        label(stream, frame(number % 8), confidence=True)
    assert backend.gpu.memory()[0] == free


@pytest.mark.parametrize('gpu', ['real'], indirect=True)
@pytest.mark.parametrize('precision, share', [
    ('fp32', 0.999), ('fp16', 0.995), ('bf16', 0.995), ('int8', 0.98)])
def test_tensorrt_keeps_the_labels(gpu, precision, share, tmp_path):
    try:
        build.find_module()
    except EngineError as error:
        pytest.skip(str(error))
    from ros_vseg.media.sources import open_source  # the other tests need no rosbags
    bundle = Bundle.load(default_bundle_path())
    if precision == 'int8':
        calibrate(bundle, open_source(demo_clip()), tmp_path)
    try:
        backend = tensorrt.load(bundle, Options(precision=precision, engines=tmp_path))
    except EngineError as error:    # TensorRT for RTX does not know every GPU
        if 'does not build for' in str(error):
            pytest.skip(str(error))
        raise
    stream = backend.stream()
    expected = backends.load(bundle, 'onnxruntime').stream()
    equal = [np.mean(label(stream, frame.image).labels == label(expected, frame.image).labels)
             for frame in islice(open_source(demo_clip()), 30)]
    assert np.mean(equal) >= share
