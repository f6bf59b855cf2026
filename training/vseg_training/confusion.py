# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Which classes a model takes for which: the confusion matrix in percent, and its picture."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .metrics import ConfusionMatrix


def confusion_rows(confusion: ConfusionMatrix, names: Sequence[str]) -> dict[str, Any]:
    """
    Percentages of a confusion matrix as plain values.

    Args:
        confusion: Counts of K classes.
        names: Of the K classes.

    Returns:
        ``true``: names of the rows; ``predicted``: names of the columns, with 'void' at the end
        if a pixel was given no class; ``percent``: a row per true class, of its pixels the share
        that each column got. A row sums up to 100; it is None for a class that never occurs.
    """
    columns = [*names, 'void']
    counts = confusion.counts
    if not counts[:, -1].any():
        columns, counts = columns[:-1], counts[:, :-1]
    rows: list[list[float] | None] = []
    for row in counts:
        total = row.sum()
        rows.append([round(100 * float(count) / total, 2) for count in row] if total else None)
    return {'true': list(names), 'predicted': columns, 'percent': rows}


def draw_confusion(rows: dict[str, Any], title: str, path: Path) -> None:
    """
    Draw a confusion matrix, the darker the more.

    Args:
        rows: As of ``confusion_rows``; a class that never occurs has an empty row.
        title: Above the picture.
        path: Picture to write; its ending says in which format.

    Raises:
        ValueError: The format is unknown.
        OSError: The file cannot be written.
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    predicted = rows['predicted']
    empty = [np.nan] * len(predicted)
    percent = np.array([empty if row is None else row for row in rows['percent']], float)
    figure, axes = pyplot.subplots(
        figsize=(3 + 0.5 * len(predicted), 2.2 + 0.42 * len(percent)), layout='constrained')
    try:
        axes.imshow(percent, cmap='Blues', vmin=0, vmax=100, aspect='auto')
        for row, column in zip(*np.nonzero(percent >= 0.5)):
            value = percent[row, column]
            axes.text(column, row, f'{value:.0f}', ha='center', va='center', fontsize=8,
                      color='white' if value > 60 else 'black')
        axes.set_xticks(range(len(predicted)), predicted, rotation=45, ha='right')
        axes.set_yticks(range(len(percent)), rows['true'])
        axes.set_xlabel('predicted class')
        axes.set_ylabel('true class')
        axes.set_title(f'{title}\n% of the pixels of each true class', fontsize=10)
        figure.savefig(path, dpi=130)
    finally:
        pyplot.close(figure)
