# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Camera frames made bad: what leaves a single frame of a drive hardly readable.

``SEEN`` kinds may be trained on; ``HELD_OUT`` kinds are for measuring only. Every kind is severe:
``STRENGTH`` says how much. Lengths are shares of the image height and grain has ``GRAIN_ROWS``
rows at most, so that a crop of 224x288 and a frame of 720x960 look alike.
"""
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


Image = npt.NDArray[np.uint8]  # [H, W, 3] RGB
Field = npt.NDArray[np.float32]  # [H, W]

GRAIN_ROWS = 360  # noise of a larger image is coarser than its pixels
_LIGHT = ((np.arange(256) / 255) ** 2.2).astype(np.float32)  # of a grey level
_GREY = np.rint(255 * (np.arange(65536) / 65535) ** (1 / 2.2)).astype(np.uint8)
STRENGTH = {  # range that a frame's strength is drawn from
    'blur': (0.04, 0.08),  # length of a straight motion, in heights
    'darkness': (0.015, 0.035),  # share of the light that is left; read noise is 0.0015
    'glare': (0.2, 0.35),  # radius of the light's glow, in heights
    'jpeg': (170, 260),  # rows that are compressed, at quality 5 to 10
    'lost_rows': (0.45, 0.65),  # share of 30 bands that did not arrive
    'dirt': (0.5, 0.7),  # share of the lens that mud covers
    'defocus': (0.014, 0.028),  # radius of the blur disc, in heights
    'fog': (2.0, 4.0),  # sight, in distances of the bottom row
    'rain': (0.25, 0.45),  # share of the windshield under drops and running water
    'overexposure': (10.0, 30.0),  # times the light
    'noise': (0.05, 0.12),  # standard deviation, of full scale
    'wiper': (0.35, 0.6),  # width of the smeared bar, in heights
}


def _linear(image: Image) -> npt.NDArray[np.float32]:
    """Light of an image, 0..1."""
    return cv2.LUT(image, _LIGHT)


def _encoded(light: npt.NDArray[np.float32]) -> Image:
    return _GREY[(np.clip(light, 0, 1) * 65535).astype(np.uint16)]


def _rounded(values: npt.NDArray[np.float32]) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _mixed(image: Image, other: npt.NDArray[Any], share: Field) -> Image:
    """Image with ``other`` (an image or a colour) laid over it by a share of 0..1."""
    share = share[..., None]
    return _rounded(image * (1 - share) + np.float32(other) * share)


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Normal noise of a shape [H, W, ...] whose grain is no finer than GRAIN_ROWS rows."""
    height, width = shape[:2]
    scale = min(1.0, GRAIN_ROWS / height)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    noise = rng.standard_normal((rows, columns, *shape[2:]), np.float32)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST)


def _clouds(shape: tuple[int, ...], rng: np.random.Generator, cells: int) -> Field:
    """Smooth random field of mean 0 and deviation 1, about ``cells`` patches high."""
    height, width = shape[:2]
    field = np.zeros((height, width), np.float32)
    for octave in range(3):
        rows = cells << octave
        columns = max(2, round(rows * width / height))
        coarse = rng.standard_normal((rows, columns), np.float32) / (1 << octave)
        field += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / (field.std() + 1e-6)


def _covering(field: Field, share: float, edge: float) -> Field:
    """Share of 0..1 that is 1 where the field is largest; edges are ``edge`` deviations wide."""
    return np.clip((field - np.quantile(field, 1 - share)) / edge + 0.5, 0, 1)


def _grid(shape: tuple[int, ...]) -> tuple[Field, Field]:
    """Places x [1, W] and y [H, 1] of pixels, in heights."""
    height, width = shape[:2]
    return (np.arange(width, dtype=np.float32)[None] / np.float32(height),
            np.arange(height, dtype=np.float32)[:, None] / np.float32(height))


def _color(red: float, green: float, blue: float) -> npt.NDArray[np.float32]:
    return np.array([red, green, blue], np.float32)


def _smeared(image: Image, length: float, angle: float) -> Image:
    """Image moved along a line; length in pixels, angle in radians."""
    half = max(1.0, length / 2)
    size = 2 * int(np.ceil(half)) + 1
    end = half * np.array([np.cos(angle), np.sin(angle)])
    kernel, centre = np.zeros((size, size), np.float32), size // 2
    for step in np.linspace(-1, 1, 2 * size):
        x, y = np.rint(centre + step * end).astype(int)
        kernel[y, x] += 1
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def blur(image: Image, rng: np.random.Generator) -> Image:
    """Motion blur of a jolt or a fast turn."""
    length = rng.uniform(*STRENGTH['blur']) * len(image)
    return _smeared(image, length, rng.uniform(0, np.pi))


