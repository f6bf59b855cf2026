# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Positions in the camera image as a network sees them: sines and cosines, coarse to fine."""
import numpy as np
import numpy.typing as npt

FREQUENCIES, GAIN = (1, 2, 4, 8), 3.0     # half periods per image; beside features of this size


def position_codes(height: int, width: int) -> npt.NDArray[np.float32]:
    """
    Return the codes of the cells of a feature grid.

    Args:
        height: cells of the grid from top to bottom.
        width: cells of the grid from left to right.

    Returns:
        float32 [16, height, width] in -3..3: for each frequency k of 1, 2, 4, 8 the channels
        sin(pi k x), cos(pi k x), sin(pi k y), cos(pi k y), times 3, where x and y in 0..1 are the
        cell's centre as a share of the image. They are the same place for any size of the grid.
    """
    y = np.broadcast_to(((np.arange(height) + 0.5) / height)[:, None], (height, width))
    x = np.broadcast_to((np.arange(width) + 0.5) / width, (height, width))
    codes = [wave(np.pi * k * axis) for k in FREQUENCIES for axis in (x, y)
             for wave in (np.sin, np.cos)]
    grid: npt.NDArray[np.float32] = (GAIN * np.stack(codes)).astype(np.float32)
    return grid
