# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration error, wrong pixels found by confidence, and the temperature, against loops."""
import math

import numpy as np
import pytest
import torch

from folders import write_folder
from networks import tiny
from vseg_training.data import FolderFrames, VOID
from vseg_training.metrics import ConfidenceMetrics
from vseg_training.models.stream import StudentStream
from vseg_training.temperature import best_temperature, calibrate


def frames(seed, count=3):
    """(truth, labels, confidence) of frames with void pixels and confidence of 256 levels."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        truth = rng.integers(0, 4, (12, 16), np.uint8)
        confidence = rng.integers(0, 256, truth.shape) / 255
        labels = np.where(rng.random(truth.shape) < 0.3 + 0.5 * confidence, truth, (truth + 1) % 4)
        truth[rng.random(truth.shape) < 0.1] = VOID
        yield truth, labels.astype(np.uint8), confidence


def loop(seed):
    """Calibration error and AUROC of ``frames``, pixel by pixel."""
    pixels = [(float(c), t == label) for truth, labels, confidence in frames(seed)
              for t, label, c in zip(truth.flat, labels.flat, confidence.flat) if t != VOID]
    error = 0.0
    for group in range(15):
        inside = [(c, right) for c, right in pixels if min(int(15 * c + 1e-9), 14) == group]
        error += abs(sum(c - right for c, right in inside)) / len(pixels)
    pairs = [(wrong < right) + (wrong == right) / 2
             for wrong, hit in pixels if not hit for right, other in pixels if other]
    return error, sum(pairs) / len(pairs)


@pytest.mark.parametrize('seed', range(3))
def test_calibration_error_and_auroc_equal_loops(seed):
    metric = ConfidenceMetrics()
    for truth, labels, confidence in frames(seed):
        metric.update(truth, labels, confidence, 4)
    error, auroc = loop(seed)
    assert 0.02 < error and 0.55 < auroc < 0.95
    assert metric.calibration_error() == pytest.approx(error, abs=1e-9)
    assert metric.auroc() == pytest.approx(auroc, abs=1e-9)


def test_bounds_of_confidence():
    truth = np.zeros((2, 10), np.uint8)
    labels = np.repeat(np.uint8([[0] * 5 + [1] * 5]), 2, 0)
    found, lost, void = (ConfidenceMetrics() for _ in range(3))
    confidence = np.where(labels == 0, 1.0, 0.0)
    found.update(truth, labels, confidence, 2)
    lost.update(truth, labels, 1 - confidence, 2)
    void.update(np.full_like(truth, VOID), labels, confidence, 2)
    assert (found.calibration_error(), found.auroc()) == (0, 1)
    assert (lost.calibration_error(), lost.auroc()) == (1, 0)
    assert math.isnan(void.calibration_error()) and math.isnan(void.auroc())
    void.update(truth, truth, confidence, 2)
    assert math.isnan(void.auroc())  # nothing is wrong


def test_best_temperature_is_the_one_that_scores_were_multiplied_by():
    """Labels drawn by softmax(scores / 3) are fitted best by 3."""
    generator = torch.Generator().manual_seed(0)
    scores = 4 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial((scores / 3).softmax(1), 1, generator=generator)[:, 0]
    found = best_temperature(scores, labels)
    assert found == pytest.approx(3, rel=0.05)
    losses = [torch.nn.functional.cross_entropy(scores / t, labels)
              for t in (found, 0.97 * found, 1.03 * found)]
    assert losses[0] < min(losses[1:])
    with pytest.raises(ValueError, match='no labelled pixel.*give a split with labels'):
        best_temperature(scores[:0], labels[:0])


def stream_scores(student, images):
    """Scores [L, K, h, w] of a stream that holds nothing back."""
    stream = StudentStream(student, admit=False)
    return torch.stack([stream.step(image) for image in images])


def test_calibration_keeps_labels_and_lowers_the_loss(tmp_path):
    source = FolderFrames(write_folder(tmp_path, drives=1, frames=4), 5)
    images, truths = zip(*(source.read(key) for key in source.drives[0]))
    student = tiny().eval()
    before = stream_scores(student, images)
    weights = {name: value.clone() for name, value in student.state_dict().items()}
    temperature = calibrate(student, source, (64, 96))
    after = stream_scores(student, images)
    assert temperature > 1.2  # a network that was never trained is too confident
    torch.testing.assert_close(after, before / temperature, rtol=1e-4, atol=1e-4)
    close = before.topk(2, 1).values.diff(dim=1)[:, 0].abs() < 1e-3
    assert close.float().mean() < 0.05
    assert (after.argmax(1) == before.argmax(1))[~close].all()
    truth = torch.from_numpy(np.stack(truths)).long()
    losses = [torch.nn.functional.cross_entropy(
        torch.nn.functional.interpolate(scores, (64, 96), mode='bilinear'), truth)
        for scores in (before, after)]
    assert losses[1] < losses[0]
    changed = {name for name, value in student.state_dict().items()
               if not torch.equal(value, weights[name])}
    assert changed == {'head.classify.weight', 'head.classify.bias'}
