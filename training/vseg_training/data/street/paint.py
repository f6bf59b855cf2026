# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Textures of the rendered street: ground, walls, fences and the sky."""
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike


SKY, BUILDING, POLE, ROAD, SIDEWALK, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
VOID = 255
UNSEEN = 254  # a texel of a label map that leaves the label below it as it is
Pixels = npt.NDArray[np.uint8]
Image = npt.NDArray[np.floating[Any]]  # [h, w, 3], 0..255, before it is finished
Color = npt.NDArray[np.floating[Any]]  # [3], 0..255


class Texture:
    """
    An image on a parallelogram, with reduced copies for the distance.

    Args:
        rgb: uint8 [h, w, 3].
        mask: uint8 [h, w], 0 is see-through; None: opaque.
        label: A class id, or uint8 [h, w] ids where they differ over the surface. A label map may
            cover more than the mask: a railing or a bare crown is labelled as a whole.
        shade: Whether the image multiplies what lies below instead of replacing it (a shadow).
    """

    def __init__(self, rgb: Pixels, mask: Pixels | None = None, label: int | Pixels = VOID,
                 shade: bool = False) -> None:
        self.opaque, self.shade = mask is None, shade
        alpha = np.full(rgb.shape[:2], 255, np.uint8) if mask is None else mask
        rgb = rgb if mask is None else bleed(rgb, mask)
        self.levels = {(0, 0): cv2.merge([*cv2.split(rgb), alpha])}
        self.label = label

    def level(self, i: int, j: int) -> Pixels:
        """RGBA copy with width / 2**i and height / 2**j (both reductions apart, for slant)."""
        if (i, j) not in self.levels:
            height, width = self.levels[0, 0].shape[:2]
            size = max(width >> i, 1), max(height >> j, 1)
            self.levels[i, j] = cv2.resize(self.levels[0, 0], size, interpolation=cv2.INTER_AREA)
        return self.levels[i, j]


