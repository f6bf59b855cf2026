# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What all sources of frames share."""
from collections import Counter
from collections.abc import Iterator
import logging
from pathlib import Path
import statistics
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

DEFAULT_FPS = 15.0  # of folders, whose images carry no time
LATEST = 2**31 * 10**9  # ns; a stamp of ROS ends here
FRAMES_FOR_RATE = 16    # first frames of a source that tell its rate

log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """
    One image of a source.

    image uint8 [H, W, 3] RGB; stamp in nanoseconds; name: a file-name-safe name, of this frame
    alone; labels uint8 [H, W]: exact ids (255 = void) where the source has them.
    """

    image: npt.NDArray[np.uint8]
    stamp: int
    frame_id: str
    name: str
    labels: npt.NDArray[np.uint8] | None = None


class Source:
    """
    What all sources share: frames that cannot be read are counted and left out.

    Attributes:
        name: Of the bag, video or folder, without its ending.
        fps: Frames a second, the median of the first ones where the source has times.
        count: Frames that should be there; None if unknown.
        refused: Frames of the last iteration that were left out, counted by cause.
        unpaired_labels: Exact labels of the last iteration that belong to no image.
        path: Where they lie.
    """

    def __init__(self, name: str, fps: float, count: int | None) -> None:
        self.name, self.fps, self.count = name, fps, count
        self.refused: Counter[str] = Counter()
        self.unpaired_labels = 0
        self.path: Path | None = None

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def refuse(self, where: object, cause: str, reason: object) -> None:
        """Count a frame that cannot be read; the first of each cause is logged."""
        self.refused[cause] += 1
        if self.refused[cause] == 1:
            log.warning('%s is left out: %s', where, reason)

    def left_out(self) -> str:
        """Return the counts of ``refused`` in words; empty if nothing was left out."""
        return ', '.join(f'{count} {cause}' for cause, count in self.refused.items())


def rate(stamps: list[int]) -> float:
    """Return frames a second by the median of the gaps between stamps in ns."""
    gaps = [after - before for before, after in zip(stamps, stamps[1:]) if after > before]
    return 1e9 / statistics.median(gaps) if gaps else DEFAULT_FPS
