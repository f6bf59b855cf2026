# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Tab completion of ``vseg`` by argcomplete (extra ``completion``), where it is installed."""
import argparse
from collections.abc import Callable
import os
import sys


def completed(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Answer a shell that asks for completions, and end the process; else return the parser."""
    if '_ARGCOMPLETE' in os.environ:
        try:
            import argcomplete
        except ImportError:
            sys.exit(1)     # the shell then completes files
        argcomplete.autocomplete(parser)
    return parser


def offer(action: argparse.Action, names: Callable[[], list[str]]) -> None:
    """Let a shell complete an argument by names, which are looked up only then."""
    setattr(action, 'completer', lambda **_: names())


def backends() -> list[str]:
    """Return what ``--backend`` takes."""
    from ros_vseg.backends import BACKENDS
    return ['auto', *BACKENDS]


def precisions() -> list[str]:
    """Return what ``--precision`` takes."""
    from ros_vseg.backends import PRECISIONS
    return list(PRECISIONS)


def benchmarks() -> list[str]:
    """Return the names of all benchmarks."""
    from ros_vseg.bench import table
    return [*table.NAMES, *table.ON_GPU, *table.ON_REQUEST]
