# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Uncertainty-aware distillation (MGCNet Eq. 12 and 13)."""
import torch
from torch.nn import functional as F

from ..losses.mean import mean_over_processes
from ..models.layers import resize
from ..models.teacher import mean_prediction


def uncertainty_map(streams):
    """
    Variance of the streams' probabilities, summed over classes (Eq. 12).

    streams: stream tau as probabilities [B, L - tau, K, h, w], as in ``mean_prediction`` ->
    [B, L, h, w] in float32, 0 where a frame has one stream alone. With S streams it is at most
    1 - 1/S (0.75 for four), so that 1 - U stays positive; rounding below 0 is cut off.
    """
    squares = mean_prediction([stream.float().square() for stream in streams])
    return (squares - mean_prediction(streams).square()).sum(2).clamp(min=0)


def uncertainty_loss(scores, probabilities, uncertainty, counted, class_weights=None):
    """
    KL(teacher || student) per pixel, weighted by 1 - U, a mean over pixels (Eq. 13, L_uct).

    scores: the student's [B, K, h, w]; probabilities [B, K, h', w'] and uncertainty [B, h', w']:
    the teacher's, resized to the student's grid; counted: bool [B, h, w], False for padding.
    class_weights [K] make it a mean weighted by the teacher's classes, as the supervised loss is
    by the true ones: without them a balanced student unlearns its rare classes. Returns a scalar
    >= 0.
    """
    size = scores.shape[2:]
    probabilities = resize(probabilities.float(), size)
    weight = counted.float()
    if class_weights is not None:
        weight = weight * torch.einsum('bkhw,k->bhw', probabilities, class_weights)
    logs = F.log_softmax(scores.float(), 1)
    divergence = -(torch.special.entr(probabilities) + probabilities * logs).sum(1)
    certain = 1 - resize(uncertainty.float()[:, None], size)[:, 0]
    return mean_over_processes((weight * certain * divergence).sum(), weight.sum())
