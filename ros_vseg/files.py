# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all."""
import os


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
