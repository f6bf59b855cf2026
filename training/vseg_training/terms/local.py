# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Local similarity (LOCAL)."""
import torch
from torch import nn, Tensor

from .maps import on_one_grid, shrink
from ..losses.mean import mean_over_processes


NEIGHBOURS = [(down, across) for down in (0, 1, 2) for across in (0, 1, 2)
              if (down, across) != (1, 1)]


class LocalSimilarity(nn.Module):
    """
    How much a pixel differs from its neighbours (LOCAL; Xie et al., 2018; thesis, Table 4.1).

    L = mean over pixels i of (q_i^S - q_i^T)^2, with q_i = sum over its 8 neighbours j of
    |x_j - x_i|. A pixel with a neighbour outside the frame, or in padding, does not count. The
    thesis also calls the pair-wise term on these neighbours LOCAL (Table 3.7): that is ``pair``
    with patch 1 and reach 1.

    Examples:
        >>> import torch
        >>> flat, spot = torch.zeros(2, 1, 1, 3, 3)
        >>> spot[..., 1, 1] = 1  # differs from its 8 neighbours by 1
        >>> LocalSimilarity()(flat, spot)
        tensor(64.)
    """

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None = None) -> Tensor:
        """
        Compare scores or features.

        Args:
            student: Float [B, C, h, w].
            teacher: Float [B, C', h', w'].
            counted: Bool [B, H, W]; padding (False) is left out.

        Returns:
            Scalar >= 0; 0 for maps of fewer than 3 x 3 cells.
        """
        student, teacher = on_one_grid(student, teacher)
        inside = shrink(counted, teacher)
        if min(teacher.shape[2:]) < 3:
            return student.sum() * 0
        whole = _window(inside, 1, 1)
        for down, across in NEIGHBOURS:
            whole = whole & _window(inside, down, across)
        # a padded cell may hold anything, also what is not finite once it is squared
        student, teacher = (x.masked_fill(~inside[:, None], 0) for x in (student, teacher))
        difference = _local(student) - _local(teacher)
        total = (difference.square() * whole).sum()
        return mean_over_processes(total, whole.sum().to(total.dtype))


def _window(maps: Tensor, down: int, across: int) -> Tensor:
    """Maps [..., h - 2, w - 2] of what is beside each inner cell; (1, 1) is the cell itself."""
    height, width = maps.shape[-2:]
    return maps[..., down:height - 2 + down, across:width - 2 + across]


def _local(maps: Tensor) -> Tensor:
    """Sum of the distances to the 8 neighbours, float [B, h - 2, w - 2]."""
    centre = _window(maps, 1, 1)
    return sum((torch.linalg.vector_norm(_window(maps, *place) - centre, dim=1)
                for place in NEIGHBOURS), torch.zeros_like(centre[:, 0]))
