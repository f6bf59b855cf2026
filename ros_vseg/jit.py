# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Python loops compiled to machine code by numba."""
from typing import Any, Callable, cast, TypeVar

import numba

Function = TypeVar('Function', bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Compile at the first call, for any number of threads at once; kept on disk if possible."""
    # nogil and no threads of numba's own: the workers of several cameras run at the same time
    try:
        return cast(Function, numba.njit(nogil=True, cache=True, error_model='numpy')(function))
    except RuntimeError:  # no writable folder for the cache: every process compiles
        return cast(Function, numba.njit(nogil=True, error_model='numpy')(function))
