# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""HO of structured KD: its critic against NumPy, what it learns, and that it stays outside."""
import copy

import numpy as np
import pytest
import torch

from term_checks import (
    check_half_precision, check_padding, check_teacher_without_gradient, convolve, maps)
from vseg_training.terms import Holistic, Maps, Terms, Widths
from vseg_training.terms.critic import Critic, gradient_penalty, Opponent, SelfAttention


K, SIDE = 3, 32
STUDENT, TEACHER = maps(0, 2, K, SIDE, SIDE), maps(1, 2, K, SIDE, SIDE)
IMAGES = 127 + 60 * maps(2, 2, 3, SIDE, SIDE)
COUNTED = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
COUNTED[0, :, -9:] = False


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A critic of the same form, but fast."""
    monkeypatch.setattr('vseg_training.terms.critic.WIDTHS', (16, 16, 32, 32))


def holistic(form='wgan', **options):
    torch.manual_seed(0)
    return Holistic(K, form, **options)


def double(term):
    term.opponent.critic.double()
    return term


def score(network, image_and_map):
    """D of a batch [B, 3 + K, h, w], of whose convolutions only the shapes are from torch."""
    mean, std = (f(image_and_map, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    x = (image_and_map - mean) / np.sqrt(std ** 2 + 1e-5)
    for layer in list(network.layers)[1:]:
        if isinstance(layer, torch.nn.Conv2d):
            weight, bias = layer.weight.numpy(), layer.bias.numpy()
            # 4x4 with one row of zeros is a 5x5 with one more; every second or every place
            weight = np.pad(weight, ((0, 0), (0, 0), (1, 0), (1, 0)))
            step = layer.stride[0]
            end = -1 if step == 1 else None
            x = np.stack([convolve(each, weight, bias)[:, ::step, ::step]
                          for each in x])[:, :, :end, :end]
        elif isinstance(layer, SelfAttention):
            continue  # gamma is 0
        else:
            x = np.where(x > 0, x, 0.1 * x)
    return x.mean((1, 2, 3))


def test_the_critic_is_its_layers_in_numpy():
    network = Critic(K).double()
    with torch.no_grad():
        given = torch.cat([IMAGES / 255, STUDENT.softmax(1)], 1)
        found = network(given[:, 3:], given[:, :3])
    expected = score(network.requires_grad_(False), given.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_critic_sees_probabilities_and_the_image_at_their_size():
    large = IMAGES.repeat_interleave(2, 2).repeat_interleave(2, 3)
    fine = torch.nn.functional.interpolate(STUDENT, scale_factor=2, mode='nearest')
    real, fake, image = double(holistic())._seen(fine, TEACHER, COUNTED, large)
    kept = COUNTED[:, None]
    torch.testing.assert_close(real, kept * TEACHER.softmax(1))
    torch.testing.assert_close(fake, kept * STUDENT.softmax(1))
    torch.testing.assert_close(image, kept * IMAGES / 255)


def test_self_attention_starts_as_nothing_and_mixes_by_similarity():
    torch.manual_seed(0)
    layer, x = SelfAttention(16, lambda conv: conv).double(), maps(3, 1, 16, 3, 4)
    assert torch.equal(layer(x), x)
    with torch.no_grad():
        layer.gamma += 0.5
        q, k, v = (convolve(x[0].numpy(), p.weight.numpy(), p.bias.numpy()).reshape(-1, 12)
                   for p in (layer.query, layer.key, layer.value))
        found, flat = (y[0].reshape(16, 12).numpy() for y in (layer(x), x))
    for i in range(12):
        weights = np.exp(q[:, i] @ k)
        expected = flat[:, i] + 0.5 * v @ (weights / weights.sum())
        np.testing.assert_allclose(found[:, i], expected, rtol=1e-9)


def test_the_gradient_penalty_of_a_linear_critic_is_that_of_its_slope():
    weight = maps(4, 1, K, SIDE, SIDE)
    penalty = gradient_penalty(lambda x: (weight * x).sum((1, 2, 3)), STUDENT, TEACHER)
    assert penalty.item() == pytest.approx((weight.norm().item() - 1) ** 2, rel=1e-9)


def test_the_gradient_penalty_is_taken_between_the_maps_one_share_per_sample():
    seen = []

    def half_square(x):
        seen.append(x.detach())
        return (x ** 2).sum((1, 2, 3)) / 2  # its gradient is x

    penalty = gradient_penalty(half_square, STUDENT, TEACHER)
    shares = (seen[0] - TEACHER) / (STUDENT - TEACHER)
    for share in shares:
        assert 0 < share.mean() < 1 and share.std() < 1e-9
    assert abs(shares[0].mean() - shares[1].mean()) > 1e-3
    lengths = [float(np.sqrt((x ** 2).sum())) for x in seen[0].numpy()]
    assert penalty.item() == pytest.approx(np.mean([(x - 1) ** 2 for x in lengths]))


@pytest.mark.parametrize('form', ['wgan', 'hinge'])
def test_the_critic_tells_two_fixed_maps_apart_in_50_steps(form):
    term = holistic(form, lr=1e-3)
    given = STUDENT.float(), TEACHER.float(), COUNTED, IMAGES.float()
    before = term(*given)
    for _ in range(50):
        term.learn(*given)
    assert abs(before) < 0.2 and term(*given) > 0.5
    real, fake = term.opponent.scores(*term._seen(*given))
    assert real.min() > fake.max()


def test_the_printed_loss_of_the_critic():
    """-l_ho of Eq. 3.3 with the penalty; the penalty's chance is the generator's."""
    term = double(holistic(penalty=7.0))
    real, fake, images = term._seen(STUDENT, TEACHER, COUNTED, IMAGES)
    high, low = (x.mean() for x in term.opponent.scores(real, fake, images))
    torch.manual_seed(3)
    penalty = gradient_penalty(lambda x: term.opponent.critic(x, images), real, fake)
    torch.manual_seed(3)
    loss = term.opponent.learn(real, fake, images)
    assert penalty > 0.1
    torch.testing.assert_close(loss, (low - high + 7 * penalty).detach())


def test_the_stable_loss_of_the_critic():
    term = double(holistic('hinge'))
    real, fake, images = term._seen(STUDENT, TEACHER, COUNTED, IMAGES)
    term.opponent.critic.train()
    state = copy.deepcopy(term.opponent.state_dict())
    high, low = term.opponent.scores(real, fake, images)
    term.opponent.load_state_dict(state)  # each pass in training brings the norms nearer to 1
    expected = (1 - high).clamp(min=0).mean() + (1 + low).clamp(min=0).mean()
    torch.testing.assert_close(term.opponent.learn(real, fake, images), expected)
    convolutions = [x for x in term.opponent.critic.layers if isinstance(x, torch.nn.Conv2d)]
    for layer in convolutions:
        layer.parametrizations.weight.original.data *= 5
    for _ in range(20):
        term.opponent.learn(real, fake, images)
    for layer in convolutions:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert norm.item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize('form', ['wgan', 'hinge'])
def test_what_every_term_must_stand(form):
    term = double(holistic(form))
    check_teacher_without_gradient(term, STUDENT, TEACHER, COUNTED, IMAGES)
    check_padding(term, STUDENT, TEACHER, COUNTED, IMAGES)
    noise = torch.where(COUNTED[:, None], IMAGES, 255.0)
    assert term(STUDENT, TEACHER, COUNTED, noise) == term(STUDENT, TEACHER, COUNTED, IMAGES)
    assert term(TEACHER, TEACHER, COUNTED, IMAGES).abs() < 1e-12
    check_half_precision(holistic(form), STUDENT, TEACHER, COUNTED, IMAGES)
    torch.autograd.gradcheck(
        lambda x: term(torch.cat([x, STUDENT[:, :, 2:]], 2), TEACHER, COUNTED, IMAGES),
        STUDENT[:, :, :2, :].clone().requires_grad_(), fast_mode=True)


def test_a_student_that_learns_by_it_comes_nearer_to_its_teacher():
    term = holistic(lr=4e-3)
    student = torch.zeros(2, K, SIDE, SIDE, requires_grad=True)
    teacher, images = (4 * TEACHER).float(), IMAGES.float()
    optimizer = torch.optim.Adam([student], 0.05)
    distances = []
    for _ in range(60):
        term.learn(student, teacher, None, images)
        optimizer.zero_grad()
        term(student, teacher, None, images).backward()
        optimizer.step()
        distances.append((student.softmax(1) - teacher.softmax(1)).abs().mean().item())
    assert distances[-1] < 0.9 * distances[0]


def test_the_critic_is_outside_of_the_network_and_its_copies():
    term = holistic()
    assert not list(term.parameters()) and not term.state_dict()
    assert copy.deepcopy(term).opponent is term.opponent
    before = [x.clone() for x in term.opponent.critic.parameters()]
    student = STUDENT.float().requires_grad_()
    term(student, TEACHER.float(), COUNTED, IMAGES.float()).backward()
    assert all(x.grad is None for x in term.opponent.critic.parameters())
    term.learn(student.detach().requires_grad_(), TEACHER.float(), COUNTED, IMAGES.float())
    assert not all(torch.equal(a, b) for a, b in zip(before, term.opponent.critic.parameters()))


@pytest.mark.parametrize('form', ['wgan', 'hinge'])
def test_an_opponent_goes_on_from_its_state(form):
    given = STUDENT.float().softmax(1), TEACHER.float().softmax(1), IMAGES.float() / 255
    torch.manual_seed(0)
    first, second = Opponent(K, form), Opponent(K, form)
    first.learn(*given)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.to(torch.device('cpu'))
    for opponent in (first, second):
        torch.manual_seed(5)
        opponent.learn(*given)
    for a, b in zip(first.critic.state_dict().values(), second.critic.state_dict().values()):
        assert torch.equal(a, b)


def test_terms_train_the_critic_and_hand_images_on():
    torch.manual_seed(0)
    terms = Terms({'holistic': {'weight': 0.1}}, Widths(K, 8), Widths(K, 6))
    student, teacher, images = (x.float()[None] for x in (STUDENT, TEACHER, IMAGES))
    given = Maps(student), Maps(teacher), {'images': images}, COUNTED[None]
    flat = STUDENT.float(), TEACHER.float(), COUNTED, IMAGES.float()
    before = terms(*given)['holistic']
    assert before == terms.modules_by_name['holistic'](*flat)
    terms.train_opponents(*given)
    assert terms(*given)['holistic'] != before and list(terms.opponents) == ['holistic']


def test_maps_too_small_for_the_critic_are_refused():
    options = {'holistic': {'weight': 0.1}}
    with pytest.raises(ValueError, match='maps of 32 x 32 cells or more, but the teacher makes '
                                         '45 x 31 of data.crop: raise data.crop'):
        Terms(options, Widths(K, 8), Widths(K, 6, cells=(45, 31)))
    Terms(options, Widths(K, 8, cells=(4, 4)), Widths(K, 6, cells=(32, 32)))
    with pytest.raises(ValueError, match="terms.holistic.form is 'gan': use wgan or hinge"):
        Terms({'holistic': {'weight': 0.1, 'form': 'gan'}}, Widths(K, 8), Widths(K, 6))
