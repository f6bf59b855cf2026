# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Pair-wise distillation (PA)."""
import torch
from torch import nn, Tensor

from .maps import nodes_of, on_one_grid, product, shrink, side_of_patches
from ..losses.mean import mean_over_processes


class PairWise(nn.Module):
    """
    Similarity of pairs of patches (PA; Liu et al., 2019; Liu's thesis, Eq. 3.2).

    L = mean over nodes i and their alpha nearest nodes j of (a_ij^S - a_ij^T)^2, where a node is
    the mean feature of a patch of beta pixels and a_ij = f_i . f_j / (|f_i| |f_j|).

    Similarities are numbers whatever the width of the features, so that there is no adapter. The
    papers' weight is 10.

    Args:
        patch: Side of a patch, the root of beta.
        reach: A node is connected to those at most so many nodes away in height and in width, so
            that alpha = (2 reach + 1)^2, itself included; None: to all.
        max_nodes: A patch grows until there are no more nodes: their pairs fill the memory.

    Examples:
        >>> import torch
        >>> alike = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
        >>> different = torch.eye(2).view(1, 2, 1, 2)  # two pixels, orthogonal
        >>> PairWise(patch=1)(alike, different)  # two of the four pairs are wrong by 1
        tensor(0.5000)
    """

    def __init__(self, patch: int = 2, reach: int | None = None, max_nodes: int = 1024) -> None:
        super().__init__()
        self.patch, self.reach, self.max_nodes = patch, reach, max_nodes

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None = None) -> Tensor:
        """
        Compare features or scores.

        Args:
            student: Float [B, C, h, w].
            teacher: Float [B, C', h', w'].
            counted: Bool [B, H, W]; padding (False) is in no patch.

        Returns:
            Scalar in [0, 4].
        """
        student, teacher = on_one_grid(student, teacher)
        inside = shrink(counted, teacher)
        side = side_of_patches(teacher, self.patch, self.max_nodes)
        own, filled = nodes_of(student, inside, side)
        target, _ = nodes_of(teacher, inside, side)
        difference = product(own.transpose(1, 2), own) - product(target.transpose(1, 2), target)
        rows, columns = (-(-length // side) for length in teacher.shape[2:])
        connected = self._near(rows, columns, filled.device)
        connected = connected & filled[:, None] & filled[:, :, None]
        total = (difference.square() * connected).sum()
        return mean_over_processes(total, connected.sum().to(total.dtype))

    def _near(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Which pairs of nodes are connected, bool [M, M]."""
        node = torch.arange(rows * columns, device=device)
        row, column = node // columns, node % columns
        down, across = row[:, None] - row, column[:, None] - column
        distance = torch.maximum(down.abs(), across.abs())
        return distance <= (rows + columns if self.reach is None else self.reach)
