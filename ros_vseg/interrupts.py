# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM: one way to end for every command and node, without a traceback."""
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
import os
import signal
import sys
from types import FrameType
from typing import NoReturn, TypeVar

Item = TypeVar('Item')
NUMBERS = (signal.SIGINT, signal.SIGTERM)
_asked = 0              # number of the signal that asked a node to end
_interruptible = False


class Interrupted(KeyboardInterrupt):
    """The process was asked to end; ``exit_code`` is what a shell expects: 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(f'signal {number}')
        self.exit_code = 128 + number


def end_at_once() -> None:
    """Let a signal end the process without a word: while there is nothing to clean up."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)


def raise_once() -> None:
    """
    Let the first signal raise Interrupted; later ones are ignored, so that clean-up completes.

    A process that a script started with ``&`` has SIGINT ignored: here it counts again.
    """
    for number in NUMBERS:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in NUMBERS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def defer() -> None:
    """
    Let a signal ask the process to end: ``asked`` says so, and its loop ends in order.

    For nodes: an exception out of a signal would travel through rclpy's C++, which it has crashed,
    and leave transitions half done.
    """
    for number in NUMBERS:
        signal.signal(number, _note)


def asked() -> bool:
    """Return whether a signal has asked the process to end, after ``defer``."""
    return bool(_asked)


@contextmanager
def interruptible() -> Iterator[None]:
    """
    Let a signal interrupt the block, which may take minutes, after ``defer``.

    Raises:
        Interrupted: A signal came, in the block or before it.
    """
    global _interruptible
    _interruptible = True
    try:
        if _asked:
            raise Interrupted(_asked)
        yield
    finally:
        _interruptible = False


def _note(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = number
    if _interruptible:
        raise Interrupted(number)


def raise_if_asked() -> None:
    """Raise Interrupted if a signal came after ``defer``."""
    with interruptible():
        pass


def until_interrupted(items: Iterable[Item]) -> Iterator[Item]:
    """
    Yield items until a signal has asked the process to end, after ``defer``.

    An exception out of a signal may arise inside a library's C++: OpenCV crashes at times, and
    then nothing is cleaned up.

    Raises:
        Interrupted: A signal came.
    """
    for item in items:
        raise_if_asked()
        yield item
    raise_if_asked()


def leave(code: int) -> NoReturn:
    """
    End a process that has cleaned up, without the exit handlers of its libraries.

    Those of DDS, OpenVINO and CUDA run in any order while threads of theirs still work: they have
    crashed nodes that had ended well, and may wait for a lost GPU for ever.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
