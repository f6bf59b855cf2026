# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The backends of this machine, frames through a stream of one, and pictures for it."""
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from ros_vseg import backends
from ros_vseg.backends.base import BackendStream, Labels

INSTALLED = [name for name, reason in backends.available().items() if reason is None]


def needs(name: str) -> pytest.MarkDecorator:
    """Skip where a backend is not installed: a robot has only one of them."""
    return pytest.mark.skipif(name not in INSTALLED, reason=f'{name} is not installed')


def step(stream: BackendStream, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return a copy of the next frame's scores [K, h, w]; the frame is remembered."""
    scores = np.array(stream.step(image))
    stream.remember()
    return scores


def label(stream: BackendStream, image: npt.NDArray[np.uint8],
          confidence: bool = False) -> Labels:
    """Label the next frame; it is remembered."""
    made = stream.label(image, confidence)
    stream.remember()
    return made


def frame(number, size=(96, 128)):
    """Return a smooth image uint8 [H, W, 3] that moves with its number."""
    y, x = np.mgrid[:size[0], :size[1]] / 20
    planes = [np.sin(x + 0.3 * number + c) * np.cos(y - 0.2 * number * c) for c in range(3)]
    return (127 + 120 * np.stack(planes, -1)).astype(np.uint8)


def scene(seed):
    """Return an image uint8 [96, 128, 3] of a place of its own."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (12, 16, 3)).astype(np.float32)
    image = cv2.resize(coarse, (128, 96), interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255).astype(np.uint8)
