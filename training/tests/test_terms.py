# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Distillation terms against plain loops in float64, written from the papers' equations."""
import math

import numpy as np
import pytest
import torch

from term_checks import arrays, cosine, maps, mask, patches_of, softmax
from vseg_training.terms import (
    AttentionTransfer, ChannelWise, InterClassDistance, IntraClassVariation, PairWise, PixelWise,
    TemporalConsistencyLoss)
from vseg_training.terms.temporal import warp


K, VOID = 3, 255


def label_image(seed, *shape):
    labels = torch.randint(0, K, shape, generator=torch.Generator().manual_seed(seed))
    labels[:, 0, 0] = VOID
    return labels


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q))


def loop_pixel(student, teacher, counted, tau):
    """Eq. 3.1 with the teacher first, a mean over pixels."""
    values = [kl(softmax(teacher[b, :, y, x] / tau), softmax(student[b, :, y, x] / tau))
              for b, y, x in np.argwhere(counted)]
    return tau ** 2 * np.mean(values)


def loop_channel(student, teacher, counted, tau):
    """Eq. 4.3 and 4.4."""
    values = []
    for b in range(len(student)):
        for c in range(student.shape[1]):
            values.append(kl(softmax(teacher[b, c][counted[b]] / tau),
                             softmax(student[b, c][counted[b]] / tau)))
    return tau ** 2 * np.mean(values)


def loop_pair(student, teacher, counted, side, reach):
    """Eq. 3.2."""
    values = []
    for b in range(len(student)):
        own = patches_of(student[b], counted[b], side)
        target = patches_of(teacher[b], counted[b], side)
        for i in own:
            for j in own:
                if reach is None or max(abs(i[0] - j[0]), abs(i[1] - j[1])) <= reach:
                    values.append((cosine(own[i], own[j]) - cosine(target[i], target[j])) ** 2)
    return np.mean(values)


def loop_attention(student, teacher, counted):
    values = []
    for b in range(len(student)):
        units = []
        for features in (student[b], teacher[b]):
            energy = np.array([(features[:, y, x] ** 2).sum() for y, x in np.argwhere(counted[b])])
            units.append(energy / math.sqrt((energy ** 2).sum()))
        values.append(((units[0] - units[1]) ** 2).sum())
    return np.mean(values)


def loop_intra(student, teacher, labels):
    values = []
    for b, y, x in np.argwhere(labels != VOID):
        members = labels[b] == labels[b, y, x]
        own, target = (cosine(f[b, :, y, x], f[b][:, members].mean(1)) for f in (student, teacher))
        values.append((own - target) ** 2)
    return np.mean(values)


def loop_inter(student, teacher, labels, min_cells):
    """IDD Eq. 2 and 3, each network's distances over their mean."""
    values = []
    for b in range(len(student)):
        present = [k for k in range(K) if (labels[b] == k).sum() >= min_cells]
        pairs = [(i, j) for i in present for j in present if i < j]
        edges = []
        for features in (student[b], teacher[b]):
            v = {k: features[:, labels[b] == k].mean(1) for k in present}
            e = np.array([np.linalg.norm(v[i] - v[j]) for i, j in pairs])
            edges.append(e / e.mean())
        values += list((edges[0] - edges[1]) ** 2)
    return np.mean(values)


def at(image, x, y):
    """Bilinear value [C] at a place inside an image [C, h, w]."""
    left, top = min(int(x), image.shape[2] - 2), min(int(y), image.shape[1] - 2)
    u, v = x - left, y - top
    return ((1 - v) * ((1 - u) * image[:, top, left] + u * image[:, top, left + 1])
            + v * ((1 - u) * image[:, top + 1, left] + u * image[:, top + 1, left + 1]))


def loop_temporal(scores, later_scores, images, later_images, flow, scale):
    """ETC Eq. 1 for a flow of whole or broken pixels at the scores' size."""
    total = 0.0
    batch, _, height, width = scores.shape
    for b in range(batch):
        probabilities = np.apply_along_axis(softmax, 0, later_scores[b])
        for y in range(height):
            for x in range(width):
                to_x, to_y = x + flow[b, 0, y, x], y + flow[b, 1, y, x]
                if not (0 <= to_x <= width - 1 and 0 <= to_y <= height - 1):
                    continue
                colour = np.abs(images[b, :, y, x] - at(later_images[b], to_x, to_y)) / 255
                change = softmax(scores[b, :, y, x]) - at(probabilities, to_x, to_y)
                total += math.exp(-scale * colour.mean()) * (change ** 2).sum()
    return total / (batch * height * width)


STUDENT, TEACHER = maps(0, 2, K, 5, 6), maps(1, 2, K, 5, 6)
WIDE = maps(2, 2, 7, 5, 6)  # features of a wider teacher
COUNTED, LABELS = mask(2, 5, 6), label_image(3, 2, 5, 6)


