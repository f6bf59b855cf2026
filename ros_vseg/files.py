# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all, the order of their names, and JSON for anyone."""
import errno
import json
import math
import os
from pathlib import Path
import re
import shutil
import time
from typing import Any

from ros_vseg.errors import MediaError

LONGEST = 240   # bytes of a name that goes into a temporary one
ABANDONED = 60.0    # seconds after which a file of a process that is gone is nobody's


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """
    Write bytes to a file, its folder made if need be; OSError leaves it as it was.

    What is no file, such as a device or a pipe, is refused by OSError: it is never replaced.
    """
    if path.exists() and not path.is_file():
        number = errno.EISDIR if path.is_dir() else errno.EEXIST
        reason = os.strerror(number) if path.is_dir() else 'it exists and is no regular file'
        raise OSError(number, reason, str(path))
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        if partial.exists():
            partial.unlink()


def partial_path(path: Path) -> Path:
    """Return the name beside a path that this process writes to first."""
    name = path.name
    while len(os.fsencode(name)) > LONGEST:     # a name may have 255 bytes
        name = name[1:]
    return path.with_name(f'.{os.getpid()}.{name}')


def remove_abandoned(folder: Path, name: str = '*') -> None:
    """
    Remove what processes that were killed left under a temporary name of ``partial_path``.

    Args:
        folder: where it lies.
        name: of the files that were to be, a glob pattern.
    """
    for path in folder.glob(f'.[0-9]*.{name}'):
        number = path.name[1:].split('.')[0]
        try:
            if number.isdigit() and not _lives(int(number)) and (
                    time.time() - path.lstat().st_mtime > ABANDONED):   # another machine's process
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:     # it is no worse than before
            pass


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def for_opencv(path: Path) -> str:
    """
    Return a path as OpenCV takes it; MediaError where it cannot.

    It is absolute, as FFmpeg takes what has a colon for a URL, and UTF-8, without which OpenCV
    crashes.
    """
    text = str(path.absolute())
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MediaError(f'{text!r} is not a name in UTF-8, as videos need it: rename it'
                         ) from None
    return text


def natural_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """
    Return a key that sorts names as people do: numbers in them by value.

    >>> sorted(['frame_10.png', 'frame_9.png'], key=natural_key)
    ['frame_9.png', 'frame_10.png']
    """
    parts: list[str | tuple[int, str]] = []
    for place, part in enumerate(re.split('([0-9]+)', name)):
        digits = part.lstrip('0')
        # longer numbers are larger; never int(), which refuses thousands of digits
        parts.append((len(digits), digits) if place % 2 else part)
    return parts, name      # the name itself where only leading zeros differ


def to_json(value: Any, indent: int | None = None, sort_keys: bool = False) -> str:
    """
    Return a value as JSON that every reader takes: null for numbers that JSON does not have.

    >>> to_json({'a': [1.5, float('nan')], 'b': (float('inf'), None)})
    '{"a": [1.5, null], "b": [null, null]}'
    """
    return json.dumps(_finite(value), indent=indent, sort_keys=sort_keys, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
