# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Whether two sources have frames in common, however their folders are written."""
from collections.abc import Hashable
from functools import cache
import os
from pathlib import Path
from typing import Any

from .clips import ClipSource


def frames_of(source: ClipSource[Any]) -> set[Hashable]:
    """Tell all frames of a source from those of others: real paths, or the seeds of streets."""
    real = cache(os.path.realpath)

    def place(key: Any) -> Hashable:
        """What is the same for one frame in two sources; links to files make splits."""
        if not isinstance(key, Path):
            return 'street', key[0]
        return os.path.realpath(key) if key.is_symlink() else os.path.join(
            real(key.parent), key.name)

    return {place(key) for drive in source.drives for key in drive}
