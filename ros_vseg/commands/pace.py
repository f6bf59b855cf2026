# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The size at which the network keeps up with a clip on this machine, for the demo."""
from collections.abc import Callable, Iterable
from itertools import islice
import statistics
import time
from typing import NamedTuple

from ros_vseg.bundle import Bundle
from ros_vseg.errors import BundleError
from ros_vseg.graph import at_size
from ros_vseg.media.frames import Frame

SHARES = (1.0, 0.75, 0.5)   # of the bundle's height and width that are tried
GRID = 16       # pixels that a size is a multiple of
BUSY = 0.7      # of the time between two frames that one may take: others work beside it
FRAMES, WARM_UP = 6, 2


class Pace(NamedTuple):
    """A size (height, width), None for the bundle's own, and why; no reason where it is fast."""

    size: tuple[int, int] | None
    reason: str


def choose(bundle: Bundle, fps: float, step: Callable[[Bundle], float | None]) -> Pace:
    """
    Return the largest size at which a bundle keeps up, or the smallest that was tried.

    Args:
        bundle: at its own size.
        fps: frames a second of the clip.
        step: seconds that a frame takes with a bundle, or None if it cannot be measured.
    """
    info, times = bundle.info, {}
    for share in SHARES:
        size = ((info.height, info.width) if share == 1 else
                (_part(info.height, share), _part(info.width, share)))
        try:
            taken = step(at_size(bundle, size))
        except BundleError:     # a network that was wrapped has one size
            break
        if taken is None:
            return Pace(None, '')
        times[size] = taken
        if taken * fps <= BUSY:
            break
    first, last = next(iter(times)), list(times)[-1]
    if times[first] * fps <= BUSY:
        return Pace(None, '')
    text = (f'a frame takes {1e3 * times[first]:.0f} ms at {_text(first)} on this machine, the '
            f'clip has {fps:g} a second')
    if times[last] * fps > BUSY:
        text += ': frames will be left out'
    if last == first:
        return Pace(None, text)
    return Pace(last, f'{text}; the network runs at {_text(last)}, {1e3 * times[last]:.0f} ms '
                '(choose with --size; the node has a parameter size)')


def measured(frames: Iterable[Frame]) -> Callable[[Bundle], float | None]:
    """Return a function that labels the first frames with a bundle: the median of the seconds."""
    images = [frame.image for frame in islice(frames, FRAMES)]

    def step(bundle: Bundle) -> float | None:
        from ros_vseg import backends
        stream, times = backends.load(bundle, fallback=True).stream(), []    # as the node does
        for image in images:
            begin = time.perf_counter()
            stream.label(image)
            stream.remember()
            times.append(time.perf_counter() - begin)
        return statistics.median(times[WARM_UP:]) if len(times) > WARM_UP else None
    return step


def _part(side: int, share: float) -> int:
    return max(2, round(share * side / GRID)) * GRID


def _text(size: tuple[int, ...]) -> str:
    return f'{size[0]}x{size[1]}'
