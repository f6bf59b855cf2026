# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
From coarse class scores to the label image, at a cost that follows the boundaries.

Bilinear upsampling is a convex combination of four neighbours: where all four corners of a coarse
cell have the same argmax, so has every pixel in it. Only the other cells need arithmetic, and in
those only the classes whose best corner reaches the best of all worst corners.
"""
from functools import lru_cache
from typing import Any, Optional

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.jit import jit

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]

LIMIT = np.float32(1e38)  # scores beyond it count as it: sums and differences stay finite


def decode(scores: npt.NDArray[Any], size: tuple[int, int], *, confidence: bool = False,
           table: Optional[Bytes] = None) -> tuple[Bytes, Optional[Bytes]]:
    """
    Upsample scores bilinearly (align_corners=False) and take the argmax; the first wins a tie.

    Args:
        scores: of K <= 255 classes, float32 [K, h, w]; NaN counts as lowest.
        size: height and width of the label image, larger or smaller than the scores.
        confidence: whether to compute it.
        table: uint8 [256] that renames the labels.

    Returns:
        Labels uint8 [H, W], and their confidence uint8 [H, W] or None: 255 times the largest
        softmax probability, within 1.

    >>> scores = np.float32([[[4, 0]], [[0, 4]], [[3, 3]]])     # three classes, two cells
    >>> labels, confidence = decode(scores, (1, 12), confidence=True)
    >>> labels.tolist()
    [[0, 0, 0, 0, 0, 2, 2, 1, 1, 1, 1, 1]]
    >>> confidence.shape, confidence.dtype
    ((1, 12), dtype('uint8'))
    """
    first_y, weight_y, starts_y = axis(scores.shape[1], size[0])
    first_x, weight_x, starts_x = axis(scores.shape[2], size[1])
    cells = _cells(np.ascontiguousarray(scores, np.float32))
    labels = np.empty(size, np.uint8)
    _fill(cells, cells.argmax(2), weight_y, starts_y, weight_x, starts_x, labels)
    largest = None
    if confidence:
        largest = np.empty(size, np.uint8)
        _confidence(cells, first_y, weight_y, first_x, weight_x, largest)
    if table is not None:
        labels = cv2.LUT(labels, table)
    return labels, largest


def decode_dense(scores: npt.NDArray[Any], size: tuple[int, int]) -> Bytes:
    """Upsample every class everywhere: the labels of ``decode``, for tests and benchmarks."""
    first_y, weight_y, _ = axis(scores.shape[1], size[0])
    first_x, weight_x, _ = axis(scores.shape[2], size[1])
    best = np.full(size, -np.inf, np.float32)
    labels = np.zeros(size, np.uint8)
    finite = np.fmin(np.fmax(np.float32(scores), -LIMIT), LIMIT)  # fmax leaves out NaN
    for index, plane in enumerate(finite):
        next_y = np.minimum(first_y + 1, plane.shape[0] - 1)
        tall = plane[first_y] * (1 - weight_y)[:, None] + plane[next_y] * weight_y[:, None]
        next_x = np.minimum(first_x + 1, plane.shape[1] - 1)
        full = tall[:, first_x] * (1 - weight_x) + tall[:, next_x] * weight_x
        wins = full > best
        labels[wins] = index
        best[wins] = full[wins]
    return labels


@lru_cache(maxsize=64)
def axis(coarse: int, full: int) -> tuple[Places, Floats, Places]:
    """
    Return how ``full`` output places lie on ``coarse`` cells.

    Returns:
        For each place the cell before it, int64 [full], and the weight of the cell after it,
        float32 [full]; for each cell, and after the last, its first place, int64 [coarse + 1].
    """
    place = np.maximum((np.arange(full, dtype=np.float64) + 0.5) * coarse / full - 0.5, 0)
    first = np.minimum(place.astype(np.int64), coarse - 1)
    weight = np.where(first < coarse - 1, place - first, 0).astype(np.float32)
    return first, weight, np.searchsorted(first, np.arange(coarse + 1))


@jit
def _cells(scores: Floats) -> Floats:
    """Finite scores [h + 1, w + 1, K]: the last row and column twice, so all have neighbours."""
    classes, height, width = scores.shape
    cells = np.empty((height + 1, width + 1, classes), np.float32)
    for c in range(classes):
        for y in range(height + 1):
            for x in range(width + 1):
                score = scores[c, min(y, height - 1), min(x, width - 1)]
                cells[y, x, c] = min(score, LIMIT) if score > -LIMIT else -LIMIT
    return cells


@jit
def _candidates(cells: Floats, y: int, x: int, keep: Places) -> int:
    """Classes that can win between four corners, in order, into keep; returns their number."""
    bound = -LIMIT
    for c in range(cells.shape[2]):
        bound = max(bound, min(min(cells[y, x, c], cells[y, x + 1, c]),
                               min(cells[y + 1, x, c], cells[y + 1, x + 1, c])))
    count = 0
    for c in range(cells.shape[2]):
        if (cells[y, x, c] >= bound or cells[y, x + 1, c] >= bound
                or cells[y + 1, x, c] >= bound or cells[y + 1, x + 1, c] >= bound):
            keep[count] = c
            count += 1
    return count


@jit
def _mixed_cell(cells: Floats, y: int, x: int, keep: Places, rows: tuple[int, int],
                cols: tuple[int, int], weight_y: Floats, weight_x: Floats, top: Floats,
                winner: Floats, labels: Bytes) -> None:
    """Label the pixels [rows) x [cols) of a cell; the loops over columns vectorise."""
    size = cols[1] - cols[0]
    for row in range(rows[0], rows[1]):
        down = weight_y[row]
        up = np.float32(1) - down
        top[:size] = -np.inf
        for c in keep:
            first = cells[y, x, c] * up + cells[y + 1, x, c] * down
            last = cells[y, x + 1, c] * up + cells[y + 1, x + 1, c] * down
            label = np.float32(c)
            for i in range(size):
                right = weight_x[cols[0] + i]
                value = first * (np.float32(1) - right) + last * right
                if value > top[i]:
                    top[i] = value
                    winner[i] = label
        for i in range(size):
            labels[row, cols[0] + i] = np.uint8(winner[i])


@jit
def _fill(cells: Floats, best: Places, weight_y: Floats, starts_y: Places, weight_x: Floats,
          starts_x: Places, labels: Bytes) -> None:
    """Label all pixels, cell by cell."""
    keep = np.empty(cells.shape[2], np.int64)
    top, winner = np.empty(len(weight_x), np.float32), np.empty(len(weight_x), np.float32)
    for y in range(cells.shape[0] - 1):
        rows = starts_y[y], starts_y[y + 1]
        x = 0
        while x < cells.shape[1] - 1:
            # a run of cells whose corners all have this label is filled row by row
            label, run = best[y, x], x
            while (run < cells.shape[1] - 1
                   and best[y, run] == label and best[y, run + 1] == label
                   and best[y + 1, run] == label and best[y + 1, run + 1] == label):
                run += 1
            if run > x:
                for row in range(rows[0], rows[1]):
                    labels[row, starts_x[x]:starts_x[run]] = label
                x = run
            else:
                count = _candidates(cells, y, x, keep)
                _mixed_cell(cells, y, x, keep[:count], rows, (starts_x[x], starts_x[x + 1]),
                            weight_y, weight_x, top, winner, labels)
                x += 1


@jit
def _confidence(cells: Floats, first_y: Places, weight_y: Floats, first_x: Places,
                weight_x: Floats, largest: Bytes) -> None:
    """
    Compute all classes, a row at a time and class by class: the compiler vectorises these loops.

    exp(d) is (1 + u + u^2 / 2)^64 with u = d / 64, d clamped to -16: off by less than 1e-4.
    """
    classes = cells.shape[2]
    wide = np.empty((2, classes, len(first_x)), np.float32)  # rows y and y + 1 of cells, upsampled
    values = np.empty((classes, len(first_x)), np.float32)
    top = np.empty(len(first_x), np.float32)
    total = np.empty(len(first_x), np.float32)
    one, half = np.float32(1), np.float32(0.5)
    ready = -1
    for row in range(len(first_y)):
        y, down = first_y[row], weight_y[row]
        if y != ready:
            ready = y
            for side in range(2):
                for c in range(classes):
                    for col in range(len(first_x)):
                        x, right = first_x[col], weight_x[col]
                        wide[side, c, col] = (cells[y + side, x, c] * (one - right)
                                              + cells[y + side, x + 1, c] * right)
        top[:] = -np.inf
        for c in range(classes):
            for col in range(len(first_x)):
                value = wide[0, c, col] * (one - down) + wide[1, c, col] * down
                values[c, col] = value
                top[col] = max(top[col], value)
        total[:] = 0
        for c in range(classes):
            for col in range(len(first_x)):
                u = max(values[c, col] - top[col], np.float32(-16)) * np.float32(1 / 64)
                power = one + u + u * u * half
                for _ in range(6):
                    power *= power
                total[col] += power
        for col in range(len(first_x)):
            largest[row, col] = np.uint8(np.float32(255) / total[col] + half)