def darkness(image: Image, rng: np.random.Generator) -> Image:
    """Exposure that is far too short, as on entering a tunnel."""
    light = _linear(image) * np.float32(rng.uniform(*STRENGTH['darkness']))
    return _encoded(light + np.float32(0.0015) * _grain(image.shape, rng))


def glare(image: Image, rng: np.random.Generator) -> Image:
    """A low sun or a headlight: a saturated disc, a glow and a veil over the whole frame."""
    x, y = _grid(image.shape)
    radius = rng.uniform(*STRENGTH['glare'])
    away = np.hypot(x - rng.uniform(0.2, 0.8) * x.max(), y - rng.uniform(0.15, 0.65)) / radius
    glow = np.exp(-away) * 2 + rng.uniform(0.08, 0.2)
    colour = _color(1, rng.uniform(0.88, 1), rng.uniform(0.7, 0.95))
    return _encoded(_linear(image) * np.float32(0.6) + glow[..., None] * colour)


def jpeg(image: Image, rng: np.random.Generator) -> Image:
    """Heavy compression of a narrow link: few pixels, few bits, blocks."""
    height, width = image.shape[:2]
    scale = min(1.0, rng.uniform(*STRENGTH['jpeg']) / height)
    small = cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))),
                       interpolation=cv2.INTER_AREA)
    quality = int(rng.integers(5, 11))
    _, data = cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), (width, height),
                      interpolation=cv2.INTER_NEAREST)


def lost_rows(image: Image, rng: np.random.Generator) -> Image:
    """Packets that did not arrive: bands of a colour, or of the last row that did."""
    edges = np.linspace(0, len(image), 31).round().astype(int)
    lost = rng.random(30) < rng.uniform(*STRENGTH['lost_rows'])
    lost[rng.integers(30)] = True
    fill = [None, (128, 128, 128), (0, 0, 0), (0, 135, 0)][rng.integers(4)]
    result, last = image.copy(), np.full(image.shape[1:], 128, np.uint8)
    for top, bottom, gone in zip(edges, edges[1:], lost):
        if top == bottom:
            continue
        if gone:
            begin = int(image.shape[1] * max(0.0, rng.uniform(-0.5, 0.5)))
            result[top:bottom, begin:] = last[begin:] if fill is None else fill
        last = result[bottom - 1]
    return result


def dirt(image: Image, rng: np.random.Generator) -> Image:
    """Mud on the lens: opaque blobs, too near to be in focus."""
    field = _clouds(image.shape, rng, int(rng.integers(3, 7)))
    share = _covering(field, rng.uniform(*STRENGTH['dirt']), rng.uniform(0.3, 0.8))
    colour = rng.uniform(25, 110) * _color(1, rng.uniform(0.8, 1), rng.uniform(0.6, 0.9))
    texture = 1 + 0.15 * _clouds(image.shape, rng, 6)[..., None]
    return _mixed(image, colour * texture, np.float32(0.97) * share)


