# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Losses and metrics against plain loops written from the papers' equations."""
import math

import numpy as np
import pytest
import torch

from vseg_training.losses import diversity, diversity_loss, ohem_cross_entropy
from vseg_training.metrics import ConfusionMatrix


def loop_diversity(projection):
    """MGCNet Eq. 5 as printed."""
    rows, pixels = projection.shape
    return sum(max(projection[n, m] for n in range(rows)) for m in range(pixels)) / rows


def test_diversity_matches_the_equation():
    projection = torch.rand(2, 3, 4, 10).softmax(-1)
    got = diversity(projection)
    for batch in range(2):
        for frame in range(3):
            expected = loop_diversity(projection[batch, frame].numpy())
            assert got[batch, frame].item() == pytest.approx(expected, abs=1e-6)


def test_diversity_reaches_both_ends_of_its_range():
    same = torch.full((8, 40), 1 / 40)
    assert diversity(same).item() == pytest.approx(1 / 8)
    disjoint = torch.zeros(8, 40)
    for row in range(8):
        disjoint[row, row * 5:row * 5 + 5] = 1 / 5
    assert diversity(disjoint).item() == pytest.approx(1)


def test_diversity_loss_is_one_sided():
    same, disjoint = torch.full((1, 8, 8), 1 / 8), torch.eye(8)[None]
    assert diversity_loss(same, 0.25).item() == pytest.approx(0.25 - 1 / 8)
    assert diversity_loss(disjoint, 0.25).item() == 0
    assert diversity_loss(torch.cat([same, disjoint]), 0.25).item() == pytest.approx(0.0625)


def test_diversity_loss_raises_diversity_under_autocast():
    scores = torch.zeros(1, 8, 64, requires_grad=True)
    with torch.no_grad():
        scores += 0.01 * torch.randn(1, 8, 64)
    optimizer = torch.optim.SGD([scores], 500.0)
    before = diversity(scores.softmax(-1)).item()
    for _ in range(20):
        with torch.autocast('cpu', torch.bfloat16):
            loss = diversity_loss(scores.softmax(-1))
        optimizer.zero_grad()
        loss.backward()
        assert torch.isfinite(scores.grad).all()
        optimizer.step()
    assert diversity(scores.softmax(-1)).item() > before + 0.05


def loop_ohem(scores, labels, weight, threshold, min_kept):
    """Hard pixels one by one."""
    losses = []
    for b in range(scores.shape[0]):
        for y in range(scores.shape[2]):
            for x in range(scores.shape[3]):
                if labels[b, y, x] == 255:
                    continue
                column = scores[b, :, y, x].astype(np.float64)
                total = sum(math.exp(value) for value in column)
                label = labels[b, y, x]
                losses.append((-math.log(math.exp(column[label]) / total), weight[label]))
    losses.sort(reverse=True)
    hard = [pair for pair in losses if pair[0] >= -math.log(threshold)]
    kept = losses[:max(len(hard), max(1, int(min_kept * len(losses))))]
    return sum(value * share for value, share in kept) / sum(share for _, share in kept)


@pytest.mark.parametrize('weight', [None, [0.5, 1.0, 2.0, 4.0, 0.1]])
@pytest.mark.parametrize('gain, threshold, min_kept', [
    (1, 0.7, 0.1), (8, 0.7, 0.5), (8, 0.5, 0.01)])
def test_ohem_matches_the_loop(gain, threshold, min_kept, weight):
    torch.manual_seed(0)
    scores, labels = gain * torch.randn(2, 5, 6, 7), torch.randint(0, 5, (2, 6, 7))
    labels[0, :2] = 255
    got = ohem_cross_entropy(
        scores, labels, None if weight is None else torch.tensor(weight), threshold, min_kept)
    expected = loop_ohem(scores.numpy(), labels.numpy(), weight or [1] * 5, threshold, min_kept)
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_ohem_of_a_void_clip_is_zero_with_finite_gradients():
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = ohem_cross_entropy(scores, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.abs().sum() == 0


def test_ohem_gradients_are_finite_under_autocast():
    scores = (200 * torch.randn(1, 4, 6, 6)).requires_grad_()
    labels = torch.randint(0, 4, (1, 6, 6))
    with torch.autocast('cpu', torch.bfloat16):
        loss = ohem_cross_entropy(scores, labels, torch.ones(4))
    assert loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(scores.grad).all() and scores.grad.abs().sum() > 0


def test_iou_by_hand():
    labels = np.array([[0, 0, 1], [1, 255, 11]], np.uint8)
    predicted = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
    confusion = ConfusionMatrix(4)
    confusion.update(labels, predicted)
    assert confusion.counts.sum() == 4  # both void pixels left out
    np.testing.assert_allclose(confusion.iou(), [1 / 2, 2 / 3, np.nan, np.nan])
    assert confusion.mean_iou() == pytest.approx(7 / 12)
    assert confusion.accuracy() == pytest.approx(3 / 4)


def test_iou_pools_over_frames():
    frames = [(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)),
              (np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8))]
    confusion = ConfusionMatrix(2)
    for labels, predicted in frames:
        confusion.update(labels, predicted)
    np.testing.assert_allclose(confusion.iou(), [0.5, 0.0])
