# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The TensorRT backend's frame loop on a FAKE CUDA driver and engine: see fake_cuda.py."""
from array import array
from dataclasses import replace
import gc
import logging
from pathlib import Path

import cv2
from fake_cuda import FakeCudaDriver, FakeEngine, host_kernels
import numpy as np
import pytest
from streaming import label, step
from tiny_bundle import PLAIN, write_tiny_bundle

from ros_vseg import backends
from ros_vseg.backends import tensorrt
from ros_vseg.bench import device as bench_device
from ros_vseg.bench.tools import Context
from ros_vseg.bundle import Bundle
from ros_vseg.decode import decode
from ros_vseg.engines import build
from ros_vseg.engines.jit import Contexts
from ros_vseg.errors import DeviceError, EngineError, VsegError
from ros_vseg.gpu import cuda
from ros_vseg.image import fill_image
from ros_vseg.resize import resize_taps
from ros_vseg.stream import Stream

pytest.importorskip('cuda.bindings')

STAGES = ['upload', 'resize', 'network', 'decode', 'download']
CAMERA = (135, 250)


@pytest.fixture(scope='session')
def library(tmp_path_factory):
    return host_kernels(tmp_path_factory.mktemp('kernels'))


@pytest.fixture
def fake(library, monkeypatch):
    driver = FakeCudaDriver(library)
    monkeypatch.setattr(cuda, 'driver', lambda: driver)
    return driver


@pytest.fixture
def load(fake, bundle, tmp_path):
    """Return a function that makes a TensorRtBackend of a tiny bundle on the fakes."""
    def make(**changes):
        path = write_tiny_bundle(tmp_path / 'tiny.onnx', **changes) if changes else bundle
        loaded = Bundle.load(path)
        engine, gpu = FakeEngine(fake, loaded), cuda.Gpu()
        gpu.use()
        backend = tensorrt.TensorRtBackend(
            loaded, gpu, Contexts(engine, tmp_path / 'tiny.jit'), 'fp32')
        backend.engine = engine     # for the tests to look at
        return backend
    return make


def frame(number, size=CAMERA):
    """Return a smooth image uint8 [H, W, 3] that moves with its number."""
    coarse = np.random.default_rng(1).uniform(0, 255, (7, 9, 3)).astype(np.float32)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.roll(image.clip(0, 255).astype(np.uint8), 3 * number, axis=1)


def on_processor(backend):
    return backends.load(backend.bundle, 'onnxruntime', threads=1)


@pytest.mark.parametrize('changes', [
    {}, {'context_frames': 1}, {'context_frames': 0}, {'color_order': 'bgr'},
    {'has_confidence': True}, PLAIN, {'has_confidence': True, **PLAIN}])
def test_fake_gpu_gives_the_processors_labels_to_the_bit(load, changes):
    """At the network's size: another one is resized with other rounding."""
    backend = load(**changes)
    gpu, host = backend.stream(), on_processor(backend).stream()
    for number in [0, 1, 2, 3, 4, 5, 'reset', 6, 7, 8, 9, 10]:
        if number == 'reset':
            gpu.reset(), host.reset()
            continue
        image = frame(number, (96, 128))
        expected = label(host, image, confidence=True)
        found = label(gpu, image, confidence=number % 2 == 0)
        np.testing.assert_array_equal(found.labels, expected.labels)
        assert gpu.context_frames == host.context_frames
        assert found.mean_confidence == expected.mean_confidence
        assert (found.mean_confidence is not None) == ('has_confidence' in changes)
        if number % 2 == 0:
            np.testing.assert_array_equal(found.confidence, expected.confidence)
        else:
            assert found.confidence is None
    assert len(np.unique(expected.labels)) > 2


def by_taps(image, size):
    """Resize as the kernel does: in float32, tap after tap."""
    (first_y, weights_y), (first_x, weights_x) = resize_taps(image.shape[:2], size)
    total = np.zeros((*size, 3), np.float32)
    for j, down in enumerate(weights_y.T):
        for i, right in enumerate(weights_x.T):
            rows = np.minimum(first_y + j, image.shape[0] - 1)
            columns = np.minimum(first_x + i, image.shape[1] - 1)
            total += (down[:, None] * right)[..., None] * image[rows][:, columns]
    return (total + np.float32(0.5)).astype(np.uint8)