@pytest.mark.parametrize('tau', [1.0, 4.0])
def test_pixel_wise_and_channel_wise_match_loops(tau):
    s, t, counted = arrays(STUDENT, TEACHER, COUNTED)
    assert PixelWise(tau)(STUDENT, TEACHER, COUNTED).item() == pytest.approx(
        loop_pixel(s, t, counted, tau), rel=1e-9)
    assert ChannelWise(tau)(STUDENT, TEACHER, COUNTED).item() == pytest.approx(
        loop_channel(s, t, counted, tau), rel=1e-9)


def test_channel_wise_on_features_goes_through_its_adapter():
    term = ChannelWise(2.0, widths=(K, 7)).double()
    adapted = term.adapter(STUDENT).detach()
    s, t, counted = arrays(adapted, WIDE, COUNTED)
    assert term(STUDENT, WIDE, COUNTED).item() == pytest.approx(
        loop_channel(s, t, counted, 2.0), rel=1e-9)
    term(STUDENT, WIDE, COUNTED).backward()
    assert term.adapter.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('term, loop', [
    (PixelWise(), loop_pixel), (ChannelWise(1.0), loop_channel)])
def test_the_teacher_comes_first_in_the_divergence(term, loop):
    """KL(T || S) is not KL(S || T)."""
    s, t = arrays(STUDENT, TEACHER)
    every = np.ones((2, 5, 6), bool)
    right, swapped = loop(s, t, every, 1.0), loop(t, s, every, 1.0)
    assert abs(right - swapped) > 0.01
    assert term(STUDENT, TEACHER).item() == pytest.approx(right, rel=1e-9)


@pytest.mark.parametrize('side, reach', [(1, None), (2, None), (1, 1), (2, 1), (4, 0)])
def test_pair_wise_matches_a_loop(side, reach):
    s, t, counted = arrays(STUDENT, WIDE, COUNTED)
    assert PairWise(side, reach)(STUDENT, WIDE, COUNTED).item() == pytest.approx(
        loop_pair(s, t, counted, side, reach), rel=1e-9, abs=1e-15)


def test_pair_wise_caps_its_nodes():
    s, t, counted = arrays(STUDENT, WIDE, COUNTED)
    capped = PairWise(1, max_nodes=6)(STUDENT, WIDE, COUNTED)  # 3 x 2 patches of side 3 do
    assert capped.item() == pytest.approx(loop_pair(s, t, counted, 3, None), rel=1e-9)


def test_attention_transfer_matches_a_loop():
    s, t, counted = arrays(STUDENT, WIDE, COUNTED)
    assert AttentionTransfer()(STUDENT, WIDE, COUNTED).item() == pytest.approx(
        loop_attention(s, t, counted), rel=1e-9)


def test_intra_class_variation_matches_a_loop():
    s, t, labels = arrays(STUDENT, WIDE, LABELS)
    assert IntraClassVariation(K)(STUDENT, WIDE, LABELS).item() == pytest.approx(
        loop_intra(s, t, labels), rel=1e-9)


@pytest.mark.parametrize('min_cells', [1, 9])
def test_inter_class_distance_matches_a_loop(min_cells):
    s, t, labels = arrays(STUDENT, WIDE, LABELS)
    assert InterClassDistance(K, min_cells)(STUDENT, WIDE, LABELS).item() == pytest.approx(
        loop_inter(s, t, labels, min_cells), rel=1e-9)


def test_inter_class_distance_ignores_rotation_and_scale():
    rotation = torch.linalg.qr(maps(4, 7, 7)).Q
    moved = 3 * torch.einsum('ij,bjhw->bihw', rotation, WIDE)
    term = InterClassDistance(K, 1)
    assert term(moved, WIDE, LABELS).item() == pytest.approx(0, abs=1e-24)
    assert term(STUDENT, moved, LABELS).item() == pytest.approx(
        term(STUDENT, WIDE, LABELS).item(), rel=1e-9)


def frames():
    """Scores of two frames, images in 0..255 and a flow of broken pixels that leaves the frame."""
    images = 127 + 20 * maps(5, 2, 3, 5, 6)
    return [STUDENT, TEACHER, images, images + 9 * maps(6, 2, 3, 5, 6), 1.3 * maps(7, 2, 2, 5, 6)]


@pytest.mark.parametrize('scale', [1.0, 13.0])
def test_temporal_loss_matches_a_loop(scale):
    assert TemporalConsistencyLoss(scale)(*frames()).item() == pytest.approx(
        loop_temporal(*arrays(*frames()), scale), rel=1e-9)


