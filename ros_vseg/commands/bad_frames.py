# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What earlier frames are worth: labels of frames with glare, with the last frames and without."""
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.errors import MediaError
from ros_vseg.labels import colorize, LabelSet
from ros_vseg.media.frames import Frame
from ros_vseg.media.iou import ConfusionMatrix
from ros_vseg.media.writers import write_png
from ros_vseg.stream import Stream

Image = npt.NDArray[np.uint8]
EVERY, SEED = 5, 7
WIDTH, LINE = 480, 30  # of a picture and of the line above it, pixels


class BadFrame(NamedTuple):
    """A degraded frame with its labels by a stream that kept its pool and by one that had none."""

    image: Image
    kept: Image
    emptied: Image
    gain: float


class Comparison(NamedTuple):
    """mIoU in [0, 1] over ``frames`` degraded frames, and the one where the pool did most."""

    kept: float
    emptied: float
    frames: int
    best: BadFrame


def glare(image: Image, rng: np.random.Generator) -> Image:
    """
    Return the image against a low sun: its glow, a veil over all, and sensor noise.

    Args:
        image: uint8 [H, W, 3] RGB.
        rng: draws where the sun stands and how wide it glows.
    """
    height, width = image.shape[:2]
    x, y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.5) * height
    radius = rng.uniform(0.25, 0.35) * height
    distance = np.hypot(np.arange(width)[None] - x, np.arange(height)[:, None] - y)
    glow = 1.4 / (1 + (distance / radius) ** 2) + 0.25
    light = (image / 255.0) ** 2.2 * 0.35 + glow[..., None]
    light += rng.normal(0, 0.02, image.shape)
    return (255 * np.clip(light, 0, 1) ** (1 / 2.2)).round().astype(np.uint8)


def compare(stream: Stream, alone: Stream, frames: Iterable[Frame], count: int) -> Comparison:
    """
    Label ``count`` frames, every fifth of them with a glare, with and without earlier frames.

    Args:
        stream: sees every frame.
        alone: sees the degraded ones, each with an empty pool.
        frames: with exact labels.
        count: how many to take.

    Raises:
        MediaError: if no degraded frame has labels.
    """
    classes = len(stream.label_set.names)
    kept, emptied = ConfusionMatrix(classes), ConfusionMatrix(classes)
    found: list[BadFrame] = []
    for number, frame in enumerate(islice(frames, count)):
        if number % EVERY != EVERY - 1 or frame.labels is None:
            stream.step(frame.image, frame.stamp, frame.frame_id)
            continue
        image = glare(frame.image, np.random.default_rng((SEED, number)))
        labels = stream.step(image, frame.stamp, frame.frame_id).labels.copy()
        alone.reset()
        without = alone.step(image, frame.stamp, frame.frame_id).labels.copy()
        kept.update(frame.labels, labels)
        emptied.update(frame.labels, without)
        right = (labels == frame.labels).mean() - (without == frame.labels).mean()
        found.append(BadFrame(image, labels, without, float(right)))
    if not found:
        raise MediaError('no frame with exact labels is among the first: nothing to compare')
    best = max(found, key=lambda frame: frame.gain)
    return Comparison(kept.mean_iou(), emptied.mean_iou(), len(found), best)


def write_picture(path: Path, best: BadFrame, label_set: LabelSet) -> None:
    """Write the frame and its labels without and with earlier frames, side by side, as a PNG."""
    panels = [('frame with glare', best.image),
              ('labels of this frame alone', colorize(best.emptied, label_set)),
              ('labels with the last frames', colorize(best.kept, label_set))]
    write_png(path, np.concatenate([_panel(*panel) for panel in panels], axis=1))


def _panel(title: str, picture: Image) -> Image:
    height = round(WIDTH * picture.shape[0] / picture.shape[1])
    panel = np.full((LINE + height, WIDTH + 8, 3), 250, np.uint8)
    panel[LINE:, :WIDTH] = cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)
    cv2.putText(panel, title, (2, LINE - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (32, 32, 32), 1,
                cv2.LINE_AA)
    return panel
