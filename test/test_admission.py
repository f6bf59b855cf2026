# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Which frames enter the pool, and how often frames come."""
import re

import numpy as np
import pytest

from ros_vseg.admission import Admission, FLOOR, WORSE
from ros_vseg.rate import FrameRate


def judged(*confidences):
    admission = Admission()
    return [admission.admits(confidence) for confidence in confidences]


def test_first_frame_enters_whatever_its_confidence():
    assert judged(0.1) == judged(1.0) == [True]


@pytest.mark.parametrize('usual', [0.6, 0.8, 0.94])
@pytest.mark.parametrize('factor, enters', [
    (WORSE - 1e-6, True), (WORSE + 1e-6, False), (1, True), (0, True)])
def test_ratio_to_the_usual_error_decides(usual, factor, enters):
    assert judged(usual, usual, usual, 1 - factor * (1 - usual))[-1] is enters


def test_of_a_network_that_is_all_but_sure_no_frame_is_held_back_for_little():
    assert judged(0.9999, 0.9999, 1 - WORSE * FLOOR + 1e-6, 1 - WORSE * FLOOR - 1e-3) == [
        True, True, True, False]


@pytest.mark.parametrize('sharper', [1, 3])
def test_bad_frames_do_not_get_in_by_a_temperature(sharper):
    """
    A temperature brings all confidences near 1, where their ratios are all alike.

    The confidences are those of a drive's good and degraded frames: of ten bad ones in a row none
    enters, and the good ones after them do.
    """
    good, bad = (1 - np.array(errors) / sharper for errors in (
        [0.21, 0.19, 0.22, 0.2] * 5, [0.36, 0.42, 0.5, 0.38, 0.6] * 2))
    assert judged(*good, *bad, *good) == [True] * 20 + [False] * 10 + [True] * 20


def test_mean_is_that_of_the_admitted():
    """After 0.8, 0.9 and 0.4, which is held back, the error is 0.15, and not 0.3."""
    assert judged(0.8, 0.9, 0.4, 1 - 0.15 * WORSE + 1e-6)[2:] == [False, True]
    assert judged(0.8, 0.9, 0.4, 1 - 0.15 * WORSE - 1e-6)[2:] == [False, False]


def test_a_long_burst_enters_never():
    assert judged(*[0.83] * 5, *[0.6] * 200, 0.83)[5:] == [False] * 200 + [True]


def test_bad_first_frame_keeps_no_good_one_out():
    assert all(judged(0.5, *[0.83] * 60)) and judged(0.5, *[0.83] * 60, 0.7)[-1] is False


def test_slow_change_is_followed_even_after_a_long_drive():
    """An hour of day, then dusk: a plain mean over all frames would hold back every frame."""
    drive = [*[0.85] * 10000, *np.linspace(0.85, 0.6, 1000)]
    assert all(judged(*drive))


def test_unknown_confidence_enters_and_nan_does_not():
    assert judged(None, None) == [True, True]
    assert judged(float('nan'), 0.8, float('nan'), 0.8) == [False, True, False, True]


def test_reset_forgets_the_mean():
    admission = Admission()
    assert admission.admits(0.9) and not admission.admits(0.5)
    admission.reset()
    assert admission.admits(0.5)


def rate_of(stamps, rates=None):
    rate = FrameRate(rates)
    for stamp in stamps:
        rate.add(stamp)
    return rate


@pytest.mark.parametrize('hz', [0.5, 5, 15, 60])
def test_rate_is_measured_by_stamps(hz):
    rate = rate_of([round(number * 1e9 / hz) for number in range(40)])
    assert rate.hz == pytest.approx(hz, rel=1e-6) and rate.problem is None


def test_rate_is_unknown_at_first_and_survives_pauses_and_loops():
    stamps = [number * 10**8 for number in range(10)]
    assert rate_of(stamps).hz is None
    looped = [*stamps, 40 * 10**9, 40 * 10**9 + 10**8, *stamps, *stamps[5:]]
    assert rate_of(looped).hz == pytest.approx(10)
    assert rate_of([7] * 50).hz is None


@pytest.mark.parametrize('hz, problem', [
    (3.2, r'3\.2 frames a second .* trained for 5 to 30: .*raise the rate'),
    (3.4, None), (5, None), (30, None), (44, None),
    (46, r'46\.0 frames a second .* trained for 5 to 30: .*lower the rate')])
def test_rate_far_from_what_the_student_was_trained_for(hz, problem):
    rate = rate_of([round(number * 1e9 / hz) for number in range(40)], (5.0, 30.0))
    if problem is None:
        assert rate.problem is None
    else:
        assert re.search(problem, rate.problem)


def test_rate_that_recovers_is_no_problem_any_more():
    slow = [number * 10**9 for number in range(20)]
    rate = rate_of(slow, (5.0, 30.0))
    assert rate.problem
    for number in range(40):
        rate.add(slow[-1] + (number + 1) * 10**8)
    assert rate.problem is None
