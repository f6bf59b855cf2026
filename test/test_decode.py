# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The decoder gives what dense bilinear upsampling and argmax give."""
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
import os
from pathlib import Path
import shutil
import subprocess
import sys

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
from streaming import step

from ros_vseg import backends, decode as module
from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.decode import decode, decode_dense
from ros_vseg.media.sources import open_source
from ros_vseg.processes import demo_clip
from ros_vseg.resize import resize_image

NEAR_TIE = 1e-5


def upsample(scores, size):
    """Bilinear upsampling (align_corners=False) in float64: [K, h, w] -> [K, H, W]."""
    def matrix(coarse, full):
        place = np.clip((np.arange(full) + 0.5) * coarse / full - 0.5, 0, coarse - 1)
        first = np.floor(place).astype(int)
        rows = np.zeros((full, coarse))
        rows[np.arange(full), first] += 1 - (place - first)
        rows[np.arange(full), np.minimum(first + 1, coarse - 1)] += place - first
        return rows
    return np.einsum('Yh,khw,Xw->kYX', matrix(scores.shape[1], size[0]),
                     scores.astype(np.float64), matrix(scores.shape[2], size[1]))


def softmax_top(scores, size):
    """255 times the largest softmax probability of the upsampled scores, float64."""
    full = upsample(scores, size)
    return 255 / np.exp(full - full.max(0)).sum(0)


def smooth(rng, shape, gain=8):
    """Scores [K, h, w] like a network's: regions with soft borders."""
    noise = rng.standard_normal(shape)
    for axis in (1, 2):
        noise = (noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)) / 3
    return (gain * noise).astype(np.float32)


def assert_best(labels, scores, size):
    """Check that every label is the argmax, or as good as it within NEAR_TIE."""
    full = upsample(scores, size)
    chosen = np.take_along_axis(full, labels[None].astype(int), 0)[0]
    assert (full.max(0) - chosen <= NEAR_TIE * max(1, np.abs(scores).max())).all()


@st.composite
def problems(draw):
    """Scores of many kinds, and a size smaller, larger or odd."""
    classes = draw(st.sampled_from([1, 2, 3, 11, 19, 64, 255]))
    coarse = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    size = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(['noise', 'smooth', 'huge', 'steps', 'few', 'nan']))
    shape = (classes, *coarse)
    if kind == 'smooth':
        return smooth(rng, shape), size
    scores = rng.standard_normal(shape).astype(np.float32)
    if kind == 'huge':
        scores *= np.float32(1e30)
    elif kind == 'steps':       # many exact ties
        scores = np.round(scores)
    elif kind == 'few':         # most classes far below
        scores[rng.random(classes) < 0.8] -= 100
    elif kind == 'nan':
        scores[rng.random(shape) < 0.3] = np.nan
    return scores, size


def assert_equals_dense(labels, scores, size):
    """Check for the dense reference's labels: both round alike, so only true ties may differ."""
    expected = decode_dense(scores, size)
    differs = labels != expected
    if differs.any():
        full = upsample(np.nan_to_num(scores, nan=-1e4), size)[:, differs]
        index = np.arange(full.shape[1])
        gap = np.abs(full[labels[differs], index] - full[expected[differs], index])
        assert (gap <= NEAR_TIE * np.abs(full).max()).all()


@settings(max_examples=300)
@given(problems())
def test_equals_the_dense_reference(problem):
    scores, size = problem
    labels, confidences = decode(scores, size)
    assert confidences is None
    assert labels.shape == size and labels.dtype == np.uint8
    assert_equals_dense(labels, scores, size)


def test_equals_the_dense_reference_on_real_scores():
    bundle = Bundle.load(default_bundle_path())
    student = backends.load(bundle, precision='fp32').stream()
    for frame in islice(open_source(demo_clip()), 0, None, 10):
        image = resize_image(frame.image, (bundle.info.height, bundle.info.width))
        scores = step(student, image)
        for size in ((360, 480), (181, 241), (720, 961)):
            assert_equals_dense(decode(scores, size)[0], scores, size)


@settings(max_examples=60)
@given(problems())
def test_equals_float64_arithmetic(problem):
    scores, size = problem
    if not np.isnan(scores).any():
        assert_best(decode(scores, size)[0], scores, size)
        assert_best(decode_dense(scores, size), scores, size)


@pytest.mark.parametrize('coarse, size', [
    ((23, 30), (360, 480)), ((32, 64), (512, 1024)), ((23, 30), (181, 241)), ((9, 9), (4, 5))])
def test_equals_torch(coarse, size):
    torch = pytest.importorskip('torch')
    rng = np.random.default_rng(3)
    scores = smooth(rng, (11, *coarse))
    full = torch.nn.functional.interpolate(
        torch.from_numpy(scores)[None], size=size, mode='bilinear', align_corners=False)[0]
    labels = decode(scores, size)[0]
    top = full.topk(2, dim=0).values
    clear = (top[0] - top[1] > 1e-4).numpy()
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], full.argmax(0).numpy()[clear])


