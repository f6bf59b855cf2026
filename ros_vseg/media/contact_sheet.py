# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""One picture of a run: input, labels and overlay side by side at several times."""
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.labels import colorize, LabelSet, overlay

WIDTH = 440      # of one picture, pixels
MARGIN = 16
LINE = 26        # height of a line of text
BOX = 25         # width of a class's colour in the legend, and the space after it
DARK = 64        # brightness of a frame, 0..255, below which it is shown brighter ...
SHOWN = 96       # ... and what it then has
PAPER, INK, GREY = (250, 250, 250), (32, 32, 32), (120, 120, 120)

Pixels = npt.NDArray[np.uint8]


class Row(NamedTuple):
    """One time: ``caption``, ``image`` uint8 [H,W,3] RGB and ``labels`` uint8 [H,W]."""

    caption: str
    image: Pixels
    labels: Pixels


class Samples:
    """Images with their labels, evenly spaced over a run of unknown length."""

    LIMIT = 16      # kept; when there are more every second one goes
    RECENT = 8      # images that wait for their labels

    def __init__(self) -> None:
        self._recent: dict[int, Pixels] = {}
        self._kept: list[tuple[int, Row]] = []
        self._count, self._step = 0, 1
        self._first: int | None = None
        self._images = 0

    def add_image(self, image: Pixels, stamp: int) -> None:
        """Take the image uint8 [H,W,3] RGB of time ``stamp``, ns."""
        self._images += 1
        self._recent[stamp] = image
        if len(self._recent) > self.RECENT:
            del self._recent[next(iter(self._recent))]

    def add_labels(self, labels: Pixels, stamp: int) -> None:
        """Take the labels uint8 [H,W] of the image at ``stamp``."""
        self._first = stamp if self._first is None else self._first
        image = self._recent.pop(stamp, None)
        if self._count % self._step == 0 and image is not None:
            caption = f't = {(stamp - self._first) / 1e9:.1f} s'
            self._kept.append((self._count, Row(caption, image, labels)))
        self._count += 1
        if len(self._kept) > self.LIMIT:
            self._step *= 2
            self._kept = [kept for kept in self._kept if kept[0] % self._step == 0]

    def missing(self) -> str | None:
        """Return in words why there are no rows, or None."""
        if self._kept:
            return None
        if not self._images:
            return "no image came: remap image to the camera's raw images"
        return (f'none of {self._images} images came before the label image of the same stamp: is '
                'image remapped to the images that are labelled, and does it come at once?')

    def rows(self, count: int = 4) -> list[Row]:
        """Return up to ``count`` rows from first to last."""
        if not self._kept:
            return []
        chosen = np.unique(np.linspace(0, len(self._kept) - 1, count).round().astype(int))
        return [self._kept[index][1] for index in chosen]


def contact_sheet(rows: Sequence[Row], label_set: LabelSet, title: str,
                  subtitle: str = '') -> Pixels:
    """Return the sheet, uint8 [H,W,3] RGB, with a legend of the classes that occur in it."""
    pictures = [_row(row, label_set) for row in rows]
    width = pictures[0].shape[1]
    found = np.unique(np.concatenate([np.unique(row.labels) for row in rows]))
    used = [int(index) for index in found if index < len(label_set.names)]
    return np.concatenate(
        [_header(width, title, subtitle)] + pictures + [_legend(width, label_set, used)])


def _text(picture: Pixels, text: str, x: int, y: int, scale: float = 0.5,
          color: tuple[int, int, int] = INK) -> None:
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)


def _paper(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), PAPER, np.uint8)


def _header(width: int, title: str, subtitle: str) -> Pixels:
    picture = _paper(3 * LINE + MARGIN, width)
    _text(picture, title, MARGIN, LINE, 0.75)
    _text(picture, subtitle, MARGIN, 2 * LINE, 0.5, GREY)
    for column, name in enumerate(('input', 'labels', 'overlay')):
        _text(picture, name, MARGIN + column * (WIDTH + MARGIN), 3 * LINE + 6)
    return picture


def _row(row: Row, label_set: LabelSet) -> Pixels:
    height = round(WIDTH * row.labels.shape[0] / row.labels.shape[1])
    height = min(max(1, height), 4 * WIDTH)     # of a line camera
    labels = cv2.resize(row.labels, (WIDTH, height), interpolation=cv2.INTER_NEAREST)
    image, is_dark = _readable(
        cv2.resize(row.image, (WIDTH, height), interpolation=cv2.INTER_AREA))
    picture = _paper(height + MARGIN, 3 * WIDTH + 4 * MARGIN)
    columns = (image, colorize(labels, label_set), overlay(image, labels, label_set))
    for column, content in enumerate(columns):
        x = MARGIN + column * (WIDTH + MARGIN)
        picture[:height, x:x + WIDTH] = content
    caption = f'{row.caption}, brightened' if is_dark else row.caption
    (length, _), _ = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    if caption:
        cv2.rectangle(picture, (MARGIN, 0), (MARGIN + length + 12, LINE), INK, -1)
    _text(picture, caption, MARGIN + 6, 18, 0.5, PAPER)
    return picture


def _readable(image: Pixels) -> tuple[Pixels, bool]:
    """Return an image uint8 [H, W, 3] RGB, brighter if it is dark, and whether it was."""
    if image.mean() >= DARK or not image.any():
        return image, False
    # lamps of a street at night must not keep the rest dark: first the range, then the middle
    levels = np.minimum(np.arange(256) / max(1.0, float(np.percentile(image, 99))), 1)
    middle = float(levels[image].mean())
    if middle < SHOWN / 255:
        levels **= np.log(SHOWN / 255) / np.log(middle)
    return cv2.LUT(image, (255 * levels).round().astype(np.uint8)), True


def _legend(width: int, label_set: LabelSet, used: Sequence[int]) -> Pixels:
    entries, x, y = [], MARGIN, 0
    for index in used:
        text = cv2.getTextSize(label_set.names[index], cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]
        if x + BOX + text > width - MARGIN and x > MARGIN:
            x, y = MARGIN, y + LINE
        entries.append((index, x, y))
        x += BOX + text + 2 * MARGIN
    picture = _paper(y + LINE + MARGIN, width)
    for index, x, y in entries:
        cv2.rectangle(picture, (x, y + 4), (x + 18, y + 20), label_set.colors[index], -1)
        _text(picture, label_set.names[index], x + BOX, y + 18)
    return picture
