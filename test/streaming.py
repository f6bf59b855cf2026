# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Frames through a backend's stream, each remembered, as a Stream does without held-back ones."""
import numpy as np
import numpy.typing as npt

from ros_vseg.backends.base import BackendStream, Labels


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
