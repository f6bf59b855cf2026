# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""JA-KD and U-KD of NfS-SegNet against loops in NumPy, and the teacher's passes with dropout."""
import math

import numpy as np
import pytest
import torch

from networks import tiny, tiny_teacher
from term_checks import (
    arrays, check_gradients, check_half_precision, check_padding, check_teacher_without_gradient,
    maps, mask, softmax)
from vseg_training.distill import monte_carlo, teacher_maps
from vseg_training.terms import JointAuxiliary, Maps, MonteCarlo, Terms, UncertaintyAware, Widths


STUDENT, TEACHER, COUNTED = maps(0, 2, 3, 5, 6), maps(1, 2, 3, 5, 6), mask(2, 5, 6)
AUXILIARY, ITS_AUXILIARY = maps(2, 2, 3, 3, 3), maps(3, 2, 3, 3, 3)
MEAN = (2 * TEACHER).softmax(1)
VARIANCE = maps(4, 2, 5, 6).abs()


def smooth_l1(x):
    """Eq. 2."""
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def loop_joint(scores, target, places, alpha):
    """Eq. 1 with its minus, a mean over pixels; target are probabilities."""
    values = []
    for b, y, x in places:
        p, q = target[b, :, y, x], softmax(scores[b, :, y, x])
        values.append(sum(-t * math.log(s) + alpha * smooth_l1(s - t) for t, s in zip(p, q)))
    return np.mean(values)


def uncertain(variance, counted):
    """Where u is above the median of its image (Eq. 3)."""
    return [(b, y, x) for b, y, x in np.argwhere(counted)
            if variance[b, y, x] > np.median(variance[b][counted[b]])]


@pytest.mark.parametrize('alpha', [0.0, 0.5])
def test_joint_loss_matches_a_loop(alpha):
    s, t, counted = arrays(STUDENT, TEACHER.softmax(1), COUNTED)
    assert JointAuxiliary(alpha)(STUDENT, TEACHER, COUNTED).item() == pytest.approx(
        loop_joint(s, t, np.argwhere(counted), alpha), rel=1e-9)


def test_auxiliary_heads_learn_from_their_twins_or_from_the_scores():
    s, t, a, b = arrays(STUDENT, TEACHER.softmax(1), AUXILIARY, ITS_AUXILIARY.softmax(1))
    of_scores = loop_joint(s, t, np.ndindex(2, 5, 6), 0.5)
    of_twins = [loop_joint(a, b, np.ndindex(2, 3, 3), 0.5), of_scores]
    given = STUDENT, TEACHER, None, [AUXILIARY, STUDENT], [ITS_AUXILIARY, TEACHER]
    assert JointAuxiliary(auxiliary=0.3)(*given).item() == pytest.approx(
        of_scores + 0.3 * np.mean(of_twins), rel=1e-9)
    for others in ([], [ITS_AUXILIARY] * 3):  # a teacher without heads, or of another kind
        found = JointAuxiliary(auxiliary=0.3)(STUDENT, TEACHER, None, [STUDENT, STUDENT], others)
        assert found.item() == pytest.approx(1.3 * of_scores, rel=1e-9)
    alone = JointAuxiliary(auxiliary=0.0)
    assert alone(*given) == alone(STUDENT, TEACHER)


@pytest.mark.parametrize('variance', [VARIANCE, (VARIANCE > 1.2) * VARIANCE])
def test_uncertainty_aware_loss_matches_a_loop(variance):
    """Also where most variances are 0, and the median with them: none of these is chosen."""
    s, t, u, counted = arrays(STUDENT, MEAN, variance, COUNTED)
    places = uncertain(u, counted)
    assert 0 < len(places) <= 25
    assert UncertaintyAware()(STUDENT, MEAN, variance, COUNTED).item() == pytest.approx(
        loop_joint(s, t, places, 0.5), rel=1e-9)


def test_a_teacher_that_is_sure_everywhere_teaches_nothing():
    assert UncertaintyAware()(STUDENT, MEAN, 0 * VARIANCE, COUNTED) == 0


def uncertainty_aware(student, teacher, counted, variance=VARIANCE):
    """U-KD with scores for the mean prediction."""
    return UncertaintyAware()(student, teacher.softmax(1), variance, counted)


