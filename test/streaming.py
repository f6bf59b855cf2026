# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The backends of this machine, and frames through a stream of one, each remembered."""
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
