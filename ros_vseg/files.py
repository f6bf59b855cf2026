# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all, and the order of their names."""
import os
import re


def natural_key(name: str) -> list[int | str]:
    """Sort key of a file name or path: digits compare as numbers, letters without their case."""
    parts = re.split('([0-9]+)', name)
    return [int(part) if place % 2 else part.casefold() for place, part in enumerate(parts)]


def write_whole(path, data):
    """Write bytes to a pathlib.Path, its folder made if need be; OSError leaves it as it was."""
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        if partial.exists():
            partial.unlink()