def test_fake_gpu_at_camera_size_and_through_a_change_of_size(load):
    backend = load()
    gpu, host = Stream(backend), on_processor(backend).stream()
    for number, size in enumerate([CAMERA] * 5 + [(64, 80)] * 3 + [CAMERA] * 5):
        image = frame(number, size)
        found = gpu.step(image, number, confidence=True)
        if found.reset:
            host.reset()
        scores = step(host, by_taps(image, (96, 128)))
        labels, sure = decode(scores, size, confidence=True)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(found.confidence, sure)
        assert len(np.unique(labels)) > 2
    assert gpu.resets == {'size': 2}


@pytest.mark.parametrize('size', [CAMERA, (61, 83)])
def test_mean_confidence_on_fake_gpu_comes_down_in_the_same_launch(load, fake, size):
    """For a size whose pixels are no whole number of floats as well."""
    backend = load(has_confidence=True)
    stream, host, found = backend.stream(), on_processor(backend).stream(), set()
    for number in range(12):
        image = frame(9 * number, size) // (1 + number % 3)
        fake.counts()
        labels = stream.label(image)
        assert type(labels.mean_confidence) is float
        expected = host.label(by_taps(image, (96, 128)))
        assert labels.mean_confidence == pytest.approx(expected.mean_confidence, abs=1e-6)
        found.add(labels.mean_confidence)
        np.testing.assert_array_equal(stream._camera.image, image)
    assert len(found) == 12
    assert fake.counts() == {'cuCtxSetCurrent': 1, 'cuGraphLaunch': 1, 'cuStreamSynchronize': 1,
                             'cuEventElapsedTime': len(STAGES)}


def test_fake_gpu_scores_are_the_processors(load):
    backend = load(color_order='bgr')
    gpu, host = backend.stream(), on_processor(backend).stream()
    for number in range(6):
        image = frame(number, (96, 128))
        np.testing.assert_allclose(step(gpu, image), step(host, image), atol=1e-5)
    with pytest.raises(ValueError, match='96x128'):
        gpu.step(frame(0))


def test_fake_gpu_renames_labels(load):
    backend = load()
    table = np.arange(256, dtype=np.uint8)[::-1].copy()
    plain, renamed = backend.stream(), backend.stream(table)
    np.testing.assert_array_equal(
        label(renamed, frame(0)).labels, 255 - label(plain, frame(0)).labels)


def test_steady_state_on_fake_driver_is_one_launch_and_one_wait(load, fake):
    """No allocation, no second wait; the times of the stages are all that is asked beside it."""
    stream = load().stream()
    for number in range(7):
        label(stream, frame(number))
    fake.counts()
    for number in range(20):
        label(stream, frame(number))
        assert fake.counts() == {'cuCtxSetCurrent': 1, 'cuGraphLaunch': 1,
                                 'cuStreamSynchronize': 1, 'cuEventElapsedTime': len(STAGES)}


def test_one_graph_on_fake_driver_per_state_of_the_ring(load, fake):
    stream = load(context_frames=3).stream()
    for number in range(30):
        label(stream, frame(number))
    assert fake.counts()['cuGraphInstantiate'] == 3 + 4
    for number in range(30):
        label(stream, frame(number), confidence=True)
    assert fake.counts()['cuGraphInstantiate'] == 4     # the ring is warm
    stream.reset()
    for number in range(10):
        label(stream, frame(number))
    assert fake.counts()['cuGraphInstantiate'] == 0


