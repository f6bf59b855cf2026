# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Which frames are good enough to be remembered; the runtime and its reference in torch ask it."""
from typing import Optional

WORSE = 1.6     # times the usual expected error, from which on a frame is too bad
FLOOR = 0.02    # least that counts as usual: below it every frame is good
WEIGHT = 0.05   # least weight of the newest frame in the running mean: the last 20 or so count


class Admission:
    """
    Holds back degraded frames, so that a burst of them does not flush the pool.

    Of a calibrated network one minus the mean confidence is the share of pixels that it expects to
    be wrong. A ratio of these means the same however confident a network is; a ratio of the
    confidences, which all lie near 1, does not.

    The running mean is the plain mean of the first 20 frames that were admitted, and from then on
    an exponential one, so that dusk or another district shift it slowly. The first frame enters
    in any case: if it is a bad one the mean starts high, and good frames enter all the same.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was usual."""
        self._error, self._count = 0.0, 0

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
        error = 1 - mean_confidence
        usual = max(self._error, FLOOR) if self._count else 1.0
        if not error <= WORSE * usual:
            return False
        self._count += 1
        self._error += (error - self._error) * max(1 / self._count, WEIGHT)
        return True
