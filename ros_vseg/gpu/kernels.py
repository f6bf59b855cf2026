# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Our kernels: compiled for the GPU that is there when a backend is loaded, and launched."""
import ctypes
from pathlib import Path

import numpy as np

from ros_vseg.decode import axis
from ros_vseg.errors import DeviceError
from ros_vseg.resize import resize_taps

SOURCE = Path(__file__).with_name('kernels.cu')
NAMES = ('resize', 'best_class', 'labels', 'confidence')
BLOCK = (32, 8, 1)
RUN = 4     # pixels that a thread of `labels` fills: see kernels.cu
OPTIONS = ('--fmad=false', '--std=c++17')


def compile_kernels(capability, source=SOURCE):
    """
    Return a CUDA source as machine code (bytes) for a GPU such as 'sm86'; needs no GPU.

    DeviceError if NVRTC is missing, or does not know that GPU.
    """
    try:
        from cuda.bindings import nvrtc
        arguments = [f'--gpu-architecture=sm_{capability[2:]}'.encode(),
                     *(option.encode() for option in OPTIONS)]
        program = _call(
            nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), 0, [], []))
    except Exception as error:  # cuda-bindings looks for the library at the first call
        raise DeviceError(f'NVRTC is missing ({str(error).splitlines()[0]}): pip install '
                          'nvidia-cuda-nvrtc, or the cuda-nvrtc package of the toolkit') from error
    code, = nvrtc.nvrtcCompileProgram(program, len(arguments), arguments)
    if int(code):
        log = bytes(_call(nvrtc.nvrtcGetProgramLogSize(program)))
        nvrtc.nvrtcGetProgramLog(program, log)
        text = log.decode(errors='replace').strip(' \n\0') or code.name
        raise DeviceError(f'NVRTC cannot compile for {capability}: {text}; update it')
    binary = bytes(_call(nvrtc.nvrtcGetCUBINSize(program)))
    _call(nvrtc.nvrtcGetCUBIN(program, binary))
    _call(nvrtc.nvrtcDestroyProgram(program))
    return binary


def _call(result):
    code, *values = result
    if int(code):
        raise DeviceError(f'NVRTC failed with {code.name}')
    return values[0] if values else None


class Kernels:
    """The kernels on a GPU; each method queues one and gives back nothing."""

    def __init__(self, gpu):
        binary = compile_kernels(gpu.capability)
        self._module = gpu.call('cuModuleLoadData', binary)
        self._functions = {
            name: gpu.call('cuModuleGetFunction', self._module, name.encode()) for name in NAMES}

    def resize(self, queue, image, shape, out, size, taps, swap):
        """Image Buffer uint8 [H, W, 3] of ``shape`` -> out Buffer of ``size``; taps: Taps."""
        self._launch(queue, 'resize', size, image, *shape, out, *size, *taps.rows, *taps.columns,
                     int(swap))

    def best_class(self, queue, scores, shape, best):
        """Scores Buffer float32 of ``shape`` [K, h, w] -> best Buffer uint8 [h, w]."""
        self._launch(queue, 'best_class', shape[1:], scores, *shape, best)

    def labels(self, queue, scores, shape, best, axes, table, out):
        """Scores and best class -> labels Buffer uint8 of the size of ``axes``."""
        height, width = axes.size
        self._launch(queue, 'labels', (height, -(-width // RUN)), scores, best, *shape,
                     *axes.rows, *axes.columns, table, out, height, width)

    def confidence(self, queue, scores, shape, axes, out):
        """Scores -> confidence Buffer uint8 of the size of ``axes``."""
        self._launch(queue, 'confidence', axes.size, scores, *shape, *axes.rows, *axes.columns,
                     out, *axes.size)

    def _launch(self, queue, name, extent, *arguments):
        """Queue a kernel over ``extent`` (rows, columns); an argument is a Buffer or an int."""
        grid = (-(-extent[1] // BLOCK[0]), -(-extent[0] // BLOCK[1]), 1)
        values = [getattr(one, 'address', one) for one in arguments]
        types = [ctypes.c_int if isinstance(one, int) else ctypes.c_void_p for one in arguments]
        queue.launch(self._functions[name], grid, BLOCK, values, types)


class Taps:
    """Tables of ``resize_taps`` on the GPU: for rows and columns (first, weights, taps)."""

    def __init__(self, gpu, shape, size):
        self.rows, self.columns = (
            (gpu.upload(first), gpu.upload(weights), weights.shape[1])
            for first, weights in resize_taps(shape, size))


class Axes:
    """Tables of decode's ``axis`` on the GPU: for rows and columns (first, weight)."""

    def __init__(self, gpu, coarse, size):
        self.size = size
        self.rows, self.columns = (
            (gpu.upload(first.astype(np.int32)), gpu.upload(weight))
            for first, weight, _ in (axis(*pair) for pair in zip(coarse, size)))