def test_uncertainty_aware_loss_ignores_variances_in_padding():
    noise = torch.where(COUNTED, VARIANCE, 100 * maps(5, 2, 5, 6).abs())
    term = UncertaintyAware()
    assert term(STUDENT, MEAN, noise, COUNTED) == term(STUDENT, MEAN, VARIANCE, COUNTED)


@pytest.mark.parametrize('term', [JointAuxiliary(), uncertainty_aware])
def test_what_every_term_must_stand(term):
    check_gradients(term, STUDENT, TEACHER, COUNTED)
    check_teacher_without_gradient(term, STUDENT, TEACHER, COUNTED)
    check_padding(term, STUDENT, TEACHER, COUNTED)
    student = TEACHER.clone().requires_grad_()
    term(student, TEACHER, COUNTED).backward()
    assert student.grad.abs().max() < 1e-9  # equal ones have nothing to learn


def test_half_precision():
    check_half_precision(JointAuxiliary(), STUDENT, TEACHER, COUNTED)
    fine = VARIANCE.repeat_interleave(2, 1).repeat_interleave(2, 2)
    check_half_precision(uncertainty_aware, STUDENT, TEACHER, COUNTED, fine)


@pytest.mark.parametrize('options, message', [
    ({'passes': 1}, 'passes is 1: the variance takes 2'),
    ({'rate': 1.0}, 'rate is 1.0: give the share')])
def test_passes_without_variance_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UncertaintyAware(**options)


@pytest.mark.parametrize('build', [tiny, tiny_teacher])
def test_passes_are_mean_and_variance_of_dropped_predictions(build, monkeypatch):
    network = build(dropout=0.5)
    clip = 255 * torch.rand(2, 2, 3, 64, 96)
    found = []
    stored = teacher_maps

    def keep(*given):
        found.append(stored(*given))
        return found[-1]

    monkeypatch.setattr('vseg_training.distill.passes.teacher_maps', keep)
    mean, variance = monte_carlo(network, clip, passes=3, rate=0.2)
    passes = np.stack([each.of('scores', True).double().softmax(2).numpy() for each in found])
    assert len(passes) == 3 and np.abs(passes[0] - passes[1]).max() > 1e-3
    np.testing.assert_allclose(mean, passes.mean(0), atol=1e-6)
    np.testing.assert_allclose(variance, passes.var(0).sum(2), atol=1e-6)
    # the dropout is gone afterwards, and that of the heads was never on
    assert torch.equal(stored(network, clip).scores, stored(network, clip).scores)
    assert not any(layer._forward_hooks for layer in network.modules())
    assert monte_carlo(network, clip, passes=3, rate=0.0).variance.max() == 0


def test_terms_hand_passes_and_auxiliary_scores_on():
    terms = Terms({'joint_auxiliary': {'weight': 1, 'alpha': 0},
                   'uncertainty_aware': {'weight': 1, 'passes': 4, 'rate': 0.1}},
                  Widths(3, 8), Widths(3, 6))
    assert terms.passes == {'passes': 4, 'rate': 0.1}
    clips = [x[None] for x in (STUDENT, TEACHER, AUXILIARY, ITS_AUXILIARY, MEAN, VARIANCE)]
    student, teacher, auxiliary, its_auxiliary, mean, variance = clips
    found = terms(Maps(student, auxiliary=[auxiliary]),
                  Maps(teacher, auxiliary=[its_auxiliary], monte_carlo=MonteCarlo(mean, variance)),
                  {}, COUNTED[None])
    assert found['joint_auxiliary'] == JointAuxiliary(0.0)(
        STUDENT, TEACHER, COUNTED, [AUXILIARY], [ITS_AUXILIARY])
    assert found['uncertainty_aware'] == UncertaintyAware()(STUDENT, MEAN, VARIANCE, COUNTED)


def test_auxiliary_heads_that_are_missing_are_named():
    options = {'joint_auxiliary': {'weight': 1}}
    widths = {'student': Widths(3, 8, False), 'teacher': Widths(3, 6)}
    with pytest.raises(ValueError, match='set terms.joint_auxiliary.auxiliary to 0'):
        Terms(options, **widths)
    Terms({'joint_auxiliary': {'weight': 1, 'auxiliary': 0}}, **widths)
    Terms(options, Widths(3, 8), None, stored=True)
