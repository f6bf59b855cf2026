# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What prototypes look at: a picture of the soft projection matrix P (MGCNet, Fig. 6)."""
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ros_vseg.labels import colorize, LabelSet
from ros_vseg.resize import resize_image

from .data.clips import ClipSource, Pixels
from .evaluate import Network, predict
from .models.per_frame import PerFrame
from .models.prototypes import PrototypeGeneration
from .models.student import Student
from .models.teacher import Teacher


WIDTH, MARGIN, TITLE = 320, 12, 36  # of a cell, between cells and of a line of titles, in pixels
LINE, SWATCH = 28, 18  # of a line of the legend, and of a colour in it, in pixels
FONT = cv2.FONT_HERSHEY_SIMPLEX
PAPER, INK = (250, 250, 250), (32, 32, 32)
SEED = 0  # which prototypes are shown: the same of every model with as many


class _Row(NamedTuple):
    """Cells of one frame, and the ids that its truth and prediction show."""

    cells: list[Pixels]
    shown: set[int]


def projection_maps(model: Student | Teacher, image: Pixels, chosen: Sequence[int]
                    ) -> npt.NDArray[np.float32]:
    """
    Chosen rows of P (MGCNet Eq. 1) of one frame, each as an image.

    Args:
        model: With prototypes, in eval mode.
        image: uint8 [H, W, 3] RGB at the size of the network.
        chosen: Indices of n prototypes.

    Returns:
        Float32 [n, h, w] in [0, 1]: the sigmoid of the map less its mean, over its standard
        deviation.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        frame = torch.as_tensor(image, device=device).permute(2, 0, 1)[None]
        _, features, _, projection = model.encode(frame)
    assert projection is not None   # whoever asks has prototypes
    maps = projection[0, chosen].float()
    maps = (maps - maps.mean(1, True)) / maps.std(1, keepdim=True).clamp_min(1e-12)
    return maps.sigmoid().unflatten(1, features.shape[2:]).cpu().numpy()


def _heat(plane: npt.NDArray[np.float32], size: tuple[int, int]) -> Pixels:
    """A map in [0, 1] as smooth colours uint8 [H, W, 3] RGB, the lighter the more."""
    plane = cv2.resize(plane, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    heat = cv2.applyColorMap(np.rint(255 * plane).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(heat, cv2.COLOR_BGR2RGB)


def _row(model: Student | Teacher, source: ClipSource[Any], place: tuple[int, int],
         size: Sequence[int], label_set: LabelSet, chosen: Sequence[int]) -> _Row:
    """Cells of one frame, which the stream sees after the frames that it remembers."""
    stream, (drive, position) = model.stream(), place
    keys = source.drives[drive][max(0, position - model.context_frames):position + 1]
    for key in keys:
        image, truth = source.read(key)
        sized = resize_image(image, size)
        labels = predict(stream, sized, truth.shape)
    cell = WIDTH, round(WIDTH * size[0] / size[1])
    pictures = (image, colorize(truth, label_set), colorize(labels, label_set))
    # colours, not ids, are averaged: smooth edges
    cells = [cv2.resize(picture, cell, interpolation=cv2.INTER_AREA) for picture in pictures]
    cells += [_heat(plane, cell) for plane in projection_maps(model, sized, chosen)]
    return _Row(cells, {*np.unique(truth).tolist(), *np.unique(labels).tolist()})


def _title(text: str) -> Pixels:
    """A title, centred, as uint8 [TITLE, WIDTH, 3]."""
    picture = np.full((TITLE, WIDTH, 3), PAPER, np.uint8)
    (width, height), _ = cv2.getTextSize(text, FONT, 0.65, 1)
    place = (WIDTH - width) // 2, (TITLE + height) // 2
    cv2.putText(picture, text, place, FONT, 0.65, INK, 1, cv2.LINE_AA)
    return picture


def _grid(titles: Sequence[str], rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Cells of equal size with even margins around them, and titles above."""
    height, width = rows[0][0].shape[:2]
    picture = np.full((TITLE + len(rows) * (height + MARGIN),
                       MARGIN + len(titles) * (width + MARGIN), 3), PAPER, np.uint8)
    for column, title in enumerate(titles):
        x = MARGIN + column * (width + MARGIN)
        picture[:TITLE, x:x + width] = _title(title)
        for row, cells in enumerate(rows):
            y = TITLE + row * (height + MARGIN)
            picture[y:y + height, x:x + width] = cells[column]
    return picture


def legend(ids: Iterable[int], label_set: LabelSet, width: int) -> Pixels:
    """
    Colours and names of classes, in columns of equal width.

    Args:
        ids: Of the classes to list; 255 and others of no class are left out.
        label_set: Their names and colours.
        width: Of the picture, in pixels.

    Returns:
        uint8 [H, width, 3] RGB, as many lines as it takes.
    """
    listed = sorted(index for index in set(ids) if index < len(label_set.names))
    widths = [cv2.getTextSize(label_set.names[index], FONT, 0.55, 1)[0][0] for index in listed]
    column = SWATCH + 8 + max(widths, default=0) + 2 * MARGIN
    columns = max(1, (width - MARGIN) // column)
    lines = -(-len(listed) // columns)
    picture = np.full((lines * LINE + MARGIN, width, 3), PAPER, np.uint8)
    for number, index in enumerate(listed):
        x, y = MARGIN + number % columns * column, number // columns * LINE
        cv2.rectangle(picture, (x, y), (x + SWATCH - 1, y + SWATCH - 1),
                      label_set.colors[index], -1)
        cv2.putText(picture, label_set.names[index], (x + SWATCH + 8, y + SWATCH - 3), FONT, 0.55,
                    INK, 1, cv2.LINE_AA)
    return picture


def show(model: Network, source: ClipSource[Any], size: Sequence[int], label_set: LabelSet,
         frames: int, prototypes: int) -> bytes:
    """
    Draw frames of a source, their truth and prediction, and projection maps of a few prototypes.

    Args:
        model: In eval mode.
        source: With labels.
        size: (height, width) of the network's input.
        label_set: Names and colours; the classes that occur are listed below.
        frames: Rows, spread evenly over the source.
        prototypes: How many, drawn with a fixed seed, the same in all rows.

    Returns:
        A PNG.

    Raises:
        ValueError: There are not that many, or the model has no prototypes.
    """
    places = source.frames()
    if isinstance(model, PerFrame) or not isinstance(model.prototypes, PrototypeGeneration):
        raise ValueError('this model has no prototypes to show: give one of kind mgcnet whose '
                         'non_local is prototype')
    projection = model.prototypes.projection
    count = projection.out_channels
    if not 1 <= frames <= len(places) or not 1 <= prototypes <= count:
        raise ValueError(f'show takes 1 to {len(places)} frames and 1 to {count} prototypes: '
                         f'{frames} and {prototypes} were asked for')
    chosen = np.random.default_rng(SEED).choice(count, prototypes, replace=False).tolist()
    chosen.sort()
    spread = np.linspace(0, len(places) - 1, frames).round().astype(int)
    rows = [_row(model, source, places[index], size, label_set, chosen) for index in spread]
    titles = ['image', 'ground truth', 'prediction', *(f'prototype {index}' for index in chosen)]
    picture = _grid(titles, [row.cells for row in rows])
    shown = legend(set().union(*(row.shown for row in rows)), label_set, picture.shape[1])
    picture = np.concatenate([picture, shown])
    _, png = cv2.imencode('.png', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return png.tobytes()
