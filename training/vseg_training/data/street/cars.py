# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Cars, vans and buses of the rendered street: extruded profiles, 80 texels to the metre."""
import cv2
import numpy as np

from .paint import CAR, Color, finish, flat, fractal, grain, Image, Pixels, rectangle, Texture
from .things import Car, corners, PAINTWORK, Part, part, pick

Profile = tuple[tuple[float, float], ...]  # z, y

# length, width, profile (z, y) from the rear bumper over the roof to the front
SHAPES: dict[str, tuple[float, float, float, Profile]] = {
    'hatch': (3.9, 1.68, 1.46, ((0, .9), (.06, .95), (.42, 1.42), (2.3, 1.46), (3.0, .98),
                                (3.8, .78), (3.9, .6))),
    'saloon': (4.5, 1.75, 1.42, ((0, .9), (.5, 1.0), (1.15, 1.38), (2.7, 1.42), (3.4, .98),
                                 (4.4, .76), (4.5, .6))),
    'estate': (4.6, 1.76, 1.48, ((0, .9), (.05, 1.0), (.3, 1.42), (2.8, 1.48), (3.5, 1.0),
                                 (4.5, .78), (4.6, .6))),
    'suv': (4.5, 1.85, 1.8, ((0, 1.0), (.04, 1.1), (.25, 1.72), (2.7, 1.8), (3.3, 1.2),
                             (4.4, 1.0), (4.5, .7))),
    'van': (5.2, 1.98, 2.3, ((0, 1.05), (.03, 1.15), (.08, 2.22), (3.6, 2.3), (4.3, 1.35),
                             (5.1, 1.05), (5.2, .7))),
    'bus': (9.5, 2.5, 3.0, ((0, 1.15), (.03, 1.2), (.1, 2.9), (9.2, 3.0), (9.45, 1.2),
                            (9.48, 1.1), (9.5, 1.0))),
}
KINDS = ('hatch', 'hatch', 'hatch', 'saloon', 'estate', 'suv', 'van', 'bus')  # rarer later


def pane_tone(rng: np.random.Generator, height: int, width: int) -> Image:
    """Glass: the sky above, the dark inside below."""
    ramp = np.linspace(rng.uniform(55, 200), 20, height)
    return ramp[:, None, None] * flat(1, width, (.95, 1, 1.05))


