# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Supervision of the backbone's stages: overparameterised training, and its rival."""
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn, Tensor

from .maps import shrink
from ..models.auxiliary import AuxiliaryModule, basic_cells, read_cells


Loss = Callable[[Tensor, Tensor], Tensor]  # of maps [B, K, h, w] and truth [B, H, W]


class Overparameterised(nn.Module):
    """
    Train the backbone as a part of a wider network too (Liu's thesis, Sec. 6.3).

    L_aux of Eq. 6.2: the task's own loss of a classifier on an auxiliary module over the
    backbone's stages (Eq. 6.1), which exists only while the network trains. The thesis' weight is
    1; it says no more of the loss than that it has the same labels. The module is to learn the
    same task, so where a recipe mines hard pixels or weighs classes, it does so here as well. Of
    several tasks it learns one (AT_1 and AT_2 there), ``of`` in a recipe; two terms learn two.

    Args:
        num_classes: K, or the bins of depth.
        stages: Channels of the backbone's stages.
        adapter: Of the basic module: 1x1 or 3x3 as in the thesis, or another of
            ``models.auxiliary.ADAPTERS``.
        aggregate: Of the basic module: concat as in the thesis, or sum.
        channels: Of what an adapter gives.
        cells: Of a searched module, lists of five as in ``models.auxiliary.Cell``, instead of the
            basic module's; none: that.

    Raises:
        ValueError: An option is unknown, or cells stand beside another adapter or aggregate.

    Examples:
        >>> term = Overparameterised(5, (16, 24, 40), channels=8)
        >>> tuple(term.classify.weight.shape)
        (5, 24, 1, 1)
    """

    def __init__(self, num_classes: int, stages: Sequence[int], adapter: str = '1x1',
                 aggregate: str = 'concat', channels: int = 64, cells: Sequence[Any] = ()
                 ) -> None:
        super().__init__()
        if cells and (adapter, aggregate) != ('1x1', 'concat'):
            raise ValueError('cells name their own adapters and aggregators: leave adapter and '
                             'aggregate out')
        basic = basic_cells(len(stages), adapter, aggregate)
        chosen = read_cells(cells, len(stages)) or basic
        self.module = AuxiliaryModule(stages, chosen, channels)
        self.classify = nn.Conv2d(self.module.width, num_classes, 1)

    def forward(self, stages: Sequence[Tensor], labels: Tensor, loss: Loss,
                counted: Tensor | None = None) -> Tensor:
        """
        Compute L_aux.

        Args:
            stages: Of the backbone, float [B, C', h', w'] each, coarsest last.
            labels: Int64 [B, H, W], what ``loss`` takes.
            loss: The task's.
            counted: Bool [B, H', W'], False for padding, which enters no convolution.

        Returns:
            Scalar.
        """
        maps = [_without_padding(stage, counted) for stage in stages]
        return loss(self.classify(self.module(maps)), labels)


class DeepSupervision(nn.Module):
    """
    A classifier on every stage of the backbone (thesis, Sec. 6.4.2, "deep supervision").

    L = sum over stages of the task's own loss. The thesis' weight is 0.1.

    Args:
        num_classes: K, or the bins of depth.
        stages: Channels of the backbone's stages.

    Examples:
        >>> [tuple(x.weight.shape) for x in DeepSupervision(5, (16, 24)).classify]
        [(5, 16, 1, 1), (5, 24, 1, 1)]
    """

    def __init__(self, num_classes: int, stages: Sequence[int]) -> None:
        super().__init__()
        self.classify = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in stages)

    def forward(self, stages: Sequence[Tensor], labels: Tensor, loss: Loss,
                counted: Tensor | None = None) -> Tensor:
        """Sum up the losses; arguments as in ``Overparameterised``."""
        losses = [loss(classify(_without_padding(stage, counted)), labels)
                  for classify, stage in zip(self.classify, stages)]
        total = losses[0]
        for each in losses[1:]:
            total = total + each
        return total


def _without_padding(stage: Tensor, counted: Tensor | None) -> Tensor:
    """A stage with 0 where there is padding, so that neither means nor neighbours see it."""
    # not masked_fill, which loses the channels-last layout
    return stage if counted is None else torch.where(shrink(counted, stage)[:, None], stage, 0)
