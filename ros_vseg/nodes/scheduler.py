# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: several cameras share one device, and each frame is chosen at its turn."""
import threading
from typing import Any, Callable, NamedTuple, Protocol


class Arrival(NamedTuple):
    """An image message, and the time.monotonic() of its arrival."""

    message: Any
    time: float


class Served(Protocol):
    """A camera as the scheduler sees it; hashable."""

    @property
    def priority(self) -> float:
        """Share of the turns, above 0: twice that of another camera means twice its turns."""

    def serve(self, frame: Arrival) -> None:
        """Label a frame; whatever it raises ends the worker."""

    def turn_away(self, frame: Arrival) -> None:
        """Take note that the end has come before a frame's turn."""


class Scheduler:
    """
    Serves cameras one after the other, on threads of its own.

    ``put`` only stores a camera's newest frame. Whenever the device is free the camera served
    longest ago is next, and its newest frame is taken at that moment, so that no frame grows old
    behind those of other cameras. A camera without a new frame has no turn: one that stalls costs
    the others nothing. With priorities this is start-time fair queueing (Goyal et al., 1996): a
    camera's turns are 1 / priority apart in virtual time, and the earliest turn is next.
    """

    def __init__(self, at_once: Callable[[], int] = lambda: 1, workers: int = 1) -> None:
        """
        Take no frames yet; see ``start``.

        Args:
            at_once: how many frames may be on the device now, asked before each turn.
            workers: number of threads, the most that ``at_once`` can give.
        """
        self._at_once = at_once
        self._changed = threading.Condition()
        self._waiting: dict[Served, Arrival] = {}
        self._busy: set[Served] = set()
        self._begun: dict[Served, float] = {}     # the last turn, in virtual time
        self._served: dict[Served, int] = {}          # number of its last turn
        self._now, self._turns = 0.0, 0
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f'label {number}', daemon=True)
                         for number in range(workers)]

    def start(self) -> None:
        """Start to serve; a scheduler is started once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the frames at work; those that wait are turned away."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for camera, frame in self._waiting.items():
            camera.turn_away(frame)
        self._waiting.clear()

    def put(self, camera: Served, frame: Arrival) -> bool:
        """Store a camera's newest frame; return whether it replaced one that had no turn."""
        with self._changed:
            replaced = camera in self._waiting
            if not self._closed:
                self._waiting[camera] = frame
                self._changed.notify()
            return replaced

    def _work(self) -> None:
        while (turn := self._take()) is not None:
            camera, frame = turn
            try:
                camera.serve(frame)
            finally:
                with self._changed:
                    self._busy.discard(camera)
                    self._changed.notify_all()

    def _take(self) -> tuple[Served, Arrival] | None:
        """Wait for a turn; return its camera and frame, or None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._ready())
            if self._closed:
                return None
            camera = min(self._ready(), key=self._place)
            self._now, _ = self._place(camera)
            self._turns += 1
            self._begun[camera] = self._now
            self._served[camera] = self._turns
            self._busy.add(camera)
            return camera, self._waiting.pop(camera)

    def _ready(self) -> list[Served]:
        """Return the cameras that may be next; a camera has one frame at work at most."""
        if len(self._busy) >= self._at_once():
            return []
        return [camera for camera in self._waiting if camera not in self._busy]

    def _place(self, camera: Served) -> tuple[float, int]:
        """Return what orders the cameras: virtual time of the turn, then the longest unserved."""
        begun, start = self._begun.get(camera), self._now
        if begun is not None:
            start = max(begun + 1 / camera.priority, start)
        return start, self._served.get(camera, 0)


class RateLimit:
    """Thins out frames to a rate; in between it lets through what is freshest, at once."""

    def __init__(self) -> None:
        self._due = 0.0

    def admits(self, now: float, rate: float) -> bool:
        """
        Judge a frame as it arrives.

        Args:
            now: seconds of a steady clock.
            rate: frames a second to let through on average; 0: all.

        Returns:
            Whether the frame may pass.
        """
        if not rate:
            return True
        period = 1 / rate   # from the time it was due, so that the average is the rate
        self._due = min(self._due, now + period)    # the rate may have been lower
        if now < self._due:
            return False
        self._due = max(self._due, now - period) + period
        return True
