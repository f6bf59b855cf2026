# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs on a FAKE driver: addresses, captures, and what disturbs them."""
import gc
import threading
import weakref

from fake_backend import CAMERA, frame, on_processor
import numpy as np
import pytest
from streaming import label

from ros_vseg.errors import DeviceError
from ros_vseg.gpu.cuda import ALIGNMENT

pytest_plugins = ['fake_fixtures']


@pytest.mark.parametrize('context_frames', [2, 4])
@pytest.mark.parametrize('prototypes', [8, 9, 19])
def test_any_number_of_prototypes_runs_on_the_fake_engine(load, context_frames, prototypes):
    """It refuses addresses that are no multiple of 256 bytes, as TensorRT may."""
    backend = load(context_frames=context_frames, num_prototypes=prototypes)
    gpu, host = backend.stream(), on_processor(backend).stream()
    for number in range(3 * context_frames):
        image = frame(number, (96, 128))
        np.testing.assert_array_equal(label(gpu, image).labels, label(host, image).labels)
        assert gpu.context_frames == host.context_frames
    context, = backend.engine.contexts
    assert {address % ALIGNMENT for run in context.runs for address in run.values()} == {0}


def test_fake_engine_reads_and_writes_at_the_same_addresses_in_every_state(load):
    """No output overlaps an input: the engine may run both in one kernel."""
    backend = load(context_frames=3)
    stream = backend.stream()
    for number in range(9):
        label(stream, frame(number))
    context, = backend.engine.contexts
    assert len(context.runs) == 9
    assert len({tuple(sorted(run.items())) for run in context.runs}) == 1


def test_prototypes_go_into_the_slot_of_the_ring_on_fake_gpu(load):
    backend = load(context_frames=2)
    stream, before = backend.stream(), None
    slots = []
    for number in range(7):
        label(stream, frame(number))
        pool = backend.gpu.download(stream._pool, (3, 4 * 14))
        changed = (pool != (np.zeros_like(pool) if before is None else before)).any(1)
        slots.append(np.flatnonzero(changed).tolist())
        np.testing.assert_array_equal(
            pool[slots[-1][0]], backend.gpu.download(stream._prototypes, 4 * 14))
        before = pool
    assert slots == [[0], [1], [2], [0], [1], [2], [0]]


def test_all_graphs_on_fake_driver_are_captured_within_the_first_frame(load, fake):
    """Then no state of the ring, and no wish for confidence, costs a capture while driving."""
    stream = load(context_frames=3).stream()
    label(stream, frame(0))
    assert fake.counts()['cuGraphInstantiate'] == 2
    for number in range(1, 30):
        if number % 5 == 0:
            stream.forget_oldest()
        label(stream, frame(number), confidence=number % 2 == 0)
    stream.reset()
    label(stream, frame(0))
    counts = fake.counts()
    assert counts['cuGraphInstantiate'] == 0 and counts['cuGraphLaunch'] == 30
    label(stream, frame(0, (60, 70)))
    assert fake.counts()['cuGraphInstantiate'] == 2


def test_capture_that_fails_on_fake_gpu_is_tried_again_and_counted(load, fake, caplog):
    backend = load()
    stream, host = backend.stream(), on_processor(backend).stream()
    fake.fail['cuStreamEndCapture'] = 'CUDA_ERROR_STREAM_CAPTURE_IMPLICIT'
    launches = []
    for number in range(40):
        if number == 20:
            fake.fail.clear()
        image = frame(number, (96, 128))
        np.testing.assert_array_equal(label(stream, image).labels, label(host, image).labels)
        launches.append(fake.counts()['cuGraphLaunch'])
    # tried at the frames 0, 3, 8 and 17, and with success at 34
    assert launches == [0] * 35 + [1] * 5
    assert backend.report() == {'graph_captures_failed': '4'}
    assert caplog.text.count('it is tried again: cuStreamEndCapture failed') == 1


