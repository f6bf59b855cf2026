# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""LOCAL and the forms of channel-wise distillation (MIMIC) against loops in NumPy."""
import math

import numpy as np
import pytest
import torch

from term_checks import (
    arrays, check_equal_maps, check_gradients, check_half_precision, check_padding,
    check_teacher_without_gradient, maps, mask, softmax)
from vseg_training.terms import ChannelWise, LocalSimilarity


STUDENT, TEACHER = maps(0, 2, 3, 5, 6), maps(1, 2, 3, 5, 6)
WIDE, COUNTED = maps(2, 2, 7, 5, 6), mask(2, 5, 6)


def loop_local(student, teacher, counted):
    """Table 4.1's sum over N(i) of |x_j - x_i|, compared by L2."""
    around = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
    values = []
    for b in range(len(student)):
        for y in range(1, student.shape[2] - 1):
            for x in range(1, student.shape[3] - 1):
                if not counted[b, y - 1:y + 2, x - 1:x + 2].all():
                    continue
                own, target = (sum(np.linalg.norm(f[b, :, y + dy, x + dx] - f[b, :, y, x])
                                   for dy, dx in around) for f in (student, teacher))
                values.append((own - target) ** 2)
    return np.mean(values)


def loop_mimic(student, teacher, counted):
    return np.mean([(student[b, :, y, x] - teacher[b, :, y, x]) ** 2
                    for b, y, x in np.argwhere(counted)])


def loop_form(student, teacher, counted, tau, form):
    """A divergence of Table 4.4 in every channel."""
    values = []
    for b in range(len(student)):
        for c in range(student.shape[1]):
            p, q = (softmax(x[b, c][counted[b]] / tau) for x in (teacher, student))
            if form == 'swapped':
                values.append(sum(a * math.log(a / z) for a, z in zip(q, p)))
            elif form == 'l2':
                values.append(sum((a - z) ** 2 for a, z in zip(p, q)))
            else:
                values.append(-math.log(sum(math.sqrt(a * z) for a, z in zip(p, q))))
    return tau ** 2 * np.mean(values)


@pytest.mark.parametrize('teacher', [TEACHER, WIDE])
def test_local_similarity_matches_a_loop(teacher):
    assert LocalSimilarity()(STUDENT, teacher, COUNTED).item() == pytest.approx(
        loop_local(*arrays(STUDENT, teacher, COUNTED)), rel=1e-9)


def test_local_similarity_of_a_strip_is_0():
    assert LocalSimilarity()(STUDENT[:, :, :2], TEACHER[:, :, :2]) == 0


def test_the_plain_form_is_mimic_also_through_its_adapter():
    assert ChannelWise(form='plain')(STUDENT, TEACHER, COUNTED).item() == pytest.approx(
        loop_mimic(*arrays(STUDENT, TEACHER, COUNTED)), rel=1e-9)
    term = ChannelWise(form='plain', widths=(3, 7)).double()
    adapted = term.adapter(STUDENT).detach()
    loss = term(STUDENT, WIDE, COUNTED)
    assert loss.item() == pytest.approx(
        loop_mimic(*arrays(adapted, WIDE, COUNTED)), rel=1e-9)
    loss.backward()
    assert term.adapter.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('tau', [1.0, 3.0])
@pytest.mark.parametrize('form', ['swapped', 'l2', 'bhattacharyya'])
def test_forms_of_table_4_4_match_a_loop(form, tau):
    assert ChannelWise(tau, form)(STUDENT, TEACHER, COUNTED).item() == pytest.approx(
        loop_form(*arrays(STUDENT, TEACHER, COUNTED), tau, form), rel=1e-9)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form is 'l1': use kl, swapped, l2"):
        ChannelWise(form='l1')


TERMS = [pytest.param(term, teacher, id=name) for name, term, teacher in (
    ('local', LocalSimilarity(), WIDE),
    ('swapped', ChannelWise(2.0, 'swapped'), TEACHER), ('l2', ChannelWise(2.0, 'l2'), TEACHER),
    ('bhattacharyya', ChannelWise(2.0, 'bhattacharyya'), TEACHER),
    ('plain', ChannelWise(2.0, 'plain'), TEACHER))]


@pytest.mark.parametrize('term, teacher', TERMS)
def test_what_every_term_must_stand(term, teacher):
    check_gradients(term, STUDENT, teacher, COUNTED)
    check_teacher_without_gradient(term, STUDENT, teacher, COUNTED)
    check_equal_maps(term, teacher, COUNTED)
    check_padding(term, STUDENT, teacher, COUNTED)
    check_half_precision(term, STUDENT, teacher, COUNTED)


@pytest.mark.parametrize('form', ['kl', 'plain'])
def test_maps_of_other_widths_are_refused(form):
    with pytest.raises(ValueError, match='student has 3 channels and the teacher 7'):
        ChannelWise(form=form)(STUDENT, WIDE)


def test_padding_that_is_not_finite_leaves_gradients_finite():
    student = STUDENT.clone().requires_grad_()
    LocalSimilarity()(student, torch.where(COUNTED[:, None], WIDE, 1e300), COUNTED).backward()
    assert torch.isfinite(student.grad).all()
