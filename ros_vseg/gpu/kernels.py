# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Our kernels: compiled for the GPU that is there, kept for the next start, and launched."""
import ctypes
import hashlib
from pathlib import Path
from typing import Any
import weakref

import numpy as np
import numpy.typing as npt

from ros_vseg.decode import axis
from ros_vseg.engines import cache
from ros_vseg.errors import DeviceError, EngineError
from ros_vseg.gpu.cuda import Buffer, Gpu
from ros_vseg.gpu.formats import FORMATS
from ros_vseg.gpu.work_queue import Memory, Queue
from ros_vseg.resize import resize_taps

SOURCE = Path(__file__).with_name('kernels.cu')
NAMES = ('resize_packed', 'resize_yuv', 'resize_bayer', 'store', 'candidates', 'labels',
         'confidence')
BLOCK = (32, 8, 1)
RUN = 4     # rows of a thread that decodes: see kernels.cu
OPTIONS = ('--fmad=false', '--std=c++17', '--maxrregcount=64')


def compile_kernels(capability: str, source: Path = SOURCE) -> bytes:
    """
    Return a CUDA source as machine code for a GPU such as 'sm86'; needs no GPU.

    Raises:
        DeviceError: NVRTC is missing, or does not know that GPU.
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


def _call(result: tuple[Any, ...]) -> Any:
    code, *values = result
    if int(code):
        raise DeviceError(f'NVRTC failed with {code.name}')
    return values[0] if values else None


def kept_kernels(gpu: Gpu, folder: Path | None) -> Any:
    """
    Return our kernels as a module of the driver, from ``folder`` or compiled and kept there.

    A file that is damaged, or that the driver does not take, is compiled anew. A folder that
    cannot be written costs the compilation at the next start, nothing else.
    """
    path = None if folder is None else folder / _file_name(gpu.capability)
    known = _read(path)
    if known:
        try:
            return gpu.call('cuModuleLoadData', known)
        except DeviceError:     # such as from a newer CUDA than the driver's
            pass
    binary = compile_kernels(gpu.capability)
    module = gpu.call('cuModuleLoadData', binary)
    if path is not None:
        try:
            cache.keep(path, hashlib.sha256(binary).digest() + binary)
        except EngineError:
            pass
    return module


def _file_name(capability: str) -> str:
    """Name a file after all that the machine code depends on."""
    import cuda.bindings
    text = [SOURCE.read_bytes().decode(), *OPTIONS, cuda.bindings.__version__]
    digest = hashlib.sha256('\0'.join(text).encode()).hexdigest()
    return cache.file_name('kernels', capability, f'{digest[:12]}.cubin')


def _read(path: Path | None) -> bytes | None:
    """Return the machine code in a file, or None if there is none or it is damaged."""
    try:
        data = path.read_bytes() if path else b''
    except OSError:
        return None
    digest, binary = data[:32], data[32:]
    return binary if hashlib.sha256(binary).digest() == digest else None


class Kernels:
    """
    The kernels on a GPU; each method queues one and gives back nothing.

    A Memory is a Buffer or a part of one; shapes are (rows, columns) unless said otherwise.
    """

    def __init__(self, gpu: Gpu, folder: Path | None = None) -> None:
        self._module = kept_kernels(gpu, folder)
        weakref.finalize(self, gpu.give_back, 'cuModuleUnload', self._module)
        self._functions = {
            name: gpu.call('cuModuleGetFunction', self._module, name.encode()) for name in NAMES}

    def resize(self, queue: Queue, image: Memory, encoding: str, shape: tuple[int, int],
               out: Memory, size: tuple[int, int], taps: 'Taps', swap: bool) -> None:
        """Image of ``shape`` in an encoding of FORMATS -> RGB out of ``size``; swap: to BGR."""
        form = FORMATS[encoding]
        self._launch(queue, form.kernel, size, image, *form.numbers(*shape), *shape, out, *size,
                     *taps.rows, *taps.columns, int(swap))

    def store(self, queue: Queue, prototypes: Memory, shape: tuple[int, int], slot: Memory,
              pool: Memory) -> None:
        """Prototypes float32 of ``shape`` [N, D] -> slot number int32 ``slot`` of the pool."""
        self._launch(queue, 'store', shape, prototypes, *shape, slot, pool)

    def candidates(self, queue: Queue, scores: Memory, shape: tuple[int, int, int],
                   masks: Memory) -> None:
        """Scores float32 of ``shape`` [K, h, w] -> masks: see ``mask_bytes``."""
        self._launch(queue, 'candidates', shape[1:], scores, *shape, masks)

    def labels(self, queue: Queue, scores: Memory, shape: tuple[int, int, int], masks: Memory,
               axes: 'Axes', table: Memory, out: Memory) -> None:
        """Scores and candidates -> labels uint8 of the size of ``axes``, renamed by ``table``."""
        self._launch(queue, 'labels', (axes.group_count, axes.size[1]), scores, masks, *shape,
                     axes.groups, axes.group_count, *axes.rows, *axes.columns, table, out,
                     axes.size[1])

    def confidence(self, queue: Queue, scores: Memory, shape: tuple[int, int, int], masks: Memory,
                   axes: 'Axes', out: Memory) -> None:
        """Scores and candidates -> confidence uint8 of the size of ``axes``."""
        self._launch(queue, 'confidence', (axes.group_count, axes.size[1]), scores, masks, *shape,
                     axes.groups, axes.group_count, *axes.rows, *axes.columns, out, axes.size[1])

    def _launch(self, queue: Queue, name: str, extent: tuple[int, ...],
                *arguments: Memory | int) -> None:
        """Queue a kernel over ``extent`` (rows, columns)."""
        grid = (-(-extent[1] // BLOCK[0]), -(-extent[0] // BLOCK[1]), 1)
        values = [value if isinstance(value, int) else value.address for value in arguments]
        types = [ctypes.c_int if isinstance(value, int) else ctypes.c_void_p
                 for value in arguments]
        queue.launch(self._functions[name], grid, BLOCK, values, types)


class Taps:
    """Tables of ``resize_taps`` on the GPU: for rows and columns (first, weights, taps)."""

    def __init__(self, gpu: Gpu, shape: tuple[int, int], size: tuple[int, int]) -> None:
        self.rows, self.columns = (
            (gpu.upload(first), gpu.upload(weights), weights.shape[1])
            for first, weights in resize_taps(shape, size))


def mask_bytes(shape: tuple[int, int, int]) -> int:
    """Return the bytes of the candidates' masks, uint32 [ceil(K / 32), h, w], of [K, h, w]."""
    return 4 * -(-shape[0] // 32) * shape[1] * shape[2]


class Axes:
    """
    Tables of decode's ``axis`` on the GPU.

    Attributes:
        size: height and width of the labels.
        rows, columns: (first, weight) of each.
        groups: int32 [n, 2]: the first row and the number of up to RUN rows of one coarse cell.
        group_count: n.
    """

    rows: tuple[Buffer, Buffer]
    columns: tuple[Buffer, Buffer]

    def __init__(self, gpu: Gpu, coarse: tuple[int, int], size: tuple[int, int]) -> None:
        self.size = size
        self.rows, self.columns = (
            (gpu.upload(first.astype(np.int32)), gpu.upload(weight))
            for first, weight, _ in (axis(*pair) for pair in zip(coarse, size)))
        groups = row_groups(coarse[0], size[0])
        self.groups, self.group_count = gpu.upload(groups), len(groups)


def row_groups(coarse: int, full: int) -> npt.NDArray[np.int32]:
    """Return int32 [n, 2]: the first row and the number of up to RUN rows of one coarse cell."""
    starts = axis(coarse, full)[2]
    begins = [(row, min(RUN, int(end) - row)) for start, end in zip(starts, starts[1:])
              for row in range(int(start), int(end), RUN)]
    return np.array(begins, np.int32)
