# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Inference backends: one protocol, chosen by name or by what the machine has."""
from dataclasses import replace
import importlib
import logging
import sys

import numpy as np

from ros_vseg.backends.base import Options
from ros_vseg.backends.fallback import FallbackBackend
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
PRECISIONS = ('auto', 'fp32', 'fp16', 'bf16', 'int8')

log = logging.getLogger(__name__)

# `import openvino` reports itself to an analytics host, and waits for it: without this package it
# uses a stand-in of its own that sends nothing.
sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]


def available():
    """Each backend's name -> None, or the reason why it cannot be used here."""
    reasons = {}
    for name, (package, pip) in BACKENDS.items():
        try:
            importlib.import_module(package)
        except ImportError as error:
            reasons[name] = f'{error}: pip install {pip}'
        else:
            reasons[name] = _module(name).missing(name)
    return reasons


def load(bundle, name='auto', *, fallback=False, **options):
    """
    Make a bundle ready to run.

    name: 'auto' or a key of BACKENDS; options: fields of Options. fallback: whether to go on with
    the next backend if this one cannot be loaded, or if its GPU fails later. BackendError names an
    unknown or missing backend, or what it refuses; a backend that cannot stabilize is refused even
    with fallback, as another one would be slower without a word.
    """
    options = Options(**options)
    if name not in ('auto', *BACKENDS):
        raise BackendError(f'backend {name!r} is unknown: use auto, {", ".join(BACKENDS)}')
    if options.precision not in PRECISIONS:
        raise BackendError(f'precision {options.precision!r} is unknown: use '
                           f'{", ".join(PRECISIONS)}')
    reasons = available()
    usable = [one for one, reason in reasons.items() if reason is None]
    if name == 'auto' and not usable:
        raise BackendError('no backend is installed: pip install openvino')
    first = usable[0] if name == 'auto' else name
    if options.stabilize and first in WITHOUT_SCORES:
        raise BackendError(f'stabilize needs scores on the host, which backend {first} leaves on '
                           'the GPU: use backend openvino or onnxruntime, or turn it off')
    if not fallback:
        backend = _load(bundle, first, options, reasons)
    else:
        later = list(BACKENDS)[list(BACKENDS).index(first) + 1:]
        backend = _load_with_fallback(
            bundle, first, [one for one in later if one in usable], options, reasons)
    skipped = '; '.join(f'no {one}: {reason}' for one, reason in reasons.items()
                        if reason and one not in ON_GPU)     # for those there is vseg doctor
    log.info('backend %s on %s%s', backend.name, backend.device,
             f' ({skipped})' if skipped else '')
    return backend


def _module(name):
    file = 'onnxruntime' if name.startswith('onnxruntime') else name
    return importlib.import_module(f'ros_vseg.backends.{file}')


def _load(bundle, name, options, reasons):
    if reasons[name] is not None:
        raise BackendError(f'backend {name} cannot be used here ({reasons[name]})')
    return _module(name).load(bundle, options, name)


def _load_with_fallback(bundle, first, later, options, reasons):
    """Load the first backend that can be; one on a GPU gets another, on the CPU, to stand by."""
    problem = None
    for name in (first, *later):
        try:
            backend = _load(bundle, name, options, reasons)
        except BackendError as error:
            if name == (first, *later)[-1]:
                raise
            problem = problem or f'backend {name} could not be loaded: {error}'
            log.error('%s', f'backend {name} could not be loaded: {error}')
            options = replace(options, precision='auto')    # what was asked of the first
            continue
        standby = _standby(bundle, name, later, options, reasons)
        if problem or standby:
            return FallbackBackend(backend, standby, problem)
        return backend


def _standby(bundle, name, later, options, reasons):
    """Return a backend on the processor for the day that the GPU of ``name`` fails, or None."""
    for one in later if name in ON_GPU else ():
        if one not in ON_GPU:
            try:
                standby = _load(bundle, one, replace(options, precision='auto'), reasons)
                # it is to compile its decoder now, not when it is needed
                blank = np.zeros((bundle.info.height, bundle.info.width, 3), np.uint8)
                standby.stream().label(blank, confidence=True)
                return standby
            except BackendError as error:
                log.warning('backend %s cannot stand by: %s', one, error)
    return None
