# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Work on frames that a signal ends between two of them."""
from collections.abc import Iterable, Iterator
from typing import TypeVar

from ros_vseg import interrupts

Item = TypeVar('Item')


def until_interrupted(items: Iterable[Item]) -> Iterator[Item]:
    """
    Yield items until a signal has asked the process to end, after ``interrupts.defer``.

    An exception out of a signal may arise inside a library's C++: OpenCV crashes at times, and
    then nothing is cleaned up.

    Raises:
        Interrupted: A signal came.
    """
    for item in items:
        raise_if_asked()
        yield item
    raise_if_asked()


def raise_if_asked() -> None:
    """Raise Interrupted if a signal came after ``interrupts.defer``."""
    with interrupts.interruptible():
        pass
