# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Structural distillation of the soft projection matrix (MGCNet Eq. 14)."""
from collections.abc import Sequence

import torch
from torch import Tensor

from ..models.layers import resize


def structural_loss(projection: Tensor, teacher: Tensor, size: Sequence[int],
                    teacher_size: Sequence[int], counted: Tensor) -> Tensor:
    """
    KL(teacher || student) over space, a mean over prototypes and frames (MGCNet Eq. 14, L_st).

    L_st = 1/N sum_n sum_m P^T[n, m] log(P^T[n, m] / P^S[n, m]). P is a distribution over space, so
    the divergence runs over space; with the printed 1/HW it would vanish.

    Args:
        projection: P of the student, float [B, N, h*w].
        teacher: P of the teacher, float [B, N, h'*w'], resized to the student's grid.
        size: (h, w).
        teacher_size: (h', w').
        counted: Bool [B, h*w]; padding (False) is left out of both distributions.

    Returns:
        Scalar >= 0.

    Raises:
        ValueError: The numbers of prototypes differ.

    Examples:
        >>> import torch
        >>> student = torch.full((1, 1, 4), 1 / 4)
        >>> teacher = torch.tensor([[[0.5, 0.5, 0.0, 0.0]]])
        >>> counted = torch.ones(1, 4, dtype=torch.bool)
        >>> loss = structural_loss(student, teacher, (2, 2), (2, 2), counted)
        >>> round(loss.item(), 4)  # log 2
        0.6931
        >>> abs(structural_loss(teacher, teacher, (2, 2), (2, 2), counted).item())
        0.0
    """
    if projection.shape[1] != teacher.shape[1]:
        raise ValueError(
            f'the teacher has {teacher.shape[1]} prototypes and the student '
            f'{projection.shape[1]}: L_st needs as many; set distill.structural to 0')
    teacher = teacher.float()
    if tuple(size) != tuple(teacher_size):
        teacher = resize(teacher.unflatten(2, tuple(teacher_size)), tuple(size)).flatten(2)
    teacher = _distribution(teacher, counted)
    student = _distribution(projection.float(), counted)
    cross = teacher * student.clamp(min=1e-12).log()
    return -(torch.special.entr(teacher) + cross).sum(2).mean()


def _distribution(projection: Tensor, counted: Tensor) -> Tensor:
    """Rows of P [B, N, h*w] as distributions over the pixels that count."""
    projection = projection * counted[:, None]
    return projection / projection.sum(2, keepdim=True).clamp(min=1e-12)
