# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""From a network's coarse depth to the depth image of a camera (REP 118)."""
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

FAR = 0.75  # share of ``farthest`` from which a depth only says that it is far: the sky's is there

Floats = npt.NDArray[np.float32]


class DepthRange(NamedTuple):
    """
    What the depths of a bundle mean.

    Attributes:
        nearest: the least depth that it knows, in metres.
        farthest: the largest one, which stands for all beyond, in metres.
        focal: focal length, in pixels of the network's input, of the camera that metres are for.
    """

    nearest: float
    farthest: float
    focal: float

    def scale(self, focal: float, height: int, input_height: int) -> float:
        """
        Return the factor from the network's metres to those of a camera.

        Args:
            focal: of the camera, in pixels of its image.
            height: of that image, in pixels.
            input_height: of the network, in pixels.
        """
        return focal * input_height / height / self.focal


def depth_image(coarse: npt.NDArray[np.floating], size: tuple[int, int], known: DepthRange,
                focal: float, input_height: int) -> Floats:
    """
    Return the depth image of a camera.

    A network cannot tell a long lens from a near object, so that its metres are those of one focal
    length; those of another camera are in proportion.

    >>> import numpy as np
    >>> known = DepthRange(nearest=2, farthest=100, focal=500)
    >>> depth_image(np.array([[10, 90.]]), (2, 4), known, focal=2000, input_height=1)
    array([[20., 20., inf, inf],
           [20., 20., inf, inf]], dtype=float32)

    Args:
        coarse: float [h, w], metres at ``known.focal``.
        size: (H, W) of the camera's image.
        known: what the depths mean.
        focal: of the camera, in pixels of its image.
        input_height: of the network, in pixels.

    Returns:
        float32 [H, W] in metres, inf where it is far (``FAR``), of the nearest coarse cell: a mean
        over an edge would be a point in the air.
    """
    scale = known.scale(focal, size[0], input_height)
    far = coarse >= FAR * known.farthest
    metres = np.where(far, np.inf, scale * coarse).astype(np.float32)
    return cv2.resize(metres, size[::-1], interpolation=cv2.INTER_NEAREST)


def in_millimetres(metres: Floats) -> npt.NDArray[np.uint16]:
    """Return depths float32 [H, W] as REP 118 stores them: uint16 mm, 0 if unknown or too far."""
    known = (metres >= 0) & (metres < 65.5)     # neither NaN nor inf
    return np.where(known, np.round(1000 * np.where(known, metres, 0)), 0).astype(np.uint16)
