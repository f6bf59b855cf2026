# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Pixel-wise distillation (PI)."""
from torch import nn, Tensor
from torch.nn import functional as F

from .maps import on_one_grid, same_width, shrink
from ..losses.mean import mean_over_processes


class PixelWise(nn.Module):
    """
    KL divergence of the class probabilities in every pixel (PI; Liu et al., 2019).

    L = tau^2 / (B H W) sum_i KL(q_i^T || q_i^S), with q = softmax over classes of scores / tau.
    Liu's thesis prints the divergence the other way round (Eq. 3.1); like its code, and like
    Hinton et al. (2015), this one weighs classes by the teacher. That code sums over the batch and
    weighs the sum by 10, with small batches: with this mean 10 is much already, and 40 has cost a
    student that was all but trained 11 points of mIoU.

    Args:
        tau: Temperature.

    Examples:
        >>> import torch
        >>> scores = torch.tensor([30.0, 0.0]).view(1, 2, 1, 1)
        >>> PixelWise()(torch.zeros_like(scores), scores)  # log 2
        tensor(0.6931)
    """

    def __init__(self, tau: float = 1.0) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None = None) -> Tensor:
        """
        Compare scores.

        Args:
            student: Float [B, K, h, w].
            teacher: Float [B, K, h', w'].
            counted: Bool [B, H, W], False for padding.

        Returns:
            Scalar >= 0.

        Raises:
            ValueError: The numbers of classes differ.
        """
        same_width(student, teacher, 'pixel-wise distillation')
        student, teacher = on_one_grid(student, teacher)
        inside = shrink(counted, teacher)
        logs, target = F.log_softmax(student / self.tau, 1), F.log_softmax(teacher / self.tau, 1)
        divergence = (target.exp() * (target - logs)).sum(1)
        total = (divergence * inside).sum()
        return self.tau ** 2 * mean_over_processes(total, inside.sum().to(total.dtype))
