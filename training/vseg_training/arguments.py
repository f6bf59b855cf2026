# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers among the arguments of vseg-train; argparse tells a wrong one in one line."""
from argparse import ArgumentTypeError
from collections.abc import Callable
import math


SIDES = (16, 8192)  # of an image, in pixels


def size(text: str) -> tuple[int, int]:
    """
    Read HxW, as in 360x480.

    Raises:
        ArgumentTypeError: It is not that, or a side is outside of SIDES.
    """
    sides = text.lower().split('x')
    if len(sides) != 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise ArgumentTypeError(f'{text!r} is no size: give height and width in pixels, such as '
                                '360x480')
    height, width = (int(side[:9]) for side in sides)  # of more digits it is too large anyway
    if not all(SIDES[0] <= side <= SIDES[1] for side in (height, width)):
        raise ArgumentTypeError(f'{text!r} is no size: both sides have {SIDES[0]}..{SIDES[1]} '
                                'pixels')
    return height, width


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from least to most."""
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise ArgumentTypeError(f'{text!r} is not possible: give a whole number of '
                                    f'{least}..{most}')
        return value
    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """Return a reader of numbers from least to most."""
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:  # NaN is not
            raise ArgumentTypeError(f'{text!r} is not possible: give a number of '
                                    f'{least:g}..{most:.10g}')
        return value
    return read


def named_number(least: float, most: float) -> Callable[[str], tuple[str, float]]:
    """Return a reader of NAME=NUMBER, with numbers from least to most."""
    read_number = number(least, most)

    def read(text: str) -> tuple[str, float]:
        name, sign, value = text.rpartition('=')
        if not sign or not name:
            raise ArgumentTypeError(f'{text!r} is not possible: give NAME=NUMBER')
        return name, read_number(value)
    return read
