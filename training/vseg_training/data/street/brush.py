# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Paints parallelograms into an image, with their labels and part ids."""
from collections.abc import Sequence
import math

import cv2
import numpy as np
import numpy.typing as npt

from .paint import Pixels, Texture, UNSEEN, VOID


NEAR = 0.8    # metres ahead of the camera where parts are cut
RATIO = 1.7   # a part whose depth varies more is drawn in pieces, each from its own reduction
SOLID = 110   # alpha from which a texel hides what is behind
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Brush:
    """
    Draws parts, to be called with the far ones first.

    ``canvas`` uint8 [2H, 2W, 4]: two samples per pixel, the even ones on pixel centres;
    ``labels`` uint8 [H, W] and ``ids`` int32 [H, W]: taken on the even samples; an id is negative
    where the part is named but one sees through it (between the bars of a railing).
    """

    def __init__(self, height: int, width: int) -> None:
        self.canvas = np.full((2 * height, 2 * width, 4), 255, np.uint8)
        self.labels = np.full((height, width), VOID, np.uint8)
        self.ids = np.zeros((height, width), np.int32)

    def part(self, matrix: Floats, inverse: Floats, depth: Floats, texture: Texture, part_id: int,
             gain: float, haze: float) -> None:
        """
        One part: ``matrix`` [3, 3] takes its texture (0..1) to pixels, ``inverse`` back.

        ``depth`` [4]: of its corners, clockwise; the image's values become gain * value + haze.
        """
        along_v = abs(depth[3] - depth[0]) > abs(depth[1] - depth[0])
        if along_v:
            start, end = min(depth[0], depth[1]), min(depth[2], depth[3])
        else:
            start, end = min(depth[0], depth[3]), min(depth[1], depth[2])
        entries = inverse.ravel().tolist()
        for a, b in cuts(start, end):
            corner = CORNERS if a == 0 and b == 1 else (
                np.array([[0, 1, 1, 0], [a, a, b, b], [1, 1, 1, 1.]]) if along_v
                else np.array([[a, b, b, a], [0, 0, 1, 1.], [1, 1, 1, 1]]))
            x, y, w = matrix @ corner
            self._piece((2 * x / w), (2 * y / w), entries, texture, part_id, gain, haze)

    def _piece(self, x: Floats, y: Floats, inverse: Sequence[float], texture: Texture,
               part_id: int, gain: float, haze: float) -> None:
        """The quadrangle with corners x, y [4] (samples)."""
        xs, ys = x.tolist(), y.tolist()
        x0, y0 = max(int(min(xs)), 0) & ~1, max(int(min(ys)), 0) & ~1
        x1 = min(math.ceil(max(xs)) + 1, self.canvas.shape[1])
        y1 = min(math.ceil(max(ys)) + 1, self.canvas.shape[0])
        width, height = x1 - x0, y1 - y0
        if width <= 0 or height <= 0:
            return
        a, b, c, d, e, f, g, h, i = inverse
        back = (a / 2, b / 2, (a * x0 + b * y0) / 2 + c, d / 2, e / 2, (d * x0 + e * y0) / 2 + f,
                g / 2, h / 2, (g * x0 + h * y0) / 2 + i)
        at = min(max(width / 2, min(xs) - x0), max(xs) - x0), min(
            max(height / 2, min(ys) - y0), max(ys) - y0)
        source = texture.level(*reduction(back, at, texture))
        patch = cv2.warpPerspective(source, to_texels(back, source.shape), (width, height),
                                    borderMode=cv2.BORDER_REPLICATE,
                                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        mask = np.zeros((height, width), np.uint8)
        outline = np.stack([x - x0, y - y0], 1) * 16
        cv2.fillConvexPoly(mask, np.rint(outline).astype(np.int32), 255, cv2.LINE_8, 4)
        target = self.canvas[y0:y1, x0:x1]
        if texture.shade:
            cv2.copyTo(cv2.multiply(target, patch, scale=1 / 255), mask, target)
            return
        cover = mask
        if not texture.opaque:
            alpha = cv2.extractChannel(patch, 3)
            mask = cv2.bitwise_and(mask, cv2.threshold(alpha, SOLID, 255, cv2.THRESH_BINARY)[1])
        if abs(gain - 1) > 0.01 or haze > 1:
            patch = cv2.convertScaleAbs(patch, alpha=gain, beta=haze)
        cv2.copyTo(patch, mask, target)
        # The labels' grid: the even samples.
        pixels = slice(y0 // 2, (y1 + 1) // 2), slice(x0 // 2, (x1 + 1) // 2)
        even = mask[::2, ::2].astype(bool)
        if isinstance(texture.label, np.ndarray):
            self._label(texture.label, part_id, back, cover[::2, ::2] > 0, even, pixels)
        else:
            np.copyto(self.ids[pixels], part_id, where=even)
            np.copyto(self.labels[pixels], texture.label, where=even)

    def _label(self, label: Pixels, part_id: int, back: Sequence[float], cover: Bools,
               solid: Bools, pixels: tuple[slice, slice]) -> None:
        """Labels that differ over the surface, from the nearest texel at each pixel's centre."""
        target = self.labels[pixels]
        warp = to_texels(back, label.shape) @ np.diag([2., 2, 1])
        values = cv2.warpPerspective(label, warp, target.shape[::-1],
                                     borderMode=cv2.BORDER_REPLICATE,
                                     flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        named = cover & (values != UNSEEN)
        np.copyto(target, values, where=named)
        np.copyto(self.ids[pixels], np.where(solid, part_id, -part_id), where=named)


CORNERS = np.array([[0, 1, 1, 0], [0, 0, 1, 1], [1., 1, 1, 1]])


def cuts(start: float, end: float) -> list[tuple[float, float]]:
    """Ranges (a, b) of 0..1 between the depths ``start`` and ``end``: in sight, of like depth."""
    near, far = min(start, end), max(start, end)
    if far <= NEAR:
        return []
    first = max(near, NEAR)
    if first == near and far <= RATIO * near:
        return [(0.0, 1.0)]
    count = max(1, math.ceil(math.log(far / first) / math.log(RATIO)))
    depths = [first * (far / first) ** (n / count) for n in range(count + 1)]
    share = [(depth - start) / (end - start) for depth in depths]
    return [(min(a, b), max(a, b)) for a, b in zip(share[:-1], share[1:])]


def to_texels(back: Sequence[float], shape: Sequence[int]) -> Floats:
    """The matrix from samples to texels' centres of a texture of ``shape``."""
    a, b, c, d, e, f, g, h, i = back
    height, width = shape[:2]
    return np.array([[width * a - g / 2, width * b - h / 2, width * c - i / 2],
                     [height * d - g / 2, height * e - h / 2, height * f - i / 2], [g, h, i]])


def reduction(back: Sequence[float], at: tuple[float, float], texture: Texture) -> tuple[int, int]:
    """Halvings of a texture's width and height that bring a texel to about a sample at ``at``."""
    x, y = at
    a, b, c, d, e, f, g, h, i = back
    u, v, w = a * x + b * y + c, d * x + e * y + f, g * x + h * y + i
    height, width = texture.levels[0, 0].shape[:2]
    # lengths of the gradients of u / w and v / w
    du = math.hypot(a * w - u * g, b * w - u * h) / (w * w) * width
    dv = math.hypot(d * w - v * g, e * w - v * h) / (w * w) * height
    halvings = [min(8, int(math.log2(max(texels, 1.0)) + 0.25)) for texels in (du, dv)]
    return halvings[0], halvings[1]
