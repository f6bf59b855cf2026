# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM: one way to end for every command and node, without a traceback."""
import signal
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM)


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
