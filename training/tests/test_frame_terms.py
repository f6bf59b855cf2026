# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""PF and MF of ETC against loops in NumPy, and that MF does not collapse."""
import numpy as np
import pytest
import torch

from term_checks import (
    arrays, check_equal_maps, check_gradients, check_half_precision, check_padding,
    check_precisions, check_teacher_without_gradient, convolve, cosine, maps, patches_of)
from vseg_training.terms import MultiFrame, PairwiseFrames


STUDENT, TEACHER, WIDE = maps(0, 2, 3, 3, 5, 6), maps(1, 2, 3, 3, 5, 6), maps(2, 2, 3, 7, 5, 6)
COUNTED = torch.ones(2, 3, 5, 6, dtype=torch.bool)
COUNTED[0, 1, :, -2:] = False  # of one frame of one clip


@pytest.fixture
def multi_frame():
    torch.manual_seed(0)
    term = MultiFrame(max_nodes=9, clip=0.3).double()
    torch.nn.init.normal_(term.memory.from_cell, std=0.2)
    term.begin_step()
    return term


def probabilities(scores):
    """Class probabilities of clips [B, L, K, h, w]."""
    grown = np.exp(scores - scores.max(2, keepdims=True))
    return grown / grown.sum(2, keepdims=True)


def loop_pair_frames(student, teacher, counted, side):
    """Eq. 2, of every frame and the next."""
    own, target, values = probabilities(student), probabilities(teacher), []
    for b in range(len(student)):
        for t in range(student.shape[1] - 1):
            now, later = ([patches_of(x[b, u], counted[b, u], side) for x in (own, target)]
                          for u in (t, t + 1))
            values += [(cosine(now[0][i], later[0][j]) - cosine(now[1][i], later[1][j])) ** 2
                       for i in now[0] for j in later[0]]
    return np.mean(values)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def states(term, clip, counted, side):
    """Cell state and output after Eq. 6 of the self-similarities of a clip [L, C, h, w]."""
    weight, bias = term.memory.gates.weight.detach().numpy(), term.memory.gates.bias.detach()
    peep = term.memory.from_cell.detach().numpy()
    rows, columns = (-(-length // side) for length in clip.shape[2:])
    cell = hidden = np.zeros((4, rows * columns, rows * columns))
    for frame, inside in zip(clip, counted):
        nodes = patches_of(frame, inside, side)
        image = np.zeros_like(cell[:1])
        for i in nodes:
            for j in nodes:
                image[0, i[0] * columns + i[1], j[0] * columns + j[1]] = cosine(
                    nodes[i], nodes[j])
        gates = convolve(np.concatenate([image, hidden]), weight, bias.numpy())
        into, forget, new, out = gates[:4], gates[4:8], gates[8:12], gates[12:]
        cell = (sigmoid(forget + peep[1] * cell) * cell
                + sigmoid(into + peep[0] * cell) * np.tanh(new))
        hidden = sigmoid(out + peep[2] * cell) * np.tanh(cell)
    return cell, hidden


@pytest.mark.parametrize('max_nodes, side', [(1000, 1), (9, 2), (5, 3)])
def test_pairwise_frames_match_a_loop(max_nodes, side):
    assert PairwiseFrames(max_nodes)(STUDENT, TEACHER, COUNTED).item() == pytest.approx(
        loop_pair_frames(*arrays(STUDENT, TEACHER, COUNTED), side), rel=1e-9)


def test_multi_frame_matches_a_loop(multi_frame):
    s, t, counted = arrays(STUDENT, WIDE, COUNTED)
    loss = multi_frame(STUDENT, WIDE, COUNTED).item()
    own, target = ([states(multi_frame, clip, inside, 2) for clip, inside in zip(x, counted)]
                   for x in (s, t))
    expected = sum(np.mean([(a[k] - b[k]) ** 2 for a, b in zip(own, target)]) for k in (0, 1))
    expected += np.mean([1 - b[0] for b in target])
    assert loss == pytest.approx(expected, rel=1e-9)


def test_what_every_term_must_stand(multi_frame):
    multi_frame.collapse = 0.0
    for term, teacher in ((PairwiseFrames(9), TEACHER), (multi_frame, WIDE)):
        check_gradients(term, STUDENT[:1], teacher[:1], COUNTED[:1])
        check_teacher_without_gradient(term, STUDENT, teacher, COUNTED)
        check_equal_maps(term, teacher, COUNTED)
        check_padding(term, STUDENT, teacher, COUNTED)
    check_half_precision(PairwiseFrames(9), STUDENT, TEACHER, COUNTED)
    check_half_precision(MultiFrame(9), STUDENT, WIDE, COUNTED)
    check_precisions(MultiFrame(9), STUDENT, WIDE.float(), COUNTED)


def test_clips_of_one_frame_have_no_dependencies(multi_frame):
    for term in (PairwiseFrames(), multi_frame):
        student = STUDENT[:, :1].clone().requires_grad_()
        loss = term(student, TEACHER[:, :1], COUNTED[:, :1])
        loss.backward()
        assert loss == 0 and student.grad.abs().max() == 0
    # processes that train together wait for the gradient of every parameter
    assert all(x.grad is not None for x in multi_frame.parameters())


def test_weights_are_brought_back_into_their_range(multi_frame):
    with torch.no_grad():
        multi_frame.memory.gates.weight += 5
    multi_frame.begin_step()
    assert max(x.abs().max() for x in multi_frame.parameters()) == 0.3


@pytest.mark.parametrize('collapse', [0.0, 1.0])
def test_without_its_last_part_the_loss_collapses(collapse):
    """Two networks that stay different: their distance may not vanish by what the LSTM learns."""
    torch.manual_seed(0)
    term = MultiFrame(collapse=collapse)
    student, teacher = STUDENT.float(), WIDE.float()
    optimizer = torch.optim.Adam(term.parameters(), 0.01)
    start = term.parts(student, teacher)[0].item()
    for _ in range(100):
        term.begin_step()
        optimizer.zero_grad()
        term(student, teacher).backward()
        optimizer.step()
    end = term.parts(student, teacher)[0].item()
    assert end < 0.01 * start if collapse == 0 else end > start
