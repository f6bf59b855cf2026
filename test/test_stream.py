# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A stream of one camera: warm-up, reset rules, sizes, label sets."""
from collections import Counter

import cv2
import numpy as np
import pytest
from streaming import frame, scene, step
from tiny_bundle import NumpyStudent, PLAIN, write_tiny_bundle

from ros_vseg import backends, decode as decode_module
from ros_vseg.backends import base
from ros_vseg.bundle import Bundle
from ros_vseg.decode import decode
from ros_vseg.errors import LabelSetError
from ros_vseg.labels import LabelSet, load_label_set
from ros_vseg.stream import Stream

SECOND = 10**9
PERIOD = SECOND // 15


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('stream')


@pytest.fixture(scope='module')
def load(folder):
    """Return a function that makes a fp32 backend of a tiny bundle, once per bundle."""
    loaded = {}

    def make(**changes):
        key = repr(sorted(changes.items()))
        if key not in loaded:
            path = write_tiny_bundle(folder / f'{len(loaded)}.onnx', **changes)
            loaded[key] = backends.load(Bundle.load(path), 'onnxruntime', threads=1)
        return loaded[key]
    return make


def contexts(stream, stamps):
    return [stream.step(frame(i), stamp).context_frames for i, stamp in enumerate(stamps)]


@pytest.mark.parametrize('pool_frames, expected', [
    (0, [0, 0, 0, 0]), (1, [0, 1, 1, 1]), (3, [0, 1, 2, 3, 3, 3])])
def test_warm_up_of_the_pool(load, pool_frames, expected):
    stream = Stream(load(context_frames=pool_frames))
    assert contexts(stream, [i * PERIOD for i in range(len(expected))]) == expected
    assert not stream.resets


@pytest.mark.parametrize('changes', [{'context_frames': 2}, PLAIN])
def test_labels_are_the_reference_network_decoded(load, changes):
    backend = load(**changes)
    stream, student = Stream(backend), NumpyStudent(backend.bundle.info)
    for number in range(5):
        result = stream.step(frame(number), number * PERIOD, confidence=True)
        labels, confidence = decode(step(student, frame(number)), (96, 128), confidence=True)
        assert (result.labels == labels).mean() > 0.999
        assert np.abs(result.confidence.astype(int) - confidence).max() <= 2
        assert len(np.unique(labels)) > 2


