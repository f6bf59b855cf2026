# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Frames for the TensorRT backend on the FAKE driver, and what it is compared with."""
import cv2
import numpy as np

from ros_vseg import backends
from ros_vseg.resize import resize_taps

STAGES = ['upload', 'resize', 'network', 'decode', 'download']
CAMERA = (135, 250)


def frame(number, size=CAMERA):
    """Return a smooth image uint8 [H, W, 3] that moves with its number."""
    coarse = np.random.default_rng(1).uniform(0, 255, (7, 9, 3)).astype(np.float32)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.roll(image.clip(0, 255).astype(np.uint8), 3 * number, axis=1)


def by_taps(image, size):
    """Resize as the kernel does: in float32, tap after tap."""
    (first_y, weights_y), (first_x, weights_x) = resize_taps(image.shape[:2], size)
    total = np.zeros((*size, 3), np.float32)
    for j, down in enumerate(weights_y.T):
        for i, right in enumerate(weights_x.T):
            rows = np.minimum(first_y + j, image.shape[0] - 1)
            columns = np.minimum(first_x + i, image.shape[1] - 1)
            total += (down[:, None] * right)[..., None] * image[rows][:, columns]
    return (total + np.float32(0.5)).astype(np.uint8)


def on_processor(backend):
    """Return the backend of the same bundle that the GPU is compared with."""
    return backends.load(backend.bundle, 'onnxruntime', threads=1)
