# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Attention transfer (AT)."""
from torch import nn, Tensor
from torch.nn import functional as F

from .maps import on_one_grid, shrink


class AttentionTransfer(nn.Module):
    """
    Where two networks have strong activations (AT; Zagoruyko and Komodakis, 2017).

    L = |q^S / |q^S| - q^T / |q^T||^2, a mean over images, with q = sum over channels of x^2 and
    norms over space. Without the norms a wide teacher would outweigh any student.

    Examples:
        >>> import torch
        >>> left, right = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, -1.0]]]])
        >>> AttentionTransfer()(left, right)
        tensor(2.)
        >>> AttentionTransfer()(left, -9 * left)  # neither size nor sign count
        tensor(0.)
    """

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None = None) -> Tensor:
        """
        Compare features.

        Args:
            student: Float [B, C, h, w].
            teacher: Float [B, C', h', w'].
            counted: Bool [B, H, W]; padding (False) is left out.

        Returns:
            Scalar in [0, 2].
        """
        student, teacher = on_one_grid(student, teacher)
        inside = shrink(counted, teacher)
        difference = _attention(student, inside) - _attention(teacher, inside)
        return difference.square().sum(1).mean()


def _attention(features: Tensor, inside: Tensor) -> Tensor:
    """Attention map of unit length, float [B, h*w]."""
    energy = features.square().sum(1) * inside
    return F.normalize(energy.flatten(1), dim=1)
