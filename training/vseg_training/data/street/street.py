# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
A rendered street with exact labels and exact motion, for training and demonstration.

Everything is a textured parallelogram in space. With the camera's matrix K and the parallelogram
``o + a u + b v`` in camera coordinates, H = K [u v o] takes its texture to the image, so the
motion of a pixel from one frame to the next is the homography H' H^-1: exact, without a depth
buffer. The last row of H^-1 takes a pixel (x, y, 1) to 1 / depth, and K^T makes it the normal.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .brush import Bools, Brush, Floats, NEAR
from .paint import floats, Pixels, VOID
from .plan import SHADE, SKY_LAYER
from .scene import Scene
from ..clips import Geometry

Ids = npt.NDArray[np.int32]
SKY_DISTANCE = 1000.0  # metres; what is farther has no normal


@dataclass(frozen=True)
class StreetFrame:
    """
    One frame of the street.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        labels: uint8 [H, W], CamVid's 11 ids, 255 = void.
        flow: Float32 [H, W, 2], pixels (dx, dy) from this frame to the next; None where the frame
            was asked for without flow.
        flow_valid: Bool [H, W], False where the point leaves the image or is hidden in the next
            frame, and where one sees through the labelled thing; None as flow is.
        geometry: Depth and normals of the frame; None where it was asked for without.
    """

    image: Pixels
    labels: Pixels
    flow: npt.NDArray[np.float32] | None = None
    flow_valid: Bools | None = None
    geometry: Geometry | None = None


class View:
    """The parts in sight at one time, projected: matrices [n, 3, 3] texture (0..1) -> pixels."""

    def __init__(self, street: 'Street', time: float) -> None:
        batches = street.scene.batches(time)
        points = np.concatenate([b.points for b in batches])
        anchor = np.concatenate([b.anchor for b in batches])
        self.ids = np.concatenate([b.ids for b in batches])
        self.gain = np.concatenate([b.gain for b in batches])
        self.layer = np.concatenate([b.layer for b in batches])
        textures = [texture for b in batches for texture in b.textures]
        rotation, position = street.pose(time)
        origin = (points[:, 0] - position) @ rotation.T
        edges = points[:, 1:] @ rotation.T
        frame = np.stack([edges[:, 0], edges[:, 1], origin], 2)
        self.matrices = street.intrinsics @ frame
        depth = origin[:, None, 2] + np.stack([np.zeros(len(origin)), edges[:, 0, 2],
                                               edges[:, :, 2].sum(1), edges[:, 1, 2]], 1)
        self.distance = np.hypot(anchor[:, 0] - position[0], anchor[:, 1] - position[2])
        seen = (depth.max(1) > NEAR) & (np.linalg.det(self.matrices) > 0)
        seen &= street.in_sight(self.matrices, depth)
        order = np.lexsort((-self.distance, np.minimum(self.layer, SHADE + 1)))
        self.order = order[seen[order]]
        self.depth, self.textures = depth, textures
        self.inverse = np.zeros_like(self.matrices)
        self.inverse[self.order] = np.linalg.inv(self.matrices[self.order])


_Drawn = tuple[Pixels, Pixels, Ids, View]  # canvas, labels, part ids, view


