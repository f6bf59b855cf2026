# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy with online hard example mining (OHEM)."""
import torch
from torch.nn import functional as F


def ohem_cross_entropy(scores, labels, weight=None, threshold=0.7, min_kept=0.1, void=255):
    """
    Mean cross-entropy of the hard pixels.

    scores [B, K, H, W], labels int64 [B, H, W] -> scalar. Hard is a pixel whose true class has
    a probability below ``threshold``; at least the share ``min_kept`` of the labelled pixels is
    kept, the hardest first. ``weight`` [K] makes it a weighted mean by true class. Void pixels
    never count; without a labelled pixel the loss is 0.
    """
    labelled = labels != void
    losses = F.cross_entropy(scores.float(), labels, ignore_index=void, reduction='none')
    losses = losses[labelled]
    if not losses.numel():
        return scores.float().sum() * 0
    kept = max(1, int(min_kept * losses.numel()))
    limit = torch.tensor(threshold, device=losses.device).log().neg()
    limit = torch.minimum(limit, losses.detach().topk(kept, sorted=False).values.min())
    hard = losses >= limit
    if weight is None:
        return losses[hard].mean()
    weights = weight[labels[labelled][hard]]
    return (weights * losses[hard]).sum() / weights.sum()
