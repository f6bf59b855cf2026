# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy with online hard example mining (OHEM)."""
import torch
from torch import Tensor
from torch.nn import functional as F

from .mean import mean_over_processes


def ohem_cross_entropy(scores: Tensor, labels: Tensor, weight: Tensor | None = None,
                       threshold: float = 0.7, min_kept: float = 0.1) -> Tensor:
    """
    Mean cross-entropy of the hard pixels (Shrivastava et al., 2016, for pixels).

    Hard is a pixel whose true class has a probability below ``threshold``. At least the share
    ``min_kept`` of the labelled pixels is kept, the hardest first. In a group of processes the
    mean over them is that of all their pixels; ``min_kept`` is a share of each one's own.

    Args:
        scores: Float [B, K, H, W].
        labels: Int64 [B, H, W]; ids of K and above (void, padding) never count.
        weight: Float [K], makes it a mean weighted by the true class.
        threshold: In 0..1; 1 keeps every pixel.
        min_kept: In 0..1.

    Returns:
        Scalar >= 0; 0 without a labelled pixel.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([[0.0, 9.0], [0.0, 0.0]]).view(1, 2, 1, 2)
        >>> labels = torch.tensor([[[0, 0]]])
        >>> round(ohem_cross_entropy(scores, labels).item(), 4)  # the first pixel alone: log 2
        0.6931
        >>> ohem_cross_entropy(scores, torch.full_like(labels, 255)).item()
        0.0
    """
    labelled = labels < scores.shape[1]
    losses = F.cross_entropy(scores.float(), labels.where(labelled, -100), reduction='none')
    losses = losses[labelled]
    hard = losses >= _limit(losses.detach(), threshold, min_kept)
    losses = losses[hard]
    weights = torch.ones_like(losses) if weight is None else weight[labels[labelled][hard]]
    return mean_over_processes((weights * losses).sum(), weights.sum())


def _limit(losses: Tensor, threshold: float, min_kept: float) -> Tensor:
    """Smallest loss of a hard pixel."""
    limit = losses.new_tensor(threshold).log().neg()
    if not losses.numel():
        return limit
    kept = max(1, int(min_kept * losses.numel()))
    return torch.minimum(limit, losses.topk(kept, sorted=False).values.min())
