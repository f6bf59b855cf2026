# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The TensorRT backend labels frames on a FAKE driver and engine as the processor does."""
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
import gc
import time
from types import SimpleNamespace

from fake_backend import by_taps, CAMERA, frame, on_processor, STAGES
import numpy as np
import pytest
from streaming import label, step
from tiny_bundle import PLAIN

from ros_vseg.decode import decode
from ros_vseg.errors import DeviceError
from ros_vseg.gpu import ranges
from ros_vseg.gpu.cuda import Gpu
from ros_vseg.gpu.work_queue import Queue
from ros_vseg.image import fill_image
from ros_vseg.stream import Stream

pytest_plugins = ['fake_fixtures']


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


def test_fake_gpu_at_camera_size_and_through_a_change_of_size(load):
    backend = load()
    gpu, host = Stream(backend), on_processor(backend).stream()
    for number, size in enumerate([CAMERA] * 5 + [(64, 80)] * 3 + [CAMERA] * 5):
        image = frame(number, size)
        found = gpu.step(image, number, confidence=True)
        if found.reset:
            host.reset()
        scores = step(host, by_taps(image, (96, 128)))
        labels, confidence = decode(scores, size, confidence=True)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(found.confidence, confidence)
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
        np.testing.assert_array_equal(stream._frame.image, image)
    assert len(found) == 12
    assert fake.counts() == {'cuCtxSetCurrent': 1, 'cuGraphLaunch': 1, 'cuStreamQuery': 1,
                             'cuEventElapsedTime': len(STAGES)}


@pytest.mark.parametrize('size', [(96, 128), CAMERA, (61, 83)])
def test_fake_gpu_in_the_hosts_memory_copies_nothing(load, fake, size):
    """As on a Jetson; its network reads an image of its own size where the camera's was put."""
    fake.integrated = True
    backend = load(has_confidence=True)
    gpu, host = backend.stream(), on_processor(backend).stream()
    for number in range(9):
        image = frame(number, size)
        fake.counts()
        found = label(gpu, image, confidence=True)
        expected = label(host, image if size == (96, 128) else by_taps(image, (96, 128)),
                         confidence=True)
        assert found.mean_confidence == pytest.approx(expected.mean_confidence, abs=1e-6)
        labels, confidence = decode(gpu._gpu.download(gpu._scores, gpu._coarse), size,
                                    confidence=True)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(found.confidence, confidence)
    assert len(np.unique(labels)) > 2
    fake.counts()
    label(gpu, frame(9, size), confidence=True)
    assert fake.counts() == {'cuCtxSetCurrent': 1, 'cuGraphLaunch': 1, 'cuStreamQuery': 1,
                             'cuEventElapsedTime': len(STAGES)}
    step_by_step = backend.stream()
    fake.counts()
    label(step_by_step, frame(0, size), confidence=True)
    counts, opened = fake.counts(), step_by_step._frame
    assert counts['cuLaunchKernel'] and not counts['cuMemcpyDtoHAsync']
    assert opened.gpu_image.address == opened.image.ctypes.data
    assert opened.gpu_labels.address == opened.labels.ctypes.data


def test_fake_gpu_maps_only_what_was_registered_for_it(fake):
    fake.integrated = True
    gpu = Gpu()
    gpu.use()
    with pytest.raises(DeviceError, match='cuMemHostGetDevicePointer'):
        gpu.mapped(np.zeros(9, np.uint8))
    fake.integrated = False
    gpu = Gpu()
    with pytest.raises(DeviceError, match='cuMemHostGetDevicePointer'):
        gpu.mapped(gpu.pinned((9,)))


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
                                 'cuStreamQuery': 1, 'cuEventElapsedTime': len(STAGES)}


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
    work = [name for name in first if name not in ('cuEventCreate', 'cuStreamQuery')]
    assert work == [mark, 'cuMemcpyHtoDAsync', mark, 'resize_packed', mark, 'store', mark,
                    'candidates', 'labels', 'confidence', mark, 'cuMemcpyDtoHAsync',
                    'cuMemcpyDtoHAsync', mark]
    assert list(times) == STAGES and all(0 < seconds < 1 for seconds in times.values())


def test_cameras_on_fake_gpu_share_the_engine_and_nothing_else(load):
    backend = load()
    alone, one, other = backend.stream(), backend.stream(), backend.stream()
    for number in range(8):
        expected = np.array(label(alone, frame(number)).labels)
        label(other, frame(number + 40))
        np.testing.assert_array_equal(label(one, frame(number)).labels, expected)
    pools = {run['pool'] for context in backend.engine.contexts for run in context.runs}
    assert len(backend.engine.contexts) == len(pools) == 3


def test_cameras_on_fake_gpu_share_one_working_memory_and_take_turns(load, fake, monkeypatch):
    backend = load()
    streams = [backend.stream() for _ in range(3)]
    assert len({context.memory for context in backend.engine.contexts}) == 1
    running, most = [], []
    replay, wait = Queue.replay, Queue.wait

    def watched_replay(queue, graph):
        running.append(queue)
        most.append(len(running))
        time.sleep(1e-3)    # another camera would come in here
        replay(queue, graph)

    def watched_wait(queue):
        wait(queue)
        if queue in running:
            running.remove(queue)

    for stream in streams:
        label(stream, frame(0))
    monkeypatch.setattr(Queue, 'replay', watched_replay)
    monkeypatch.setattr(Queue, 'wait', watched_wait)

    def drive(stream):
        return [np.array(label(stream, frame(number)).labels) for number in range(1, 9)]

    with ThreadPoolExecutor(3) as workers:
        first, *others = workers.map(drive, streams)
    assert len(most) == 24 and set(most) == {1}
    for labels in others:
        np.testing.assert_array_equal(first, labels)
    address = backend.engine.contexts[0].memory
    del streams, workers, stream
    gc.collect()
    assert address not in fake._memory      # given back with the last camera


def test_nsight_ranges_have_names_where_nvtx_is_installed(load, monkeypatch):
    stream, names = load().stream(), []

    def annotate(name):
        names.append(name)
        return nullcontext()

    expected = np.array(stream.label(frame(0)).labels)
    monkeypatch.setattr(ranges, 'nvtx', SimpleNamespace(annotate=annotate))
    np.testing.assert_array_equal(stream.label(frame(0)).labels, expected)
    assert names == ['vseg: copy the image', 'vseg: frame on the GPU']


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


def test_stream_of_a_network_without_prototypes_on_fake_gpu(load, fake):
    stream = Stream(load(**PLAIN))
    results = [stream.step(frame(number), number) for number in range(4)]
    assert [result.context_frames for result in results] == [0] * 4
    # with confidence and without it, at the size of the warm-up and at the camera's
    assert fake.counts()['cuGraphInstantiate'] == 4
