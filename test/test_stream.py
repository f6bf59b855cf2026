# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A stream of one camera: warm-up, reset rules, sizes, label sets."""
from collections import Counter
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from streaming import step
from tiny_bundle import info, NumpyStudent, PLAIN, write_tiny_bundle

from ros_vseg import backends, decode as decode_module
from ros_vseg.backends import base
from ros_vseg.backends.base import Labels
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


def frame(number, size=(96, 128)):
    """Return a smooth image uint8 [H, W, 3] that moves with its number."""
    y, x = np.mgrid[:size[0], :size[1]] / 20
    planes = [np.sin(x + 0.3 * number + c) * np.cos(y - 0.2 * number * c) for c in range(3)]
    return (127 + 120 * np.stack(planes, -1)).astype(np.uint8)


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


class StandInBackend:
    """Stands for a backend whose bundle tells its confidence: pixel [0, 0] in percent."""

    def __init__(self, info):
        self.bundle, self.made = SimpleNamespace(info=info), []

    def stream(self, table=None):
        self.made.append(StandInStream(self.bundle.info))
        return self.made[-1]


class StandInStream:
    """Its pool lists the frames' numbers, which are pixel [0, 1]; ``seen`` is that of each."""

    def __init__(self, info):
        self._info, self.pool, self.seen, self.context_frames = info, [], [], 0

    def label(self, image, confidence=False):
        self._newest, self.context_frames = int(image[0, 1, 0]), len(self.pool)
        self.seen.append(list(self.pool))
        return Labels(image[..., 0], None, {}, image[0, 0, 0] / 100)

    def remember(self):
        self.pool = [*self.pool, self._newest][-self._info.pool_frames:]

    def forget_oldest(self):
        del self.pool[0]

    def reset(self):
        self.pool = []


@pytest.fixture
def watched():
    """Return a Stream with T = 3 and a stand-in for its backend, and the stand-in's stream."""
    backend = StandInBackend(info(context_frames=3))
    stream = Stream(backend)
    backend.made[0].seen.clear()
    return stream, backend.made[0]


def rated(number, confidence, picture=None):
    """Return a frame of a number and a confidence in percent."""
    image = frame(0) if picture is None else picture.copy()
    image[0, 0], image[0, 1] = confidence, number
    return image


def drive(stream, confidences, period=PERIOD):
    return [stream.step(rated(number, confidence), number * period)
            for number, confidence in enumerate(confidences)]


def test_bad_frames_do_not_enter_the_pool(watched):
    stream, backend = watched
    results = drive(stream, [83, 84, 82, *[60] * 8, 83, 84, 82])
    assert [result.admitted for result in results] == [True] * 3 + [False] * 8 + [True] * 3
    assert [result.held_back for result in results] == [False] * 3 + [True] * 8 + [False] * 3
    assert backend.seen == [[], [0], [0, 1], *[[0, 1, 2]] * 9, [1, 2, 11], [2, 11, 12]]
    assert stream.held_back == 8 and not stream.resets
    ages = [None, 1, 2, *range(3, 12), 11, 11]
    for result, age in zip(results, ages):
        assert result.oldest == (None if age is None else pytest.approx(age * PERIOD / 1e9))


def test_age_limit_forgets_one_frame_after_the_other(watched):
    stream, backend = watched
    drive(stream, [80, 80, 80, *[10] * 5], SECOND // 4)
    assert backend.seen[3:] == [[0, 1, 2], [0, 1, 2], [1, 2], [2], []]
    assert stream.resets == Counter(stale=1)


def test_lasting_drop_of_confidence_recovers(watched):
    """A tunnel: after max_gap the pool is empty, the mean forgotten, and frames enter again."""
    stream, backend = watched
    results = drive(stream, [85] * 5 + [50] * 40)
    first = next(number for number, one in enumerate(results) if one.reset)
    assert results[first].reset == 'stale' and first == 5 + 15     # 15 frames a second
    assert all(result.admitted for result in results[first:])
    assert results[first].context_frames == 0
    assert results[-1].context_frames == 3 and backend.seen[-1] == [41, 42, 43]
    assert stream.resets == Counter(stale=1) and stream.held_back == 15


@pytest.mark.parametrize('hz, expected', [(60, 3), (15, 3), (5, 3), (3, 3), (2, 2), (1, 1)])
def test_frames_attended_to_at_camera_rates(watched, hz, expected):
    stream, _ = watched
    result = drive(stream, [80] * 12, round(SECOND / hz))[-1]
    assert result.context_frames == expected and not stream.resets
    assert result.oldest == pytest.approx(expected / hz)


def test_reset_forgets_the_running_mean(watched):
    stream, _ = watched
    drive(stream, [90] * 4)
    assert stream.step(rated(4, 60), 4 * PERIOD).held_back
    stream.reset()
    assert stream.step(rated(5, 60), 5 * PERIOD).admitted


def scene(seed):
    coarse = np.random.default_rng(seed).uniform(0, 255, (12, 16, 3)).astype(np.float32)
    image = cv2.resize(coarse, (128, 96), interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255).astype(np.uint8)


def test_scene_change_empties_the_pool_one_frame_later(watched):
    stream, backend = watched
    results = [stream.step(rated(number, 80, scene(number // 5)), number * PERIOD)
               for number in range(10)]
    assert [result.reset for result in results] == [None] * 6 + ['scene'] + [None] * 3
    assert backend.seen[5:] == [[2, 3, 4], [], [6], [6, 7], [6, 7, 8]]
    assert stream.resets == Counter(scene=1)


def test_held_back_frames_are_no_scene(watched):
    stream, _ = watched
    results = [stream.step(rated(number, 60 if 4 <= number < 9 else 80,
                                 scene(4 <= number < 9)), number * PERIOD)
               for number in range(14)]
    assert not stream.resets and stream.held_back == 5
    assert results[9].context_frames == 3


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


def test_rate_is_compared_with_the_bundles():
    tiny = info(context_frames=3)
    known = SimpleNamespace(**{name: getattr(tiny, name) for name in (
        'label_set', 'height', 'width', 'pool_frames')}, rates=(5.0, 30.0))
    slow, right = Stream(StandInBackend(known)), Stream(StandInBackend(known))
    drive(slow, [80] * 20, SECOND)
    drive(right, [80] * 20)
    assert '1.0 frames a second' in slow.rate.problem and right.rate.problem is None


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
