# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The executable ``cloud``: see cloud.py."""
import sys

from ros_vseg import interrupts


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; the exit code is cloud.py's."""
    interrupts.end_at_once()    # imports take a second, which a signal cuts short
    from ros_vseg.nodes import cloud
    return cloud.main(args)


if __name__ == '__main__':
    sys.exit(main())
