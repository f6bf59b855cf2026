# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The teacher's streams, their mean, co-training and the long-term module, against plain loops."""
import math

import pytest
import torch

from networks import tiny, tiny_teacher
from vseg_training.losses import co_training_loss, video_id_loss
from vseg_training.models.long_term import LongTermContext
from vseg_training.models.teacher import mean_prediction


def frames(count, size=(64, 96)):
    torch.manual_seed(1)
    return torch.randint(0, 256, (1, count, 3, *size), dtype=torch.uint8)


def ragged(shape, streams, peak=3.0):
    """Scores of stream tau for the frames tau..L-1 of a clip of shape [B, L, K, h, w]."""
    torch.manual_seed(2)
    return [peak * torch.randn(shape[0], shape[1] - tau, *shape[2:]) for tau in range(streams)]


def test_stream_tau_attends_to_frame_t_minus_tau():
    """Eq. 7 and 8, frame by frame."""
    teacher, clip = tiny_teacher().eval().double(), frames(5)
    with torch.no_grad():
        output = teacher(clip)
        assert len(output['streams']) == 4
        for tau, scores in enumerate(output['streams']):
            for t in range(tau, 5):
                stages, features, _, _ = teacher.encode(clip[:, t])
                memory = teacher.encode(clip[:, t - tau])[2]
                expected = teacher.segment(teacher.heads[tau], stages, features, memory)
                torch.testing.assert_close(scores[:, t - tau], expected, atol=1e-6, rtol=1e-6)


def test_clip_equals_stream():
    """What a stream predicts is the mean prediction of the clip's streams (Eq. 9)."""
    teacher, clip = tiny_teacher(context_frames=2).eval().double(), frames(5)
    with torch.no_grad():
        expected = mean_prediction([s.softmax(2) for s in teacher(clip)['streams']])
    stream = teacher.stream()
    for t in range(5):
        got = stream.step(clip[0, t].permute(1, 2, 0).contiguous())
        torch.testing.assert_close(got.exp(), expected[0, t], atol=1e-5, rtol=1e-5)
    stream.reset()
    again = stream.step(clip[0, 0].permute(1, 2, 0).contiguous())
    torch.testing.assert_close(again.exp(), expected[0, 0], atol=1e-5, rtol=1e-5)


def test_mean_prediction_matches_a_loop():
    streams = ragged((2, 4, 3, 2, 2), 3)
    got = mean_prediction(streams)
    for t in range(4):
        present = [streams[tau][:, t - tau] for tau in range(min(t, 2) + 1)]
        torch.testing.assert_close(got[:, t], sum(present) / len(present))


def test_monte_carlo_keeps_the_heads_dropout_alone():
    teacher, clip = tiny_teacher(dropout=0.5), frames(2)
    with torch.no_grad():
        first, second = (teacher.monte_carlo()(clip) for _ in range(2))
        assert not torch.equal(first['streams'][0], second['streams'][0])
        assert torch.equal(first['auxiliary'][0], second['auxiliary'][0])
        assert torch.equal(first['projection'], second['projection'])
        certain = [teacher.eval()(clip)['streams'][0] for _ in range(2)]
    assert torch.equal(*certain)


def loop_co_training(streams, counted):
    """Jensen-Shannon divergence pixel by pixel (Eq. 10 with H as Shannon entropy)."""
    def entropy(p):
        return -sum(v * math.log(v) for v in p if v > 0)

    total = count = 0
    batch, length, _, height, width = streams[0].shape
    for b in range(batch):
        for t in range(1, length):
            for y in range(height):
                for x in range(width):
                    if not counted[b, t, y, x]:
                        continue
                    views = [streams[tau][b, t - tau, :, y, x].softmax(0).tolist()
                             for tau in range(min(t, len(streams) - 1) + 1)]
                    mean = [sum(column) / len(views) for column in zip(*views)]
                    total += entropy(mean) - sum(entropy(v) for v in views) / len(views)
                    count += 1
    return total / count