@pytest.mark.parametrize('refuse', ['network', 'capturable'])
def test_network_that_cannot_be_captured_on_fake_gpu_goes_step_by_step(load, fake, refuse):
    """A TensorRT that cannot be captured is slower, not lost; half a capture is not kept."""
    backend = load()
    stream, host = backend.stream(), on_processor(backend).stream()
    context, = backend.engine.contexts
    context.capturable = refuse != 'capturable'
    run = context.execute_async_v3
    context.execute_async_v3 = lambda handle: not (
        refuse == 'network' and fake.is_capturing) and run(handle)
    for number in range(9):
        image = frame(number, (96, 128))
        np.testing.assert_array_equal(label(stream, image).labels, label(host, image).labels)
    counts = fake.counts()
    assert counts['cuGraphLaunch'] == 0
    assert (counts['cuStreamBeginCapture'] > 0) == (refuse == 'network')
    assert not fake.is_capturing and fake.graphs() == 0
    assert int(backend.report()['graph_captures_failed']) == 3


def test_no_garbage_is_collected_while_fake_gpu_captures(load, fake):
    """To free GPU memory in the capturing thread breaks the capture."""
    backend = load()
    stream, collected = backend.stream(), []

    class Cycle:
        def __init__(self):
            self.buffer, self.self = backend.gpu.allocate(64), self

    gc.callbacks.append(lambda phase, info: collected.append(fake.is_capturing))
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(4):
            Cycle()
            label(stream, frame(number, (60 + number, 70)))
    finally:
        gc.set_threshold(*before)
        gc.callbacks.pop()
    assert len(collected) > 10 and not any(collected)
    assert gc.isenabled() and backend.report() == {'graph_captures_failed': '0'}


def test_captures_on_fake_gpu_stand_beside_cameras_that_start(load, fake):
    """Even where TensorRT captures a stream that waits for the default one."""
    backend = load()
    fake.blocking = True
    failed = []

    def drive():
        try:
            for number in range(6):
                label(backend.stream(), frame(number, (60 + number % 3, 70)))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == [] and backend.report() == {'graph_captures_failed': '0'}
    assert not {'cuMemsetD8', 'cuMemcpyHtoD', 'cuMemcpyDtoH'} & {name for name, _ in fake.calls}


def test_host_memory_outlives_its_page_lock_on_fake_gpu(load, fake):
    """Or another array has its address by then, and loses a page lock that it needs."""
    gpu = load().gpu
    pinned = gpu.pinned((4096,))
    address, memory = pinned.ctypes.data, weakref.ref(pinned.base.base.obj)
    with gpu.capturing():
        del pinned
        assert fake.is_pinned(address, 4096) and memory() is not None
    gpu.use()
    assert not fake.is_pinned(address, 4096) and memory() is None


def test_work_that_breaks_a_capture_leaves_fake_stream_usable(load, fake):
    backend = load()
    work = backend.gpu.queue()
    with pytest.raises(DeviceError, match='STREAM_CAPTURE_UNSUPPORTED'):
        work.capture(lambda: backend.gpu.call('cuMemAlloc', 16))
    with pytest.raises(ZeroDivisionError):
        work.capture(lambda: 1 / 0)
    assert fake.graphs() == 0 and gc.isenabled()
    buffer, values = backend.gpu.allocate(4), np.full(4, 7, np.uint8)
    work.copy_to_gpu(buffer, values)
    work.wait()
    np.testing.assert_array_equal(backend.gpu.download(buffer, 4, np.uint8), values)


def test_address_that_tensorrt_refuses_is_not_a_missing_tensor(load, fake):
    backend = load()
    stream = backend.stream()
    context, = backend.engine.contexts
    context.set_tensor_address = lambda name, address: name != 'prototypes'
    with pytest.raises(DeviceError, match='refuses address 0x.* of tensor prototypes'):
        label(stream, frame(0, CAMERA))
