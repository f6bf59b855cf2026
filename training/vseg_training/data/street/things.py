# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Things of the rendered street, each a list of parts ``(origin, u, v, texture)``.

A part is a parallelogram: ``origin`` its top left corner, ``u`` and ``v`` its upper and left edge
as its viewer sees them, in metres in the thing's own frame (x right, y up, z ahead; ground at
y = 0).
"""
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from .paint import (BICYCLIST, Color, finish, flat, floats, fractal, grain, PEDESTRIAN, POLE,
                    rectangle, SIGN, Texture, TREE, UNSEEN, VOID)


Vector = npt.NDArray[np.float64]
Part = tuple[Vector, Vector, Vector, Texture]  # origin, u, v, texture
Car = tuple[list[Part], float, float]  # parts, length, width

PAINTWORK = ((150, 152, 156), (60, 62, 66), (24, 26, 30), (120, 20, 24), (28, 44, 92),
             (190, 192, 194), (30, 56, 48), (92, 104, 124), (170, 168, 160), (70, 16, 24),
             (40, 90, 150), (200, 200, 205), (110, 114, 116))
CLOTHES = ((24, 24, 28), (34, 38, 54), (60, 58, 56), (90, 30, 34), (44, 52, 44), (120, 112, 100),
           (30, 30, 40), (70, 60, 50), (150, 148, 144), (36, 60, 100), (20, 20, 22))
SKIN = ((188, 144, 122), (150, 108, 86), (96, 66, 52), (204, 164, 142))


def vector(values: ArrayLike) -> Vector:
    """Values as float64."""
    return np.array(values, np.float64)


def corners(values: ArrayLike) -> npt.NDArray[np.int32]:
    """Coordinates of texels, cut to integers."""
    return np.array(values, np.int32)


def pick(rng: np.random.Generator, colors: Sequence[ArrayLike]) -> Color:
    """One of some colours: float32 [3]."""
    return floats(colors[int(rng.integers(len(colors)))])


def part(origin: ArrayLike, u: ArrayLike, v: ArrayLike, texture: Texture) -> Part:
    """A part of float64 vectors."""
    return vector(origin), vector(u), vector(v), texture


def facing(x: float, top: float, z: float, width: float, height: float, texture: Texture) -> Part:
    """An upright part across the street, centred at x, seen from the camera's side."""
    return part((x - width / 2, top, z), (width, 0, 0), (0, -height, 0), texture)


# Trees

def branches(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Line pieces (x0, y0, x1, y1, thickness) of a bare crown that stands on (0, 0)."""
    out, stack = [], [(0.0, 0.0, -np.pi / 2, 0.2, 0.03, 0)]
    while stack:
        x, y, angle, length, thick, depth = stack.pop()
        x1, y1 = x + length * np.cos(angle), y + length * np.sin(angle)
        out.append((x, y, x1, y1, thick))
        if depth < 8 and length > 0.012:
            for _ in range(3 if depth < 5 else 2):
                turn = angle * 0.96 - 0.04 * np.pi / 2 + rng.normal(0, 0.5)
                stack.append((x1, y1, turn, length * rng.uniform(0.62, 0.9), thick * 0.6,
                              depth + 1))
    return np.array(out)


def bare_crown(rng: np.random.Generator, size: int) -> Texture:
    """Branches and twigs; the label covers the crown as CamVid's does."""
    lines = branches(rng)
    reach = max(np.abs(lines[:, [0, 2]]).max() * 2, -lines[:, [1, 3]].min()) * 1.03
    ends = np.rint((lines[:, :4] / reach + (0.5, 1, 0.5, 1)) * size).astype(int).tolist()
    mask = np.zeros((size, size), np.uint8)
    for (x0, y0, x1, y1), thick in zip(ends, lines[:, 4] / reach * size):
        cv2.line(mask, (x0, y0), (x1, y1), 255, max(1, round(thick)), cv2.LINE_AA)
    image = flat(size, size, (66, 61, 55)) * (1 + 0.3 * fractal(rng, size, size, 8))[..., None]
    dense = cv2.GaussianBlur(mask, (0, 0), size / 64)
    label = np.where(dense > 40, TREE, UNSEEN).astype(np.uint8)
    return Texture(finish(image), mask, label)


def leafy_crown(rng: np.random.Generator, size: int, color: ArrayLike) -> Texture:
    """Clumps of leaves, lit from above, with holes to the sky."""
    yy, xx = np.mgrid[0:size, 0:size].astype(np.float32) / size
    field = np.full((size, size), -1, np.float32)
    for _ in range(rng.integers(6, 12)):
        cx, cy, r = rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.7), rng.uniform(0.12, 0.27)
        field = np.maximum(field, 1 - np.hypot((xx - cx), (yy - cy) * 1.1) / r)
    field += 0.55 * fractal(rng, size, size, 6, 6, 0.75)
    mask = np.clip((field - 0.02) * 2000, 0, 255).astype(np.uint8)
    image = flat(size, size, color)
    light = fractal(rng, size, size, 7, 6, 0.75) * 0.55 + 1.1 - 0.45 * yy
    image = grain(rng, image * light[..., None], 12)
    label = np.where(cv2.GaussianBlur(mask, (0, 0), 1.5) > 110, TREE, UNSEEN).astype(np.uint8)
    return Texture(finish(image), mask, label)


