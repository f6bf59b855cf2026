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
    keys = {key for drive in source.drives for key in drive}
    real = cache(os.path.realpath)
    return {(real(key.parent), key.name) if isinstance(key, Path) else ('street', key[0])
            for key in keys}
