# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Where everything of a rendered street is at a time: an endless drive, block by block."""
from functools import lru_cache

import numpy as np

from . import cars
from . import paint
from . import things
from .blocks import BlockMaker, Props
from .plan import Batch, BLOCK, KERB, Plan, put, put_car, SKY_LAYER
from .things import Car


AHEAD, BEHIND, CROWD = 7, 1, 5  # blocks drawn ahead of and behind the camera's, and with people


class Scene:
    """All parallelograms of a street at a time."""

    def __init__(self, seed: int) -> None:
        self.plan = plan = Plan(seed)
        rng = np.random.default_rng([seed, 5])
        tint = paint.floats((1, 0.98, 0.95)) * rng.uniform(0.97, 1.03, 3)
        grass = paint.Texture(paint.finish(paint.grass(rng, 400, 680)), label=paint.TREE)
        yard = paint.Texture(paint.finish(paint.paving(rng, 400, 680, 100, tint, 20)),
                             label=paint.SIDEWALK)
        self.props: Props = {
            'asphalt': paint.finish(paint.asphalt(rng, 1100, 600, plan.road_tone)),
            'kerb': paint.Texture(paint.finish(paint.paving(rng, 8, 800, 120, tint, 36)),
                                  label=paint.SIDEWALK),
            'grass': grass, 'yard': yard,
            'trees': [things.tree(rng, plan.bare if rng.random() < 0.8 else not plan.bare)
                      for _ in range(5)],
            'bushes': [things.bush(rng) for _ in range(3)],
            'cars': [cars.car(rng) for _ in range(9)],
            'walkers': [things.Walker(rng) for _ in range(8)],
            'cyclists': [things.Cyclist(rng) for _ in range(3)],
            'bollard': things.bollard(rng), 'bicycle': things.parked_bicycle(rng),
            'chimney': paint.garden_wall(rng, 0.9, 2.4, 30),
            'sky': paint.skyline(rng, dull=rng.uniform(0.2, 1)),
        }
        for i in (0, 1):
            slab = int(rng.choice((12, 18, 24, 36)))
            image = paint.paving(rng, 850, int(plan.walk[i] * 40) + 1, plan.walk_tone, tint, slab)
            if rng.random() < 0.4:
                image = paint.asphalt(rng, image.shape[0], image.shape[1], plan.walk_tone)
            self.props['paving', i] = paint.finish(image)
        self.block = lru_cache(maxsize=16)(lambda k: BlockMaker(plan, self.props, k).make())

    def camera(self, time: float) -> tuple[float, float, float]:
        """Position (x, z) and heading of the camera, before its shake."""
        z = self.plan.travelled(time)
        return self.plan.bend(z) + self.plan.camera_lateral, z, np.arctan(self.plan.slope(z))

    def batches(self, time: float) -> list[Batch]:
        """Everything at ``time``, each part with an id that it keeps over time."""
        x, z, _ = self.camera(time)
        k = int(np.floor(z / BLOCK))
        out = [self.sky(x, z)]
        out += [self.block(j) for j in range(k - BEHIND, k + AHEAD + 1)]
        return out + self.traffic(time, z) + self.people(time, k)

    def sky(self, x: float, z: float) -> Batch:
        """The sky, far ahead of the camera at (x, z)."""
        batch = Batch()
        d, tall = 4000.0, 3000.0
        batch.add((x - 1.5 * d, 0.8 * tall + 1.4, z + d), (3 * d, 0, 0), (0, -tall, 0),
                  self.props['sky'], (x, z + d), 1.0, SKY_LAYER)
        return batch.seal(1)

    def traffic(self, time: float, z: float) -> list[Batch]:
        """Cars ahead in the lane and those that come towards the camera."""
        plan = self.plan
        out: list[Batch] = []
        models, first = self.props['cars'], 1 << 28
        if plan.lead is not None:
            for n in range(2):
                at = z + plan.lead * (1 + 1.6 * n) + 5 + 2 * np.sin(0.3 * time + n)
                self.drive(out, models[n], plan.camera_lateral - 0.1 * n, at, 0.0, first + 64 * n)
        lateral = plan.lane[1] * 0.5
        shift = plan.oncoming_speed * time
        low, high = np.floor((z - 5 + shift) / plan.oncoming), (z + 150 + shift) / plan.oncoming
        for j in np.arange(low, high):
            rng = np.random.default_rng([plan.seed, 41, int(j) + 100000])
            jitter, model = rng.uniform(0, 0.5) * plan.oncoming, models[rng.integers(len(models))]
            if rng.random() < 0.75:
                at = j * plan.oncoming + jitter - shift
                self.drive(out, model, lateral, at, np.pi, first + 64 * (int(j) % 4096 + 2))
        return out

    def drive(self, out: list[Batch], model: Car, lateral: float, z: float, yaw: float,
              first_id: int) -> None:
        """Add a car on the road to ``out``."""
        plan, batch = self.plan, Batch()
        parts, length, width = model
        position = (plan.straight(z) + lateral, 0, z)
        put_car(batch, parts, length, width, position, yaw + np.arctan(plan.slope(z)))
        out.append(batch.seal(first_id))

    def people(self, time: float, k: int) -> list[Batch]:
        """Walkers on both pavements and across the road, cyclists at the edge of the road."""
        plan = self.plan
        out: list[Batch] = []
        for j in range(k - BEHIND, k + CROWD + 1):
            rng = np.random.default_rng([plan.seed, 31, j + 1000])
            since = time - (j + 0.5) * BLOCK / plan.speed   # 0 when the camera is here
            first = (1 << 29) + (j + 1000) * 1024
            for n in range(min(10, rng.poisson(plan.crowd * 1.6))):
                side, across = rng.choice((-1, 1)), rng.random() < 0.12
                model = self.props['walkers'][rng.integers(8)]
                pace = rng.choice((-1, 1)) * rng.uniform(0.9, 1.6) * (rng.random() < 0.85)
                z = (j + rng.random()) * BLOCK
                i = int(side > 0)
                lateral = side * (plan.width / 2 + rng.uniform(0.4, plan.walk[i] - 0.3))
                phase = rng.uniform(0, 6) + 4.2 * pace * time
                if across:
                    lateral = -side * (plan.width / 2 + 1) + side * abs(pace) * (since + 8)
                    reach = plan.width / 2 + 1.2
                    lateral = np.clip(lateral, -reach, reach)
                    phase *= np.sign(side * pace) or 1
                else:
                    z += pace * since
                self.walk(out, model, phase, across and pace != 0, lateral, z, first + 16 * n)
            for n in range(rng.poisson(0.17 * plan.crowd)):
                side = rng.choice((-1, -1, 1))
                i, pace = int(side > 0), -side * rng.uniform(3, 5.5)
                z = (j + rng.random()) * BLOCK + pace * since * 0.9
                model = self.props['cyclists'][rng.integers(3)]
                self.walk(out, model, 9 * time, False, side * (plan.lane[i] - 0.45), z,
                          first + 512 + 16 * n, 0.0)
        return out

    def walk(self, out: list[Batch], model: things.Walker | things.Cyclist, phase: float,
             across: bool, lateral: float, z: float, first_id: int,
             y: float | None = None) -> None:
        """Add a pedestrian or cyclist to ``out``; y: of the ground, by default what is there."""
        batch, plan = Batch(), self.plan
        on_walk = abs(lateral) > plan.width / 2
        y = (KERB if on_walk else 0.0) if y is None else y
        put(batch, model.parts(phase, across), (plan.straight(z) + lateral, y, z))
        out.append(batch.seal(first_id))
