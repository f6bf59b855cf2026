# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
What an error of the GPU means: whether this process can use it again, and what to do.

After some errors CUDA refuses all further work of the process ("the process must be terminated
and relaunched"). Such a GPU counts as lost: nothing is asked of it any more, not even to free
memory, since a call could block for ever.
"""
import ctypes
from typing import NamedTuple
import weakref

from ros_vseg.errors import DeviceError

RESTART = 'this process cannot use the GPU again: restart the node, and see dmesg'
LOOK = 'check the GPU with nvidia-smi and dmesg'


_kept: list[object] = []


class Failure(NamedTuple):
    """
    One row of the table.

    lost: whether only a new process can use the GPU again; advice: what to do; text: the CUDA
    runtime's words for it, by which it is recognised in the messages of libraries.
    """

    lost: bool
    advice: str
    text: str = ''


FAILURES = {
    'CUDA_ERROR_OUT_OF_MEMORY': Failure(
        False, 'end other programs on the GPU, use fewer cameras, a smaller size or precision '
        'fp16', 'out of memory'),
    # the machine is not set up
    'CUDA_ERROR_NO_DEVICE': Failure(
        False, 'no NVIDIA GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES',
        'no CUDA-capable device is detected'),
    'CUDA_ERROR_INVALID_DEVICE': Failure(
        False, 'there is no GPU of this index: nvidia-smi -L lists them',
        'invalid device ordinal'),
    'CUDA_ERROR_STUB_LIBRARY': Failure(
        False, "the libcuda found is the toolkit's stub: remove it from LD_LIBRARY_PATH"),
    'CUDA_ERROR_DEVICE_UNAVAILABLE': Failure(
        False, 'another process holds the GPU for itself: end it, or see nvidia-smi -c'),
    'CUDA_ERROR_SYSTEM_NOT_READY': Failure(False, 'the driver is still starting: try again'),
    'CUDA_ERROR_SYSTEM_DRIVER_MISMATCH': Failure(
        False, 'restart the machine after the driver update',
        'system has unsupported display driver / cuda driver combination'),
    'CUDA_ERROR_NO_BINARY_FOR_GPU': Failure(
        False, 'update NVRTC: it compiled for another GPU',
        'no kernel image is available for execution on the device'),
    'CUDA_ERROR_UNSUPPORTED_PTX_VERSION': Failure(False, 'update the NVIDIA driver'),
    # the graph or the engine: the GPU works
    'CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED': Failure(
        False, 'this call is not allowed while a CUDA graph is captured'),
    'CUDA_ERROR_STREAM_CAPTURE_INVALIDATED': Failure(
        False, 'the capture of a CUDA graph was disturbed'),
    'CUDA_ERROR_STREAM_CAPTURE_IMPLICIT': Failure(
        False, 'a call on the default stream met the capture of a CUDA graph'),
    # the hardware has failed: memory on it is not to be trusted
    'CUDA_ERROR_ECC_UNCORRECTABLE': Failure(
        True, RESTART, 'uncorrectable ECC error encountered'),
    'CUDA_ERROR_NVLINK_UNCORRECTABLE': Failure(
        True, RESTART, 'uncorrectable NVLink error detected during the execution'),
    # CUDA: "the process must be terminated and relaunched"
    'CUDA_ERROR_CONTAINED': Failure(True, RESTART),
    'CUDA_ERROR_ILLEGAL_ADDRESS': Failure(
        True, RESTART, 'an illegal memory access was encountered'),
    'CUDA_ERROR_LAUNCH_TIMEOUT': Failure(
        True, RESTART, 'the launch timed out and was terminated'),
    'CUDA_ERROR_ASSERT': Failure(True, RESTART, 'device-side assert triggered'),
    'CUDA_ERROR_HARDWARE_STACK_ERROR': Failure(True, RESTART, 'hardware stack error'),
    'CUDA_ERROR_ILLEGAL_INSTRUCTION': Failure(
        True, RESTART, 'an illegal instruction was encountered'),
    'CUDA_ERROR_MISALIGNED_ADDRESS': Failure(True, RESTART, 'misaligned address'),
    'CUDA_ERROR_INVALID_ADDRESS_SPACE': Failure(
        True, RESTART, 'operation not supported on global/shared address space'),
    'CUDA_ERROR_INVALID_PC': Failure(True, RESTART, 'invalid program counter'),
    'CUDA_ERROR_LAUNCH_FAILED': Failure(True, RESTART, 'unspecified launch failure'),
    'CUDA_ERROR_TENSOR_MEMORY_LEAK': Failure(True, RESTART),
    'CUDA_ERROR_MPS_CLIENT_TERMINATED': Failure(True, RESTART),
    'CUDA_ERROR_EXTERNAL_DEVICE': Failure(True, RESTART),
}
OTHER = Failure(False, LOOK)    # any code that the table does not have

_lost: list[str] = []   # why this process has lost its GPU: the first reason


def lost() -> str | None:
    """Return why this process cannot use its GPU again, or None if it can."""
    return _lost[0] if _lost else None


def lose(reason: str) -> DeviceError:
    """Note for the whole process that the GPU is lost; return the error to raise."""
    _lost.append(reason)
    return DeviceError(reason)


def refuse_if_lost() -> None:
    """Raise DeviceError if the GPU is lost."""
    if _lost:
        raise DeviceError(_lost[0])


def failure(function: str, name: str) -> DeviceError:
    """Return the error for a driver function that gave the code ``name`` of CUresult."""
    row = FAILURES.get(name, OTHER)
    reason = f'{function} failed on the GPU with {name}: {row.advice}'
    return lose(reason) if row.lost else DeviceError(reason)


def find(message: str) -> Failure | None:
    """Return the row whose words a library's message has, or None."""
    return next((row for row in FAILURES.values() if row.text and row.text in message), None)


def from_library(what: str, message: str) -> DeviceError:
    """
    Return the error for a library that failed, with the advice that its message calls for.

    Args:
        what: what could not be done, such as 'TensorRT could not queue the network'.
        message: the library's own words.
    """
    row = find(message) or OTHER
    reason = f'{what} ({message}): {row.advice}'
    return lose(reason) if row.lost else DeviceError(reason)


def keep(memory: object) -> None:
    """Never free ``memory`` of the host that work of a lost GPU may still write to."""
    _kept.append(memory)


def protect(owner: object, thing: object) -> None:
    """
    Never destroy ``thing`` of a library once the GPU is lost: its destructor could block or abort.

    Args:
        owner: the object whose end is the end of ``thing``.
        thing: such as an execution context of TensorRT.
    """
    weakref.finalize(owner, _let_go, thing)


def _let_go(thing: object) -> None:
    if _lost:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