def glass(rng: np.random.Generator, height: int, width: int, top: float = 1.0
          ) -> tuple[Image, Pixels]:
    """A car window seen from outside: dark, with the sky at a slant; narrower above."""
    image = pane_tone(rng, height, width)
    cv2.ellipse(image, (width // 3, height), (width // 7, height // 2), 0, 180, 360,
                (22, 22, 24), -1)
    cv2.ellipse(image, (width * 2 // 3, height), (width // 7, height // 2), 0, 180, 360,
                (24, 23, 24), -1)
    mask = np.zeros((height, width), np.uint8)
    inset = (1 - top) / 2 * width
    cv2.fillPoly(mask, [corners([(inset, 0), (width - inset, 0), (width, height),
                                 (0, height)])], 255)
    return image, mask


def car_end(rng: np.random.Generator, paint: Color, width_m: float, top_m: float,
            front: bool) -> Texture:
    """Bumper, lights, number plate, tyres: the lower rear or front, 80 texels a metre."""
    height, width = int(top_m * 80), int(width_m * 80)
    image = flat(height, width, paint) * np.linspace(1.25, 0.6, height)[:, None, None]
    y = lambda metres: height - metres * 80  # noqa: E731
    mask = np.full((height, width), 255, np.uint8)
    rectangle(image, 0, y(0.3), width, height, (14, 14, 15))
    rectangle(mask, 0, y(0.09), width, height, 0)
    for x in (6, width - 24):
        rectangle(image, x, y(0.3), x + 18, height, (20, 20, 21))
        rectangle(mask, x, y(0.1), x + 18, height, 255)
    dark = rng.random() < 0.4
    rectangle(image, 0, y(0.52), width, y(0.3), (34, 35, 36) if dark else paint * 0.82)
    rectangle(image, 0, y(0.53), width, y(0.52), paint * 0.4)
    if front:
        rectangle(image, width * .25, y(0.62), width * .75, y(0.53), (26, 27, 28))
        lamp, low, high = (205, 208, 210), 0.58, top_m - 0.02
    else:
        lamp, low, high = (150, 18, 20), top_m - 0.3, top_m - 0.05
    for x0, x1 in ((2, width * .17), (width * .83, width - 2)):
        rectangle(image, x0, y(high), x1, y(low), lamp)
        rectangle(image, x0, y(low + 0.06), x1, y(low), (160, 160, 160) if front else
                  (225, 200, 190))
    rectangle(image, width * .36, y(0.56), width * .64, y(0.44),
              (195, 195, 190) if front else (196, 170, 40))
    for x in range(int(width * .38), int(width * .62), 6):
        rectangle(image, x, y(0.53), x + 4, y(0.47), (30, 30, 30))
    return Texture(finish(grain(rng, image, 2)), mask, CAR)


def car_side(paint: Color, profile: Profile, wheel: float, bus: bool) -> tuple[Image, Pixels]:
    """The side below the windows: doors, arches and wheels; the rear is at the left."""
    length, belt = profile[-1][0], profile[1][1]
    height, width = int(belt * 80), int(length * 80)
    image = flat(height, width, paint)
    image *= np.interp(np.arange(height), (0, height * .3, height * .45, height),
                       (1.45, 1.0, 0.72, 0.5))[:, None, None].astype(np.float32)
    mask = np.zeros((height, width), np.uint8)
    low = height - int(0.24 * 80)
    outline = [(z * 80, (belt - min(y, belt)) * 80) for z, y in profile]
    cv2.fillPoly(mask, [corners([*outline, (width, low - 14), (width - 12, low), (8, low),
                                 (0, low - 20)])], 255)
    if bus:
        mask[:low] = 255
    for x in np.linspace(0.3, 0.68, 3)[:0 if bus else 3]:
        rectangle(image, x * width, 4, x * width + 2, low - 6, paint * 0.4)
    rectangle(image, 0, low - 8, width, low, paint * 0.35)
    radius = int(wheel * 80)
    for x in (0.18, 0.81):
        centre = (int(x * width), height - radius)
        cv2.circle(image, centre, radius + 5, (10, 10, 11), -1)
        cv2.circle(image, centre, radius, (24, 24, 25), -1)
        cv2.circle(image, centre, int(radius * .62), (128, 130, 132), -1)
        for angle in np.arange(5) * 1.2566:
            tip = (int(centre[0] + radius * .5 * np.cos(angle)),
                   int(centre[1] + radius * .5 * np.sin(angle)))
            cv2.circle(image, tip, radius // 7, (40, 40, 42), -1)
        cv2.circle(mask, centre, radius, 255, -1)
    return image, mask


def cabin_side(rng: np.random.Generator, paint: Color, profile: Profile, length: float,
               belt: float, top: float, van: bool) -> Texture:
    """The side windows between belt line and roof."""
    height, width = int((top - belt) * 80), int(length * 80)
    image = flat(height, width, paint)
    mask = np.zeros((height, width), np.uint8)
    outline = np.array([(z * 80, (top - y) * 80) for z, y in profile if y >= belt - 0.06])
    hull = np.vstack([outline, (outline[-1][0], height), (outline[0][0], height)])
    cv2.fillPoly(mask, [corners(hull)], 255)
    inner = np.zeros_like(mask)
    cv2.fillPoly(inner, [corners((hull - hull.mean(0)) * (0.93, 0.8) + hull.mean(0))], 255)
    if van:
        inner[:, :int(width * .62)] = 0
    image = np.where(inner[..., None] > 0, pane_tone(rng, height, width), image).astype(np.float32)
    for x in (0.36, 0.56):
        rectangle(image, x * width, 0, x * width + 6, height, paint * 0.5)
    return Texture(finish(image), mask, CAR)


def mirrored(texture: Texture) -> Texture:
    """The same surface from the other side."""
    rgba = np.ascontiguousarray(texture.levels[0, 0][:, ::-1])
    return Texture(rgba[..., :3], np.ascontiguousarray(rgba[..., 3]), texture.label)


def framed_pane(rng: np.random.Generator, paint: Color, narrow: float) -> Texture:
    """A rear window or windscreen in its painted frame, ``narrow`` times as wide above."""
    image, mask = glass(rng, 64, 140, narrow)
    inner = np.zeros_like(mask)
    inner[6:58, 8:132] = cv2.resize(mask, (124, 52))
    image = np.where(inner[..., None] > 0, image, flat(64, 140, paint * 0.9))
    return Texture(finish(image), mask, CAR)


def sheet(rng: np.random.Generator, paint: Color, tone: float, rim: int = 0) -> Texture:
    """Painted metal seen from above; ``rim`` texels of 80 are left out at each side."""
    image = flat(40, 80, paint) * np.linspace(1.6, 1.2, 40)[:, None, None] * tone
    image *= (1 + 0.05 * fractal(rng, 40, 80, 3))[..., None]
    mask = np.zeros((40, 80), np.uint8)
    mask[:, rim:80 - rim] = 255
    return Texture(finish(image), mask if rim else None, CAR)


def car_sides(rng: np.random.Generator, paint: Color, kind: str, narrow: float) -> list[Part]:
    """The two sides: doors and wheels below, the cabin leaning in above."""
    length, width, top, profile = SHAPES[kind]
    half, end, belt = width / 2, length / 2, profile[1][1]
    lean, bus = half * (1 - narrow), kind == 'bus'
    image, mask = car_side(paint, profile, 0.48 if bus else 0.31, bus)
    side = Texture(finish(image), mask, CAR)
    cabin = cabin_side(rng, paint, profile, length, belt, top, kind == 'van')
    # The left side is seen with the front at its left, the right side with it at its right.
    return [part((-half, belt, end), (0, 0, -length), (0, -belt, 0), mirrored(side)),
            part((half, belt, -end), (0, 0, length), (0, -belt, 0), side),
            part((-half + lean, top, end), (0, 0, -length), (-lean, belt - top, 0),
                 mirrored(cabin)),
            part((half - lean, top, -end), (0, 0, length), (lean, belt - top, 0), cabin)]


def car(rng: np.random.Generator, kind: str | None = None) -> Car:
    """A car, van or bus heading along +z, centred at the origin: its parts, length and width."""
    kind = kind or KINDS[min(len(KINDS) - 1, int(rng.exponential(2.2)))]
    length, width, _, profile = SHAPES[kind]
    paint = pick(rng, PAINTWORK) * rng.uniform(0.8, 1.1)
    narrow = {'bus': 0.97, 'van': 0.93}.get(kind, 0.78)
    half, end = width / 2, length / 2
    parts = car_sides(rng, paint, kind, narrow)

    def strip(low: int, high: int, texture: Texture) -> None:
        # Between two corners of the profile; it looks to the rear where the higher one is ahead.
        (za, ya), (zb, yb) = profile[low], profile[high]
        turn = 1 if zb >= za else -1
        parts.append(part((-half * turn, yb, zb - end), (width * turn, 0, 0),
                          (0, ya - yb, za - zb), texture))

    def bumper(z: float, top: float, front: bool) -> None:
        turn = -1 if front else 1
        parts.append(part((-half * turn, top, z), (width * turn, 0, 0), (0, -top, 0),
                          car_end(rng, paint, width, top, front)))

    strip(4, 3, framed_pane(rng, paint, narrow))
    strip(5, 4, sheet(rng, paint, 1))
    strip(6, 5, sheet(rng, paint, 0.9))
    bumper(end, profile[6][1] + 0.12, True)
    strip(2, 3, sheet(rng, paint, 1, round((1 - narrow) * 40)))
    strip(1, 2, sheet(rng, paint, 0.8) if kind == 'van' else framed_pane(rng, paint, narrow))
    strip(0, 1, sheet(rng, paint, 0.95))
    bumper(-end, profile[0][1], False)
    return parts, length, width
