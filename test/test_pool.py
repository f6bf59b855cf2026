# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Which frames a stream's pool holds: good ones alone, none too old, none of another scene."""
from collections import Counter
from types import SimpleNamespace

import pytest
from streaming import frame, scene
from tiny_bundle import info

from ros_vseg.backends.base import Labels
from ros_vseg.stream import Stream

SECOND = 10**9
PERIOD = SECOND // 15


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


def test_a_reset_is_told_by_the_next_result_where_its_frame_fails(watched, monkeypatch):
    stream, backend = watched
    drive(stream, [80] * 3)
    monkeypatch.setattr(backend, 'label', lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stream.step(rated(3, 80), 100 * SECOND)
    monkeypatch.undo()
    assert stream.step(rated(4, 80), 100 * SECOND + PERIOD).reset == 'gap'
    assert stream.step(rated(5, 80), 100 * SECOND + 2 * PERIOD).reset is None


def test_rate_is_compared_with_the_bundles():
    tiny = info(context_frames=3)
    known = SimpleNamespace(**{name: getattr(tiny, name) for name in (
        'label_set', 'height', 'width', 'pool_frames')}, rates=(5.0, 30.0))
    slow, right = Stream(StandInBackend(known)), Stream(StandInBackend(known))
    drive(slow, [80] * 20, SECOND)
    drive(right, [80] * 20)
    assert '1.0 frames a second' in slow.rate.problem and right.rate.problem is None
