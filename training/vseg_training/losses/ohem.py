# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy with online hard example mining (OHEM)."""
import torch
from torch.nn import functional as F

from .mean import mean_over_processes


def ohem_cross_entropy(scores, labels, weight=None, threshold=0.7, min_kept=0.1):
    """
    Mean cross-entropy of the hard pixels.

    scores [B, K, H, W], labels int64 [B, H, W] -> scalar. Hard is a pixel whose true class has
    a probability below ``threshold``; at least the share ``min_kept`` of the labelled pixels is
    kept, the hardest first. ``weight`` [K] makes it a weighted mean by true class. Ids
    of K and above (void, padding) never count; without a labelled pixel the loss is 0.

    In a group of processes the mean over them is that of all their pixels; ``min_kept`` is a
    share of each one's own.
    """
    labelled = labels < scores.shape[1]
    losses = F.cross_entropy(scores.float(), labels.where(labelled, -100), reduction='none')
    losses = losses[labelled]
    hard = losses >= _limit(losses.detach(), threshold, min_kept)
    losses = losses[hard]
    weights = torch.ones_like(losses) if weight is None else weight[labels[labelled][hard]]
    return mean_over_processes((weights * losses).sum(), weights.sum())


def _limit(losses, threshold, min_kept):
    """Smallest loss of a hard pixel."""
    limit = losses.new_tensor(threshold).log().neg()
    if not losses.numel():
        return limit
    kept = max(1, int(min_kept * losses.numel()))
    return torch.minimum(limit, losses.topk(kept, sorted=False).values.min())