def bleed(rgb: Pixels, mask: Pixels) -> Pixels:
    """Colours carried over the edge of the mask, so that reduced copies have no dark rim."""
    weight = (mask > 127).astype(np.float32)
    size = max(3, min(mask.shape) // 16 * 2 + 1)
    spread = cv2.blur(rgb * weight[..., None], (size, size))
    total = cv2.blur(weight, (size, size))
    out = spread / np.maximum(total, 1e-3)[..., None]
    return np.where(weight[..., None] > 0, rgb, np.clip(out, 0, 255)).astype(np.uint8)


def fractal(rng: np.random.Generator, height: int, width: int, cells: int = 4, octaves: int = 5,
            fall: float = 0.55) -> Image:
    """Smooth noise, float32 [height, width], mean about 0, within about -1..1."""
    out, weight, total = np.zeros((height, width), np.float32), 1.0, 0.0
    for octave in range(octaves):
        n = cells << octave
        grid = rng.uniform(-1, 1, (max(2, n * height // max(height, width) + 2), max(2, n + 2)))
        out += weight * cv2.resize(grid.astype(np.float32), (width, height),
                                   interpolation=cv2.INTER_CUBIC)
        total += weight
        weight *= fall
    return out / total * 1.8


def floats(values: ArrayLike) -> npt.NDArray[np.float32]:
    """Values as float32."""
    return np.array(values, np.float32)


def flat(height: int, width: int, color: ArrayLike) -> Image:
    """One colour everywhere: float32 [height, width, 3]."""
    return np.full((height, width, 3), color, np.float32)


def finish(image: npt.NDArray[Any]) -> Pixels:
    """As uint8, cut to 0..255."""
    return np.clip(image, 0, 255).astype(np.uint8)


def grain(rng: np.random.Generator, image: Image, amount: float) -> Image:
    """Fine noise of a rough surface, in place."""
    noise = rng.normal(0, amount, image.shape[:2]).astype(np.float32)
    image += noise[..., None]
    return image


def rectangle(image: npt.NDArray[Any], x0: float, y0: float, x1: float, y1: float,
              color: ArrayLike) -> None:
    """Fill texels [y0:y1, x0:x1]."""
    height, width = image.shape[:2]
    x0, x1 = max(int(x0), 0), min(int(x1), width)
    y0, y1 = max(int(y0), 0), min(int(y1), height)
    if x1 > x0 and y1 > y0:
        image[y0:y1, x0:x1] = color


def asphalt(rng: np.random.Generator, height: int, width: int, tone: float) -> Image:
    """Worn asphalt: stones, stains, wheel tracks, patches and cracks."""
    image = flat(height, width, floats([1, 1.01, 1.04]) * tone)
    image *= (1 + 0.10 * fractal(rng, height, width, 5))[..., None]
    track = np.cos(np.linspace(0, rng.integers(3, 6) * 2 * np.pi, width)).astype(np.float32)
    image *= (1 + 0.035 * track)[None, :, None]
    for _ in range(rng.integers(1, 4)):
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.integers(20, 120), rng.integers(60, 400)
        image[y:y + h, x:x + w] *= rng.uniform(0.8, 1.12)
    for _ in range(rng.integers(1, 5)):
        steps = rng.normal(0, 6, (40, 2)) + rng.normal(0, 5, 2)
        points = np.cumsum(steps, 0) + rng.uniform(0, 1, 2) * (width, height)
        cv2.polylines(image, [points.astype(np.int32)], False, (tone * 0.6,) * 3, 1, cv2.LINE_AA)
    return grain(rng, image, tone * 0.09)


def paving(rng: np.random.Generator, height: int, width: int, tone: float, tint: ArrayLike,
           slab: int) -> Image:
    """Slabs of ``slab`` texels with joints, each of its own tone."""
    rows, cols = height // slab + 1, width // slab + 1
    tones = rng.normal(1, 0.05, (rows, cols)).astype(np.float32)
    image = flat(height, width, floats(tint) * tone)
    image *= np.kron(tones, np.ones((slab, slab), np.float32))[:height, :width, None]
    image[::slab] *= 0.7
    image[:, ::slab] *= 0.7
    image *= (1 + 0.28 * fractal(rng, height, width, 5))[..., None]
    return grain(rng, image, 9)


def grass(rng: np.random.Generator, height: int, width: int) -> Image:
    """Mown grass: float32 [height, width, 3]."""
    image = flat(height, width, (76, 84, 54))
    image *= (1 + 0.3 * fractal(rng, height, width, 10))[..., None]
    return grain(rng, image, 11)


def brick(rng: np.random.Generator, height: int, width: int, color: ArrayLike,
          course: int = 3) -> Image:
    """Masonry: courses of bricks, each of its own tone, with light joints."""
    rows, cols = height // course + 1, width // (course * 3) + 2
    tones = rng.normal(1, 0.10, (rows, cols)).astype(np.float32)
    tones = cv2.resize(tones, (cols * course * 3, rows * course), interpolation=cv2.INTER_NEAREST)
    image = flat(height, width, color) * tones[:height, :width, None]
    image[::course] = image[::course] * 0.8 + 28
    return image


WALLS = ((112, 78, 62), (128, 92, 72), (150, 132, 100), (160, 142, 112), (150, 142, 126),
         (176, 168, 150), (196, 194, 186), (128, 126, 122), (98, 84, 74), (138, 110, 92),
         (188, 178, 150), (110, 100, 92))
PAINTS = ((30, 40, 80), (120, 24, 28), (24, 70, 48), (30, 30, 34), (200, 190, 60), (190, 190, 190),
          (40, 90, 140), (150, 60, 20), (90, 20, 70), (16, 60, 100))


def window(rng: np.random.Generator, image: Image, x0: float, y0: float, x1: float, y1: float,
           frame: ArrayLike) -> None:
    """One window: recess, frame, glass with the sky in it, curtain, bars, sill and lintel."""
    x0, y0, x1, y1 = (int(v) for v in (x0, y0, x1, y1))
    if x0 < 1 or y0 < 2 or x1 > image.shape[1] - 2 or y1 > image.shape[0] - 4:
        return
    rectangle(image, x0 - 2, y0 - 3, x1 + 2, y0, image[max(y0 - 4, 0), x0] * rng.uniform(0.8, 1.3))
    rectangle(image, x0, y0, x1, y1, frame)
    e = max(1, (x1 - x0) // 14)
    glass = np.linspace(rng.uniform(8, 60), rng.uniform(15, 60) if rng.random() < 0.65 else
                        rng.uniform(90, 220), y1 - y0 - 2 * e)
    glass = glass[:, None, None] * floats([0.92, 1, 1.08])
    image[y0 + e:y1 - e, x0 + e:x1 - e] = glass
    if rng.random() < 0.3:
        rectangle(image, x0 + e, y0 + e, x1 - e, y0 + (y1 - y0) * rng.uniform(0.2, 0.8),
                  floats([1, 0.97, 0.9]) * rng.uniform(90, 170))
    rectangle(image, x0, y0, x1, y0 + 2, image[y0 + 2, x0] * 0.45)
    rectangle(image, x0, (y0 + y1) // 2, x1, (y0 + y1) // 2 + e, frame)
    for bar in range(1, rng.integers(1, 4)):
        x = x0 + (x1 - x0) * bar // 3
        rectangle(image, x, y0, x + e, y1, frame)
    rectangle(image, x0 - 2, y1, x1 + 2, y1 + 3, (168, 164, 156))
    rectangle(image, x0 - 2, y1 + 3, x1 + 2, y1 + 4, image[y1 + 4, x0] * 0.6)


def shopfront(rng: np.random.Generator, image: Image, x0: int, x1: int, top: int,
              ppm: float) -> None:
    """A shop in the ground floor: fascia with its name, display windows, door."""
    bottom, paint = image.shape[0], floats(PAINTS[rng.integers(len(PAINTS))])
    rectangle(image, x0, top, x1, bottom, paint * 0.8)
    board = top + int(rng.uniform(0.5, 0.8) * ppm)
    rectangle(image, x0, top, x1, board, paint)
    ink = (220, 215, 200) if paint.mean() < 120 else (40, 36, 36)
    x = x0 + (x1 - x0) * rng.uniform(0.1, 0.3)
    while x < x1 - (x1 - x0) * 0.2:
        w = rng.uniform(0.1, 0.25) * ppm
        rectangle(image, x, top + 0.15 * ppm, x + w, board - 0.15 * ppm, ink)
        x += w + rng.uniform(0.05, 0.15) * ppm
    rectangle(image, x0, board, x1, board + 3, paint * 0.3)
    x, sill = x0 + 0.15 * ppm, bottom - rng.uniform(0.2, 0.6) * ppm
    while x < x1 - 0.3 * ppm:
        w = min(rng.uniform(0.9, 2.2) * ppm, x1 - 0.15 * ppm - x)
        shade = rng.uniform(20, 55)
        rectangle(image, x, board + 3, x + w, sill, (shade, shade * 1.02, shade * 1.05))
        for _ in range(rng.integers(3, 9)):
            a, b = rng.uniform(x, x + w * 0.8), rng.uniform(board + 4, sill - 6)
            rectangle(image, a, b, min(a + rng.uniform(3, 25), x + w - 1),
                      min(b + rng.uniform(3, 25), sill),
                      rng.uniform(15, 200) * rng.uniform(.75, 1.2, 3))
        x += w + rng.uniform(0.06, 0.14) * ppm


def ground_floor(rng: np.random.Generator, image: Image, floor: float, step: float,
                 frame: ArrayLike, ppm: float) -> None:
    """Doors and windows, or shops, in the lowest storey."""
    height, width = image.shape[:2]
    top = height - int(floor)
    if rng.random() < 0.5:
        edges = np.linspace(0, width, max(1, round(width / ppm / 5)) + 1)
        for left, right in zip(edges[:-1], edges[1:]):
            shopfront(rng, image, int(left) + 2, int(right) - 2, top, ppm)
        return
    for i in range(int(width // step)):
        x = (i + 0.5) * width / max(1, width // step)
        if rng.random() < 0.3:
            paint = floats(PAINTS[rng.integers(len(PAINTS))])
            w = 0.5 * ppm
            rectangle(image, x - w - 4, height - 2.3 * ppm, x + w + 4, height, (170, 168, 160))
            rectangle(image, x - w, height - 2.15 * ppm, x + w, height, paint * 0.8)
            rectangle(image, x - w, height - 2.15 * ppm, x + w, height - 1.8 * ppm, (50, 54, 58))
        else:
            w = 0.3 * step
            window(rng, image, x - w, height - 2.3 * ppm, x + w, height - 0.9 * ppm, frame)


def facade(rng: np.random.Generator, width_m: float, height_m: float, ppm: float,
           plain: bool = False) -> Texture:
    """A house front of ``width_m`` x ``height_m`` metres; ``plain``: a side wall."""
    height, width = int(height_m * ppm), int(width_m * ppm)
    color = floats(WALLS[rng.integers(len(WALLS))]) * rng.uniform(0.55, 1.25)
    color = color.mean() + (color - color.mean()) * rng.uniform(0.35, 1)
    masonry = rng.random() < 0.65
    image = brick(rng, height, width, color) if masonry else flat(height, width, color)
    image *= (1 + 0.2 * fractal(rng, height, width, 5))[..., None]
    streak = cv2.resize(rng.normal(0, 1, (2, width)).astype(np.float32), (width, height))
    image *= (1 + 0.035 * streak)[..., None]
    floor = rng.uniform(2.7, 3.5) * ppm
    step = rng.uniform(1.5, 3.2) * ppm
    frame = floats((222, 222, 218) if rng.random() < 0.65 else (36, 33, 32))
    modern = rng.random() < 0.2
    if not plain or rng.random() < 0.4:
        count = max(1, int(width // step))
        w, h = rng.uniform(0.22, 0.46 if modern else 0.34) * step, rng.uniform(0.45, 0.62) * floor
        top = height - 2 * floor + 0.2 * floor
        while top > -0.2 * floor:
            for i in range(count):
                x = (i + 0.5) * width / count
                window(rng, image, x - w, max(top, 4), x + w, top + h, frame)
                if modern and rng.random() < 0.5:
                    rectangle(image, x - w * 1.2, top + h * 0.7, x + w * 1.2, top + h * 1.2,
                              rng.uniform(70, 150))
            if rng.random() < 0.3:
                rectangle(image, 0, top + h + 0.12 * floor, width, top + h + 0.16 * floor,
                          color * 1.2)
            top -= floor
    if not plain:
        ground_floor(rng, image, floor, step, frame, ppm)
        x = rng.uniform(0.02, 0.98) * width
        rectangle(image, x, 0, x + 3, height, (46, 44, 44))
    rectangle(image, 0, 0, width, 0.12 * ppm, color * rng.uniform(0.5, 1.3))
    rectangle(image, 0, 0.12 * ppm, width, 0.2 * ppm, color * 0.45)
    rectangle(image, width - 2, 0, width, height, color * 0.6)
    bands = (0, 0.9 * ppm, height - 2.5 * ppm, height)
    shade = np.interp(np.arange(height), bands, (.72, 1, 1, .68))
    image *= shade[:, None, None].astype(np.float32)
    return Texture(finish(grain(rng, image, 4)), label=BUILDING)


def roof(rng: np.random.Generator, width_m: float, height_m: float, ppm: float) -> Texture:
    """Slates or tiles in courses."""
    height, width = max(8, int(height_m * ppm)), int(width_m * ppm)
    color = ((74, 74, 80), (104, 66, 52), (88, 80, 76))[rng.integers(3)]
    image = flat(height, width, color) * (1 + 0.2 * fractal(rng, height, width, 8))[..., None]
    image[::5] *= 0.75
    return Texture(finish(grain(rng, image, 6)), label=BUILDING)


def railing(rng: np.random.Generator, width_m: float, height_m: float, ppm: float) -> Texture:
    """A see-through fence of bars, labelled as a whole."""
    height, width = int(height_m * ppm), int(width_m * ppm)
    mask = np.zeros((height, width), np.uint8)
    mask[:, ::max(4, int(0.13 * ppm))] = 255
    mask[:, 1::max(4, int(0.13 * ppm))] = 255
    mask[:3] = mask[-8:-5] = 255
    mask[:, :4] = 255
    color = ((40, 44, 42), (110, 112, 112), (150, 152, 150))[rng.integers(3)]
    return Texture(finish(flat(height, width, color)), mask,
                   np.full((height, width), FENCE, np.uint8))


def boards(rng: np.random.Generator, width_m: float, height_m: float, ppm: float) -> Texture:
    """A close-boarded fence."""
    height, width = int(height_m * ppm), int(width_m * ppm)
    color = ((104, 84, 60), (84, 74, 62), (70, 80, 60))[rng.integers(3)]
    step = max(4, int(0.14 * ppm))
    tones = np.repeat(rng.normal(1, 0.12, width // step + 1), step)[:width].astype(np.float32)
    image = flat(height, width, color) * tones[None, :, None]
    image[:, ::step] *= 0.5
    image *= (1 + 0.15 * fractal(rng, height, width, 5))[..., None]
    return Texture(finish(image), label=FENCE)


def garden_wall(rng: np.random.Generator, width_m: float, height_m: float, ppm: float) -> Texture:
    """A low wall of bricks (CamVid counts walls as building)."""
    image = brick(rng, int(height_m * ppm), int(width_m * ppm), WALLS[rng.integers(5)])
    image *= (1 + 0.2 * fractal(rng, image.shape[0], image.shape[1], 5))[..., None]
    image[:4] = image[:4] * 0.4 + 80
    return Texture(finish(image), label=BUILDING)


def hedge(rng: np.random.Generator, width_m: float, height_m: float, ppm: float) -> Texture:
    """Clipped leaves, ragged on top."""
    height, width = int(height_m * ppm), int(width_m * ppm)
    image = flat(height, width, (60, 68, 48)) * rng.uniform(0.7, 1.1)
    image *= (1 + 0.45 * fractal(rng, height, width, 12, 5, 0.8))[..., None]
    image = grain(rng, image, 13) * np.linspace(1.15, 0.6, height)[:, None, None]
    edge = (0.1 + 0.1 * fractal(rng, 2, width, 6)[0]) * height
    mask = np.where(np.arange(height)[:, None] > edge, 255, 0).astype(np.uint8)
    return Texture(finish(image), mask, TREE)


def skyline(rng: np.random.Generator, height: int = 512, width: int = 1536, horizon: float = 0.8,
            dull: float = 0.5) -> Texture:
    """Sky with clouds, and the far houses and trees at the horizon."""
    level = int(height * horizon)
    ramp = np.linspace(0, 1, level)[:, None, None].astype(np.float32)
    zenith = floats((168, 190, 222)) * (1 - dull) + floats((205, 210, 216)) * dull
    image = np.full((height, width, 3), 246, np.float32)
    image[:level] = zenith * (1 - ramp) + floats((250, 250, 248)) * ramp
    cloud = fractal(rng, height // 2, width, 5, 6, 0.6)
    cloud = cv2.resize(cloud, (width, height))
    cover = np.clip((cloud + rng.uniform(-0.3, 0.5)) * 2.2, 0, 1)[..., None]
    cover *= np.linspace(1, 0.4, height)[:, None, None]
    body = 252 - rng.uniform(5, 60) * np.clip(cloud * 1.5, 0, 1)[..., None]
    image = image * (1 - cover) + body * cover
    labels = np.full((height, width), SKY, np.uint8)
    for label, tone in ((BUILDING, 130), (TREE, 112)):
        edge = fractal(rng, 2, width, 40 if label == BUILDING else 60, 4)[0]
        if label == BUILDING:
            edge = np.repeat(edge[::16], 16)[:width]
        edge = level - (0.028 + 0.022 * edge + 0.015 * fractal(rng, 2, width, 6)[0]) * height
        below = np.arange(height)[:, None] >= edge
        labels[below] = label
        texture = tone * (1 + 0.15 * fractal(rng, height, width, 90, 3))
        tint = (1, 1, 1.02) if label == BUILDING else (0.96, 1, 0.9)
        image[below] = texture[below][:, None] * floats(tint)
    return Texture(finish(image), label=labels)