def test_a_class_that_wins_no_corner_can_win_inside():
    scores = np.float32([[[9, 0]], [[0, 9]], [[6, 6]]])
    labels = decode(scores, (1, 16))[0]
    assert labels.tolist() == decode_dense(scores, (1, 16)).tolist()
    assert labels[0, [0, 7, 8, 15]].tolist() == [0, 2, 2, 1]


def test_same_size_is_the_argmax():
    scores = np.random.default_rng(0).standard_normal((7, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(decode(scores, (5, 6))[0], scores.argmax(0))


def test_first_class_wins_a_tie():
    labels, confidences = decode(np.full((5, 3, 4), 2.5, np.float32), (33, 17), confidence=True)
    assert (labels == 0).all()
    assert (confidences == 51).all()


def test_one_class():
    labels, confidences = decode(np.full((1, 2, 2), -3, np.float32), (9, 9), confidence=True)
    assert (labels == 0).all() and (confidences == 255).all()


@pytest.mark.parametrize('confidence', [False, True])
def test_nan_counts_as_lowest(confidence):
    scores = np.full((3, 4, 4), np.nan, np.float32)
    scores[2] = -5
    labels, confidences = decode(scores, (32, 32), confidence=confidence)
    assert (labels == 2).all()
    assert confidences is None or (confidences == 255).all()
    assert (decode(np.full((3, 4, 4), np.nan, np.float32), (8, 8))[0] == 0).all()


def test_infinities_are_the_largest_numbers():
    scores = np.zeros((3, 4, 4), np.float32)
    scores[1, :, :2] = np.inf
    scores[0], scores[2] = -np.inf, 1
    labels = decode(scores, (32, 32))[0]
    assert (labels[:, :16] == 1).all()
    assert (labels[:, 28:] == 2).all()


def test_scores_need_not_be_contiguous_or_float32():
    scores = smooth(np.random.default_rng(1), (6, 8, 10))
    labels, confidences = decode(scores, (50, 60), confidence=True)
    for other in (np.asfortranarray(scores), scores.astype(np.float64),
                  np.repeat(scores, 2, axis=2)[:, :, ::2]):
        again, also = decode(other, (50, 60), confidence=True)
        np.testing.assert_array_equal(again, labels)
        np.testing.assert_array_equal(also, confidences)


def test_scores_are_not_written_to():
    scores = smooth(np.random.default_rng(1), (6, 8, 10))
    scores[0, 0, 0] = np.nan
    before = scores.copy()
    decode(scores, (50, 60), confidence=True)
    np.testing.assert_array_equal(scores, before)


def test_table_renames_labels_but_not_confidence():
    scores = smooth(np.random.default_rng(2), (4, 6, 6))
    table = np.full(256, 255, np.uint8)
    table[:4] = [7, 7, 0, 255]
    labels, confidences = decode(scores, (40, 40), confidence=True)
    renamed, also = decode(scores, (40, 40), confidence=True, table=table)
    np.testing.assert_array_equal(renamed, table[labels])
    np.testing.assert_array_equal(also, confidences)
    assert set(np.unique(renamed)) == {0, 7, 255}


@settings(max_examples=100)
@given(problems(), st.sampled_from([0.1, 1.0, 3.0]))
def test_confidence_is_within_one_level(problem, gain):
    scores, size = problem
    scores = np.nan_to_num(scores, nan=-1e4) * np.float32(gain)
    labels, confidences = decode(scores, size, confidence=True)
    assert confidences.dtype == np.uint8
    # float32 weights move scores of 1e30 by more than any probability: only clear pixels count
    exact = softmax_top(scores, size)
    if np.abs(scores).max() < 1e6:
        assert np.abs(confidences - exact).max() <= 1
    np.testing.assert_array_equal(labels, decode(scores, size)[0])


def test_confidence_of_many_small_classes():
    scores = np.full((255, 3, 3), -6, np.float32)       # 254 of them sum to 0.63
    scores[100] = 0
    labels, confidences = decode(scores, (20, 20), confidence=True)
    assert (labels == 100).all()
    assert (np.abs(confidences - 255 / (1 + 254 * np.exp(-6.0))) <= 1).all()


def test_threads_do_not_disturb_each_other():
    rng = np.random.default_rng(4)
    tasks = [(smooth(rng, (11, 12 + number, 16)), (90 + number, 120)) for number in range(8)]
    expected = [decode(*task, confidence=True) for task in tasks]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            found = pool.map(lambda task: decode(*task, confidence=True), tasks)
            for (labels, confidences), (right, right_confidence) in zip(found, expected):
                np.testing.assert_array_equal(labels, right)
                np.testing.assert_array_equal(confidences, right_confidence)


def test_without_a_folder_for_the_cache(tmp_path):
    copy = tmp_path / 'ros_vseg'
    copy.mkdir()
    for name in ('__init__.py', 'decode.py', 'jit.py'):
        shutil.copy(Path(module.__file__).parent / name, copy)
    (copy / '__pycache__').write_text('in the way')
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path), 'HOME': '/proc/none',
                   'XDG_CACHE_HOME': '/proc/none'}
    done = subprocess.run(
        [sys.executable, '-c', 'from ros_vseg import decode; print(decode.__file__)'],
        env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(copy) in done.stdout
