# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Feature mimicking (MIMIC)."""
from torch import nn, Tensor

from .maps import on_one_grid, same_width, shrink
from ..losses.mean import mean_over_processes


class Mimic(nn.Module):
    """
    Features of every pixel (MIMIC; Romero et al., 2015; Li et al., 2017; thesis, Table 3.7).

    L = mean over pixels and channels of (r(x^S) - x^T)^2, with a 1x1 convolution r.

    Args:
        widths: Channels of student and teacher, between which r maps. None: both have as many,
            and there is no r.

    Examples:
        >>> import torch
        >>> Mimic()(torch.zeros(1, 3, 2, 2), 2 * torch.ones(1, 3, 2, 2))
        tensor(4.)
    """

    def __init__(self, widths: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.adapter = nn.Identity() if widths is None else nn.Conv2d(*widths, 1)

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None = None) -> Tensor:
        """
        Compare features.

        Args:
            student: Float [B, C, h, w].
            teacher: Float [B, C', h', w'].
            counted: Bool [B, H, W]; padding (False) is left out.

        Returns:
            Scalar >= 0.

        Raises:
            ValueError: The widths differ and the term has no adapter.
        """
        student = self.adapter(student)
        same_width(student, teacher, 'feature mimicking')
        student, teacher = on_one_grid(student, teacher)
        inside = shrink(counted, teacher)
        difference = (student - teacher).square().mean(1)
        total = difference.masked_fill(~inside, 0).sum()
        return mean_over_processes(total, inside.sum().to(total.dtype))
