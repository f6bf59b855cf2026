# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Diversity of the soft projection matrix (MGCNet Eq. 5 and 6)."""


def diversity(projection):
    """
    Share of distinct prototypes: sum over pixels of the largest entry, over N (Eq. 5).

    projection [..., N, h*w], each row a distribution over pixels -> [...], from 1/N (all rows are
    equal) to 1 (all rows are disjoint).
    """
    return projection.float().amax(-2).sum(-1) / projection.shape[-2]


def diversity_loss(projection, threshold=0.25):
    """
    One-sided penalty max(threshold - div(P), 0), averaged over frames (Eq. 6).

    projection [..., N, h*w] -> scalar in [0, threshold].
    """
    return (threshold - diversity(projection)).clamp(min=0).mean()
