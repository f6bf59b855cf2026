# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Inference backends: one protocol, chosen by name or by what the machine has."""
import importlib
import logging

from ros_vseg.errors import BackendError

# in the order in which 'auto' takes them, with the package to install
BACKENDS = {'openvino': 'openvino', 'onnxruntime': 'onnxruntime'}
PRECISIONS = ('auto', 'fp32', 'bf16')

log = logging.getLogger(__name__)


def available():
    """Each backend's name -> None, or the reason why it cannot be used here."""
    reasons = {}
    for name, package in BACKENDS.items():
        try:
            importlib.import_module(package)
            reasons[name] = None
        except ImportError as error:
            reasons[name] = f'{error}: pip install {package}'
    return reasons


def load(bundle, name='auto', *, threads=0, precision='auto'):
    """
    Make a bundle ready to run.

    name: 'auto' or a key of BACKENDS; threads: processor threads per step, 0 for the backend's
    own choice; precision: 'auto' (bf16 where the processor has it), 'fp32' or 'bf16'. BackendError
    names an unknown or missing backend, or a precision that it cannot give.
    """
    reasons = available()
    if name not in ('auto', *BACKENDS):
        raise BackendError(f'backend {name!r} is unknown: use auto, {", ".join(BACKENDS)}')
    if precision not in PRECISIONS:
        raise BackendError(f'precision {precision!r} is unknown: use {", ".join(PRECISIONS)}')
    if name == 'auto':
        name = next((one for one, reason in reasons.items() if reason is None), None)
        if name is None:
            raise BackendError('no backend is installed: pip install openvino')
    elif reasons[name] is not None:
        raise BackendError(f'backend {name} is not installed ({reasons[name]})')
    module = importlib.import_module(f'ros_vseg.backends.{name}')
    backend = module.load(bundle, threads, precision)
    skipped = '; '.join(f'no {one}: {reason}' for one, reason in reasons.items() if reason)
    log.info('backend %s on %s%s', backend.name, backend.device,
             f' ({skipped})' if skipped else '')
    return backend
