# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Diversity of the soft projection matrix (MGCNet Eq. 5 and 6)."""
from torch import Tensor


def diversity(projection: Tensor) -> Tensor:
    """
    Share of distinct prototypes (MGCNet Eq. 5).

    div(P) = 1/N sum_m max_n P[n, m]: over the pixels m the sum of the largest entry.

    Args:
        projection: P, float [..., N, h*w], each row a distribution over pixels.

    Returns:
        Float [...], from 1/N (all rows are equal) to 1 (all rows are disjoint).

    Examples:
        >>> import torch
        >>> diversity(torch.full((4, 8), 1 / 8))  # four times the same prototype
        tensor(0.2500)
        >>> diversity(torch.eye(4))
        tensor(1.)
    """
    projection = projection.float()
    return projection.amax(-2).sum(-1) / projection.shape[-2]


def diversity_loss(projection: Tensor, threshold: float = 0.25) -> Tensor:
    """
    One-sided penalty L_div = max(theta - div(P), 0), a mean over frames (MGCNet Eq. 6).

    Args:
        projection: P, float [..., N, h*w].
        threshold: theta.

    Returns:
        Scalar in [0, threshold].

    Examples:
        >>> import torch
        >>> diversity_loss(torch.full((8, 8), 1 / 8))  # 0.25 - 1/8
        tensor(0.1250)
        >>> diversity_loss(torch.eye(8))
        tensor(0.)
    """
    return (threshold - diversity(projection)).clamp(min=0).mean()