def trunk(rng: np.random.Generator) -> Texture:
    """Bark, lit from the left."""
    image = flat(128, 24, (66, 58, 50)) * (1 + 0.3 * fractal(rng, 128, 24, 8))[..., None]
    image *= np.linspace(1.25, 0.6, 24)[None, :, None]
    return Texture(finish(grain(rng, image, 6)), label=TREE)


def tree(rng: np.random.Generator, bare: bool) -> list[Part]:
    """A tree of 5 to 12 metres: trunk and two crowns, one behind the other."""
    height = rng.uniform(5, 12)
    width = height * rng.uniform(0.55, 0.85)
    stem = height * rng.uniform(0.2, 0.35)
    thick = height * 0.035
    parts = [facing(0, stem + 0.4, 0, thick, stem + 0.4, trunk(rng))]
    color = floats((74, 79, 56)) * rng.uniform(0.7, 1.25) * rng.uniform(0.88, 1.12, 3)
    for z in (0.7, -0.7)[:1 if bare else 2]:
        crown = bare_crown(rng, 320) if bare else leafy_crown(rng, 288, color)
        w = width * (1.3 if bare else 1)
        x, top = rng.normal(0, 0.2), height + z * 0.3
        parts.append(facing(x, top, z, w, height - stem * 0.9, crown))
    return parts


def bush(rng: np.random.Generator) -> list[Part]:
    """A bush of 1.2 to 3 metres."""
    color = floats((68, 74, 52)) * rng.uniform(0.6, 1.15)
    size = rng.uniform(1.2, 3)
    return [facing(0, size, 0, size * 1.5, size * 1.25, leafy_crown(rng, 160, color))]


# Street furniture

def tube(rng: np.random.Generator, color: ArrayLike, label: int = POLE) -> Texture:
    """A round post, lit from the left."""
    image = flat(64, 12, color) * np.linspace(1.3, 0.55, 12)[None, :, None]
    return Texture(finish(image * (1 + 0.15 * fractal(rng, 64, 12, 4))[..., None]), label=label)


