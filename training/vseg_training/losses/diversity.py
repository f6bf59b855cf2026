# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Diversity of the soft projection matrix (MGCNet Eq. 5 and 6)."""


from typing import Optional

from torch import Tensor


def diversity(projection: Tensor, counted: Optional[Tensor] = None) -> Tensor:
    """
    Share of distinct prototypes: sum over pixels of the largest entry, over N (Eq. 5).

    Args:
        projection: Float [..., N, h*w], each row a distribution over pixels.
        counted: Bool [..., h*w], False for padding; the rows are then distributions over the rest.

    Returns:
        [...], from 1/N (all rows are equal) to 1 (all rows are disjoint).
    """
    projection = projection.float()
    if counted is not None:
        projection = projection * counted[..., None, :]
        projection = projection / projection.sum(-1, keepdim=True).clamp(min=1e-12)
    return projection.amax(-2).sum(-1) / projection.shape[-2]


def diversity_loss(projection: Tensor, threshold: float = 0.25,
                   counted: Optional[Tensor] = None) -> Tensor:
    """
    One-sided penalty max(threshold - div(P), 0), averaged over frames (Eq. 6).

    Args:
        projection: Float [..., N, h*w].
        threshold: theta_div.
        counted: As in ``diversity``.

    Returns:
        Scalar in [0, threshold].
    """
    return (threshold - diversity(projection, counted)).clamp(min=0).mean()
