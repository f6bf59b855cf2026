# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a command prints, when nobody reads it: ``vseg info | head -1``, ``vseg info >&-``."""
from collections.abc import Callable
import errno
import io
import os
import signal
import sys


def printing(command: Callable[[], int]) -> int:
    """
    Run a command that prints, and see to it that all is printed.

    Returns:
        Its exit code; 141 where what reads the output has ended, as programs do that end by
        SIGPIPE; 1, with one line, where the disk that the output goes to is full.
    """
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None:      # closed by the shell
            setattr(sys, name, open(os.devnull, 'w'))
    if isinstance(sys.stdout, io.TextIOWrapper):    # names of files and classes are anything
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        try:
            code = command()
        finally:        # after the SystemExit of --help too
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _unread()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _close(sys.stdout.fileno())
        print(f'vseg: error: the output cannot be written ({error.strerror})', file=sys.stderr)
        return 1


def _unread() -> int:
    """Drop what is still to be written, which the interpreter would complain about at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _close(stream.fileno())
    return 128 + signal.SIGPIPE


def _close(number: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
