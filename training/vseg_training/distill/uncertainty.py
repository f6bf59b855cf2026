# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Uncertainty-aware distillation (MGCNet Eq. 12 and 13)."""
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..losses.mean import mean_over_processes
from ..models.layers import resize
from ..models.teacher import mean_prediction


def uncertainty_map(streams: Sequence[Tensor]) -> Tensor:
    """
    Variance of the streams' probabilities, summed over classes (MGCNet Eq. 12).

    U = sum_k (mean_tau p_tau[k]^2 - (mean_tau p_tau[k])^2).

    Args:
        streams: Stream tau as probabilities [B, L - tau, K, h, w], as in ``mean_prediction``.

    Returns:
        Float32 [B, L, h, w], 0 where a frame has only one stream. With S streams it is at most
        1 - 1/S (0.75 for four), so that 1 - U stays positive; rounding below 0 is cut off.

    Examples:
        >>> import torch
        >>> class_0 = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1, 1)
        >>> clip = torch.cat([class_0, class_0], 1)
        >>> uncertainty_map([clip, 1 - class_0]).flatten()  # the second frame has two streams
        tensor([0.0000, 0.5000])
    """
    squares = mean_prediction([stream.float().square() for stream in streams])
    return (squares - mean_prediction(streams).square()).sum(2).clamp(min=0)


def uncertainty_loss(scores: Tensor, probabilities: Tensor, uncertainty: Tensor, counted: Tensor,
                     class_weights: Tensor | None = None) -> Tensor:
    """
    KL(teacher || student) per pixel, weighted by 1 - U (MGCNet Eq. 13, L_uct).

    L_uct = mean over pixels of (1 - U) sum_k p^T[k] log(p^T[k] / p^S[k]).

    Args:
        scores: The student's, float [B, K, h, w].
        probabilities: The teacher's, float [B, K, h', w'], resized to the student's grid.
        uncertainty: U of the teacher, float [B, h', w'], resized likewise.
        counted: Bool [B, h, w], False for padding.
        class_weights: Float [K]; they make it a mean weighted by the teacher's classes, as the
            supervised loss is by the true ones. Without them a balanced student unlearns its rare
            classes.

    Returns:
        Scalar >= 0.

    Examples:
        >>> import torch
        >>> scores = torch.zeros(1, 2, 1, 1)
        >>> teacher = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        >>> counted = torch.ones(1, 1, 1, dtype=torch.bool)
        >>> loss = uncertainty_loss(scores, teacher, torch.full((1, 1, 1), 0.5), counted)
        >>> round(loss.item(), 4)  # 0.5 log 2
        0.3466
    """
    size = scores.shape[2:]
    probabilities = resize(probabilities.float(), size)
    weight = counted.float()
    if class_weights is not None:
        weight = weight * torch.einsum(
            'bkhw,k->bhw', probabilities, class_weights.float())
    logs = F.log_softmax(scores.float(), 1)
    divergence = -(torch.special.entr(probabilities) + probabilities * logs).sum(1)
    certainty = 1 - resize(uncertainty.float()[:, None], size)[:, 0]
    return mean_over_processes((weight * certainty * divergence).sum(), weight.sum())
