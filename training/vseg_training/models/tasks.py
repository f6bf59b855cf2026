# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Depth and normals beside classes: further channels of a network's last layer."""
from collections.abc import Sequence
import math

import torch
from torch import nn, Tensor

from ros_vseg.depth import DepthRange

from .network import Output
from .options import DepthTask, Tasks


def widened(layer: nn.Module, extra: int) -> nn.Module:
    """
    Make a last layer anew with further channels.

    Args:
        layer: A convolution or transposed convolution.
        extra: How many channels more.

    Returns:
        A layer of the same kind with random weights.
    """
    assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    sides = layer.kernel_size, layer.stride, layer.padding
    return type(layer)(layer.in_channels, layer.out_channels + extra, *sides)  # type: ignore


def of_classes(layer: nn.Module, num_classes: int) -> list[Tensor]:
    """Weight and bias of a last layer as far as they are of the classes, as views."""
    weight, bias = layer.get_parameter('weight').data, layer.get_parameter('bias').data
    outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    return [weight.narrow(outputs, 0, num_classes), bias[:num_classes]]


def check(tasks: Tasks) -> None:
    """Raise ValueError for options of tasks that mean nothing; the message names the option."""
    if tasks.weighting not in ('fixed', 'kendall'):
        raise ValueError(f'tasks.weighting {tasks.weighting!r} is unknown: use fixed or kendall')
    if tasks.weighting == 'kendall' and not tasks.channels:
        raise ValueError('tasks.weighting kendall weights several tasks: add tasks.depth or '
                         'tasks.normals, or leave it out')
    depth = tasks.depth
    if depth is None:
        return
    if not 0 < depth.nearest < depth.farthest < math.inf:
        raise ValueError(f'tasks.depth has nearest {depth.nearest} and farthest {depth.farthest}: '
                         'give two distances in metres above 0, the smaller one as nearest')
    if depth.bins < 2:
        raise ValueError(f'tasks.depth.bins is {depth.bins}: use 2 or more')
    for name in ('focal', 'sharpness'):
        value = getattr(depth, name)
        if not 0 < value < math.inf:
            raise ValueError(f'tasks.depth.{name} is {value}: give a number above 0')


def split(scores: Tensor, num_classes: int, tasks: Tasks) -> dict[str, Tensor]:
    """
    Split a last layer's channels into those of each task.

    Args:
        scores: Float [..., K + extra, h, w].
        num_classes: K.
        tasks: Of the network.

    Returns:
        scores [..., K, h, w], and of tasks that exist depth [..., bins, h, w], scores of the bins,
        and normals [..., 3, h, w], of any length.
    """
    parts = {'scores': num_classes}
    if tasks.depth:
        parts['depth'] = tasks.depth.bins
    if tasks.normals:
        parts['normals'] = 3
    return dict(zip(parts, scores.split(list(parts.values()), -3)))


def add_to(output: Output, scores: Tensor, num_classes: int, tasks: Tasks) -> None:
    """Put what ``split`` gives of clips' scores [B, L, K + extra, h, w] into an output."""
    parts = split(scores, num_classes, tasks)
    output['scores'] = parts['scores']
    if 'depth' in parts:
        output['depth'] = parts['depth']
    if 'normals' in parts:
        output['normals'] = parts['normals']


def outputs_of(classes: Sequence[str], tasks: Tasks) -> list[str]:
    """Names of a last layer's channels: those of equal name mean the same in two networks."""
    names, depth = list(classes), tasks.depth
    if depth:
        names += [f'bin {number} of {depth.bins}, {depth.nearest:g} to {depth.farthest:g} m at '
                  f'{depth.focal:g}' for number in range(depth.bins)]
    if tasks.normals:
        names += [f'normal {axis}' for axis in 'xyz']
    return names


def with_known(own: Tensor, wanted: Sequence[str], value: Tensor, known: Sequence[str],
               axis: int = 0) -> Tensor | None:
    """
    Put the known channels of a last layer into another's weight or bias.

    Args:
        own: Of the layer that starts, with a channel for each of ``wanted`` along ``axis``.
        wanted: As ``outputs_of``.
        value: Of the layer that is known, with channels ``known``.
        known: Likewise.
        axis: Of the channels.

    Returns:
        A tensor like ``own``; None where the shapes do not fit.
    """
    sizes = [list(x.shape) for x in (own, value)]
    if [size.pop(axis) for size in sizes] != [len(wanted), len(known)] or sizes[0] != sizes[1]:
        return None
    merged = own.detach().clone()
    for row, name in enumerate(known):
        if name in wanted:
            merged.select(axis, wanted.index(name)).copy_(value.select(axis, row))
    return merged


def range_of(task: DepthTask) -> DepthRange:
    """What the runtime must know of depths."""
    return DepthRange(task.nearest, task.farthest, task.focal)


def bins_of(depth: Tensor, task: DepthTask) -> Tensor:
    """
    Find the bins that depths fall into; those out of range are in the first or last.

    Args:
        depth: Float in metres, 0 where it is not known.
        task: Of the bins.

    Returns:
        Int64 of the same shape, -1 where the depth is not known.

    Examples:
        >>> bins_of(torch.tensor([0, 1, 1.9, 2.1, 300]), DepthTask(bins=2, nearest=1, farthest=4))
        tensor([-1,  0,  0,  1,  1])
    """
    width = math.log(task.farthest / task.nearest) / task.bins
    number = ((depth.clamp(min=1e-6) / task.nearest).log() / width).floor().long()
    return number.clamp(0, task.bins - 1).masked_fill(depth <= 0, -1)


def metres(scores: Tensor, task: DepthTask) -> Tensor:
    """
    Depth by the mean of its logarithm over the bins (Cao et al., 2018).

    Args:
        scores: Of the bins, float [..., bins, h, w].
        task: Of the bins.

    Returns:
        Metres, float32 [..., h, w].

    Examples:
        >>> metres(torch.zeros(2, 1, 1), DepthTask(bins=2, nearest=1, farthest=4))
        tensor([[2.]])
    """
    width = math.log(task.farthest / task.nearest) / task.bins
    centres = math.log(task.nearest) + width * (
        torch.arange(task.bins, device=scores.device, dtype=torch.float32) + 0.5)
    shares = scores.float().softmax(-3)
    return (shares * centres[:, None, None]).sum(-3).exp()