def defocus(image: Image, rng: np.random.Generator) -> Image:
    """A lens that has lost its focus."""
    radius = max(1, round(rng.uniform(*STRENGTH['defocus']) * len(image)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2).astype(np.float32)
    return cv2.filter2D(image, -1, disc / disc.sum(), borderType=cv2.BORDER_REPLICATE)


def fog(image: Image, rng: np.random.Generator) -> Image:
    """Fog or smoke: a veil that grows with the distance of a flat road."""
    _, y = _grid(image.shape)
    horizon = rng.uniform(0.35, 0.5)
    distance = (1 - horizon) / np.maximum(y - horizon, 0.08)
    sight = rng.uniform(*STRENGTH['fog'])
    thickness = distance / sight * np.exp(0.3 * _clouds(image.shape, rng, 2))
    colour = rng.uniform(150, 225) * _color(1, 1, rng.uniform(0.97, 1.05))
    return _mixed(image, colour, 1 - np.exp(-thickness))


def rain(image: Image, rng: np.random.Generator) -> Image:
    """A wet windshield: drops and running water bend the view, streaks cross it."""
    height, width = image.shape[:2]
    water = _covering(_clouds(image.shape, rng, 12), rng.uniform(*STRENGTH['rain']), 0.6)
    bend = [np.float32(0.035 * height) * _clouds(image.shape, rng, 14) for _ in range(2)]
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    soft = cv2.GaussianBlur(image, (0, 0), 0.006 * height + 0.3)
    bent = cv2.remap(soft, columns[None] + bend[0], rows[:, None] + bend[1], cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REFLECT)
    wet = _mixed(soft, bent, water)
    streaks = np.where(_grain((height, width), rng) > 2.4, 255, 0).astype(np.uint8)
    streaks = _smeared(streaks, 0.1 * height, np.pi / 2 + rng.uniform(-0.3, 0.3))
    streaks = cv2.GaussianBlur(streaks, (0, 0), 0.002 * height)[..., None]
    return _rounded(wet * np.float32(0.9) + np.float32(1.5) * streaks)


def overexposure(image: Image, rng: np.random.Generator) -> Image:
    """Exposure that is far too long, as on leaving a tunnel; light spills over."""
    light = np.minimum(_linear(image) * np.float32(rng.uniform(*STRENGTH['overexposure'])), 4)
    spilt = cv2.GaussianBlur(light, (0, 0), 0.04 * len(image) + 0.3)
    return _encoded(light + np.float32(0.3) * spilt)


def noise(image: Image, rng: np.random.Generator) -> Image:
    """A sensor at its highest gain: noise of brightness and of colour."""
    deviation = np.float32(255 * rng.uniform(*STRENGTH['noise']))
    return _rounded(image + deviation * _grain(image.shape, rng))


def wiper(image: Image, rng: np.random.Generator) -> Image:
    """A wiper's blade and arm, smeared by their motion, and the film of water behind them."""
    x, y = _grid(image.shape)
    width = rng.uniform(*STRENGTH['wiper'])
    angle = rng.uniform(-0.9, 0.9)
    across = ((x - rng.uniform(0.25, 0.75) * x.max()) * np.cos(angle)
              + (y - 0.5) * np.sin(angle)) / width
    film = _smeared(image, 0.12 * len(image), angle)
    behind = np.clip(4 * across, 0, 1) if rng.random() < 0.5 else np.clip(-4 * across, 0, 1)
    bar = np.clip(4 * (0.6 - np.abs(across)), 0, 1)
    colour = rng.uniform(10, 45)
    return _mixed(_mixed(image, film, behind), np.full(3, colour), np.float32(0.98) * bar)


SEEN = ('blur', 'darkness', 'glare', 'jpeg', 'lost_rows', 'dirt')
HELD_OUT = ('defocus', 'fog', 'rain', 'overexposure', 'noise', 'wiper')
KINDS: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    function.__name__: function for function in (
        blur, darkness, glare, jpeg, lost_rows, dirt,
        defocus, fog, rain, overexposure, noise, wiper)}


def degrade(image: Image, rng: np.random.Generator, kind: str) -> Image:
    """
    Degrade one frame.

    Args:
        image: uint8 [H, W, 3] RGB of any size; it is not changed.
        rng: decides strength, place and shape: an equal state gives an equal frame.
        kind: a key of KINDS.

    Returns:
        uint8 [H, W, 3], contiguous.

    Raises:
        ValueError: the image is not such an array, or the kind is unknown.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f'image is {image.dtype} {image.shape}, but degrade() takes uint8 '
                         '[H, W, 3]: convert it first')
    if kind not in KINDS:
        raise ValueError(f'degradation {kind!r} is unknown: use one of {", ".join(KINDS)}')
    return np.ascontiguousarray(KINDS[kind](np.ascontiguousarray(image), rng))


def degradation_schedule(count: int, every: int = 5, offset: int = 4, burst: int = 1,
                         kinds: Sequence[str] = SEEN, seed: int = 0) -> list[str | None]:
    """
    Which frames of a drive are bad, and how.

    Frame i is bad if (i - offset) % every < burst and i >= offset. The kinds take turns, one for
    each burst.

    Args:
        count: frames of the drive.
        every: period in frames, longer than burst.
        offset: first bad frame.
        burst: consecutive bad frames.
        kinds: names of KINDS.
        seed: place in kinds of the first burst's kind.

    Returns:
        A kind, or None for a clean frame, for each frame.

    Raises:
        ValueError: burst does not fit into every.
    """
    if not 1 <= burst < every:
        raise ValueError(f'bursts of {burst} do not fit into a period of {every}: burst must be '
                         'at least 1 and less than every')
    return [kinds[((i - offset) // every + seed) % len(kinds)]
            if i >= offset and (i - offset) % every < burst else None for i in range(count)]


def frame_rng(seed: int, index: int) -> np.random.Generator:
    """Generator for frame ``index`` of a drive: the same whichever frames came before."""
    return np.random.default_rng([seed, index])
