# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How often frames reach the network, against what the student was trained for."""
from collections import deque
import statistics
from typing import Optional, Sequence

INTERVALS = 30      # between frames, that the rate is taken over
ENOUGH = 10         # of them, before anything is said
TOLERANCE = 1.5     # factor by which the rate may be out of the range


class FrameRate:
    """
    Rate of the frames that are labelled, by their stamps, so that replays may be fast or slow.

    Args:
        rates: lowest and highest rate in Hz that the network was trained for, if that is known.

    Attributes:
        hz: the rate, None before there are enough frames.
        problem: that the rate is far from ``rates``, in words; None if it is not.
    """

    def __init__(self, rates: Optional[Sequence[float]]) -> None:
        self._rates = rates
        self._intervals: deque[int] = deque(maxlen=INTERVALS)
        self._last: Optional[int] = None
        self.hz: Optional[float] = None
        self.problem: Optional[str] = None

    def add(self, stamp: int) -> None:
        """Count a frame; stamp in nanoseconds. One that goes back or repeats has no interval."""
        if self._last is not None and stamp > self._last:
            self._intervals.append(stamp - self._last)
        self._last = stamp
        if len(self._intervals) >= ENOUGH:
            self.hz = 1e9 / statistics.median(self._intervals)
            self.problem = self._problem(self.hz)

    def _problem(self, hz: float) -> Optional[str]:
        if self._rates is None:
            return None
        low, high = self._rates
        if low / TOLERANCE <= hz <= high * TOLERANCE:
            return None
        change = 'lower' if hz > high else 'raise'
        return (f'{hz:.1f} frames a second reach the network, which was trained for {low:g} '
                f'to {high:g}: earlier frames are of less use to it; {change} the rate of the '
                'camera, or choose another size or bundle')
