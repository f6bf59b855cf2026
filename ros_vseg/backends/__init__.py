# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Inference backends: one protocol, chosen by name or by what the machine has."""
from collections.abc import Sequence
from dataclasses import replace
import importlib
import logging
import sys
from types import ModuleType
from typing import Any, Optional

import numpy as np

from ros_vseg.backends.base import Backend, Options
from ros_vseg.backends.fallback import FallbackBackend
from ros_vseg.bundle import Bundle
from ros_vseg.errors import BackendError

# in the order in which 'auto' takes them, with the Python package to import and to install
BACKENDS = {
    'tensorrt': ('cuda.bindings', 'cuda-bindings'),
    'onnxruntime_tensorrt': ('onnxruntime', 'onnxruntime-gpu'),
    'onnxruntime_cuda': ('onnxruntime', 'onnxruntime-gpu'),
    'openvino': ('openvino', 'openvino'),
    'onnxruntime': ('onnxruntime', 'onnxruntime'),
}
WITHOUT_SCORES = ('tensorrt',)  # they decode where they compute
ON_GPU = ('tensorrt', 'onnxruntime_tensorrt', 'onnxruntime_cuda')
BUILT_AT_LOAD = ('onnxruntime_tensorrt',)   # nothing tells beforehand whether its cache will do
PRECISIONS = ('auto', 'fp32', 'fp16', 'bf16', 'int8')

log = logging.getLogger(__name__)

# `import openvino` reports itself to an analytics host, and waits for it: without this package it
# uses a stand-in of its own that sends nothing.
sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]


def why_not(name: str) -> Optional[str]:
    """Return None if a backend can be used here, else the reason and what to do about it."""
    package, pip = BACKENDS[name]
    try:
        importlib.import_module(package)
    except ImportError as error:
        return f'{error}: pip install {pip}'
    reason: Optional[str] = _module(name).missing(name)
    return reason


def available() -> dict[str, Optional[str]]:
    """Return each backend's name with None, or the reason why it cannot be used here."""
    return {name: why_not(name) for name in BACKENDS}


def load(bundle: Bundle, name: str = 'auto', *, fallback: bool = False, **options: Any) -> Backend:
    """
    Make a bundle ready to run.

    >>> from ros_vseg import backends
    >>> from ros_vseg.bundle import Bundle, default_bundle_path
    >>> bundle = Bundle.load(default_bundle_path())
    >>> backend = backends.load(bundle, 'onnxruntime', threads=1)
    >>> backend.name, backend.device
    ('onnxruntime', 'CPU fp32')

    Args:
        bundle: what to run.
        name: 'auto' (the first of BACKENDS that can be used here) or one of BACKENDS.
        fallback: whether to go on with the next backend if this one cannot be loaded, or if its
            GPU fails later.
        **options: fields of Options.

    Raises:
        BackendError: The backend is unknown, missing, or refuses the bundle or an option. One
            that cannot stabilize is refused even with ``fallback``, as another one would be
            slower without a word.
    """
    wanted = Options(**options)
    if name not in ('auto', *BACKENDS):
        raise BackendError(f'backend {name!r} is unknown: use auto, {", ".join(BACKENDS)}')
    if wanted.precision not in PRECISIONS:
        raise BackendError(f'precision {wanted.precision!r} is unknown: use '
                           f'{", ".join(PRECISIONS)}')
    first = _first_usable(wanted, bundle) if name == 'auto' else name
    if wanted.stabilize and first in WITHOUT_SCORES:
        raise BackendError(f'stabilize needs scores on the host, which backend {first} leaves on '
                           'the GPU: use backend openvino or onnxruntime, or turn it off')
    if bundle.info.depth and first in WITHOUT_SCORES:
        raise BackendError(f'{bundle.path} gives depth too, which backend {first} does not bring '
                           'to the host: use backend openvino or onnxruntime')
    if fallback:
        later = list(BACKENDS)[list(BACKENDS).index(first) + 1:]
        backend = _load_with_fallback(bundle, first, later, wanted)
    else:
        backend = _load(bundle, first, wanted)
    skipped = [f'no {other}: {reason}' for other in BACKENDS if other not in ON_GPU
               and (reason := why_not(other))]      # for those on a GPU there is vseg doctor
    log.info('backend %s on %s%s', backend.name, backend.device,
             f' ({"; ".join(skipped)})' if skipped else '')
    return backend


def _first_usable(options: Options, bundle: Bundle) -> str:
    for name in BACKENDS:
        if bundle.info.depth and name in WITHOUT_SCORES:
            continue
        if (options.may_build or name not in BUILT_AT_LOAD) and why_not(name) is None:
            return name
    raise BackendError('no backend is installed: pip install openvino')


def _module(name: str) -> ModuleType:
    file = 'onnxruntime' if name.startswith('onnxruntime') else name
    return importlib.import_module(f'ros_vseg.backends.{file}')


def _load(bundle: Bundle, name: str, options: Options) -> Backend:
    reason = why_not(name)
    if reason is not None:
        raise BackendError(f'backend {name} cannot be used here ({reason})')
    if name in BUILT_AT_LOAD and not options.may_build:
        raise BackendError(f'backend {name} builds its engine when it is loaded: allow building, '
                           'or use backend tensorrt with an engine of `vseg build`')
    backend: Backend = _module(name).load(bundle, options, name)
    return backend


def _load_with_fallback(bundle: Bundle, first: str, later: Sequence[str], options: Options
                        ) -> Backend:
    """Load the first backend that can be; one on a GPU gets another, on the CPU, to stand by."""
    failures: list[tuple[str, BackendError]] = []
    for name in (first, *later):
        if name != first and why_not(name) is not None:
            continue
        if failures:
            log.error('backend %s could not be loaded: %s', *failures[-1])
            options = replace(options, precision='auto')    # what was asked of the first
        try:
            backend = _load(bundle, name, options)
        except BackendError as error:
            failures.append((name, error))
            continue
        standby = _standby(bundle, name, later, options)
        if failures:
            problem = f'backend {first} could not be loaded: {failures[0][1]}'
            return FallbackBackend(backend, standby, problem)
        return FallbackBackend(backend, standby) if standby else backend
    raise failures[-1][1]


def _standby(bundle: Bundle, name: str, later: Sequence[str], options: Options
             ) -> Optional[Backend]:
    """Return a backend on the processor for the day that the GPU of ``name`` fails, or None."""
    if name not in ON_GPU:
        return None
    for other in later:
        if other in ON_GPU or why_not(other) is not None:
            continue
        try:
            standby = _load(bundle, other, replace(options, precision='auto'))
            # its decoder is compiled now, not when it is needed
            blank = np.zeros((bundle.info.height, bundle.info.width, 3), np.uint8)
            standby.stream().label(blank, confidence=True)
            return standby
        except BackendError as error:
            log.warning('backend %s cannot stand by: %s', other, error)
    return None
