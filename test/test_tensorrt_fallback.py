# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""No frame is lost when a FAKE GPU fails: which failures there are, and what follows from each."""
import gc
import time
import weakref

from fake_backend import frame, on_processor
import numpy as np
import pytest
from streaming import label

from ros_vseg import backends
from ros_vseg.errors import DeviceError
from ros_vseg.gpu import cuda, failures
from ros_vseg.gpu.failures import FAILURES
from ros_vseg.stream import Stream

pytest_plugins = ['fake_fixtures']


@pytest.mark.parametrize('function, code, reason', [
    ('cuInit', 'CUDA_ERROR_NO_DEVICE', 'no NVIDIA GPU is visible'),
    ('cuInit', 'CUDA_ERROR_SYSTEM_DRIVER_MISMATCH', 'restart the machine after the driver'),
    ('cuMemAlloc', 'CUDA_ERROR_OUT_OF_MEMORY', 'MB free.*|end other programs')])
def test_what_fails_on_fake_gpu_at_the_start_says_what_to_do(load, fake, function, code, reason):
    fake.fail[function] = code
    with pytest.raises(DeviceError, match=reason) as error:
        load().stream()
    assert code in str(error.value)


def test_no_memory_for_another_camera_on_fake_gpu(load):
    backend = load()
    backend.engine.create_execution_context = lambda strategy: None
    with pytest.raises(DeviceError, match='for another camera: 8000 of 8000 MB are free'):
        backend.stream()


@pytest.mark.parametrize('function', ['cuGraphLaunch', 'cuStreamQuery'])
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
        assert [result.context_frames for result in results] == [0, 1, 2, 3, 3]
        assert [result.oldest for result in results] == [None, 0.1, 0.2, 0.3, 0.3]
        assert not stream.resets and all(result.admitted for result in results)


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


def test_without_a_standby_the_loss_of_fake_gpu_is_an_error(load, fake):
    both = backends.FallbackBackend(load(), None)
    stream = both.stream()
    fake.fail['cuMemAlloc'] = 'CUDA_ERROR_ECC_UNCORRECTABLE'
    with pytest.raises(DeviceError, match='ECC_UNCORRECTABLE'):
        label(stream, frame(0))
    assert both.name == 'tensorrt'


def test_table_has_every_error_after_which_cuda_asks_for_a_new_process():
    """These are NVIDIA's own words, in the documentation of cuda-bindings."""
    codes = pytest.importorskip('cuda.bindings.driver').CUresult
    asked = {code.name for code in codes
             if 'process must be terminated' in ' '.join((code.__doc__ or '').split())}
    if not asked:
        pytest.skip('this cuda-bindings has no documentation of its codes')
    assert asked <= {name for name, row in FAILURES.items() if row.lost}
    assert FAILURES.keys() <= {code.name for code in codes}


@pytest.mark.parametrize('name', [*FAILURES, 'CUDA_ERROR_UNKNOWN', 'CUDA_ERROR_INVALID_HANDLE'])
def test_every_failure_of_fake_gpu_in_mid_drive_reaches_the_fallback(load, fake, name):
    gpu = load()
    both = backends.FallbackBackend(gpu, on_processor(gpu))
    stream, expected = both.stream(), on_processor(gpu).stream()
    for number in range(3):
        label(stream, frame(number))
    fake.fail['cuGraphLaunch'] = name
    for number in range(3, 6):
        np.testing.assert_array_equal(
            label(stream, frame(number)).labels, label(expected, frame(number)).labels)
    row = FAILURES.get(name, failures.OTHER)
    assert both.name == 'onnxruntime' and row.advice in both.problem
    assert ('end other programs' in both.problem) == (name == 'CUDA_ERROR_OUT_OF_MEMORY')
    assert (failures.lost() is not None) == ('restart the node' in both.problem) == row.lost


@pytest.mark.parametrize('text, expected', [
    (row.text, row.lost) for row in FAILURES.values() if row.text])
def test_words_of_tensorrt_are_recognised(load, fake, text, expected):
    """It says of a failed run only that it failed; its log has the CUDA runtime's words."""
    error = failures.from_library('TensorRT could not queue the network', f'Cuda Runtime ({text})')
    assert isinstance(error, DeviceError) and (failures.lost() is not None) == expected
    assert ('end other programs' in str(error)) == (text == 'out of memory')


@pytest.mark.parametrize('refusal', ['false', 'raises', 'address'])
def test_engine_that_fails_on_fake_gpu_reaches_the_fallback(load, fake, refusal):
    gpu = load()
    both = backends.FallbackBackend(gpu, on_processor(gpu))
    stream, expected = both.stream(), on_processor(gpu).stream()
    context, = gpu.engine.contexts

    def fail(*_):
        raise RuntimeError('its own error')
    if refusal == 'false':
        context.refuses = True
    elif refusal == 'raises':
        context.execute_async_v3 = fail
    else:
        context.set_tensor_address = lambda *_: False
    for number in range(4):
        np.testing.assert_array_equal(
            label(stream, frame(number)).labels, label(expected, frame(number)).labels)
    assert both.name == 'onnxruntime' and 'TensorRT' in both.problem and not failures.lost()