class Street:
    """
    An endless drive along a procedural street, the same for the same seed.

    Args:
        seed: Decides everything.
        size: (H, W) in pixels, 16 at least.
        fps: Frames per second of the drive.
        motion_blur: Whether each pixel is smeared along its motion during the exposure.

    Raises:
        ValueError: The size is too small.
    """

    def __init__(self, seed: int, size: Sequence[int] = (360, 480), fps: float = 15.0,
                 motion_blur: bool = True) -> None:
        if min(size) < 16:
            raise ValueError(f'street size {tuple(size)} is too small; use at least 16 x 16')
        self.seed, self.fps, self.motion_blur = seed, fps, motion_blur
        self.size = (size[0], size[1])
        self.scene = Scene(seed)
        self._kept: dict[int, _Drawn] = {}
        self._light(np.random.default_rng([seed, 7]))

    def _light(self, rng: np.random.Generator) -> None:
        """Camera, exposure, colour, haze and lens of this drive."""
        height, width = self.size
        scale = max(width / 480, height / 360)
        focal = rng.uniform(440, 560) * scale
        self.intrinsics = np.array([[focal, 0, (width - 1) / 2],
                                    [0, focal, rng.uniform(0.46, 0.62) * height], [0, 0, 1]])
        self.camera_height = rng.uniform(1.25, 1.65)
        self.shake = rng.uniform(0.0005, 0.003)
        self.haze = rng.uniform(250, 1500)
        self.exposure = rng.uniform(0.12, 0.4)
        value = np.arange(256) / 255
        gain, gamma = (rng.uniform(0.75, 1.0), rng.uniform(1.3, 2.1)) if rng.random() < 0.45 else (
            rng.uniform(0.95, 1.25), rng.uniform(0.85, 1.3))
        tint = 1 + rng.normal(0, 0.015, 3) + (-0.015, 0, 0.02)
        curve = [np.clip(255 * tint[c] * gain * value ** gamma + rng.uniform(0, 6), 0, 255)
                 for c in range(3)]
        self.tone = np.stack([*curve, np.full(256, 255)], 1).astype(np.uint8)[None]
        yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
        radius = np.hypot(xx / width - 0.5, (yy / height - 0.5) * height / width) / 0.62
        lens = 255 * (1 - rng.uniform(0.05, 0.25) * radius ** 2)
        self.lens = np.repeat(lens.astype(np.uint8)[..., None], 3, 2)
        noise = rng.normal(0, rng.uniform(1, 3.5), (height, width, 3))
        noise += rng.normal(0, 1, (height, width, 1))
        noise = cv2.GaussianBlur(noise, (0, 0), 0.6) * 1.6 + 128
        self.noise = np.clip(noise, 0, 255).astype(np.uint8)
        self.sky_gain = rng.uniform(0.95, 1.5)
        self.sharpen = rng.uniform(0, 0.7)
        self.bonnet = self._bonnet(rng) if rng.random() < 0.3 else None

    def _bonnet(self, rng: np.random.Generator) -> tuple[Bools, Pixels]:
        """The own car at the foot of the image, void; a mask and its colour."""
        height, width = self.size
        x = np.linspace(-1, 1, width)
        top = height * (1 - rng.uniform(0.02, 0.06) * (1 - 0.5 * (x - rng.uniform(-.6, .6)) ** 2))
        rows = np.arange(height)[:, None] - top
        tone = rng.uniform(20, 50) + 120 * np.exp(-((rows - 1) / (0.006 * height)) ** 2)
        return rows > 0, np.repeat(np.clip(tone, 0, 255).astype(np.uint8)[..., None], 3, 2)

    def pose(self, time: float) -> tuple[Floats, Floats]:
        """Rotation (world to camera: x right, y down, z ahead) and position at ``time``."""
        x, z, heading = self.scene.camera(time)
        yaw = heading + 0.012 * np.sin(0.7 * time + self.seed)
        pitch = self.shake * (np.sin(5.1 * time) + 0.7 * np.sin(9.7 * time + 1))
        roll = 0.5 * self.shake * np.sin(4.3 * time)
        cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        turn = np.array([[cy, 0, -sy], [0, -1, 0], [sy, 0, cy]])
        tilt = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        cr, sr = np.cos(roll), np.sin(roll)
        bank = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return bank @ tilt @ turn, np.array([x, self.camera_height, z])

    def in_sight(self, matrices: Floats, depth: Floats) -> Bools:
        """Which parts may reach into the image (those cut by the near plane always may)."""
        height, width = self.size
        corner = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]).T
        projected = matrices @ corner
        front = depth.min(1) > NEAR
        pixels = projected[:, :2] / np.where(front[:, None], projected[:, 2], 1)[:, None]
        low, high = pixels.min(2), pixels.max(2)
        inside = (high > -1).all(1) & (low[:, 0] < width) & (low[:, 1] < height)
        extent = (high - low).max(1) > 0.8
        return ~front | inside & extent

    def _draw(self, index: int) -> _Drawn:
        """Image at twice the size, labels, part ids and the view of one frame."""
        if index in self._kept:
            return self._kept[index]
        view = View(self, index / self.fps)
        brush = Brush(*self.size)
        for n in view.order:
            sky = view.layer[n] == SKY_LAYER
            fade = self.sky_gain if sky else np.exp(-view.distance[n] / self.haze)
            brush.part(view.matrices[n], view.inverse[n], view.depth[n], view.textures[n],
                       view.ids[n], view.gain[n] * fade, max(0.0, 215 * (1 - fade)))
        while len(self._kept) > 1:
            self._kept.pop(next(iter(self._kept)))
        self._kept[index] = brush.canvas, brush.labels, brush.ids, view
        return self._kept[index]

    def frame(self, index: int, flow: bool = True, geometry: bool = False) -> StreetFrame:
        """Frame ``index`` (0, 1, ...) of the drive, with its motion and geometry if asked for."""
        canvas, labels, ids, view = self._draw(index)
        image = cv2.LUT(canvas, self.tone)
        # Even samples lie on pixel centres, where the labels were taken: a tent about them.
        tent = floats([.25, .5, .25])
        image = cv2.sepFilter2D(image, -1, tent, tent)
        image = cv2.cvtColor(np.ascontiguousarray(image[::2, ::2]), cv2.COLOR_RGBA2RGB)
        if self.motion_blur:
            image = self._blur(image, index, ids, view)
        labels = labels.copy()
        if self.bonnet is not None:
            image[self.bonnet[0]] = self.bonnet[1][self.bonnet[0]]
            labels[self.bonnet[0]] = VOID
        if self.sharpen > 0.1:
            soft = cv2.GaussianBlur(image, (3, 3), 0)
            image = cv2.addWeighted(image, 1 + self.sharpen, soft, -self.sharpen, 0)
        image = cv2.multiply(image, self.lens, scale=1 / 255)
        shift = np.random.default_rng([self.seed, 3, index]).integers(0, 64, 2)
        noise = np.roll(self.noise, tuple(int(v) * 5 for v in shift), (0, 1))
        image = cv2.addWeighted(image, 1, noise, 1, -128)
        shape = self._geometry(ids, view) if geometry else None
        moved, valid = self._flow(index) if flow else (None, None)
        return StreetFrame(image, labels, moved, valid, shape)

    def clip(self, start: int, length: int, step: int = 1, flow: bool = True) -> list[StreetFrame]:
        """``length`` frames from ``start``, ``step`` apart (flow is to frame index + 1)."""
        return [self.frame(start + n * step, flow) for n in range(length)]

    def _motion(self, ids: Ids, view: View, after: View,
                every: int) -> tuple[npt.NDArray[np.float32], Bools]:
        """Motion of every ``every``-th pixel by its part's homography, and where it is known."""
        ids = ids[::every, ::every]
        present, local = np.unique(np.abs(ids), return_inverse=True)
        before = dict(zip(view.ids.tolist(), range(len(view.ids))))
        later = dict(zip(after.ids.tolist(), range(len(after.ids))))
        table = np.zeros((len(present), 3, 3))
        known = np.zeros(len(present), bool)
        for row, part in enumerate(present.tolist()):
            if part in before and part in later:
                known[row] = True
                table[row] = after.matrices[later[part]] @ view.inverse[before[part]]
        local = local.reshape(ids.shape)
        yy, xx = np.mgrid[0:ids.shape[0], 0:ids.shape[1]] * float(every)
        table[~known] = np.eye(3)
        h = table.reshape(-1, 9).T[:, local]
        depth = h[6] * xx + h[7] * yy + h[8]
        flow = np.stack([(h[0] * xx + h[1] * yy + h[2]) / depth - xx,
                         (h[3] * xx + h[4] * yy + h[5]) / depth - yy], 2).astype(np.float32)
        return flow, known[local]

    def _geometry(self, ids: Ids, view: View) -> Geometry:
        """Depth and normal of the part that every pixel shows, from its plane."""
        height, width = self.size
        present, local = np.unique(np.abs(ids), return_inverse=True)
        local = local.reshape(ids.shape)
        inverse = dict(zip(view.ids.tolist(), view.inverse))
        rows = np.stack([inverse.get(part, np.zeros((3, 3)))[2] for part in present.tolist()])
        yy, xx = np.mgrid[0:height, 0:width]
        nearness = (rows[local] * np.stack([xx, yy, np.ones_like(xx)], 2)).sum(2)
        normals = rows @ self.intrinsics  # of each part: K^T times its row
        normals /= -np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        known = (nearness > 0) & (ids != 0)
        if self.bonnet is not None:
            known &= ~self.bonnet[0]
        depth = np.where(known, 1 / np.where(known, nearness, 1), 0).astype(np.float32)
        solid = known & (depth < SKY_DISTANCE)
        normals = np.where(solid[..., None], normals[local], 0)
        return Geometry(depth, normals.astype(np.float32), float(self.intrinsics[0, 0]))

    def _blur(self, image: Pixels, index: int, ids: Ids, view: View) -> Pixels:
        """Average over the exposure along the motion, a field of every 4th pixel."""
        height, width = self.size
        after = View(self, (index + 1) / self.fps)
        flow, _ = self._motion(ids, view, after, 4)
        flow = cv2.resize(np.clip(flow, -40, 40), (width, height)) * self.exposure
        if np.abs(flow).max() < 0.7:
            return image
        xx = np.arange(width, dtype=np.float32)[None]
        yy = np.arange(height, dtype=np.float32)[:, None]
        taps = [cv2.remap(image, xx + flow[..., 0] * at, yy + flow[..., 1] * at,
                          cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                for at in (-0.5, -0.25, 0.25, 0.5)]
        outer = cv2.addWeighted(taps[0], .5, taps[3], .5, 0)
        inner = cv2.addWeighted(taps[1], .5, taps[2], .5, 0)
        return cv2.addWeighted(outer, .5, inner, .5, 0)

    def _flow(self, index: int) -> tuple[npt.NDArray[np.float32], Bools]:
        """Motion to the next frame and where its target shows the same part."""
        height, width = self.size
        _, _, ids, view = self._draw(index)
        _, _, later, after = self._draw(index + 1)
        flow, valid = self._motion(ids, view, after, 1)
        yy, xx = np.mgrid[0:height, 0:width]
        x = np.round(xx + flow[..., 0]).astype(np.int64)
        y = np.round(yy + flow[..., 1]).astype(np.int64)
        valid &= (x >= 0) & (x < width) & (y >= 0) & (y < height)
        valid &= (later[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] == ids) & (ids > 0)
        if self.bonnet is not None:
            own = self.bonnet[0]
            flow[own] = 0
            valid &= ~own[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] | own
            valid[own] = True
        return flow, valid