def test_co_training_matches_the_loop():
    streams = ragged((2, 4, 3, 3, 2), 3)
    counted = torch.rand(2, 4, 3, 2) > 0.3
    assert co_training_loss(streams, counted).item() == pytest.approx(
        loop_co_training(streams, counted), rel=1e-4)


def test_co_training_stays_within_zero_and_log_of_the_streams():
    counted = torch.ones(1, 2, 4, 4, dtype=torch.bool)
    same = torch.randn(1, 2, 3, 4, 4)
    assert co_training_loss([same, same[:, 1:]], counted).item() == pytest.approx(0, abs=1e-6)
    one, other = torch.zeros(2, 1, 2, 3, 4, 4)
    one[:, :, 0], other[:, :, 1] = 100, 100
    assert co_training_loss([one, other[:, 1:]], counted).item() == pytest.approx(math.log(2))


def test_co_training_gradients_are_finite_under_autocast():
    streams = [s.requires_grad_() for s in ragged((1, 3, 4, 5, 5), 2, peak=60.0)]
    counted = torch.ones(1, 3, 5, 5, dtype=torch.bool)
    with torch.autocast('cpu', torch.bfloat16):
        loss = co_training_loss(streams, counted)
    loss.backward()
    assert all(torch.isfinite(s.grad).all() for s in streams)
    single = co_training_loss([streams[0][:, :1]], counted[:, :1])
    assert single.item() == 0  # a clip of one frame has one stream


def test_co_training_brings_the_streams_together():
    streams = [s.requires_grad_() for s in ragged((1, 2, 3, 4, 4), 2)]
    counted = torch.ones(1, 2, 4, 4, dtype=torch.bool)
    before = co_training_loss(streams, counted)
    before.backward()
    with torch.no_grad():
        moved = [s - 5 * s.grad for s in streams]
    assert co_training_loss(moved, counted) < before


def test_every_teacher_parameter_gets_a_gradient():
    teacher = tiny_teacher(dropout=0.0).train()
    output = teacher(frames(4))
    loss = (sum(s.square().mean() for s in output['streams'])
            + output['auxiliary'][0].square().mean() + output['projection'].square().mean())
    loss.backward()
    for name, parameter in teacher.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_long_term_context_pools_nearby_and_distant_frames():
    module = LongTermContext(6, 3)
    nearby, distant = torch.randn(2, 4, 6, 5, 7), torch.randn(2, 4, 6, 5, 7)
    pooled = torch.zeros(2, 6)
    for clip in (nearby, distant):
        for t in range(4):
            pooled += clip[:, t].mean((2, 3)) / 8
    counted = torch.ones(2, 4, 5, 7, dtype=torch.bool)
    torch.testing.assert_close(
        module(nearby, distant, counted, counted), module.perceptron(pooled))


def test_video_id_loss_in_both_forms():
    scores, videos = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]]), torch.tensor([0, 2])
    softmax = binary = 0
    for row, video in zip(scores.tolist(), videos.tolist()):
        softmax -= math.log(math.exp(row[video]) / sum(math.exp(v) for v in row)) / 2
        for index, value in enumerate(row):
            p = 1 / (1 + math.exp(-value))
            binary -= math.log(p if index == video else 1 - p) / 6
    assert video_id_loss(scores, videos).item() == pytest.approx(softmax, rel=1e-5)
    assert video_id_loss(scores, videos, 'bce').item() == pytest.approx(binary, rel=1e-5)
    with pytest.raises(ValueError, match='softmax or bce'):
        video_id_loss(scores, videos, 'mse')


def test_a_students_head_differs_from_the_teachers_in_number_alone():
    student, teacher = tiny(), tiny_teacher()
    assert len(student.heads) == 1 and len(teacher.heads) == 4
    mine, theirs = student.head.state_dict(), teacher.heads[0].state_dict()
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in theirs.items()}
