# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Maps to try terms on, parts of their loops in NumPy, and what every term must stand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F


def maps(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mask(batch, height, width):
    """Bool with padding on the right of the first image."""
    counted = torch.ones(batch, height, width, dtype=torch.bool)
    counted[0, :, -2:] = False
    return counted


def softmax(values):
    values = np.exp(values - values.max())
    return values / values.sum()


def patches_of(features, counted, side):
    """Mean feature of every patch, by its place; patches of padding alone are left out."""
    nodes = {}
    for row in range(-(-features.shape[1] // side)):
        for column in range(-(-features.shape[2] // side)):
            part = np.s_[row * side:(row + 1) * side, column * side:(column + 1) * side]
            inside = counted[part]
            if inside.any():
                nodes[row, column] = features[:, part[0], part[1]][:, inside].mean(1)
    return nodes


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def arrays(*tensors):
    return [tensor.numpy() for tensor in tensors]


def convolve(features, weight, bias):
    """Convolution [C', C, k, k] with zeros around the map."""
    side = weight.shape[2] // 2
    padded = np.pad(features, ((0, 0), (side, side), (side, side)))
    _, height, width = features.shape
    return np.array([[[(weight[k] * padded[:, y:y + 2 * side + 1, x:x + 2 * side + 1]).sum()
                       + bias[k] for x in range(width)] for y in range(height)]
                     for k in range(len(weight))])


def check_gradients(term, *given):
    """A term's gradient to the student is that of finite differences."""
    student = given[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: term(x, *given[1:]), student)


def check_precisions(term, student, *rest):
    """Weights are float64 or bfloat16 where optim.precision says so; maps may be float32."""
    for kind, tolerance in ((torch.float64, 1e-4), (torch.bfloat16, 0.05)):
        expected = term.float()(student.float(), *rest).item()
        assert term.to(kind)(student.float(), *rest).item() == pytest.approx(
            expected, rel=tolerance)


def check_teacher_without_gradient(term, student, teacher, *rest):
    """Only the student learns."""
    student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    term(student, teacher, *rest).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def check_equal_maps(term, teacher, *rest):
    """A student that equals its teacher costs nothing and has nothing to learn."""
    student = teacher.clone().requires_grad_()
    loss = term(student, teacher, *rest)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    loss.backward()
    assert student.grad.abs().max() < 1e-9


def check_padding(term, student, teacher, counted, *rest):
    """What maps hold in padding changes nothing."""
    noise = [100 * maps(seed, *x.shape) for seed, x in ((10, student), (11, teacher))]
    outside = ~counted.unsqueeze(-3)
    before = term(student, teacher, counted, *rest)
    student, teacher = (torch.where(outside, n, x) for n, x in zip(noise, (student, teacher)))
    torch.testing.assert_close(term(student, teacher, counted, *rest), before)


def check_half_precision(term, student, teacher, counted, *rest):
    """Finite in bfloat16, on a finer grid of the teacher, where all is padding too."""
    shape = teacher.shape[:-2]
    fine = F.interpolate(teacher.flatten(0, -4), scale_factor=2).bfloat16()
    fine = fine.reshape(*shape, *fine.shape[-2:])
    large = counted.repeat_interleave(4, -2).repeat_interleave(4, -1)
    for inside in (large, torch.zeros_like(large)):
        own = (50 * student).bfloat16().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16):
            loss = term(own, fine, inside, *rest)
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
        loss.backward()
        assert torch.isfinite(own.grad).all()
        assert (own.grad.abs().sum() > 0) == bool(inside.any())
