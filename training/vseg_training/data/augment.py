# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Clip-consistent augmentation (MGCNet, Sec. IV-B)."""
from dataclasses import dataclass

import cv2
import numpy as np

from .clips import Clip, PADDING


@dataclass
class Augmentation:
    """
    Random flip, scale, crop, brightness and contrast; the same draw for all frames of a clip.

    crop: (height, width) in pixels. scale: range of the scale factor. brightness: largest shift
    in grey levels. contrast: largest relative change around grey level 128; saturation: largest
    relative change around the pixel's own grey value. Padding fills what lies outside.
    """

    crop: tuple = (320, 320)
    scale: tuple = (0.5, 2.0)
    brightness: float = 10.0
    contrast: float = 0.0
    saturation: float = 0.0

    def draw(self, size, rng):
        """Draw by a numpy Generator, for all frames of a clip of size (height, width)."""
        matrix = self._geometry(size, rng)
        gain = 1 + self.contrast * rng.uniform(-1, 1)
        shift = self.brightness * rng.uniform(-1, 1) + 128 * (1 - gain)
        colour = 1 + self.saturation * rng.uniform(-1, 1)
        return Draw(matrix, tuple(self.crop), gain, shift, colour)

    def __call__(self, clip, rng):
        """Clip and numpy Generator -> Clip of crop size."""
        draw = self.draw(clip.images.shape[1:3], rng)
        return Clip(draw.images(clip.images), draw.labels(clip.labels))

    def _geometry(self, size, rng):
        scale = np.exp(rng.uniform(*np.log(self.scale)))
        flip = rng.random() < 0.5
        # a crop larger than the scaled frame leaves a margin, placed at random as the crop is
        offset = [rng.uniform(min(0, scale * full - crop), max(0, scale * full - crop))
                  for full, crop in zip(size, self.crop)]
        across = scale * (size[1] - 1) if flip else 0
        return np.float32([[-scale if flip else scale, 0, across - offset[1]],
                           [0, scale, -offset[0]]])


@dataclass
class Draw:
    """One draw of an Augmentation; ``matrix``, 2x3, maps pixels of the frame to the crop."""

    matrix: np.ndarray
    crop: tuple
    gain: float
    shift: float
    colour: float

    def images(self, images):
        """Augment images uint8 [L, H, W, 3]."""
        return np.stack([self._recolour(
            cv2.warpAffine(image, self.matrix, self.crop[::-1], flags=cv2.INTER_LINEAR))
            for image in images])

    def labels(self, labels):
        """Augment labels uint8 [L, H, W]; what lies outside the frame is PADDING."""
        return np.stack([cv2.warpAffine(
            label, self.matrix, self.crop[::-1], flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT, borderValue=PADDING) for label in labels])

    def _recolour(self, image):
        if self.colour != 1:
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            image = cv2.addWeighted(image, self.colour, grey, 1 - self.colour, 0)
        return cv2.convertScaleAbs(np.clip(image * np.float32(self.gain) + self.shift, 0, 255))