def test_ring_addresses_on_fake_engine(load):
    """The frame's prototypes go to one slot after the other; the mask leaves that slot out."""
    backend = load(context_frames=2)
    stream = backend.stream()
    for number in range(8):
        label(stream, frame(number))
    context, = backend.engine.contexts
    slot, row = 4 * 4 * 14, 4 * 3 * 4
    pool, = {run['pool'] for run in context.runs}
    base = context.runs[0]['pool_mask']
    assert [(run['prototypes'] - pool) // slot for run in context.runs] == [0, 1, 2] * 2 + [0, 1]
    assert [(run['pool_mask'] - base) // row for run in context.runs] == [0, 4, 8, 6, 7, 8, 6, 7]
    assert len({(run['image'], run['scores']) for run in context.runs}) == 1


def test_held_back_frame_on_fake_gpu_is_overwritten_by_the_same_graph(load, fake):
    """As on the processor; a burst asks for no graph more, and one launch per frame."""
    backend = load()
    gpu, host = backend.stream(), on_processor(backend).stream()
    for number in [*range(9), 'forget', 20, 9, 'forget', 'forget', 'forget', 'forget', 10]:
        for stream in (gpu, host):
            if number == 'forget':
                stream.forget_oldest()
        if number != 'forget':
            image = frame(number, (96, 128))
            found, expected = (stream.label(image) for stream in (gpu, host))
            np.testing.assert_array_equal(found.labels, expected.labels)
            assert gpu.context_frames == host.context_frames
            if number != 20:
                gpu.remember(), host.remember()
    assert gpu.context_frames == 0
    for number in range(12):
        label(gpu, frame(number, (96, 128)))
    fake.counts()
    for number in range(12):
        gpu.label(frame(number, (96, 128)))
        counts = fake.counts()
        assert counts['cuGraphInstantiate'] == 0 and counts['cuGraphLaunch'] == 1


def test_events_on_fake_driver_stand_between_the_stages(load, fake):
    stream = load().stream()
    fake.calls.clear()
    times = label(stream, frame(0), confidence=True).times
    first = [name if name != 'cuLaunchKernel' else fake.function(arguments[0])
             for name, arguments in fake.calls]
    first = first[first.index('cuEventRecordWithFlags'):first.index('cuStreamBeginCapture')]
    mark = 'cuEventRecordWithFlags'
    work = [name for name in first if name not in ('cuEventCreate', 'cuStreamSynchronize')]
    assert work == [mark, 'cuMemcpyHtoDAsync', mark, 'resize', mark, mark, 'best_class', 'labels',
                    'confidence', mark, 'cuMemcpyDtoHAsync', 'cuMemcpyDtoHAsync', mark]
    assert list(times) == STAGES and all(0 < one < 1 for one in times.values())


def test_cameras_on_fake_gpu_share_the_engine_and_nothing_else(load):
    backend = load()
    alone, one, other = backend.stream(), backend.stream(), backend.stream()
    for number in range(8):
        expected = np.array(label(alone, frame(number)).labels)
        label(other, frame(number + 40))
        np.testing.assert_array_equal(label(one, frame(number)).labels, expected)
    pools = {run['pool'] for context in backend.engine.contexts for run in context.runs}
    assert len(backend.engine.contexts) == len(pools) == 3


def test_labels_go_into_the_message_without_a_copy(load):
    sensor_msgs = pytest.importorskip('sensor_msgs.msg')
    labels = label(load().stream(), frame(0)).labels
    message = fill_image(sensor_msgs.Image(), labels, 'mono8')
    assert isinstance(message.data, array)
    assert message.data.buffer_info()[0] == labels.ctypes.data
    assert (message.height, message.width, message.step) == (*CAMERA, CAMERA[1])


def test_memory_on_fake_gpu_is_given_back(load, fake):
    backend = load()
    gc.collect()
    before = fake.allocated()
    stream = backend.stream()
    for number in range(8):
        label(stream, frame(number), confidence=True)
    label(stream, frame(0, (60, 70)))
    assert fake.allocated() > before
    del stream
    gc.collect()
    assert fake.allocated() == before and not fake._registered


@pytest.mark.parametrize('function, code, reason', [
    ('cuInit', 'CUDA_ERROR_NO_DEVICE', 'no NVIDIA GPU is visible'),
    ('cuInit', 'CUDA_ERROR_SYSTEM_DRIVER_MISMATCH', 'restart after the driver update'),
    ('cuMemAlloc', 'CUDA_ERROR_OUT_OF_MEMORY', 'MB free.*|end other programs')])
def test_what_fails_on_fake_gpu_at_the_start_has_a_mend(load, fake, function, code, reason):
    fake.fail[function] = code
    with pytest.raises(DeviceError, match=reason) as error:
        load().stream()
    assert code in str(error.value)


def test_no_memory_for_another_camera_on_fake_gpu(load):
    backend = load()
    backend.engine.create_execution_context = lambda: None
    with pytest.raises(DeviceError, match='no GPU memory for another camera .8000 of 8000 MB'):
        backend.stream()


@pytest.mark.parametrize('function', ['cuGraphLaunch', 'cuStreamSynchronize'])
def test_fake_gpu_lost_in_mid_drive(load, fake, function):
    stream = load().stream()
    for number in range(8):
        label(stream, frame(number))
    fake.fail[function] = 'CUDA_ERROR_LAUNCH_FAILED'
    with pytest.raises(DeviceError, match=f'{function} failed on the GPU with CUDA_ERROR_LAUNCH'):
        label(stream, frame(8))


def test_fallback_loses_no_frame_when_fake_gpu_is_lost(load, fake):
    gpu = load()
    both = backends.FallbackBackend(gpu, on_processor(gpu))
    front, rear, expected = both.stream(), both.stream(), on_processor(gpu).stream()
    for number in range(8):
        label(front, frame(number)), label(rear, frame(number))
    assert both.name == 'tensorrt' and both.problem is None
    fake.fail['cuGraphLaunch'] = 'CUDA_ERROR_LAUNCH_FAILED'
    for stream in (front, rear):
        expected.reset()
        for number in range(8, 13):
            np.testing.assert_array_equal(
                label(stream, frame(number)).labels, label(expected, frame(number)).labels)
    assert both.name == 'onnxruntime' and both.device == 'CPU fp32'
    assert 'tensorrt on Fake GPU fp32 failed' in both.problem
    assert 'going on with onnxruntime' in both.problem


def test_stream_goes_on_with_an_empty_pool_when_fake_gpu_is_lost(load, fake):
    """What the stream knows of its pool follows the standby's, whichever camera found it out."""
    gpu = load()
    both = backends.FallbackBackend(gpu, on_processor(gpu))
    front, rear = Stream(both), Stream(both)
    for number in range(8):
        front.step(frame(number), number * 10**8), rear.step(frame(number), number * 10**8)
    fake.fail['cuGraphLaunch'] = 'CUDA_ERROR_LAUNCH_FAILED'
    for stream in (front, rear):
        results = [stream.step(frame(number), number * 10**8) for number in range(8, 13)]
        assert [one.context_frames for one in results] == [0, 1, 2, 3, 3]
        assert [one.oldest for one in results] == [None, 0.1, 0.2, 0.3, 0.3]
        assert not stream.resets and all(one.admitted for one in results)


def test_remember_after_another_camera_lost_fake_gpu(load, fake):
    gpu = load()
    both = backends.FallbackBackend(gpu, on_processor(gpu))
    front, rear = both.stream(), both.stream()
    label(front, frame(0)), label(rear, frame(0))
    front.label(frame(1))
    fake.fail['cuGraphLaunch'] = fake.fail['cuMemcpyHtoDAsync'] = 'CUDA_ERROR_LAUNCH_FAILED'
    label(rear, frame(1))
    front.remember(), front.forget_oldest()
    assert both.name == 'onnxruntime'
    label(front, frame(2))
    assert front.context_frames == 0


def test_without_graphs_fake_gpu_goes_step_by_step(load, fake, caplog):
    """A TensorRT that cannot be captured is slower, not lost."""
    backend = load()
    stream, host = backend.stream(), on_processor(backend).stream()
    context, = backend.engine.contexts
    run = context.execute_async_v3
    context.execute_async_v3 = lambda handle: not fake._capturing and run(handle)
    for number in range(9):
        image = frame(number, (96, 128))
        np.testing.assert_array_equal(label(stream, image).labels, label(host, image).labels)
    assert fake.counts()['cuGraphLaunch'] == 0
    assert caplog.text.count('frames are queued step by step') == 1


def test_without_a_standby_the_loss_of_fake_gpu_is_an_error(load, fake):
    both = backends.FallbackBackend(load(), None)
    stream = both.stream()
    fake.fail['cuMemAlloc'] = 'CUDA_ERROR_ECC_UNCORRECTABLE'
    with pytest.raises(DeviceError, match='ECC_UNCORRECTABLE'):
        label(stream, frame(0))
    assert both.name == 'tensorrt'


class FakeRuntimeConfig:
    """Stands for TensorRT for RTX's runtime configuration and its cache of compiled kernels."""

    def __init__(self):
        self.kernels, self.known = None, b''

    def create_runtime_cache(self):
        return self

    def deserialize(self, data):
        self.known = data if data == b'compiled' else b''
        return bool(self.known)

    def set_runtime_cache(self, kernels):
        self.kernels = kernels

    def serialize(self):
        return b'compiled'


def test_kernels_that_tensorrt_rtx_compiles_are_kept(tmp_path):
    class Engine:
        def create_runtime_config(self):
            return FakeRuntimeConfig()

        def create_execution_context(self, config):
            return config

    path = tmp_path / 'one.jit'
    contexts = Contexts(Engine(), path)
    assert contexts.new().kernels.known == b'' and not path.exists()
    contexts.keep(logging)
    assert path.read_bytes() == b'compiled'
    assert Contexts(Engine(), path).new().kernels.known == b'compiled'
    path.write_bytes(b'of another version')
    contexts = Contexts(Engine(), path)
    assert contexts.new().kernels.known == b''
    contexts.keep(logging)
    assert path.read_bytes() == b'compiled'


def test_bundle_is_loaded_with_a_real_engine_on_the_fakes(fake, bundle, tmp_path, monkeypatch):
    pytest.importorskip('tensorrt_rtx')
    seen = []

    def deserialize(engine, path, gpu):
        seen.append((engine, path, gpu.capability))
        return FakeEngine(fake, Bundle.load(bundle))

    monkeypatch.setattr(tensorrt, 'deserialize', deserialize)
    backend = backends.load(Bundle.load(bundle), 'tensorrt', engines=tmp_path)
    assert (backend.name, backend.device) == ('tensorrt', 'Fake GPU fp16')
    (engine, path, capability), = seen
    assert capability == 'sm86' and path.parent == tmp_path and '-sm86-fp16-' in path.name
    assert path.read_bytes().endswith(engine)
    again = backends.load(Bundle.load(bundle), engines=tmp_path, may_build=False, fallback=True)
    assert again.name == 'tensorrt' and again.problem is None and seen[1] == seen[0]


def test_stream_of_a_network_without_prototypes_on_fake_gpu(load, fake):
    stream = Stream(load(**PLAIN))
    results = [stream.step(frame(number), number) for number in range(4)]
    assert [one.context_frames for one in results] == [0] * 4
    assert fake.counts()['cuGraphInstantiate'] == 2     # with confidence and without


@pytest.mark.parametrize('text, kind, reason', [
    ('Cuda Runtime (cudaError 35: CUDA driver version is insufficient)', DeviceError,
     'the driver knows CUDA up to 13.0, too old for fake_trt 9'),
    ('Cuda Runtime (out of memory)', DeviceError, 'no GPU memory for engine x.engine'),
    ('The engine plan file is generated on an incompatible device', EngineError,
     'refuses engine x.engine .*incompatible device.*remove the file')])
def test_engine_that_is_refused_on_fake_gpu_has_a_mend(fake, monkeypatch, text, kind, reason):
    class Logger:
        class Severity:
            ERROR = 1

    class Trt:
        ILogger, __name__, __version__ = Logger, 'fake_trt', '9'

        class Runtime:
            def __init__(self, logger):
                self._logger = logger

            def deserialize_cuda_engine(self, engine):
                self._logger.log(0, text)

    monkeypatch.setattr(build, 'find_module', lambda: Trt)
    Trt.__name__ = 'fake_trt'
    with pytest.raises(kind, match=reason):
        tensorrt.deserialize(b'', 'x.engine', cuda.Gpu())


def test_stages_on_fake_gpu_are_measured_against_a_floor(load, fake, monkeypatch, bundle):
    """The times are the fake's, one per mark: what counts is that all of it runs."""
    def engine_for(bundle, *_, **__):
        shapes = replace(bundle.info, pool_frames=4).shapes()   # with the slot at work
        ends = {name: ['UINT8' if name == 'image' else 'FLOAT', shape]
                for name, shape in shapes.items()}
        outputs = {name: ends.pop(name) for name in ('scores', 'prototypes')}
        return Path('none.engine'), {'inputs': ends, 'outputs': outputs}, bundle

    monkeypatch.setattr(bench_device, 'engine_for', engine_for)
    monkeypatch.setattr(bench_device, 'COPY', 1000)
    monkeypatch.setattr(tensorrt, 'deserialize', lambda engine, *_: FakeEngine(fake, engine))
    monkeypatch.setattr(backends, 'load', lambda *_, **__: load())
    context = Context(bundle, rounds=4, backend='tensorrt')
    rows = bench_device.bench_device(context)
    assert [row.what.split(',')[0] for row in rows] == [
        *STAGES, 'all stages', 'resize and decode', 'network with T = 3 reused', '4 cameras',
        '4 cameras']
    assert rows[0].measured == '1.000 ms' and 'floor of upload' in rows[0].detail
    operations, weights = bench_device.cost(context.bundle)
    stem = 2 * 8 * 12 * 16 * 3 * 8 * 8
    assert stem < operations < 2 * stem and weights > 0


def test_device_benchmark_refuses_a_processor(bundle):
    with pytest.raises(VsegError, match='add --backend tensorrt'):
        bench_device.bench_device(Context(bundle, backend='onnxruntime'))
