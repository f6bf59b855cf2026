# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
What holds for a whole rendered street, and how its parts are collected.

World: x right of the middle of the road, y up, z along the street, metres. ``lateral`` is x before
the street's bend is added. Traffic keeps left.
"""
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from . import things
from .paint import Texture
from .things import Part

Vector = Sequence[float] | npt.NDArray[np.float64]


BLOCK = 20.0          # length of a block, metres
KERB = 0.12
SKY_LAYER, GROUND, SHADE, SOLID = range(4)


class Batch:
    """Parallelograms in world coordinates, collected by ``add``; ``seal`` makes arrays of n."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, ...]] = []
        self.textures: list[Texture] = []

    def add(self, origin: Vector, u: Vector, v: Vector, texture: Texture, anchor: Sequence[float],
            gain: float = 1.0, layer: int = SOLID) -> None:
        """``anchor`` (x, z): the point that orders this one against others, by its distance."""
        self.rows.append((*origin, *u, *v, *anchor, gain, layer))
        self.textures.append(texture)

    def seal(self, first_id: int) -> 'Batch':
        """Make arrays of what was added; ids count from ``first_id``."""
        table = np.array(self.rows, np.float64).reshape(-1, 13)
        self.points = table[:, :9].reshape(-1, 3, 3)     # origin, u, v
        self.anchor, self.gain, self.layer = table[:, 9:11], table[:, 11], table[:, 12]
        self.ids = first_id + np.arange(len(table))
        return self


class Plan:
    """What holds for a whole street, drawn from its seed: section, season, light, traffic."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 11])
        self.seed = seed
        self.width = rng.uniform(6.6, 10.5)
        self.parking = rng.choice([0.0, 0.0, 0.3, 0.6, 0.85], 2)
        self.width += 1.6 * (self.parking > 0).sum()
        self.walk = rng.uniform(1.7, 4.6, 2)
        self.lane = self.width / 2 - 2.0 * (self.parking > 0)   # free half width, left and right
        self.camera_lateral = -self.lane[0] * rng.uniform(0.38, 0.58)
        self.amplitude, self.wave = rng.uniform(0, 7), rng.uniform(50, 90)
        self.phase = rng.uniform(0, 2 * np.pi)
        self.bare = rng.random() < 0.6
        self.side_kinds = rng.dirichlet((1.9, 0.6, 0.5, 0.25, 0.3), 2)
        self.sun = rng.uniform(-1, 1) if rng.random() < 0.45 else 0.0
        self.storeys = rng.uniform(5, 13)
        self.furniture = rng.uniform(0.5, 1.5)
        self.crowd = rng.uniform(0.3, 2.6)
        self.speed = rng.uniform(5, 10)
        self.road_tone, self.walk_tone = rng.uniform(72, 112), rng.uniform(92, 135)
        self.double_yellow = rng.random() < 0.5
        self.lead = rng.uniform(8, 45) if rng.random() < 0.6 else None
        self.oncoming = rng.uniform(14, 60)
        self.oncoming_speed = rng.uniform(6, 11)

    def travelled(self, time: float) -> float:
        """Metres the camera has driven at ``time``."""
        return self.speed * time + 2.5 * np.sin(0.45 * time + self.phase)

    def bend(self, z: float) -> float:
        """The street's x at z, in metres."""
        return self.amplitude * np.sin(z / self.wave + self.phase)

    def slope(self, z: float) -> float:
        """Derivative of ``bend``."""
        return self.amplitude / self.wave * np.cos(z / self.wave + self.phase)

    def straight(self, z: float) -> float:
        """The bend as the blocks have it: straight from end to end of a block."""
        k = np.floor(z / BLOCK)
        a, b = self.bend(k * BLOCK), self.bend((k + 1) * BLOCK)
        return a + (b - a) * (z / BLOCK - k)


def put(batch: Batch, parts: Sequence[Part], position: Sequence[float], yaw: float = 0.0,
        gain: float = 1.0, anchor: Sequence[float] | None = None) -> None:
    """Add a thing's parts to ``batch``, turned about y and moved to ``position``."""
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    anchor = (position[0], position[2]) if anchor is None else anchor
    for origin, u, v, texture in parts:
        batch.add(turn @ origin + position, turn @ u, turn @ v, texture, anchor, gain)


def put_car(batch: Batch, parts: Sequence[Part], length: float, width: float,
            position: Sequence[float], yaw: float = 0.0) -> None:
    """Add a car and the dark below it; cars are ordered by their end that is nearer."""
    reach = abs(np.cos(yaw)) * length / 2 + abs(np.sin(yaw)) * width / 2
    put(batch, [things.shadow(length, width)], position, yaw)
    batch.rows[-1] = (*batch.rows[-1][:-1], SHADE)
    put(batch, parts, position, yaw, anchor=(position[0], position[2] - reach))
