# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Which frames are good enough for the prototype pool."""
from typing import Optional

SHARE = 0.93  # of the running mean; chosen on CamVid val with bursts of degraded frames
MEMORY = 0.9  # weight of the past in the running mean: about the last ten frames that entered


class Admission:
    """
    Admits a frame to the pool if the network is about as sure of it as of those before.

    A burst of bad frames (a wiper, a low sun) would flush good context out of the pool and leave
    prototypes of nothing in particular. A frame enters if its mean confidence is above 0.93 of the
    running mean of those that entered. The first frame after a reset always enters.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all earlier frames."""
        self._mean: Optional[float] = None

    def admits(self, confidence: Optional[float]) -> bool:
        """
        Decide on the next frame, and count it if it enters.

        Args:
            confidence: Mean of the largest class probability over the frame, in 0..1; None where
                the network does not tell: every frame enters.

        Returns:
            Whether the frame enters the pool.
        """
        if confidence is None:
            return True
        if self._mean is None:
            self._mean = confidence
        elif confidence <= SHARE * self._mean:
            return False
        else:
            self._mean = MEMORY * self._mean + (1 - MEMORY) * confidence
        return True
