# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Degradations of frames: severe, repeatable, of any size."""
import cv2
import numpy as np
import pytest

from vseg_training.data.degrade import (
    degradation_schedule, degrade, frame_rng, HELD_OUT, KINDS, SEEN, STRENGTH)


def picture(height, width):
    """Patches of many colours."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (18, 24, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


def test_seen_and_held_out_are_all_kinds():
    assert {*SEEN, *HELD_OUT} == set(KINDS) == set(STRENGTH)
    assert not set(SEEN) & set(HELD_OUT)


@pytest.mark.parametrize('kind', KINDS)
def test_kind_changes_the_picture_and_repeats(kind):
    image = picture(90, 120)
    before = image.copy()
    first, again, other = (
        degrade(image, frame_rng(seed, 7), kind) for seed in (0, 0, 1))
    assert first.dtype == np.uint8 and first.shape == image.shape
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    for seed in range(8):
        changed = degrade(image, frame_rng(seed, 0), kind)
        assert np.abs(changed.astype(int) - image).mean() > 2, seed
        assert changed.std() > 1, seed  # something is left


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [(1, 1), (7, 5), (224, 288), (45, 700)])
def test_any_size(kind, size):
    result = degrade(picture(*size), frame_rng(0, 0), kind)
    assert result.shape == (*size, 3) and result.dtype == np.uint8


@pytest.mark.parametrize('kind', KINDS)
def test_memory_order_does_not_matter(kind):
    image = picture(64, 96)
    mirrored = image[:, ::-1]
    np.testing.assert_array_equal(degrade(mirrored, frame_rng(0, 0), kind),
                                  degrade(mirrored.copy(), frame_rng(0, 0), kind))


@pytest.mark.parametrize('kind', KINDS)
def test_frames_of_any_size_look_alike(kind):
    """A small frame degraded is a large one degraded and shrunk, in brightness and contrast."""
    large, small = picture(720, 960), picture(360, 480)
    means = []
    for image in (large, small):
        frames = np.stack([cv2.resize(degrade(image, frame_rng(seed, 0), kind), (96, 72),
                                      interpolation=cv2.INTER_AREA) for seed in range(4)])
        means.append((frames.mean(), frames.std(axis=(1, 2)).mean()))
    assert means[0] == pytest.approx(means[1], rel=0.15, abs=3)


def test_what_is_no_frame_is_refused():
    rng = frame_rng(0, 0)
    with pytest.raises(ValueError, match='float32.*convert'):
        degrade(np.zeros((4, 4, 3), np.float32), rng, 'blur')
    with pytest.raises(ValueError, match=r'\(4, 4\)'):
        degrade(np.zeros((4, 4), np.uint8), rng, 'blur')
    with pytest.raises(ValueError, match="'snow' is unknown: use one of blur"):
        degrade(np.zeros((4, 4, 3), np.uint8), rng, 'snow')


def test_every_fifth_frame_is_bad_and_kinds_take_turns():
    plan = degradation_schedule(40)
    assert [i for i, kind in enumerate(plan) if kind] == [4, 9, 14, 19, 24, 29, 34, 39]
    assert [kind for kind in plan if kind] == [*SEEN, *SEEN[:2]]
    assert degradation_schedule(40, seed=2)[4] == SEEN[2]
    assert degradation_schedule(0) == []


def test_a_burst_is_of_a_kind():
    plan = degradation_schedule(28, every=12, burst=8, kinds=HELD_OUT)
    assert plan == ([None] * 4 + [HELD_OUT[0]] * 8 + [None] * 4 + [HELD_OUT[1]] * 8 + [None] * 4)
    with pytest.raises(ValueError, match='bursts of 5 do not fit into a period of 5'):
        degradation_schedule(20, burst=5)
    with pytest.raises(ValueError, match='bursts of 0'):
        degradation_schedule(20, burst=0)
