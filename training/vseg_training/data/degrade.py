# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Frames as a camera in trouble gives them: twelve kinds of degradation, seeded.

``SEEN`` kinds are for training and for measuring, ``HELD_OUT`` kinds for measuring alone: each is
another mechanism, so that what a student makes of them tells whether it learned to mistrust a
frame or only six filters. Lengths are shares of the image's height, so that a kind looks alike at
every size. Every function takes uint8 [H, W, 3] RGB and a numpy Generator.
"""
from typing import Callable, Optional, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray


Image = NDArray[np.uint8]


def _grid(image: Image) -> tuple[NDArray, NDArray]:
    """x and y of the pixels in shares of width and height, float32 [1, W] and [H, 1]."""
    height, width = image.shape[:2]
    return (np.linspace(0, 1, width, dtype=np.float32)[None],
            np.linspace(0, 1, height, dtype=np.float32)[:, None])


def _to_image(values: NDArray) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _blend(image: Image, colour: Sequence[float], share: NDArray) -> Image:
    """Mix a colour into an image by a share per pixel, float [H, W] in 0..1."""
    share = share[..., None]
    return _to_image(image * (1 - share) + np.float32(colour) * share)


def _clouds(shape: tuple[int, ...], rng: np.random.Generator, cells: int) -> NDArray:
    """Smooth noise in 0..1, float32 [H, W], with about ``cells`` blobs across the height."""
    height, width = shape[:2]
    small = rng.random((cells + 1, max(2, round(cells * width / height)) + 1), np.float32)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def blur(image: Image, rng: np.random.Generator) -> Image:
    """Motion blur: a straight line of 8 to 16 % of the height, in any direction."""
    length = max(3, round(rng.uniform(0.08, 0.16) * len(image)))
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((length, length), np.float32)
    middle = (length - 1) / 2
    reach = middle * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(v) for v in np.rint(middle + side * reach)) for side in (-1, 1)]
    cv2.line(kernel, *ends, 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def darkness(image: Image, rng: np.random.Generator) -> Image:
    """Underexposure to 6 to 15 % of the light, with a sensor's noise near zero."""
    gain = rng.uniform(0.06, 0.15)
    noise = rng.normal(0, rng.uniform(2, 4), image.shape).astype(np.float32)
    return _to_image(image * np.float32(gain) + noise)


def glare(image: Image, rng: np.random.Generator) -> Image:
    """A low sun: a saturated disc with a veil that whitens most of the picture."""
    x, y = _grid(image)
    centre_x, centre_y = rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.6)
    aspect = image.shape[1] / image.shape[0]
    distance = np.hypot((x - centre_x) * aspect, y - centre_y)
    reach = rng.uniform(0.35, 0.6)
    share = np.exp(-(distance / reach) ** 2) * rng.uniform(1.1, 1.4) + rng.uniform(0.3, 0.5)
    return _blend(image, (255, 250, rng.uniform(225, 250)), share.clip(0, 0.98))


def jpeg(image: Image, rng: np.random.Generator) -> Image:
    """Compression by a starved link: a half to a third of the size, JPEG at quality 4 to 10."""
    height, width = image.shape[:2]
    shrink = rng.uniform(2, 3)
    small = cv2.resize(image, (max(16, round(width / shrink)), max(16, round(height / shrink))),
                       interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(4, 11))])
    return cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), (width, height))


def lost_rows(image: Image, rng: np.random.Generator) -> Image:
    """Lost packets: 4 to 7 bands, half of the rows in all, grey or repeated from above."""
    image = image.copy()
    height = len(image)
    count = int(rng.integers(4, 8))
    for start in rng.permutation(np.linspace(0, height, count, endpoint=False)):
        begin = int(start + rng.uniform(0, 0.3) * height / count)
        end = min(height, begin + max(1, round(rng.uniform(0.4, 0.75) * height / count)))
        image[begin:end] = 128 if rng.random() < 0.5 else image[max(0, begin - 1)]
    return image


def dirt(image: Image, rng: np.random.Generator) -> Image:
    """Mud and drops on the lens: 8 to 14 soft dark or bright spots, 10 to 25 % of the height."""
    height, width = image.shape[:2]
    share = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(8, 15))):
        centre = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        axes = [max(1, int(rng.uniform(0.05, 0.125) * height)) for _ in range(2)]
        cv2.ellipse(share, centre, axes, rng.uniform(0, 180), 0, 360, rng.uniform(0.85, 1), -1)
    sigma = 0.012 * height
    share = cv2.GaussianBlur(share, (0, 0), max(0.5, sigma))
    colour = (95, 80, 60) if rng.random() < 0.7 else (190, 190, 185)
    return _blend(cv2.GaussianBlur(image, (0, 0), max(0.5, 0.6 * sigma)), colour, share)


