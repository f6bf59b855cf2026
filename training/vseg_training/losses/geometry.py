# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of depth and normals, and the weighting of several tasks."""
import torch
from torch import distributed, nn, Tensor
from torch.nn import functional as F

from .mean import mean_over_processes
from ..models.layers import resize_labels


def weighted_cross_entropy(scores: Tensor, bins: Tensor, sharpness: float = 0.2) -> Tensor:
    """
    Cross-entropy of bins in which a near miss costs less (Cao et al., 2018; VNL).

    L = -mean over pixels of sum_j H_ij log p_j, with H_ij proportional to
    exp(-sharpness (i - j)^2) and of sum 1 over j, where i is the true bin.

    Args:
        scores: Float [B, bins, h, w].
        bins: Int64 [B, H, W], -1 where the depth is not known.
        sharpness: Above 0.

    Returns:
        Scalar >= 0; 0 where no depth is known.

    Examples:
        >>> scores, bins = torch.zeros(1, 4, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
        >>> round(weighted_cross_entropy(scores, bins).item(), 4)  # log 4, whatever H is
        1.3863
        >>> weighted_cross_entropy(scores, bins - 1).item()
        0.0
    """
    bins = resize_labels(bins, scores.shape[2:])
    known = bins >= 0
    log_shares = scores.float().log_softmax(1).permute(0, 2, 3, 1)[known]
    places = torch.arange(scores.shape[1], device=scores.device, dtype=torch.float32)
    wanted = (-sharpness * (places - places[:, None]).square()).softmax(1)
    total = (wanted[bins[known]] * -log_shares).sum()
    return mean_over_processes(total, known.sum().to(total.dtype))


def normals_loss(normals: Tensor, truth: Tensor) -> Tensor:
    """
    One minus the cosine of the angle between normals (Eigen and Fergus, 2015).

    Args:
        normals: Float [B, 3, h, w], of any length.
        truth: Float [B, 3, H, W], unit vectors; 0 where they are not known.

    Returns:
        Scalar in [0, 2], a mean over the pixels of which the truth is known.

    Examples:
        >>> up = torch.tensor([0.0, -1.0, 0.0]).view(1, 3, 1, 1)
        >>> normals_loss(5 * up, up).item(), normals_loss(-up, up).item()
        (0.0, 2.0)
    """
    truth = F.interpolate(truth, normals.shape[2:], mode='nearest-exact')
    known = truth.square().sum(1) > 0.5
    cosine = (F.normalize(normals.float(), dim=1, eps=1e-6) * truth).sum(1)
    total = ((1 - cosine) * known).sum()
    return mean_over_processes(total, known.sum().to(total.dtype))


class KendallWeights(nn.Module):
    """
    Weights of tasks by their learned variances (Kendall et al., 2018, for likelihoods of classes).

    L = sum_i exp(-s_i) L_i + s_i / 2, with s_i = log sigma_i^2, which starts at 0. A task that a
    batch says nothing of (L_i = 0) does not count, or its s_i would fall without end.

    Args:
        tasks: Names of the terms.

    Examples:
        >>> KendallWeights(['scores', 'depth'])({'scores': torch.tensor(1.0),
        ...                                      'depth': torch.tensor(2.0)}).item()
        3.0
    """

    def __init__(self, tasks: list[str]) -> None:
        super().__init__()
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(()))
                                               for name in tasks})

    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        """Sum up scalars by the names of ``tasks``, each weighted before by its own weight."""
        total = torch.zeros((), device=next(iter(losses.values())).device)
        for name, variance in self.log_variances.items():
            weighted = (-variance).exp() * losses[name] + variance / 2
            total = total + torch.where(_of_any_process(losses[name] != 0), weighted, 0.0)
        return total


def _of_any_process(found: Tensor) -> Tensor:
    """Whether a bool scalar is True in this process or in another that trains with it."""
    if distributed.is_available() and distributed.is_initialized():
        count = found.float()
        distributed.all_reduce(count)
        found = count > 0
    return found
