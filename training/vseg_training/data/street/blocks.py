# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The blocks of 20 metres of a rendered street: ground, houses, gardens, street furniture."""
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import paint
from . import things
from .plan import Batch, BLOCK, GROUND, KERB, Plan, put, put_car

Props = dict[Any, Any]  # textures and things that all blocks share, by name
Spans = list[tuple[float, float]]  # z0, z1


class BlockMaker:
    """Fills one block's batch; the block's own generator makes it independent of the others."""

    def __init__(self, plan: Plan, props: Props, k: int) -> None:
        self.plan, self.props, self.k = plan, props, k
        self.rng = np.random.default_rng([plan.seed, 23, k + 1000])
        self.z0, self.z1 = k * BLOCK, (k + 1) * BLOCK
        self.batch = Batch()
        # shadows on the ground: lateral0, lateral1, z0, z1
        self.cast: list[tuple[float, ...]] = []

    # Pieces

    def x(self, lateral: float, z: float) -> float:
        """World x; z within this block, its far end included."""
        a, b = self.plan.bend(self.z0), self.plan.bend(self.z1)
        return lateral + a + (b - a) * (z - self.z0) / BLOCK

    def along(self, lateral: float, top: float, z0: float, z1: float, height: float,
              texture: paint.Texture, side: int, lean: float = 0.0, far: bool = True,
              gain: float | None = None) -> None:
        """An upright part along the street that looks to the road; ``lean``: its foot's offset."""
        a, b = (z0, z1) if side < 0 else (z1, z0)
        origin = (self.x(lateral, a), top, a)
        u = (self.x(lateral, b) - self.x(lateral, a), 0, b - a)
        z = z1 if far else (z0 + z1) / 2
        lit = 1 + 0.4 * side * -self.plan.sun if gain is None else gain
        self.batch.add(origin, u, (lean, -height, 0), texture, (self.x(lateral, z), z), lit)

    def ground(self, left: float, right: float, z0: float, z1: float, y: float,
               texture: paint.Texture) -> None:
        """A level part of the ground between two laterals."""
        origin = (self.x(left, z1), y, z1)
        back = self.x(left, z0) - self.x(left, z1)
        self.batch.add(origin, (right - left, 0, 0), (back, 0, z0 - z1), texture,
                       (self.x(left, z0), z0), 1.0, GROUND)

    def place(self, parts: Sequence[things.Part], lateral: float, z: float, y: float = 0.0,
              yaw: float = 0.0, gain: float = 1.0) -> None:
        """A thing, turned by ``yaw`` and set on the ground."""
        put(self.batch, parts, (self.x(lateral, z), y, z), yaw, gain)

    # Ground

    def road(self, junction: bool) -> None:
        """Ground of one block: lanes, kerbs, markings and, at a junction, the road across."""
        rng, plan = self.rng, self.plan
        ppm, half = 40, self.plan.width / 2
        height, width = int(BLOCK * ppm), int(plan.width * ppm)
        tile = self.props['asphalt'].astype(np.float32)
        tile = np.roll(tile, tuple(rng.integers(0, 500, 2)), (0, 1))[:height, :width]
        image = tile[:, ::rng.choice((-1, 1))].copy()
        white = paint.floats((188, 188, 182)) * rng.uniform(0.75, 1.1)
        middle = int(((plan.lane[0] - plan.lane[1]) / -2 + half) * ppm)
        dash = (6, 3) if rng.random() < 0.5 else (3, 5)
        for y in range(0, int(BLOCK), sum(dash)):
            paint.rectangle(image, middle - 2, y * ppm, middle + 3, (y + dash[0]) * ppm, white)
        for i, side in enumerate((-1, 1)):
            edge = int((half + side * (plan.lane[i] + 0.1)) * ppm)
            if plan.parking[i]:
                for y in range(0, int(BLOCK), 2):
                    paint.rectangle(image, edge - 2, y * ppm, edge + 2, (y + 1) * ppm, white)
            elif plan.double_yellow and not junction:
                for gap in (10, 18):
                    x = int((half + side * half) * ppm)
                    paint.rectangle(image, x - side * gap - 2, 0, x - side * gap + 2, height,
                                    (176, 150, 60))
        self.symbols(image, ppm, white, middle)
        gutter = int(0.15 * ppm)
        image[:, :gutter] *= 0.72
        image[:, -gutter:] *= 0.72
        self.cast_on(image, -half, ppm)
        wear = 1 + 0.12 * paint.fractal(rng, height // 4 + 1, width // 4 + 1, 6)
        image *= np.repeat(np.repeat(wear, 4, 0), 4, 1)[:height, :width, None]
        self.ground(-half, half, self.z0, self.z1, 0,
                    paint.Texture(paint.finish(image), label=paint.ROAD))

    def symbols(self, image: paint.Image, ppm: int, white: things.Color, middle: int) -> None:
        """Zebra, stop line, arrow, hatching, words, manholes."""
        rng, (height, width) = self.rng, image.shape[:2]
        kind = rng.integers(9)
        lane = middle // 2
        if kind == 0:
            y = int(rng.uniform(3, 14) * ppm)
            for x in range(0, width, 44):
                paint.rectangle(image, x, y, x + 22, y + 3 * ppm, white)
        elif kind == 1:
            paint.rectangle(image, 0, 9 * ppm, middle, 9.35 * ppm, white)
        elif kind in (2, 3):
            y = int(rng.uniform(5, 14) * ppm)
            paint.rectangle(image, lane - 3, y, lane + 4, y + 4 * ppm, white)
            for i in range(ppm + 20):
                paint.rectangle(image, lane - i // 3, y - 40 + i, lane + i // 3 + 1, y - 39 + i,
                                white)
        elif kind == 4:
            for y in range(0, height, 48):
                paint.rectangle(image, middle - 24, y, middle + 24, y + 7, white)
        elif kind == 5:
            for y in range(4 * ppm, 8 * ppm, 20):
                for x in range(lane - 40, lane + 40, 16):
                    if rng.random() < 0.55:
                        paint.rectangle(image, x, y, x + 7, y + 20, white)
        for _ in range(rng.integers(0, 3)):
            x, y = rng.integers(20, width - 40), rng.integers(0, height - 40)
            paint.rectangle(image, x, y, x + 26, y + 26, image[y, x] * 0.6)
            image[y + 4:y + 22:5, x + 3:x + 23] *= 1.35

    def cast_on(self, image: paint.Image, left: float, ppm: int) -> None:
        """The sun's shadows of this block on a ground texture whose left edge is ``left``."""
        for a, b, z0, z1 in self.cast:
            shade = np.ones(image.shape[:2], np.float32)
            box = ((a - left) * ppm, (self.z1 - z1) * ppm, (b - left) * ppm, (self.z1 - z0) * ppm)
            paint.rectangle(shade[..., None], *box, 0.52)
            image *= shade[..., None]

    def sidewalk(self, side: int, spans: Spans) -> None:
        """Pavement and kerb on the spans (z0, z1) of the block."""
        plan, i = self.plan, int(side > 0)
        near, far = side * plan.width / 2, side * (plan.width / 2 + plan.walk[i])
        left = min(near, far)
        for z0, z1 in spans:
            tile = self.props['paving', i]
            height, width = int((z1 - z0) * 40), int(plan.walk[i] * 40)
            shift = self.rng.integers(0, 400)
            image = np.roll(tile, shift, 0)[:height, :width].astype(np.float32)
            edge = slice(0, 6) if side > 0 else slice(width - 6, width)
            image[:, edge] = image[:, edge] * 0.3 + 95
            self.cast_on(image, left, 40)
            texture = paint.Texture(paint.finish(image), label=paint.SIDEWALK)
            self.ground(left, left + plan.walk[i], z0, z1, KERB, texture)
            self.along(near, KERB, z0, z1, KERB, self.props['kerb'], side, gain=0.9)
            self.batch.rows[-1] = (*self.batch.rows[-1][:-1], GROUND)

    def verge(self, side: int, texture: paint.Texture, spans: Spans | None = None) -> None:
        """The ground beyond the pavement."""
        edge = self.plan.width / 2 + self.plan.walk[int(side > 0)]
        left, right = sorted((side * edge, side * (edge + 34)))
        for z0, z1 in spans or [(self.z0, self.z1)]:
            self.ground(left, right, z0, z1, KERB, texture)

    # Sides

    def building(self, side: int, line: float, z0: float, z1: float,
                 pitched: bool | None = None) -> None:
        """A house: front, end wall, roof, chimney."""
        rng, plan = self.rng, self.plan
        length, height = z1 - z0, plan.storeys * rng.uniform(0.75, 1.3)
        x = side * line
        front = paint.facade(rng, length, height, 36)
        self.along(x, height + KERB, z0, z1, height, front, side)
        ridge = 0.0
        if rng.random() < 0.7 if pitched is None else pitched:
            ridge = rng.uniform(1.2, 3.2)
            slates = paint.roof(rng, length, 5, 20)
            self.along(x + side * 4, height + KERB + ridge, z0, z1, ridge + 0.15, slates, side,
                       lean=-side * 4.35)
            for _ in range(rng.integers(0, 3)):
                self.chimney(x + side * 3.6, height + ridge, rng.uniform(z0 + 1, z1 - 1), z1)
        if rng.random() < 0.35:      # a sign that juts out of the front
            texture, w, h = things.plate(rng)
            w, h = min(w, 0.8), min(h, 0.9)
            self.place([things.facing(0, h, 0, w, h, texture)], x - side * (w / 2 + 0.1),
                       rng.uniform(z0 + 0.5, z1 - 0.5), KERB + 2.7)
        depth, top = 8.0, height + ridge
        wall = paint.facade(rng, depth, top, 30, plain=True)
        rgba = wall.levels[0, 0]
        mask = np.full(rgba.shape[:2], 255, np.uint8)
        slant = np.abs(np.linspace(-1, 1, rgba.shape[1])) * ridge * 30
        mask[np.arange(rgba.shape[0])[:, None] < slant] = 0
        texture = paint.Texture(rgba[..., :3], None if ridge == 0 else mask, paint.BUILDING)
        left = x - depth if side < 0 else x
        self.batch.add((self.x(left, z0), top + KERB, z0), (depth, 0, 0), (0, -top, 0), texture,
                       (self.x(x, z1), z1 - 0.01), 0.92)
        if plan.sun * side > 0:
            reach = line - height * abs(plan.sun) * 1.3
            self.cast.append((*sorted((side * reach, side * (line + 1))), z0, z1))

    def chimney(self, x: float, y: float, z: float, far: float) -> None:
        """A chimney of bricks; far: z that orders it."""
        brick = self.props['chimney']
        self.batch.add((self.x(x, z) - 0.45, y + 1.5, z), (0.9, 0, 0), (0, -2.4, 0), brick,
                       (self.x(x, far), far - 0.02))

    def fence(self, side: int, lateral: float, z0: float, z1: float) -> None:
        """A boundary of one kind, in pieces short enough to be ordered by distance."""
        rng = self.rng
        kind = rng.integers(5)
        height = (rng.uniform(0.9, 1.3), rng.uniform(1.4, 2.0), rng.uniform(0.6, 1.4),
                  rng.uniform(0.8, 2.2), rng.uniform(1.0, 1.3))[kind]
        make = (paint.railing, paint.boards, paint.garden_wall, paint.hedge, paint.railing)[kind]
        count = max(1, round((z1 - z0) / 5))
        texture = make(rng, (z1 - z0) / count, height, 36)
        for a, b in zip(*(np.linspace(z0, z1, count + 1)[s] for s in (slice(-1), slice(1, None)))):
            self.along(lateral, height + KERB, a, b, height, texture, side, far=False)

    def terrace(self, side: int) -> None:
        """Houses on the pavement, or behind short gardens."""
        rng, plan, i = self.rng, self.plan, int(side > 0)
        edge = plan.width / 2 + plan.walk[i]
        cuts = np.linspace(self.z0, self.z1, rng.integers(2, 5))
        garden = rng.uniform(2, 4) if rng.random() < 0.25 else 0
        for a, b in zip(cuts[:-1], cuts[1:]):
            self.building(side, edge + garden + rng.choice((0, 0, 0.3)), a, b)
        self.verge(side, self.props['grass' if garden else 'yard'])
        if garden:
            self.fence(side, side * edge, self.z0, self.z1)
            self.green(side, edge + 0.8, edge + garden - 0.4, 2, small=True)

    def villas(self, side: int) -> None:
        """Detached houses behind fences and trees."""
        rng, plan, i = self.rng, self.plan, int(side > 0)
        edge = plan.width / 2 + plan.walk[i]
        line = edge + rng.uniform(4, 8)
        self.building(side, line, self.z0 + rng.uniform(1, 4), self.z1 - rng.uniform(2, 6), True)
        self.verge(side, self.props['grass'])
        self.fence(side, side * (edge + 0.1), self.z0, self.z1 - 3)
        self.green(side, edge + 1, line - 1.5, int(rng.integers(1, 4)))

    def park(self, side: int) -> None:
        """Trees behind a fence, far houses behind them."""
        rng, plan, i = self.rng, self.plan, int(side > 0)
        edge = plan.width / 2 + plan.walk[i]
        self.verge(side, self.props['grass'])
        if rng.random() < 0.8:
            self.fence(side, side * (edge + 0.1), self.z0, self.z1)
        self.green(side, edge + 1.5, edge + 14, int(rng.integers(3, 7)))
        if rng.random() < 0.5:
            self.building(side, edge + 20, self.z0, self.z1)

    def car_park(self, side: int) -> None:
        """Cars standing across, behind a low boundary."""
        rng, plan, i = self.rng, self.plan, int(side > 0)
        edge = plan.width / 2 + plan.walk[i]
        surface = paint.Texture(self.props['asphalt'][:400, :400], label=paint.ROAD)
        self.verge(side, surface)
        if rng.random() < 0.6:
            self.fence(side, side * (edge + 0.1), self.z0, self.z1)
        for row in (4.5, 14):
            for z in np.arange(self.z0 + 1.4, self.z1 - 1, 2.7):
                if rng.random() < 0.7:
                    model = self.props['cars'][rng.integers(6)]
                    yaw = rng.choice((-1, 1)) * np.pi / 2 + rng.normal(0, 0.03)
                    self.vehicle(model, side * (edge + row), z, yaw, KERB)
        self.building(side, edge + 24, self.z0, self.z1)

    def junction(self, side: int) -> Spans:
        """A side road between two corner houses."""
        rng, plan, i = self.rng, self.plan, int(side > 0)
        edge = plan.width / 2 + plan.walk[i]
        a, b = self.z0 + rng.uniform(3, 6), self.z1 - rng.uniform(4, 7)
        spans = [(self.z0, a), (b, self.z1)]
        surface = self.props['asphalt'][:700, :500].astype(np.float32)
        inner, outer = side * plan.width / 2, side * (edge + 34)
        left, right = sorted((inner, outer))
        self.ground(left, right, a, b, 0, paint.Texture(paint.finish(surface), label=paint.ROAD))
        self.verge(side, self.props['yard'], spans)
        for z0, z1 in spans:
            self.building(side, edge, z0, z1)
        self.building(side, edge + 30, a, b)
        if rng.random() < 0.6:
            self.vehicle(self.props['cars'][rng.integers(6)], side * (edge + rng.uniform(2, 12)),
                         (a + b) / 2, side * np.pi / 2)
        return spans

    def green(self, side: int, near: float, far: float, count: int, small: bool = False) -> None:
        """Trees, or with small bushes, between two distances from the middle."""
        rng = self.rng
        for _ in range(count):
            lateral, z = side * rng.uniform(near, far), rng.uniform(self.z0 + 0.5, self.z1 - 0.5)
            kind = 'bushes' if small or rng.random() < 0.3 else 'trees'
            models = self.props[kind]
            self.place(models[rng.integers(len(models))], lateral, z, KERB,
                       gain=rng.uniform(0.8, 1.15))

    def vehicle(self, model: things.Car, lateral: float, z: float, yaw: float = 0.0,
                y: float = 0.0) -> None:
        """A standing car."""
        parts, length, width = model
        put_car(self.batch, parts, length, width, (self.x(lateral, z), y, z), yaw)

    def furnish(self, side: int) -> None:
        """What stands on the pavement and at the kerb."""
        rng, plan, i = self.rng, self.plan, int(side > 0)
        kerb, walk = plan.width / 2, plan.walk[i]
        if (self.k + (side > 0)) % 2 == 0:
            self.place(things.lamp_post(rng, side), side * (kerb + 0.5), self.z0 + 4, KERB)
        for make, rate in ((things.sign_post, 0.8), (things.traffic_light, 0.3),
                           (things.bin_, 0.25)):
            for _ in range(rng.poisson(rate * plan.furniture)):
                self.place(make(rng), side * (kerb + rng.uniform(0.3, 0.8)),
                           rng.uniform(self.z0 + 1, self.z1 - 1), KERB)
        if rng.random() < 0.25 * plan.furniture:
            for z in np.arange(self.z0 + 1, self.z1, rng.uniform(1.6, 4)):
                self.place(self.props['bollard'], side * (kerb + 0.35), z, KERB)
        if rng.random() < 0.22:
            z = rng.uniform(self.z0 + 2, self.z0 + 10)
            texture = paint.railing(rng, 2.5, 1.05, 36)
            for n in range(rng.integers(2, 4)):
                self.along(side * (kerb + 0.25), 1.05 + KERB, z + 2.5 * n, z + 2.5 * n + 2.5, 1.05,
                           texture, side, far=False)
        if walk > 2.2 and rng.random() < 0.35:
            models = self.props['trees']
            self.place(models[rng.integers(len(models))], side * (kerb + 0.8),
                       rng.uniform(self.z0 + 2, self.z1 - 2), KERB)
        if rng.random() < 0.3:
            z = rng.uniform(self.z0 + 1, self.z1 - 8)
            for n in range(rng.integers(1, 5)):
                at = z + 0.9 * n
                self.along(side * (kerb + walk - 0.5), 1.05 + KERB, at, at + 1.75, 1.07,
                           self.props['bicycle'], side, far=False)
        z = self.z0 + rng.uniform(0, 3)
        while z < self.z1 - 2.6 and plan.parking[i]:
            if rng.random() < plan.parking[i]:
                self.vehicle(self.props['cars'][rng.integers(len(self.props['cars']))],
                             side * (kerb - 1.02), z + 2.4, rng.normal(0, 0.012)
                             + (np.pi if side > 0 and rng.random() < 0.7 else 0))
            z += rng.uniform(5.2, 7)

    def make(self) -> Batch:
        """Fill the block, and return its batch."""
        any_junction = False
        for i, side in enumerate((-1, 1)):
            kind = self.rng.choice(5, p=self.plan.side_kinds[i])
            fill = (self.terrace, self.villas, self.park, self.car_park, self.junction)[kind]
            spans = fill(side) or [(self.z0, self.z1)]
            any_junction |= len(spans) > 1
            self.sidewalk(side, spans)
            self.furnish(side)
        self.road(any_junction)
        return self.batch.seal((self.k + 4) * 4096)
