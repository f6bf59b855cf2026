# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Clip-consistent augmentation (MGCNet, Sec. IV-B)."""
from dataclasses import dataclass

import cv2
import numpy as np

from .clips import Clip, VOID


@dataclass
class Augmentation:
    """
    Random flip, scale, crop, brightness and contrast; the same draw for all frames of a clip.

    crop: (height, width) in pixels. scale: range of the scale factor. brightness: largest shift
    in grey levels. contrast: largest relative change around grey level 128; saturation: largest
    relative change around the pixel's own grey value. Void fills what lies outside the frame.
    """

    crop: tuple = (320, 320)
    scale: tuple = (0.5, 2.0)
    brightness: float = 10.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __call__(self, clip, rng):
        """Clip and numpy Generator -> Clip of crop size."""
        matrix = self._geometry(clip.images.shape[1:3], rng)
        size = (self.crop[1], self.crop[0])
        gain = 1 + self.contrast * rng.uniform(-1, 1)
        shift = self.brightness * rng.uniform(-1, 1) + 128 * (1 - gain)
        colour = 1 + self.saturation * rng.uniform(-1, 1)
        images, labels = [], []
        for image, label in zip(clip.images, clip.labels):
            image = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
            images.append(self._recolour(image, gain, shift, colour))
            labels.append(cv2.warpAffine(label, matrix, size, flags=cv2.INTER_NEAREST,
                                         borderMode=cv2.BORDER_CONSTANT, borderValue=VOID))
        return Clip(np.stack(images), np.stack(labels))

    def _geometry(self, size, rng):
        scale = np.exp(rng.uniform(*np.log(self.scale)))
        flip = rng.random() < 0.5
        # a crop larger than the scaled frame leaves a margin, placed at random as the crop is
        offset = [rng.uniform(min(0, scale * full - crop), max(0, scale * full - crop))
                  for full, crop in zip(size, self.crop)]
        across = scale * (size[1] - 1) if flip else 0
        return np.float32([[-scale if flip else scale, 0, across - offset[1]],
                           [0, scale, -offset[0]]])

    @staticmethod
    def _recolour(image, gain, shift, colour):
        if colour != 1:
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            image = cv2.addWeighted(image, colour, grey, 1 - colour, 0)
        return cv2.convertScaleAbs(np.clip(image * np.float32(gain) + shift, 0, 255))
