# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Small training data for tests: coloured blocks that a network can learn in seconds."""
import cv2
import numpy as np


COLORS = np.uint8([[230, 230, 230], [40, 40, 40], [200, 60, 60], [60, 200, 60]])


def blocks(rng, size=(64, 96)):
    """Image uint8 [H, W, 3] RGB and labels uint8 [H, W] of 4 classes in large blocks."""
    coarse = rng.integers(0, 4, (4, 6), np.uint8)
    labels = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)
    noise = rng.integers(-12, 13, (*size, 3))
    return np.clip(COLORS[labels] + noise, 0, 255).astype(np.uint8), labels


def write_folder(root, drives=2, frames=4, seed=0):
    """Write a folder dataset of PNGs and return its root."""
    rng = np.random.default_rng(seed)
    for drive in range(drives):
        for part in ('images', 'labels'):
            (root / part / f'drive{drive}').mkdir(parents=True, exist_ok=True)
        for frame in range(frames):
            image, labels = blocks(rng)
            name = f'drive{drive}/{frame:03d}.png'
            cv2.imwrite(str(root / 'images' / name), image[:, :, ::-1])
            cv2.imwrite(str(root / 'labels' / name), labels)
    return root


def depth_folder(root):
    """A folder of one drive with depth in mm beside its labels; return it."""
    write_folder(root, drives=1, frames=2)
    for image in (root / 'images').rglob('*.png'):
        path = root / 'depth' / image.relative_to(root / 'images')
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(0).integers(
            0, 60000, cv2.imread(str(image)).shape[:2], np.uint16))
    return root
