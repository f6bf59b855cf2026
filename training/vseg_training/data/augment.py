# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Clip-consistent augmentation (MGCNet, Sec. IV-B)."""
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .clips import Clip, Geometry, PADDING, Pixels


Matrices = npt.NDArray[np.float64]
_Matrices32 = npt.NDArray[np.float32]


@dataclass
class Augmentation:
    """
    Random flip, scale, crop, brightness and contrast; the same draw for all frames of a clip.

    Padding fills what lies outside.

    Attributes:
        crop: (height, width) in pixels.
        scale: Least and largest scale factor.
        brightness: Largest shift, in grey levels.
        contrast: Largest relative change around grey level 128.
        saturation: Largest relative change around the pixel's own grey value.
    """

    crop: tuple[int, int] = (320, 320)
    scale: tuple[float, float] = (0.5, 2.0)
    brightness: float = 10.0
    contrast: float = 0.0
    saturation: float = 0.0

    def draw(self, size: Sequence[int], rng: np.random.Generator,
             paths: Matrices | None = None) -> 'Draw':
        """
        Draw for all frames of a clip.

        Args:
            size: (height, width) of the frames.
            rng: Decides.
            paths: Matrices [L, 3, 3] that map each frame to the camera image it stands for
                (``still_path``); None: frames are camera images.
        """
        matrix = self._geometry(size, rng)
        gain = 1 + self.contrast * rng.uniform(-1, 1)
        shift = self.brightness * rng.uniform(-1, 1) + 128 * (1 - gain)
        colour = 1 + self.saturation * rng.uniform(-1, 1)
        crop, frame = (self.crop[0], self.crop[1]), (size[0], size[1])
        return Draw(matrix, crop, frame, gain, shift, colour, paths)

    def __call__(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """Augment a clip: one of crop size."""
        draw = self.draw(clip.images.shape[1:3], rng)
        return Clip(draw.images(clip.images), draw.labels(clip.labels))

    def _geometry(self, size: Sequence[int], rng: np.random.Generator) -> _Matrices32:
        """Matrix 2x3 from pixels of the frame to those of the crop."""
        scale = np.exp(rng.uniform(*np.log(self.scale)))
        flip = rng.random() < 0.5
        # a crop larger than the scaled frame leaves a margin, placed at random as the crop is
        offset = [rng.uniform(min(0, scale * full - crop), max(0, scale * full - crop))
                  for full, crop in zip(size, self.crop)]
        across = scale * (size[1] - 1) if flip else 0
        return np.array([[-scale if flip else scale, 0, across - offset[1]],
                         [0, scale, -offset[0]]], np.float32)


def still_path(size: Sequence[int], length: int, rng: np.random.Generator) -> Matrices:
    """
    Motion of a camera that looks at a still picture: a window that moves smoothly over it.

    The window covers 0.8 to 1 of the still at the clip's end and lies within it there; before
    that it was larger or smaller by up to 4 % a frame, as when driving forward, and aside by up to
    2.5 % a frame.

    Args:
        size: (height, width) of the still.
        length: Frames L of the clip.
        rng: Decides.

    Returns:
        Float64 [L, 3, 3], oldest frame first: pixels of the still to those of the camera image,
        which has the still's size.
    """
    extent = np.array([size[1], size[0]], float)
    share = rng.uniform(0.8, 1.0)
    end = extent / 2 + (1 - share) / 2 * extent * rng.uniform(-1, 1, 2)
    zoom = rng.uniform(-0.015, 0.04)
    drift = rng.normal(0, 0.01, 2).clip(-0.025, 0.025) * extent
    turn = rng.normal(0, 0.15, 2) * drift
    matrices = []
    for back in range(length - 1, -1, -1):
        scale = 1 / (share * (1 + zoom) ** back)
        centre = end - drift * back - turn * back ** 2 / 2
        matrices.append([[scale, 0, extent[0] / 2 - scale * centre[0]],
                         [0, scale, extent[1] / 2 - scale * centre[1]], [0, 0, 1]])
    return np.array(matrices)


def still_flow(matrices: _Matrices32, crop: Sequence[int]) -> _Matrices32:
    """
    Flow of a clip made of a still, by the geometry that made it.

    Args:
        matrices: Float32 [L, 2, 3], pixels of the still to those of each frame
            (``Draw.matrices``).
        crop: (height, width) of the frames.

    Returns:
        Float32 [L - 1, 2, h, w]: what is at (x, y) in a frame is at (x + flow[0], y + flow[1]) in
        the next one.
    """
    last_row = np.array([[0, 0, 1]], np.float64)
    whole = [np.concatenate([matrix, last_row]) for matrix in matrices]
    rows, columns = np.mgrid[:crop[0], :crop[1]].astype(np.float64)
    places = np.stack([columns, rows, np.ones_like(rows)])
    flows = np.empty((len(whole) - 1, 2, *crop), np.float32)
    for number, (now, later) in enumerate(zip(whole, whole[1:])):
        moved = np.tensordot((later @ np.linalg.inv(now))[:2], places, 1)
        flows[number] = moved - places[:2]
    return flows


@dataclass
class Draw:
    """
    One draw of an Augmentation.

    Attributes:
        matrix: Float32 [2, 3], maps pixels of the camera image to those of the crop.
        crop: (height, width) in pixels.
        frame: (height, width) of the camera image.
        gain: Factor of grey levels.
        shift: Added to them.
        colour: Factor of a pixel's distance from its own grey value.
        paths: As in ``Augmentation.draw``.
    """

    matrix: _Matrices32
    crop: tuple[int, int]
    frame: tuple[int, int]
    gain: float
    shift: float
    colour: float
    paths: Matrices | None = None

    def matrices(self, length: int) -> _Matrices32:
        """Float32 [L, 2, 3]: pixels of each frame to those of the crop."""
        if self.paths is None:
            return np.repeat(self.matrix[None], length, 0)
        return (self.matrix.astype(float) @ self.paths).astype(np.float32)

    def places(self) -> _Matrices32:
        """Where in the camera image the crop lies: float32 [4], see ``position_codes``."""
        places: list[float] = []
        for axis in (0, 1):
            scale, offset = self.matrix[axis, axis], self.matrix[axis, 2]
            full, crop = self.frame[1 - axis], self.crop[1 - axis]
            places += [crop / (scale * full), ((-0.5 - offset) / scale + 0.5) / full]
        return np.array(places, np.float32)

    def images(self, images: Pixels) -> Pixels:
        """Augment images uint8 [L, H, W, 3]."""
        crops = []
        for image, matrix in zip(images, self.matrices(len(images))):
            crop = cv2.warpAffine(image, matrix, self.crop[::-1], flags=cv2.INTER_LINEAR)
            crops.append(self._recolour(crop))
        return np.stack(crops)

    def labels(self, labels: Pixels) -> Pixels:
        """Augment labels uint8 [L, H, W]; what lies outside the frame is PADDING."""
        crops = []
        for label, matrix in zip(labels, self.matrices(len(labels))):
            crops.append(cv2.warpAffine(
                label, matrix, self.crop[::-1], flags=cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT, borderValue=PADDING))
        return np.stack(crops)

    def geometry(self, shapes: Sequence[Geometry | None], focal: float
                 ) -> tuple[_Matrices32, _Matrices32]:
        """
        Augment the geometry of a clip.

        A larger image is that of a longer lens: depths are made those of a camera whose focal
        length is ``focal`` pixels of the crop, which would show the same image from there (thesis,
        App. A.2.2; here with the true focal length of every camera).

        Args:
            shapes: Of L frames; None: not known.
            focal: In pixels.

        Returns:
            Depth float32 [L, h, w] in metres and normals float32 [L, 3, h, w], 0 where they are
            not known.
        """
        length, size = len(shapes), self.crop[::-1]
        depth = np.zeros((length, *self.crop), np.float32)
        normals = np.zeros((length, 3, *self.crop), np.float32)
        for number, (shape, matrix) in enumerate(zip(shapes, self.matrices(length))):
            if shape is None:
                continue
            own = shape.focal * float(matrix[1, 1])
            depth[number] = focal / own * cv2.warpAffine(
                shape.depth, matrix, size, flags=cv2.INTER_NEAREST)
            normals[number] = cv2.warpAffine(
                shape.normals, matrix, size, flags=cv2.INTER_NEAREST).transpose(2, 0, 1)
            if matrix[0, 0] < 0:
                normals[number, 0] *= -1
        return depth, normals

    def _recolour(self, image: Pixels) -> Pixels:
        if self.colour != 1:
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            image = cv2.addWeighted(image, self.colour, grey, 1 - self.colour, 0)
        return cv2.convertScaleAbs(np.clip(image * np.float32(self.gain) + self.shift, 0, 255))
