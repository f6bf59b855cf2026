# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Cityscapes' categories: groups of classes, inside which confusion is no error."""
from collections.abc import Sequence

import numpy as np

from ros_vseg.media.iou import ConfusionMatrix


CATEGORIES = {
    'flat': ('road', 'sidewalk'),
    'construction': ('building', 'wall', 'fence'),
    'object': ('pole', 'traffic_light', 'traffic_sign'),
    'nature': ('vegetation', 'terrain'),
    'sky': ('sky',),
    'human': ('person', 'rider'),
    'vehicle': ('car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle')}


def by_category(confusion: ConfusionMatrix, names: Sequence[str]) -> ConfusionMatrix | None:
    """
    Sum up a confusion matrix by Cityscapes' categories (Cordts et al., 2016, Sec. 4.2).

    Args:
        confusion: Of K classes.
        names: Of the K classes, in their order.

    Returns:
        A matrix of the 7 ``CATEGORIES``, whose ``iou`` is the category IoU; None where the classes
        are not Cityscapes' 19.

    Examples:
        >>> names = [name for group in CATEGORIES.values() for name in group]
        >>> confusion = ConfusionMatrix(19)
        >>> confusion.counts[0, 1] = 5  # road, predicted as sidewalk
        >>> confusion.mean_iou(), by_category(confusion, names).mean_iou()
        (0.0, 1.0)
        >>> by_category(ConfusionMatrix(2), ['road', 'car']) is None
        True
    """
    places = {name: number for number, group in enumerate(CATEGORIES.values()) for name in group}
    if sorted(names) != sorted(places):
        return None
    merged = ConfusionMatrix(len(CATEGORIES))
    rows = np.array([places[name] for name in names])
    columns = np.append(rows, len(CATEGORIES))  # a prediction of no class is of no category
    np.add.at(merged.counts, (rows[:, None], columns), confusion.counts)
    return merged
