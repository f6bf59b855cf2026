# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The executable ``record``: see recorder.py."""
from collections.abc import Sequence
import sys

from ros_vseg.nodes import start


def _load() -> start.Program:
    from ros_vseg.nodes.recorder import PROGRAM
    return PROGRAM


def main(args: Sequence[str] | None = None) -> int:
    """Record until the player has ended or Ctrl-C; the exit code is 1 when no label came."""
    return start.run(_load, args)


if __name__ == '__main__':
    sys.exit(main())