def defocus(image: Image, rng: np.random.Generator) -> Image:
    """A lens out of focus: a disc of 5 to 9 % of the height."""
    diameter = max(3, round(rng.uniform(0.05, 0.09) * len(image)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter)).astype(np.float32)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def fog(image: Image, rng: np.random.Generator) -> Image:
    """Fog that thickens towards the horizon, at 40 to 50 % of the height, with some clouds."""
    _, y = _grid(image)
    horizon = rng.uniform(0.4, 0.5)
    near = np.where(y > horizon, (y - horizon) / (1 - horizon), 0.0)
    share = 1 - (1 - rng.uniform(0.75, 0.88)) ** (1 - 0.55 * near)
    share = share + 0.08 * (_clouds(image.shape, rng, 4) - 0.5)
    grey = rng.uniform(170, 215)
    return _blend(image, (grey, grey, grey + 4), share.clip(0, 0.97).astype(np.float32))


def rain(image: Image, rng: np.random.Generator) -> Image:
    """A wet windscreen: drops that bend the picture, a soft blur, and streaks."""
    height, width = image.shape[:2]
    bend = 0.07 * height
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = [axis + bend * (_clouds(image.shape, rng, 14) - 0.5) for axis in (x, y)]
    image = cv2.remap(image, *moved, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    image = cv2.GaussianBlur(image, (0, 0), max(0.5, 0.008 * height))
    streaks = np.zeros((height, width), np.float32)
    for _ in range(220):
        start = rng.uniform(0, width), rng.uniform(-0.1, 1) * height
        length = rng.uniform(0.05, 0.15) * height
        end = start[0] + 0.15 * length, start[1] + length
        cv2.line(streaks, [round(v) for v in start], [round(v) for v in end],
                 rng.uniform(0.3, 0.7), max(1, round(height / 240)))
    return _blend(image, (205, 210, 215), streaks)


def overexposure(image: Image, rng: np.random.Generator) -> Image:
    """Too long an exposure: 3 to 5 times the light, cut off at white."""
    return _to_image(image * np.float32(rng.uniform(3, 5)) + 20)


def noise(image: Image, rng: np.random.Generator) -> Image:
    """Noise of a sensor at its highest gain: a deviation of 45 to 70 grey levels."""
    return _to_image(image + rng.normal(0, rng.uniform(45, 70), image.shape))


def wiper(image: Image, rng: np.random.Generator) -> Image:
    """A wiper in front of the lens: a dark bar of 20 to 32 % of the width, and a smear beside."""
    height, width = image.shape[:2]
    share = np.zeros((height, width), np.float32)
    centre, lean = rng.uniform(0.25, 0.75) * width, rng.uniform(-0.4, 0.4) * width
    half = rng.uniform(0.1, 0.16) * width
    corners = [(centre + lean - half, 0), (centre + lean + half, 0),
               (centre - lean + half, height), (centre - lean - half, height)]
    cv2.fillPoly(share, [np.rint(corners).astype(np.int32)], 0.96)
    share = cv2.GaussianBlur(share, (0, 0), max(0.5, 0.02 * height))
    smear = cv2.blur(image, (max(1, width // 14), max(1, height // 40)))
    return _blend(smear, (22, 22, 24), share)


KINDS: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    kind.__name__: kind for kind in (blur, darkness, glare, jpeg, lost_rows, dirt,
                                     defocus, fog, rain, overexposure, noise, wiper)}
SEEN = ('blur', 'darkness', 'glare', 'jpeg', 'lost_rows', 'dirt')
HELD_OUT = ('defocus', 'fog', 'rain', 'overexposure', 'noise', 'wiper')


def degrade(image: Image, rng: np.random.Generator, kind: str) -> Image:
    """
    Degrade a frame.

    Args:
        image: uint8 [H, W, 3] RGB.
        rng: Generator of the strength and the places.
        kind: A name of ``KINDS``.

    Returns:
        A new uint8 [H, W, 3].

    Raises:
        ValueError: There is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f'degradation {kind!r} is unknown: use {", ".join(KINDS)}')
    return KINDS[kind](np.ascontiguousarray(image), rng)


def schedule(count: int, kinds: Sequence[str] = SEEN, every: int = 5, burst: int = 1,
             offset: int = 4) -> list[Optional[str]]:
    """
    Tell which frames of a drive are degraded, and how.

    Args:
        count: Frames of the drive.
        kinds: Kinds in turn; a burst is of one kind.
        every: Frames from the start of one burst to the next.
        burst: Degraded frames in a row.
        offset: First degraded frame.

    Returns:
        For each frame its kind, or None.
    """
    plan: list[Optional[str]] = [None] * count
    for turn, start in enumerate(range(offset, count, every)):
        for index in range(start, min(count, start + burst)):
            plan[index] = kinds[turn % len(kinds)]
    return plan


def degrade_frame(image: Image, kind: Optional[str], index: int, seed: int = 0) -> Image:
    """Degrade frame ``index`` of a drive by a kind of ``schedule``; without one, the image."""
    if kind is None:
        return image
    return degrade(image, np.random.default_rng([seed, index, list(KINDS).index(kind)]), kind)
