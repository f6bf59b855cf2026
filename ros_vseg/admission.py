# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Which frames are good enough to be remembered; the runtime and its reference in torch ask it."""
from typing import Optional

SHARE = 0.93    # of the running mean that a frame's mean confidence must exceed
WEIGHT = 0.05   # least weight of the newest frame in the running mean: the last 20 or so count


class Admission:
    """
    Holds back degraded frames, so that a burst of them does not flush the pool.

    The running mean is the plain mean of the first 20 frames that were admitted, and from then on
    an exponential one, so that dusk or another district shift it slowly. The first frame enters
    in any case: if it is a bad one the mean starts low, and good frames enter all the same.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the running mean."""
        self._mean, self._count = 0.0, 0

    def admits(self, mean_confidence: Optional[float]) -> bool:
        """
        Judge the next frame; the running mean takes in what is admitted.

        Args:
            mean_confidence: mean over the frame of the largest softmax probability, 0 to 1; NaN
                never enters, None (the bundle does not tell) always does.

        Returns:
            Whether the frame may enter the pool.
        """
        if mean_confidence is None:
            return True
        if not mean_confidence > SHARE * self._mean:
            return False
        self._count += 1
        self._mean += (mean_confidence - self._mean) * max(1 / self._count, WEIGHT)
        return True