def test_temporal_loss_warps_the_later_frame_onto_the_earlier_one():
    """A square that moves by a cell costs nothing; by the flow the other way round it does."""
    scores, later = -9.0 * torch.ones(2, 1, 2, 8, 8)
    scores[:, 0], later[:, 0] = 9.0, 9.0
    scores[0, :, 2:4, 2:4] *= -1
    later[0, :, 2:4, 3:5] *= -1
    images, later_images = (40 + 5 * x[:, :1].expand(-1, 3, -1, -1) for x in (scores, later))
    large = [torch.nn.functional.interpolate(x, (32, 32)) for x in (images, later_images)]
    flow = torch.zeros(1, 2, 32, 32)
    flow[:, 0, 8:16, 8:16] = 4  # pixels of the image: one cell of the scores
    # what the square uncovers and covers looks different and does not count
    assert TemporalConsistencyLoss()(scores, later, *large, flow) < 0.005
    assert TemporalConsistencyLoss(0.0)(scores, later, *large, flow) < 0.07  # two covered cells
    assert TemporalConsistencyLoss(0.0)(scores, later, *large, -flow) > 0.15


def test_warp_by_whole_pixels_is_exact():
    later = maps(8, 1, 2, 4, 5)
    flow = torch.zeros(1, 2, 4, 5, dtype=torch.float64)
    flow[:, 0], flow[:, 1] = 2, -1
    torch.testing.assert_close(warp(later, flow)[:, :, 1:, :3], later[:, :, :-1, 2:])
    assert warp(later, flow)[:, :, 0].abs().max() < 1e-9


def test_temporal_loss_refuses_a_flow_of_another_size():
    scores, later, images, later_images, flow = frames()
    with pytest.raises(ValueError, match=r'flow is \[2, 2, 4, 6\].*of their size'):
        TemporalConsistencyLoss()(scores, later, images, later_images, flow[:, :, 1:])


TERMS = [pytest.param(*row, id=type(row[0]).__name__) for row in (
    (PixelWise(2.0), TEACHER, COUNTED), (ChannelWise(2.0), TEACHER, COUNTED),
    (PairWise(2, 1), WIDE, COUNTED), (AttentionTransfer(), WIDE, COUNTED),
    (IntraClassVariation(K), WIDE, LABELS), (InterClassDistance(K, 1), WIDE, LABELS))]


@pytest.mark.parametrize('term, teacher, where', TERMS)
def test_gradients_are_those_of_finite_differences(term, teacher, where):
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: term(x, teacher, where), student)


def test_gradients_of_the_temporal_loss():
    scores, later, *rest = frames()
    assert torch.autograd.gradcheck(
        lambda a, b: TemporalConsistencyLoss()(a, b, *rest),
        [scores.clone().requires_grad_(), later.clone().requires_grad_()])


@pytest.mark.parametrize('term, teacher, where', TERMS)
def test_a_student_that_equals_its_teacher_costs_nothing(term, teacher, where):
    teacher = teacher.clone().requires_grad_()
    student = teacher.detach().clone().requires_grad_()
    loss = term(student, teacher, where)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    loss.backward()
    assert teacher.grad is None


@pytest.mark.parametrize('term, teacher, where', TERMS)
def test_padding_and_void_change_nothing(term, teacher, where):
    """Whatever a map holds there; a class of void pixels alone does not exist either."""
    outside = (~where if where.dtype == torch.bool else where == VOID)[:, None]
    before = term(STUDENT, teacher, where)
    noise = [100 * maps(seed, *x.shape) for seed, x in ((10, STUDENT), (11, teacher))]
    student, other = (torch.where(outside, n, x) for n, x in zip(noise, (STUDENT, teacher)))
    torch.testing.assert_close(term(student, other, where), before)


@pytest.mark.parametrize('term, teacher, where', TERMS)
def test_grids_of_other_sizes_and_half_precision(term, teacher, where):
    """Finite in bfloat16, for a teacher on a finer grid, labels finer still, and none at all."""
    fine = torch.nn.functional.interpolate(teacher, (10, 12)).bfloat16()
    large = where.repeat_interleave(4, 1).repeat_interleave(4, 2)
    nothing = torch.zeros_like(large) if large.dtype == torch.bool else large * 0 + VOID
    for labels in (large, nothing):
        student = (50 * STUDENT).bfloat16().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16):
            loss = term(student, fine, labels)
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
        loss.backward()
        assert torch.isfinite(student.grad).all()
        assert labels is nothing or loss > 0
    assert loss == 0


@pytest.mark.parametrize('term', [PixelWise(), ChannelWise()])
def test_maps_of_other_widths_are_refused(term):
    with pytest.raises(ValueError, match='student has 3 channels and the teacher 7'):
        term(STUDENT, WIDE)