@pytest.mark.parametrize('cause, stamps, max_gap', [
    ('time_back', [0, 1, 0], 1.0),
    ('time_back', [5 * SECOND, 6 * SECOND, 0], 1.0),
    ('gap', [0, SECOND, 2 * SECOND + 1], 1.0),
    ('gap', [0, SECOND // 10, SECOND // 2], 0.25),
])
def test_reset_by_stamps(load, cause, stamps, max_gap):
    stream = Stream(load(), max_gap=max_gap)
    results = [stream.step(frame(i), stamp) for i, stamp in enumerate(stamps)]
    assert [result.reset for result in results] == [None, None, cause]
    assert [result.context_frames for result in results] == [0, 1, 0]
    assert stream.resets == Counter({cause: 1})


def test_a_gap_of_just_max_gap_is_no_reset(load):
    stream = Stream(load(), max_gap=1.0)
    assert contexts(stream, [0, SECOND, 2 * SECOND]) == [0, 1, 1]
    assert not stream.resets


def test_repeated_stamps_are_frames_like_any_other(load):
    stream = Stream(load())
    assert contexts(stream, [7, 7, 7]) == [0, 1, 2]
    assert not stream.resets


def test_reset_by_size(load):
    stream = Stream(load())
    stream.step(frame(0), 0)
    result = stream.step(frame(1, (48, 64)), 1)
    assert (result.reset, result.context_frames) == ('size', 0)
    assert result.labels.shape == (48, 64)
    assert stream.step(frame(2, (48, 64)), 2).context_frames == 1
    assert stream.resets == Counter(size=1)


def test_reset_by_frame_id(load):
    stream = Stream(load())
    for stamp, frame_id in enumerate(['left', 'left', 'right', 'right']):
        result = stream.step(frame(stamp), stamp, frame_id)
        assert result.reset == ('frame_id' if stamp == 2 else None)
        assert result.context_frames == stamp % 2
    assert stream.resets == Counter(frame_id=1)


def test_reset_by_request(load):
    stream = Stream(load())
    stream.step(frame(0), 0)
    stream.reset()
    first, second = (stream.step(frame(i), i) for i in (1, 2))
    assert (first.reset, first.context_frames) == ('request', 0)
    assert (second.reset, second.context_frames) == (None, 1)
    stream.reset('internal')
    assert stream.step(frame(3), 3).reset == 'internal'
    assert stream.resets == Counter(request=1, internal=1)


def test_a_requested_reset_is_not_counted_twice(load):
    stream = Stream(load())
    stream.step(frame(0), 5 * SECOND, 'left')
    stream.reset()
    assert stream.step(frame(1, (48, 64)), 0, 'right').reset == 'request'
    assert stream.resets == Counter(request=1)


def test_max_gap_applies_at_once(load):
    stream = Stream(load())
    stream.step(frame(0), 0)
    stream.max_gap = 0.1
    assert stream.step(frame(1), SECOND // 2).reset == 'gap'


def test_after_a_reset_it_is_as_new(load):
    used, new = Stream(load()), Stream(load())
    for number in range(5):
        used.step(frame(number + 40), number)
    used.reset()
    for number in range(5):
        one = used.step(frame(number), 10 * SECOND + number, confidence=True)
        other = new.step(frame(number), number, confidence=True)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.confidence, other.confidence)


def test_same_frames_give_the_same_labels(load):
    runs = []
    for _ in range(2):
        stream = Stream(load())
        runs.append([stream.step(frame(i), i * PERIOD).labels for i in range(6)])
    np.testing.assert_array_equal(*runs)


def test_scene_change_in_a_real_backend(load):
    """Labels after the cut are those of a fresh stream."""
    used, new = Stream(load()), Stream(load())
    for number in range(4):
        used.step(frame(number), number * PERIOD)
    assert used.step(scene(3), 4 * PERIOD).context_frames == 3
    for number in range(5, 9):
        found = used.step(scene(3), number * PERIOD)
        assert found.reset == ('scene' if number == 5 else None)
        np.testing.assert_array_equal(found.labels, new.step(scene(3), number * PERIOD).labels)


def test_network_without_a_pool_holds_nothing_back(load):
    stream = Stream(load(context_frames=0))
    for number in range(6):
        result = stream.step(frame(0) if number < 3 else scene(1), number * PERIOD)
        assert (result.admitted, result.held_back, result.oldest) == (False, False, None)
    assert not stream.resets and stream.held_back == 0


def test_bundle_that_tells_no_confidence_admits_all(load):
    stream = Stream(load())
    results = [stream.step(frame(number), number * PERIOD) for number in range(6)]
    assert all(result.admitted for result in results) and stream.held_back == 0


def test_context_changes_the_scores(load):
    """Without this the other tests could pass with a pool that nobody reads."""
    alone = Stream(load()).step(frame(30), 0, confidence=True)
    stream = Stream(load())
    for number in range(3):
        stream.step(frame(number), number)
    after = stream.step(frame(30), 3, confidence=True)
    assert (alone.confidence != after.confidence).mean() > 0.1


def test_results_outlive_the_next_step(load):
    stream = Stream(load())
    first = stream.step(frame(0), 0, confidence=True)
    labels, confidence = first.labels.copy(), first.confidence.copy()
    stream.step(frame(20), 1, confidence=True)
    np.testing.assert_array_equal(first.labels, labels)
    np.testing.assert_array_equal(first.confidence, confidence)


def test_confidence_on_demand(load):
    stream = Stream(load())
    assert stream.step(frame(0), 0).confidence is None
    confidence = stream.step(frame(1), 1, confidence=True).confidence
    assert confidence.shape == (96, 128) and confidence.dtype == np.uint8
    assert confidence.min() >= 255 // 11 and confidence.max() > confidence.min()


@pytest.mark.parametrize('size, interpolation', [
    ((192, 256), cv2.INTER_AREA), ((90, 300), cv2.INTER_AREA), ((48, 64), cv2.INTER_LINEAR)])
def test_camera_of_another_size(load, size, interpolation):
    backend = load()
    result = Stream(backend).step(frame(0, size), 0)
    small = cv2.resize(frame(0, size), (128, 96), interpolation=interpolation)
    scores = backend.stream().step(small)
    np.testing.assert_array_equal(result.labels, decode(scores, size)[0])
    assert result.labels.shape == size


def test_image_need_not_be_contiguous(load):
    wide = np.concatenate([frame(0), frame(1)], axis=1)
    view = wide[:, :128]
    assert not view.flags.c_contiguous
    np.testing.assert_array_equal(
        Stream(load()).step(view, 0).labels, Stream(load()).step(frame(0), 0).labels)


def test_bgr_network(load):
    rgb, bgr = load(), load(color_order='bgr')
    flipped = np.ascontiguousarray(frame(0)[..., ::-1])
    labels = Stream(bgr).step(flipped, 0).labels
    np.testing.assert_array_equal(labels, Stream(rgb).step(frame(0), 0).labels)
    assert (labels != Stream(bgr).step(frame(0), 0).labels).any()


def test_label_set_renames(load):
    backend = load()
    names = list(load_label_set('camvid').names)
    target = LabelSet.from_dict({
        'name': 'halves', 'void_id': 99, 'void_from': names[8:], 'classes': [
            {'id': 0, 'name': 'first', 'color': [1, 2, 3], 'from': names[:4]},
            {'id': 1, 'name': 'second', 'color': [4, 5, 6], 'from': names[4:8]}]})
    own, stream = Stream(backend), Stream(backend, label_set=target)
    assert own.label_set.name == 'camvid' and stream.label_set is target
    table = np.array([0, 0, 0, 0, 1, 1, 1, 1, 99, 99, 99])
    labels = own.step(frame(0), 0).labels
    assert len(np.unique(table[labels])) > 1
    np.testing.assert_array_equal(stream.step(frame(0), 0).labels, table[labels])


def test_label_set_that_does_not_fit(load):
    with pytest.raises(LabelSetError, match='cityscapes does not fit camvid'):
        Stream(load(), label_set=load_label_set('cityscapes'))


def test_times_are_told(load):
    times = Stream(load()).step(frame(0), 0).times
    assert set(times) == {'resize', 'network', 'decode'}
    assert all(0 <= seconds < 5 for seconds in times.values()) and times['network'] > 0


def test_network_and_decoder_run_before_the_first_frame(load, monkeypatch):
    """What compiles or allocates at the first call does so when the stream is made."""
    calls = []

    def spy(scores, size, **options):
        calls.append((scores.shape, size, options))
        return decode(scores, size, **options)
    monkeypatch.setattr(base, 'decode', spy)
    Stream(load())
    assert calls == [((11, 12, 16), (96, 128), {'confidence': True, 'table': None})]
    kernels = [each for each in vars(decode_module).values() if hasattr(each, 'signatures')]
    before = [list(kernel.signatures) for kernel in kernels]
    assert any(before)
    Stream(load()).step(frame(0, (48, 64)), 0, confidence=True)
    assert [list(kernel.signatures) for kernel in kernels] == before


def test_streams_of_one_backend_are_independent(load):
    backend = load()
    alone = Stream(backend)
    expected = [alone.step(frame(i), i).labels for i in range(4)]
    one, other = Stream(backend), Stream(backend)
    for number in range(4):
        np.testing.assert_array_equal(one.step(frame(number), number).labels, expected[number])
        other.step(frame(number + 50), number)