def lamp_post(rng: np.random.Generator, side: int) -> list[Part]:
    """A street lamp whose arm reaches over the road (``side``: -1 left, 1 right)."""
    steel = tube(rng, pick(rng, ((96, 100, 98), (60, 66, 62), (120, 120, 116))))
    height, arm = rng.uniform(5.5, 9), -side * rng.uniform(0.8, 2)
    parts = [facing(0, height, 0, 0.14, height, steel), facing(0, 1.5, -0.01, 0.21, 1.5, steel)]
    left = min(0, arm)
    rise = 0.35
    origin = (left, height + (rise if arm < 0 else 0) + 0.05, 0)
    slope = -rise if arm < 0 else rise
    parts.append(part(origin, (abs(arm), slope, 0), (0, -0.1, 0), steel))
    parts.append(facing(arm, height + rise + 0.1, 0, 0.7, 0.17, tube(rng, (150, 150, 146))))
    return parts


def plate(rng: np.random.Generator) -> tuple[Texture, float, float]:
    """The face of a sign: its texture, width and height in metres."""
    size, kind = 96, rng.integers(7)
    mask = np.zeros((size, size), np.uint8)
    image = finish(flat(size, size, (205, 205, 205)))
    centre, red, blue = (48, 48), (170, 24, 30), (24, 60, 140)
    width = height = rng.uniform(0.6, 0.95)
    if kind <= 2:
        cv2.circle(mask, centre, 46, 255, -1)
        cv2.circle(image, centre, 46, blue if kind == 2 else red, -1)
        if kind == 0:
            cv2.circle(image, centre, 34, (215, 215, 215), -1)
            cv2.putText(image, ('20', '30', '40')[rng.integers(3)], (22, 62), 0, 1.3,
                        (20, 20, 20), 5)
        elif kind == 1:
            rectangle(image, 18, 40, 78, 56, (225, 225, 225))
        else:
            cv2.arrowedLine(image, (48, 78), (30, 26), (225, 225, 225), 9, tipLength=0.4)
    elif kind == 3:
        points = corners([(48, 4), (94, 90), (2, 90)])
        cv2.fillPoly(mask, [points], 255)
        image[:] = red
        cv2.fillPoly(image, [corners([(48, 26), (76, 80), (20, 80)])], (215, 215, 215))
        rectangle(image, 44, 42, 53, 74, (20, 20, 20))
    else:
        mask[:] = 255
        width, height = rng.uniform(0.4, 2.2), rng.uniform(0.4, 1.3)
        ground = pick(rng, (blue, (16, 90, 60), (205, 205, 205), (200, 190, 60), (120, 30, 30)))
        ink = (30, 30, 34) if ground.mean() > 120 else (220, 220, 220)
        image[:] = ink
        rectangle(image, 4, 4, 92, 92, ground)
        for row in range(14, 80, 22):
            x = int(rng.integers(8, 24))
            while x < 80:
                w = int(rng.integers(4, 16))
                rectangle(image, x, row, min(x + w, 86), row + 12, ink)
                x += w + 4
    if rng.random() < 0.22:
        image[:] = (104, 106, 106)
    return Texture(finish(image * rng.uniform(0.75, 1.05)), mask, SIGN), width, height


def sign_post(rng: np.random.Generator) -> list[Part]:
    """One or two signs on a post."""
    height = rng.uniform(2.2, 3.4)
    parts = [facing(0, height, 0, 0.085, height, tube(rng, (110, 112, 112)))]
    for _ in range(rng.integers(1, 3)):
        texture, w, h = plate(rng)
        parts.append(facing(0, height + 0.05, -0.05, w, h, texture))
        height -= h + 0.05
    return parts


def traffic_light(rng: np.random.Generator) -> list[Part]:
    """A traffic light of three lamps, one of them lit."""
    image = flat(120, 48, (22, 22, 24))
    lit = rng.integers(3)
    for i, color in enumerate(((250, 60, 40), (250, 180, 60), (90, 250, 190))):
        tone = floats(color) * (1 if i == lit else 0.14)
        cv2.circle(image, (24, 24 + 36 * i), 12, tuple(map(float, tone)), -1)
    head = Texture(finish(image), label=SIGN)
    parts = [facing(0, 3.2, 0, 0.12, 3.2, tube(rng, (50, 52, 52))),
             facing(0, 3.5, -0.12, 0.42, 1.05, head)]
    if rng.random() < 0.3:
        parts.append(facing(0.35, 2.3, -0.12, 0.3, 0.8, head))
    return parts


