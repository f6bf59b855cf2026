# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What the numbers among the options of ``vseg`` may be; the node has the same limits."""
import argparse

from ros_vseg.errors import VsegError

LIMITS: dict[str, tuple[float, float]] = {
    'device': (0, 63), 'focal': (1, 1_000_000), 'limit': (1, 10**9),
    'max_gap': (0.001, 3600), 'rounds': (1, 1_000_000), 'threads': (0, 256),
    'workspace': (0, 1_000_000)}    # fps: see open_source


def check_numbers(options: argparse.Namespace) -> None:
    """
    Refuse numbers that an option cannot mean, before anything is loaded.

    Args:
        options: of any command of ``vseg``.

    Raises:
        VsegError: names the option and its limit.
    """
    for name, (low, high) in LIMITS.items():
        value = getattr(options, name, None)
        option = f'--{name.replace("_", "-")}'
        if value is None or low <= value <= high:
            continue
        if value < low:
            raise VsegError(f'{option} {value} is too small: give {low} or more')
        if value > high:
            raise VsegError(f'{option} {value} is too large: give {high} or less')
        raise VsegError(f'{option} {value} is not a number: give {low} to {high}')
