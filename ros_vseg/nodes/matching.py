# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Messages of several topics that belong to one time (message_filters has no wheel)."""
import math
from typing import Any

KEPT = 60  # messages of a topic that wait for the others
KEPT_LARGE = 20     # ... of these, which take three or four bytes a pixel
LARGE = ('depth', 'image')
LOOSE = 'depth'     # the one topic that another device may stamp
JUMP = 10**9    # ns that stamps go back where a bag starts again, not where messages overtake


class Matcher:
    """
    Collects messages by topic and hands out sets whose stamps agree.

    A set has one message of every topic, with the stamp of the first topic's; depth may differ by
    ``slop``, and the nearest pair is taken: one that may still get a nearer half, by the smallest
    gap between two stamps of a topic so far, waits for the next message. What is older than a set
    that was handed out is dropped, and everything when the stamps of a topic jump back: a bag has
    started again. A stamp of 0 says nothing, so its message is in no set. ``unmatched`` counts, by
    topic, the messages that were in no set.
    """

    def __init__(self, topics: list[str], slop: int) -> None:
        """Take the topics, the one that leads first, and the slop in nanoseconds."""
        self._waiting: dict[str, dict[int, Any]] = {topic: {} for topic in topics}
        self._lead, self._slop = topics[0], slop
        self._newest: dict[str, int] = {}
        self._gaps: dict[str, float] = {}   # least between two stamps, ns
        self.unmatched = dict.fromkeys(topics, 0)

    def add(self, topic: str, stamp: int, message: Any) -> dict[str, Any] | None:
        """Take a message of ``stamp`` in ns; return {topic: message} if that completes a set."""
        if stamp == 0:
            self.unmatched[topic] += 1
            return None
        if stamp < self._newest.get(topic, stamp) - JUMP:
            self.forget()
        newest = self._newest.setdefault(topic, stamp)
        if stamp > newest:
            self._newest[topic] = stamp
            self._gaps[topic] = min(stamp - newest, self._gaps.get(topic, math.inf))
        waiting = self._waiting[topic]
        if stamp in waiting:
            self._drop(topic, stamp)
        waiting[stamp] = message
        if len(waiting) > (KEPT_LARGE if topic in LARGE else KEPT):
            self._drop(topic, next(iter(waiting)))  # came first: stamps may have gone back
        for lead in sorted(self._waiting[self._lead]):
            stamps = {name: self._nearest(name, lead) for name in self._waiting}
            found = {name: at for name, at in stamps.items() if at is not None}
            if len(found) == len(stamps) and self._settled(found, lead):
                return {name: self._take(name, at) for name, at in found.items()}
        return None

    def _nearest(self, topic: str, stamp: int) -> int | None:
        slop = self._slop if topic == LOOSE else 0
        near = [other for other in self._waiting[topic] if abs(other - stamp) <= slop]
        return min(near, key=lambda other: abs(other - stamp), default=None)

    def _settled(self, found: dict[str, int], lead: int) -> bool:
        """Return whether no other message, waiting or still to come, fits one of a pair better."""
        loose = found.get(LOOSE, lead)
        if any(abs(other - loose) < abs(lead - loose) for other in self._waiting[self._lead]):
            return False    # that one still waits for its image or confidence
        return all(self._newest[topic] >= other
                   or 2 * abs(lead - loose) <= self._gaps.get(topic, math.inf)
                   for topic, other in ((self._lead, loose), (LOOSE, lead)))

    def _take(self, topic: str, stamp: int) -> Any:
        waiting = self._waiting[topic]
        message = waiting.pop(stamp)
        for older in [other for other in waiting if other < stamp]:
            self._drop(topic, older)
        return message

    def _drop(self, topic: str, stamp: int) -> None:
        del self._waiting[topic][stamp]
        self.unmatched[topic] += 1

    def forget(self) -> None:
        """Drop all that waits."""
        self._newest.clear()
        self._gaps.clear()
        for topic, waiting in self._waiting.items():
            self.unmatched[topic] += len(waiting)
            waiting.clear()
