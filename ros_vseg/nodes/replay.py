# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The executable ``replay``: see player.py."""
from collections.abc import Sequence
import sys

from ros_vseg.nodes import start


def _load() -> start.Program:
    from ros_vseg.nodes.player import PROGRAM
    return PROGRAM


def main(args: Sequence[str] | None = None) -> int:
    """Play the source and return the exit code: 1 when nothing could be sent."""
    return start.run(_load, args)


if __name__ == '__main__':
    sys.exit(main())