def bollard(rng: np.random.Generator) -> list[Part]:
    """A post of about a metre."""
    height = rng.uniform(0.8, 1.1)
    return [facing(0, height, 0, 0.17, height,
                   tube(rng, pick(rng, ((34, 34, 36), (50, 52, 50), (170, 165, 120)))))]


def bin_(rng: np.random.Generator) -> list[Part]:
    """A litter bin, which CamVid leaves void."""
    color = pick(rng, ((30, 32, 34), (30, 60, 44), (110, 24, 24)))
    return [facing(0, 1.1, 0, 0.6, 1.1, tube(rng, color, VOID))]


def shadow(length: float, width: float) -> Part:
    """The dark under a thing on the ground; multiplies what it covers."""
    soft = np.zeros((64, 64), np.float32)
    soft[14:50, 14:50] = 1
    soft = cv2.GaussianBlur(soft, (0, 0), 6)
    texture = Texture(finish(np.repeat(255 * (1 - 0.72 * soft[..., None]), 3, 2)), shade=True)
    w, d = width * 1.5, length * 1.5
    return part((-w / 2, 0.005, d / 2), (w, 0, 0), (0, 0, -d), texture)


# People

def limb(color: ArrayLike, end: ArrayLike, label: int) -> Texture:
    """An arm or a leg, tapered; the last fifth in the colour of hand or shoe."""
    image = flat(64, 20, color) * np.linspace(1.15, 0.7, 20)[None, :, None]
    image[52:] = end
    mask = np.zeros((64, 20), np.uint8)
    cv2.fillPoly(mask, [corners([(1, 0), (18, 0), (16, 63), (4, 63)])], 255)
    return Texture(finish(image), mask, label)


def torso(rng: np.random.Generator, label: int, coat: ArrayLike, skin: Color,
          helmet: bool = False) -> Texture:
    """Head, neck and trunk, 0.62 x 1.0 metres."""
    image, mask = flat(160, 100, coat), np.zeros((160, 100), np.uint8)
    body = corners([(30, 46), (70, 46), (84, 62), (80, 110), (82, 159), (18, 159),
                    (20, 110), (16, 62)])
    cv2.fillPoly(mask, [body], 255)
    mask = cv2.threshold(cv2.GaussianBlur(mask, (0, 0), 5), 127, 255, cv2.THRESH_BINARY)[1]
    image *= np.linspace(1.2, 0.65, 100)[None, :, None]
    image *= (1 + 0.25 * fractal(rng, 160, 100, 5))[..., None]
    if rng.random() < 0.35:
        rectangle(image, 30, 62, 70, 120, pick(rng, CLOTHES))
    hair = pick(rng, ((30, 24, 20), (70, 52, 36), (20, 18, 18), (120, 96, 64), (130, 128, 124)))
    for canvas, head in ((mask, 255), (image, tuple(map(float, skin)))):
        cv2.ellipse(canvas, (50, 24), (15, 21), 0, 0, 360, head, -1)
        rectangle(canvas, 43, 38, 57, 48, head)
    top = pick(rng, PAINTWORK) if helmet else hair
    cv2.ellipse(image, (50, 18), (17, 18), 0, 0 if rng.random() < .4 else 180, 360,
                tuple(map(float, top)), -1)
    return Texture(finish(image), mask, label)


