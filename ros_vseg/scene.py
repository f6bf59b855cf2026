# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A cut to another scene, told from the frames themselves."""
from typing import Optional

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.encoding import Picture, RawImage

CELLS = (24, 32)    # rows and columns of a thumbnail
SAMPLES = 4         # at least so many pixels are sampled along each side of a cell
AROUND = (9, 9)     # cells that a cell's contrast is relative to
CONTRAST = 1.0      # grey levels below which contrast is noise
ALIKE = 0.25        # correlation from which two frames show the same scene
MISSED = 1          # frames held back in a row over which two frames can be compared


class SceneChange:
    """
    Tells a cut from a bad frame, one frame after the cut.

    A frame that is unlike the last one remembered is a suspect. If the next frame is like the
    suspect, and unlike the remembered one too, there was a cut. A bad frame alone is never a cut,
    nor are frames that were held back; after several of these a moving camera sees something else
    without a cut, so the next good frame is not a suspect.
    """

    def __init__(self) -> None:
        self._now: Optional[npt.NDArray[np.float32]] = None
        self.reset()

    def reset(self) -> None:
        """Forget all frames but the one that was looked at last."""
        self._reference: Optional[npt.NDArray[np.float32]] = None
        self._suspect: Optional[npt.NDArray[np.float32]] = None
        self._held_back = 0     # in a row

    def is_cut(self, image: Picture) -> bool:
        """
        Look at the next frame, before it is labelled.

        Args:
            image: of any size.

        Returns:
            Whether the frame before it was the first of another scene, which this one shows too.
        """
        self._now = thumbnail(image)
        if self._now is None or self._suspect is None or self._reference is None:
            return False
        return alike(self._now, self._suspect) and not alike(self._now, self._reference)

    def labelled(self, admitted: bool) -> None:
        """Learn whether the frame that was looked at last is remembered."""
        held_back, self._held_back = self._held_back, 0 if admitted else self._held_back + 1
        if not admitted or self._now is None:
            return
        if (self._reference is None or held_back > MISSED
                or alike(self._now, self._reference)):
            self._reference, self._suspect = self._now, None
        else:
            self._suspect = self._now


def thumbnail(image: Picture) -> Optional[npt.NDArray[np.float32]]:
    """
    Return what a frame shows in 24x32 numbers, whatever its exposure.

    Args:
        image: uint8 [H, W, 3], or raw; its green channel is sampled.

    Returns:
        float32 [24, 32] of unit length: the contrast of each cell to those around it, relative to
        the contrast that is usual there, so that one glare does not outweigh the rest of the
        image. None for an image without contrast.
    """
    down, right = (max(1, side // (cells * SAMPLES))
                   for side, cells in zip(image.shape, CELLS))
    rows = image.rows(down) if isinstance(image, RawImage) else image[::down]
    small = np.ascontiguousarray(rows[:, ::right, 1])
    cells = cv2.resize(small, CELLS[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    contrast = cells - cv2.blur(cells, AROUND)
    usual = np.sqrt(cv2.blur(contrast * contrast, AROUND))
    if usual.max() < CONTRAST:
        return None
    contrast /= usual + CONTRAST
    unit: npt.NDArray[np.float32] = contrast / np.linalg.norm(contrast)
    return unit


def alike(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> bool:
    """Return whether two thumbnails may show the same scene."""
    return float(np.vdot(first, second)) >= ALIKE
