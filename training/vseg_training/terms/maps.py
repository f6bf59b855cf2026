# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What the terms do to maps before they compare them."""
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.layers import counted_cells, resize, resize_labels


def full_precision(x: Tensor) -> Tensor:
    """Float64 as it is, anything else as float32."""
    return x if x.dtype == torch.float64 else x.float()


def product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product in the precision of its operands, also under autocast."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def on_one_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """
    Prepare the maps of two networks to be compared.

    Args:
        student: Float [B, C, h, w].
        teacher: Float [B, C', h', w'].

    Returns:
        The student's map resized to [B, C, h', w'], and the teacher's cut off from gradients.
    """
    student, teacher = full_precision(student), full_precision(teacher.detach())
    if student.shape[2:] != teacher.shape[2:]:
        student = resize(student, teacher.shape[2:])
    return student, teacher


def shrink(counted: Tensor | None, like: Tensor) -> Tensor:
    """
    Find the cells of a map that are not padding.

    Args:
        counted: Bool [B, H, W], False for padding; None: there is none.
        like: The map, [B, C, h, w].

    Returns:
        Bool [B, h, w].
    """
    if counted is None:
        return like.new_ones(like[:, 0].shape, dtype=torch.bool)
    return counted_cells(counted, like.shape[2:])


def shown(images: Tensor, like: Tensor) -> Tensor:
    """Images [B, 3, H, W] in 0..255 as 0..1 at a map's size, each cell the mean of its pixels."""
    height, width = like.shape[2:]
    return F.adaptive_avg_pool2d(images.detach().to(like.dtype) / 255, (height, width))


def same_width(student: Tensor, teacher: Tensor, term: str) -> None:
    """Raise ValueError if two maps differ in their number of channels."""
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f'{term}: the student has {student.shape[1]} channels and the teacher '
            f'{teacher.shape[1]}: give the term widths=({student.shape[1]}, {teacher.shape[1]}), '
            'or maps with as many')


def side_of_patches(like: Tensor, least: int, max_nodes: int) -> int:
    """
    Find how large patches of a map are.

    Args:
        like: The map, [B, C, h, w].
        least: Side of the smallest ones.
        max_nodes: They grow until there are no more of them.

    Examples:
        >>> side_of_patches(torch.zeros(1, 1, 90, 120), 1, 1000)  # 23 x 30
        4
    """
    height, width = like.shape[2:]
    side = least
    while -(-height // side) * -(-width // side) > max_nodes:
        side += 1
    return side


def nodes_of(features: Tensor, inside: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """
    Directions of the mean features of patches.

    Args:
        features: Float [B, C, h, w].
        inside: Bool [B, h, w]; other cells are in no patch.
        side: Of a patch.

    Returns:
        Unit vectors float [B, C, M], 0 for patches without a cell; bool [B, M], which have one.
    """
    kept = inside[:, None].to(features.dtype)
    # a sum over the patch would do as well: its length cancels in the direction
    means = F.avg_pool2d(features * kept, side, ceil_mode=True)
    filled = F.avg_pool2d(kept, side, ceil_mode=True)[:, 0] > 0
    return F.normalize(means.flatten(2), dim=1, eps=1e-6), filled.flatten(1)


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """
    Mean feature of every class of every image.

    Args:
        features: Float [B, C, h, w].
        labels: Int64 [B, H, W], resized to the features; ids of K and above do not count.
        num_classes: K.

    Returns:
        Means float [B, K, C], 0 where a class is absent, and its cells per image [B, K].
    """
    members = one_hot(labels, features.shape[2:], num_classes).to(features.dtype).flatten(2)
    counts = members.sum(2)
    means = product(members, features.flatten(2).transpose(1, 2))
    return means / counts.clamp(min=1)[..., None], counts


def one_hot(labels: Tensor, size: Sequence[int], num_classes: int) -> Tensor:
    """Labels int64 [B, H, W] as bool [B, K, h, w] at another size; void is in no class."""
    small = resize_labels(labels, size)
    known = F.one_hot(small.clamp(0, num_classes), num_classes + 1)[..., :num_classes]
    return known.permute(0, 3, 1, 2).bool()