class Walker:
    """A pedestrian; ``parts(phase)`` moves arms and legs."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.size = rng.uniform(0.88, 1.06)
        coat, legs, skin = pick(rng, CLOTHES), pick(rng, CLOTHES) * 0.8, pick(rng, SKIN)
        self.torso = torso(rng, PEDESTRIAN, coat, skin)
        self.arm = limb(coat * 0.85, skin, PEDESTRIAN)
        self.leg = limb(legs, (18, 17, 17), PEDESTRIAN)
        self.stride = rng.uniform(0.4, 0.6)

    def parts(self, phase: float, across: bool = False) -> list[Part]:
        """Walking along the street or ``across`` it; phase in radians of the double step."""
        s, out = self.size, []
        for side in (-1, 1):
            swing = side * self.stride * np.sin(phase)
            for texture, x, top, length, width, angle in (
                    (self.leg, 0.085, 0.88, 0.88, 0.2, swing),
                    (self.arm, 0.24, 1.4, 0.68, 0.13, -0.7 * swing)):
                x = 0 if across else side * x
                ahead, down = length * np.sin(angle), -length * np.cos(angle)
                v = (ahead, down, 0) if across else (0, down, ahead)
                out.append(part((s * (x - width / 2), s * top, 0.02 * side), (s * width, 0, 0),
                                s * vector(v), texture))
        wide = 0.5 if across else 0.62
        out.insert(3, facing(0, s * 1.72, 0, s * wide, s * 0.98, self.torso))
        return out


class Cyclist:
    """A cyclist seen from behind or ahead; ``parts(phase)`` turns the pedals."""

    def __init__(self, rng: np.random.Generator) -> None:
        coat = pick(rng, CLOTHES + ((200, 200, 40),))
        legs, skin = pick(rng, CLOTHES), pick(rng, SKIN)
        self.torso = torso(rng, BICYCLIST, coat, skin, rng.random() < 0.6)
        self.arm = limb(coat * 0.85, skin, BICYCLIST)
        self.leg = limb(legs, (18, 17, 17), BICYCLIST)
        wheel = np.zeros((96, 24), np.uint8)
        cv2.ellipse(wheel, (12, 48), (7, 47), 0, 0, 360, 255, -1)
        self.wheel = Texture(finish(flat(96, 24, (24, 24, 25))), wheel, BICYCLIST)
        bar = flat(8, 64, (40, 40, 42))
        self.bar = Texture(finish(bar), label=BICYCLIST)

    def parts(self, phase: float, across: bool = False) -> list[Part]:
        """Parts with the pedals at ``phase``, in radians; cyclists never cross."""
        del across
        out = [facing(0, 0.68, -0.4, 0.13, 0.68, self.wheel),
               facing(0, 0.95, 0.3, 0.55, 0.05, self.bar)]
        for side in (-1, 1):
            lift = 0.14 * side * np.sin(phase)
            out.append(part((side * 0.11 - 0.09, 0.98, 0), (0.18, 0, 0), (0, -0.72 + lift, 0.1),
                            self.leg))
            out.append(part((side * 0.24 - 0.06, 1.42, 0), (0.12, 0, 0), (0, -0.5, 0.3), self.arm))
        out.append(facing(0, 1.78, 0, 0.6, 0.92, self.torso))
        return out


def parked_bicycle(rng: np.random.Generator) -> Texture:
    """A bicycle along the street (seen from the road on both sides), labelled as CamVid's are."""
    mask = np.zeros((110, 180), np.uint8)
    for x in (38, 142):
        cv2.circle(mask, (x, 72), 35, 255, 4)
    for a, b in (((38, 72), (80, 72)), ((80, 72), (66, 24)), ((66, 30), (126, 30)),
                 ((80, 72), (126, 30)), ((122, 14), (142, 72)), ((38, 72), (66, 30)),
                 ((54, 22), (78, 22)), ((112, 14), (134, 12))):
        cv2.line(mask, a, b, 255, 5)
    label = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((41, 41), np.uint8))
    label = np.where(label > 0, BICYCLIST, UNSEEN).astype(np.uint8)
    image = flat(110, 180, pick(rng, PAINTWORK) * 0.6)
    image[60:] = (28, 28, 28)
    return Texture(finish(image), mask, label)
