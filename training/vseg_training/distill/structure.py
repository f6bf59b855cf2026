# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Structural distillation of the soft projection matrix (MGCNet Eq. 14)."""
import torch

from ..models.layers import resize


def structural_loss(projection, teacher, size, teacher_size, counted):
    """
    KL(teacher || student) over space, a mean over prototypes and frames (Eq. 14, L_st).

    P is a distribution over space, so the divergence runs over space; the printed 1/HW would make
    it vanish. projection [B, N, h*w] and teacher [B, N, h'*w'] with their grids (height, width);
    the teacher's is resized to the student's. counted: bool [B, h*w]; what is padding is left out
    of both distributions. Returns a scalar >= 0. ValueError if the numbers of prototypes differ.
    """
    if projection.shape[1] != teacher.shape[1]:
        raise ValueError(
            f'the teacher has {teacher.shape[1]} prototypes and the student '
            f'{projection.shape[1]}: L_st needs as many; set distill.structural to 0')
    teacher = teacher.float()
    if tuple(size) != tuple(teacher_size):
        teacher = resize(teacher.unflatten(2, tuple(teacher_size)), tuple(size)).flatten(2)
    teacher, student = (_renormalise(p.float() * counted[:, None]) for p in (teacher, projection))
    cross = teacher * student.clamp(min=1e-12).log()
    return -(torch.special.entr(teacher) + cross).sum(2).mean()


def _renormalise(projection):
    return projection / projection.sum(2, keepdim=True).clamp(min=1e-12)