def test_failed_run_on_fake_gpu_names_the_error_of_the_device(load, fake):
    """All that TensorRT gives is False where a kernel has read beside the memory."""
    gpu = load()
    stream = gpu.stream()
    context, = gpu.engine.contexts
    context.refuses = True
    fake.fail['cuStreamQuery'] = 'CUDA_ERROR_ILLEGAL_ADDRESS'
    with pytest.raises(DeviceError, match='ILLEGAL_ADDRESS.* restart the node') as error:
        label(stream, frame(0))
    assert 'memory' not in str(error.value) and failures.lost()


def test_frame_that_both_backends_refuse_does_not_cost_the_fake_gpu(load, fake):
    gpu = load()
    both = backends.FallbackBackend(gpu, on_processor(gpu))
    stream = both.stream()
    with pytest.raises(ValueError):
        stream.step(frame(0)[:, :, :1])
    assert both.name == 'tensorrt' and both.problem is None
    assert label(stream, frame(0)).labels.shape == frame(0).shape[:2]


def test_no_memory_for_another_camera_on_fake_gpu_reaches_the_fallback(load, fake):
    gpu = load()
    both = backends.FallbackBackend(gpu, on_processor(gpu))
    front = both.stream()
    label(front, frame(0))
    fake.fail['cuMemAlloc'] = 'CUDA_ERROR_OUT_OF_MEMORY'
    rear = both.stream()
    assert both.name == 'onnxruntime' and 'end other programs' in both.problem
    assert not failures.lost()
    for stream in (front, rear):
        assert label(stream, frame(1)).labels.shape == frame(1).shape[:2]


def test_fake_gpu_that_hangs_is_given_up_in_time(load, fake):
    """Nothing waits for it then, not even to free its memory, which would wait for ever."""
    gpu = load(wait_limit=0.3)
    both = backends.FallbackBackend(gpu, on_processor(gpu))
    front, rear = both.stream(), both.stream()
    for number in range(3):
        label(front, frame(number)), label(rear, frame(number))
    fake.hangs = True
    start = time.monotonic()
    made = label(front, frame(3))
    assert time.monotonic() - start >= 0.3 and made.labels.shape == frame(3).shape[:2]
    assert 'has not finished its work within 0.3 s' in both.problem
    fake.calls.clear()
    label(rear, frame(3))
    del gpu, front, rear, both
    gc.collect()
    assert fake.calls == []


def test_lost_fake_gpu_is_not_asked_again_by_this_process(load, fake):
    """A node that is configured again goes on with the next backend, and says why."""
    gpu = load()
    stream = gpu.stream()
    label(stream, frame(0))
    fake.fail['cuGraphLaunch'] = 'CUDA_ERROR_ILLEGAL_ADDRESS'
    with pytest.raises(DeviceError):
        label(stream, frame(1))
    fake.calls.clear()
    with pytest.raises(DeviceError, match='ILLEGAL_ADDRESS.* restart the node'):
        cuda.Gpu()
    with pytest.raises(DeviceError, match='restart the node'):
        label(stream, frame(2))
    assert fake.calls == []


def test_contexts_of_a_lost_fake_gpu_are_never_destroyed(load, fake):
    """Destructors of TensorRT wait for the GPU, and some end the process."""
    destroyed = []

    class Context:
        def __init__(self, real):
            self._real = real

        def __getattr__(self, name):
            return getattr(self._real, name)

        def __del__(self):
            destroyed.append(self)

    gpu = load()
    make = gpu.engine.create_execution_context
    gpu.engine.create_execution_context = lambda strategy: Context(make(strategy))
    stream = gpu.stream()
    del stream
    gc.collect()
    assert len(destroyed) == 1
    stream = gpu.stream()
    failures.lose('test')
    del stream
    gc.collect()
    assert len(destroyed) == 1


def test_context_and_kernels_of_fake_gpu_are_given_back_at_cleanup(load, fake):
    for _ in range(3):
        gpu = load()
        stream = gpu.stream()
        label(stream, frame(0), confidence=True)
        assert fake.modules == 1 and fake.contexts[0] == 1 and fake.allocated() > 0
        del gpu, stream
        gc.collect()
        assert fake.modules == 0 and fake.contexts[0] == 0
        assert fake.allocated() == 0 and fake.graphs() == 0 and not fake._registered


def test_gpus_of_the_fake_driver_are_chosen_by_index(fake):
    fake.gpus = 2
    gpu = cuda.Gpu(1)
    gpu.use()
    assert int(gpu.device) == 1 and fake.contexts == {1: 1}
    with pytest.raises(DeviceError, match='there is no GPU of this index: nvidia-smi -L'):
        cuda.Gpu(2)


@pytest.mark.parametrize('lost', [False, True])
def test_host_memory_of_a_lost_fake_gpu_is_kept(fake, lost):
    """Work that hung may still write its labels there."""
    gpu = cuda.Gpu()
    pinned = gpu.pinned((64,))
    owner = pinned.base.base
    alive = weakref.ref(getattr(owner, 'obj', owner))
    if lost:
        failures.lose('test')
    del pinned, owner
    gc.collect()
    assert (alive() is not None) == lost
