# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Intra-class feature variation distillation (IFVD)."""
from torch import nn, Tensor
from torch.nn import functional as F

from .maps import class_means, on_one_grid, one_hot, product
from ..losses.mean import mean_over_processes


class IntraClassVariation(nn.Module):
    """
    How far pixels are from the mean of their class (IFVD; Wang et al., 2020).

    L = mean over labelled pixels i of (m_i^S - m_i^T)^2, where m_i is the cosine of the feature of
    i and the mean feature of i's class in the same image. Cosines are numbers whatever the width,
    so that there is no adapter. It needs labels. CIRKD (Yang et al., 2022) weighs it by 20.

    Args:
        num_classes: K.

    Examples:
        >>> import torch
        >>> labels = torch.zeros(1, 1, 2, dtype=torch.int64)
        >>> alike = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
        >>> different = torch.eye(2).view(1, 2, 1, 2)  # each at 45 degrees to their mean
        >>> IntraClassVariation(1)(alike, different, labels)  # (1 - cos 45)^2
        tensor(0.0858)
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """
        Compare features.

        Args:
            student: Float [B, C, h, w].
            teacher: Float [B, C', h', w'].
            labels: Int64 [B, H, W]; ids of K and above (void, padding) do not count.

        Returns:
            Scalar in [0, 4]; 0 without a labelled pixel.
        """
        student, teacher = on_one_grid(student, teacher)
        known = one_hot(labels, teacher.shape[2:], self.num_classes).any(1)
        difference = self._similarity(student, labels) - self._similarity(teacher, labels)
        total = (difference.square() * known).sum()
        return mean_over_processes(total, known.sum().to(total.dtype))

    def _similarity(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cosine of every pixel and the mean of its class, float [B, h, w]."""
        means, _ = class_means(features, labels, self.num_classes)
        directions = F.normalize(features.flatten(2), dim=1, eps=1e-6)
        cosines = product(F.normalize(means, dim=2, eps=1e-6), directions)
        members = one_hot(labels, features.shape[2:], self.num_classes)
        return (cosines.unflatten(2, features.shape[2:]) * members).sum(1)
