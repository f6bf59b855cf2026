# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Auxiliary module of overparameterised training (Liu's thesis, Sec. 6.3): a graph of cells."""
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn, Tensor
from torch.nn import functional as F


SEPARABLE = {'sep3': 1, 'sep3-d3': 3, 'sep3-d6': 6}  # their dilation
# of the thesis' six, a deformable 3x3 convolution is left out: it needs torchvision
SEARCHED = ('skip', '1x1', *SEPARABLE)
ADAPTERS = ('1x1', '3x3', *SEPARABLE)
AGGREGATORS = ('concat', 'sum')


class Cell(NamedTuple):
    """
    Two inputs, each through an adapter, aggregated to one map (thesis, Fig. 6.2).

    Attributes:
        first: Number of an input: a stage of the backbone, or an earlier cell, which are numbered
            on after the stages.
        second: Likewise.
        adapt_first: One of ``ADAPTERS``, or skip.
        adapt_second: Likewise.
        aggregate: One of ``AGGREGATORS``.
    """

    first: int
    second: int
    adapt_first: str
    adapt_second: str
    aggregate: str


def basic_cells(stages: int, adapter: str = '1x1', aggregate: str = 'concat') -> list[Cell]:
    """
    Cells of the basic module, h_l = h_(l-1) (.) A^l(O_l) (thesis, Eq. 6.1).

    Args:
        stages: How many there are, 2 or more.
        adapter: A, one of ``ADAPTERS``.
        aggregate: (.), one of ``AGGREGATORS``.

    Raises:
        ValueError: One of them is unknown.

    Examples:
        >>> [list(cell) for cell in basic_cells(3)]
        [[0, 1, '1x1', '1x1', 'concat'], [3, 2, 'skip', '1x1', 'concat']]
    """
    for name, value, known in (('adapter', adapter, ADAPTERS),
                               ('aggregate', aggregate, AGGREGATORS)):
        if value not in known:
            raise ValueError(f'{name} is {value!r}: use {", ".join(known)}')
    cells = [Cell(0, 1, adapter, adapter, aggregate)]
    for stage in range(2, stages):
        cells.append(Cell(stages + stage - 2, stage, 'skip', adapter, aggregate))
    return cells


def read_cells(given: Sequence[Any], stages: int) -> list[Cell]:
    """
    Check cells that a recipe lists.

    Args:
        given: Lists of five, as ``Cell`` has them.
        stages: How many there are.

    Raises:
        ValueError: A cell is not of that form; the message names it.
    """
    cells = []
    for number, tokens in enumerate(given):
        known = range(stages + number)
        right = isinstance(tokens, (list, tuple)) and len(tokens) == 5 and all(
            type(token) is int and token in known for token in tokens[:2]) and all(
            token in ('skip', *ADAPTERS) for token in tokens[2:4]) and tokens[4] in AGGREGATORS
        if not right:
            raise ValueError(
                f'cells has {tokens!r} at place {number}: give [input, input, adapter, adapter, '
                f'aggregator], with inputs of 0..{len(known) - 1} (the {stages} stages, then '
                f'earlier cells), adapters of {", ".join(("skip", *ADAPTERS))} and an aggregator '
                f'of {", ".join(AGGREGATORS)}')
        cells.append(Cell(*tokens))
    return cells


class AuxiliaryModule(nn.Module):
    """
    What widens a network while it trains: cells over the stages of its backbone.

    An adapter is a convolution and a batch norm, as the thesis has it, without activation; a
    separable one has a pointwise convolution between them. It works on its input's own grid; its
    result is then pooled to the coarsest stage's. A skip is the identity, but before a sum, where
    its input is of another width, the 1x1 adapter. Cells that the last one does not read, at any
    remove, are not built.

    Args:
        stages: Channels of the backbone's stages.
        cells: One or more.
        channels: Of what an adapter gives (the thesis says none).

    Attributes:
        width: Channels of the last cell.

    Examples:
        >>> module = AuxiliaryModule((16, 24, 40), basic_cells(3), 8)
        >>> module.width
        24
    """

    def __init__(self, stages: Sequence[int], cells: Sequence[Cell], channels: int = 64) -> None:
        super().__init__()
        self.cells: dict[int, Cell] = {}
        self.adapters = nn.ModuleDict()
        self.last = len(stages) + len(cells) - 1
        read, widths = _read(cells, len(stages)), dict(enumerate(stages))
        for number, cell in enumerate(cells, len(stages)):
            if number not in read:
                continue
            self.cells[number] = cell
            total = cell.aggregate == 'sum'
            adapters, outputs = zip(*(
                _adapter(kind, widths[source], channels, total)
                for source, kind in ((cell.first, cell.adapt_first),
                                     (cell.second, cell.adapt_second))))
            self.adapters[str(number)] = nn.ModuleList(adapters)
            widths[number] = channels if total else sum(outputs)
        self.width = widths[self.last]

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """
        Run the cells.

        Args:
            stages: The backbone's maps, float [B, C', h', w'] each, coarsest last.

        Returns:
            h_L, float [B, width, h, w] at the size of the last stage.
        """
        grid, maps = stages[-1].shape[2:], dict(enumerate(stages))
        for number, cell in self.cells.items():
            adapters = self.adapters[str(number)]
            assert isinstance(adapters, nn.ModuleList)
            first, second = (_pool(adapter(maps[source]), grid)
                             for adapter, source in zip(adapters, (cell.first, cell.second)))
            total = cell.aggregate == 'sum'
            maps[number] = first + second if total else torch.cat([first, second], 1)
        return maps[self.last]


def _read(cells: Sequence[Cell], stages: int) -> set[int]:
    """Numbers of what the last cell reads, at any remove, and its own."""
    read = {stages + len(cells) - 1}
    for number, cell in reversed(list(enumerate(cells, stages))):
        if number in read:
            read |= {cell.first, cell.second}
    return read


def _adapter(kind: str, inputs: int, channels: int, summed: bool) -> tuple[nn.Module, int]:
    """Build an adapter; return it and the channels that it gives."""
    if kind == 'skip' and (not summed or inputs == channels):
        return nn.Identity(), inputs
    layers: list[nn.Module] = []
    if kind in SEPARABLE:
        rate = SEPARABLE[kind]
        layers.append(nn.Conv2d(inputs, inputs, 3, padding=rate, dilation=rate, groups=inputs,
                                bias=False))
    side = 3 if kind == '3x3' else 1
    layers += [nn.Conv2d(inputs, channels, side, padding=side // 2, bias=False),
               nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers), channels


def _pool(x: Tensor, grid: torch.Size) -> Tensor:
    """Mean over cells of a coarser grid, so that all cells of a fine stage get a gradient."""
    return x if x.shape[2:] == grid else F.adaptive_avg_pool2d(x, (grid[0], grid[1]))
