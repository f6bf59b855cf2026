# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Named ranges that Nsight Systems shows beside the GPU's work; none without package nvtx."""
from contextlib import nullcontext
from typing import Any, ContextManager

try:
    import nvtx
except ImportError:
    nvtx = None


def in_range(name: str) -> ContextManager[Any]:
    """Return a context in which what the host does has a name."""
    return nullcontext() if nvtx is None else nvtx.annotate(name)
