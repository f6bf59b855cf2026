# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""PIDM of IDD: its head against loops in NumPy, what it learns, and that it is then fixed."""
import numpy as np
import pytest
import torch

from term_checks import (
    arrays, check_gradients, check_half_precision, check_padding, check_precisions,
    check_teacher_without_gradient, convolve, maps, mask)
from vseg_training.terms import PositionInformation
from vseg_training.terms.position import positions


STUDENT, TEACHER, COUNTED = maps(0, 2, 3, 5, 6), maps(1, 2, 7, 5, 6), mask(2, 5, 6)


@pytest.fixture
def term():
    torch.manual_seed(0)
    return PositionInformation((3, 7)).double()


def loop(term, student, teacher, counted):
    """Eq. 4 and 5 of the two maps that the head finds."""
    first, second = ([x.detach().numpy() for x in (layer.weight, layer.bias)]
                     for layer in (term.head[0], term.head[2]))
    adapter = [x.detach().numpy() for x in (term.adapter.weight, term.adapter.bias)]
    values = []
    for b in range(len(student)):
        own, target = (
            convolve(np.maximum(convolve(f * counted[b], *first), 0), *second)
            for f in (convolve(student[b], *adapter), teacher[b]))
        values += [((own - target)[:, y, x] ** 2).sum() for y, x in np.argwhere(counted[b])]
    return np.mean(values)


def test_position_information_matches_a_loop(term):
    assert term(STUDENT, TEACHER, COUNTED).item() == pytest.approx(
        loop(term, *arrays(STUDENT, TEACHER, COUNTED)), rel=1e-9)


def test_places_are_the_centres_of_cells():
    x, y = positions(torch.zeros(1, 1, 4, 5))
    assert x[2, 3] == pytest.approx(3.5 / 5) and y[2, 3] == pytest.approx(2.5 / 4)


def test_what_every_term_must_stand(term):
    check_gradients(term, STUDENT, TEACHER, COUNTED)
    check_teacher_without_gradient(term, STUDENT, TEACHER, COUNTED)
    check_padding(term, STUDENT, TEACHER, COUNTED)
    check_half_precision(term.float(), STUDENT, TEACHER, COUNTED)


def test_the_head_may_have_any_precision():
    torch.manual_seed(0)
    term = PositionInformation((7, 7))
    term.adapter = torch.nn.Identity()
    check_precisions(term, TEACHER.flip(0), TEACHER.float(), COUNTED)


def test_a_student_that_equals_its_teacher_costs_nothing():
    term = PositionInformation((7, 7)).double()
    torch.nn.init.dirac_(term.adapter.weight)
    torch.nn.init.zeros_(term.adapter.bias)
    assert term(TEACHER, TEACHER, COUNTED) == 0


def features_with_places(count):
    """Features [B, 7, 6, 8] of which two channels know where they are, amid noise."""
    features = maps(2, count, 7, 6, 8).float()
    features[:, 2:4] = 5 * positions(features) + 0.1 * features[:, 2:4]
    return features


def test_the_head_learns_places_from_the_teacher_and_is_then_fixed():
    torch.manual_seed(0)
    features, counted = features_with_places(16), torch.ones(16, 12, 16, dtype=torch.bool)
    counted[:4, :, 8:] = False
    features[:4, :, :, 4:] = 1e6  # what is in padding does not count
    term = PositionInformation((3, 7))
    assert term.prepare(features, counted) < 0.06
    unlearned = term.head(features[4:]) - positions(features)
    assert unlearned.square().mean().sqrt() < 0.06
    before = [x.clone() for x in term.head.parameters()]
    optimizer = torch.optim.SGD([x for x in term.parameters() if x.requires_grad], 0.1)
    term(maps(3, 16, 3, 6, 8).float(), features, counted).backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, term.head.parameters()))
    assert all(x.grad is None for x in term.head.parameters())
    assert term.adapter.weight.grad.abs().sum() > 0


def test_a_student_that_learns_by_it_knows_where_it_is():
    """The term alone brings the student's own features, which start blind, to the head's x, y."""
    torch.manual_seed(0)
    teacher = features_with_places(8)
    term = PositionInformation((3, 7))
    term.prepare(teacher)
    student = torch.nn.Parameter(0.1 * torch.randn(1, 3, 6, 8))
    optimizer = torch.optim.Adam([student, *term.adapter.parameters()], 0.05)
    losses = []
    for _ in range(60):
        loss = term(student.expand(8, -1, -1, -1), teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
