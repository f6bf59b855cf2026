# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
The CUDA driver as the backend needs it: one GPU and its memory.

By NVIDIA's cuda-bindings: pycuda has no CUDA graphs, and must be compiled where it is installed.
"""
from array import array
from collections import deque
from contextlib import contextmanager
import gc
import threading
from types import ModuleType
from typing import Any, Callable, Iterator, NamedTuple
import weakref

import numpy as np
import numpy.typing as npt

from ros_vseg.errors import DeviceError
from ros_vseg.gpu import failures
from ros_vseg.gpu.work_queue import Queue

ALIGNMENT = 256     # bytes; TensorRT's rule for the addresses of tensors, and cuMemAlloc's own
WAIT = 5.0          # seconds for which a frame may be on the GPU
ATTRIBUTES = (
    'COMPUTE_CAPABILITY_MAJOR', 'COMPUTE_CAPABILITY_MINOR', 'MULTIPROCESSOR_COUNT', 'CLOCK_RATE',
    'INTEGRATED', 'CAN_MAP_HOST_MEMORY')


def driver() -> ModuleType:
    """Return cuda.bindings.driver; DeviceError if it is not installed."""
    try:
        from cuda.bindings import driver as module
    except ImportError as error:
        raise DeviceError(f'{error}: pip install cuda-bindings') from error
    return module


def aligned(size: int) -> int:
    """Return ``size`` rounded up to a multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class Gpu:
    """
    One NVIDIA GPU, by its primary context, which TensorRT uses too.

    Attributes:
        index: of the GPU among those that are visible.
        capability: compute capability, such as 'sm86'.
        name: for people.
        model: name and number of multiprocessors, since all Jetson Orins have one name.
        cuda_version: the newest that the driver knows, such as '12.6'.
        maps_host: whether it shares the processor's memory (Jetson), so that a copy is a waste.
        wait_limit: seconds that ``Queue.wait`` waits before the GPU counts as lost.
        lock: held while memory is set up and while a graph is captured.

    Raises:
        DeviceError: no driver, one that is too old, no such GPU, or one that is lost.
    """

    def __init__(self, index: int = 0, wait_limit: float = WAIT) -> None:
        failures.refuse_if_lost()
        self.index, self.wait_limit = index, wait_limit
        self.lock = threading.RLock()
        self._driver = driver()
        try:
            self._driver.cuInit(0)
        except Exception as error:  # the library is looked for at the first call
            raise DeviceError('no NVIDIA driver is installed here (libcuda was not found): '
                              'install it, or use backend openvino') from error
        self.call('cuInit', 0)
        self.device = self.call('cuDeviceGet', index)
        self.capability = (f'sm{self.attribute("COMPUTE_CAPABILITY_MAJOR")}'
                           f'{self.attribute("COMPUTE_CAPABILITY_MINOR")}')
        name = self.call('cuDeviceGetName', 256, self.device)
        self.name: str = name.split(b'\0')[0].decode()
        self.model = f'{self.name}_{self.attribute("MULTIPROCESSOR_COUNT")}SM'
        version = self.call('cuDriverGetVersion')
        self.cuda_version = f'{version // 1000}.{version % 1000 // 10}'
        self.maps_host = bool(
            self.attribute('INTEGRATED') and self.attribute('CAN_MAP_HOST_MEMORY'))
        self._context: Any = None
        # what is still to be freed: function, arguments, and what must live until then
        self._waste: deque[tuple[str, tuple[Any, ...], Any]] = deque()
        self._is_capturing = False
        self._transfers: Queue | None = None

    def attribute(self, name: str) -> int:
        """Return a device attribute by its name without CU_DEVICE_ATTRIBUTE_, of ATTRIBUTES."""
        attribute = getattr(self._driver.CUdevice_attribute, f'CU_DEVICE_ATTRIBUTE_{name}')
        return int(self.call('cuDeviceGetAttribute', attribute, self.device))

    def call(self, function: str, *arguments: Any) -> Any:
        """
        Call a function of the driver by its name.

        Returns:
            Its result without the error code: None, a value, or a list of several.

        Raises:
            DeviceError: it failed, or the GPU is lost already; see ``failures``.
        """
        failures.refuse_if_lost()
        try:
            code, *results = getattr(self._driver, function)(*arguments)
        except RuntimeError as error:   # cuda-bindings: the driver lacks the function
            raise DeviceError(f'{function}: {error}: update the NVIDIA driver') from error
        if int(code):
            raise failures.failure(function, getattr(code, 'name', str(code)))
        if not results:
            return None
        return results[0] if len(results) == 1 else results

    def is_idle(self, stream: Any) -> bool:
        """Return whether all work of a CUDA stream is done; DeviceError if any of it failed."""
        failures.refuse_if_lost()
        code, *_ = self._driver.cuStreamQuery(stream)
        if code == self._driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        if int(code):
            raise failures.failure('cuStreamQuery', code.name)
        return True

    def constant(self, group: str, name: str) -> Any:
        """Return a constant of the driver, such as ('CUstream_flags', 'CU_STREAM_DEFAULT')."""
        return getattr(getattr(self._driver, group), name)

    def use(self) -> None:
        """Make the GPU the calling thread's own; each must, before all but ``attribute``."""
        if self._context is None:   # takes memory on the GPU: not for looking alone
            with self.lock:
                self._context = self.call('cuDevicePrimaryCtxRetain', self.device)
                weakref.finalize(self, _unless_lost, self._driver.cuDevicePrimaryCtxRelease,
                                 self.device)
        self.call('cuCtxSetCurrent', self._context)
        if self._waste:
            self._sweep()

    def memory(self) -> tuple[int, int]:
        """Return (free, total) bytes."""
        free, total = self.call('cuMemGetInfo')
        return free, total

    def allocate(self, size: int) -> 'Buffer':
        """Return a Buffer of ``size`` bytes of zeros on the GPU."""
        return Buffer(self, size)

    def pinned(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """
        Return a page-locked uint8 array on the host.

        Its base is an array.array, which a ROS message takes over without a copy.
        """
        memory = array('B', bytes(int(np.prod(shape))))
        flags = self._driver.CU_MEMHOSTREGISTER_DEVICEMAP if self.maps_host else 0
        address, size = memory.buffer_info()
        with self.lock:
            self.call('cuMemHostRegister', address, size, flags)
        flat = np.frombuffer(memory, np.uint8)      # lives as long as any view of it
        weakref.finalize(flat, self.give_back, 'cuMemHostUnregister', address, keep=memory)
        return flat.reshape(shape)

    def mapped(self, values: npt.NDArray[Any]) -> 'Place':
        """Return the place of a page-locked array as the GPU sees it, where it ``maps_host``."""
        address = int(self.call('cuMemHostGetDevicePointer', values.ctypes.data, 0))
        return Place(address, values.nbytes)

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """
        Keep memory as it is while a graph is captured.

        No other thread sets up memory, what is given back is freed later, and no garbage is
        collected: a library's object in it would free memory in the thread that captures.
        """
        with self.lock:
            was_enabled = gc.isenabled()
            gc.disable()
            self._is_capturing = True
            try:
                yield
            finally:
                self._is_capturing = False
                if was_enabled:
                    gc.enable()

    def give_back(self, function: str, *arguments: Any, keep: Any = None) -> None:
        """
        Free something with a function of the driver, now or soon; waits for no lock.

        Garbage collection may call it while the thread, or another, holds any lock. Of a GPU that
        is lost there is nothing to free.

        Args:
            function: of the driver.
            arguments: of the function.
            keep: lives until then: host memory that is freed while it is page-locked would be
                another array's, which then loses its page lock.
        """
        self._waste.append((function, arguments, keep))
        self._sweep()

    def _sweep(self) -> None:
        """Free what was given back, unless another thread is at it or a graph is captured."""
        while self._waste and self.lock.acquire(blocking=False):
            try:
                if self._is_capturing:
                    return
                function, arguments, kept = self._waste.popleft()
                self.call('cuCtxSetCurrent', self._context)
                self.call(function, *arguments)
            except Exception:   # lost, or freed with its context
                if failures.lost():
                    failures.keep(kept)
            finally:
                self.lock.release()

    def upload(self, values: npt.ArrayLike) -> 'Buffer':
        """Return a Buffer that holds a copy of an array."""
        array = np.ascontiguousarray(values)
        buffer = Buffer(self, array.nbytes)
        with self.lock:
            self.transfers().copy_to_gpu(buffer, array)
            self.transfers().wait()
        return buffer

    def download(self, buffer: 'Buffer', shape: tuple[int, ...],
                 dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Return a copy of a Buffer as an array; whoever writes to it has been waited for."""
        values = np.empty(shape, dtype)
        with self.lock:
            self.transfers().copy_to_host(values, buffer)
            self.transfers().wait()
        return values

    def transfers(self) -> Queue:
        """
        Return the queue on which memory is set up.

        It is not the default stream, which waits for other streams, and disturbs their captures.
        """
        if self._transfers is None:
            self._transfers = Queue(weakref.proxy(self), self.wait_limit)
            weakref.finalize(self, _unless_lost, self._driver.cuStreamDestroy,
                             self._transfers.stream)
        return self._transfers

    def queue(self) -> Queue:
        """Return a new Queue."""
        queue = Queue(self, self.wait_limit)
        weakref.finalize(queue, self.give_back, 'cuStreamDestroy', queue.stream)
        return queue


def _unless_lost(function: Callable[[Any], Any], argument: Any) -> None:
    if not failures.lost():
        function(argument)


class Place(NamedTuple):
    """A part of other memory, which has to live as long; address as an int, size in bytes."""

    address: int
    size: int

    def part(self, offset: int, size: int) -> 'Place':
        """Return the Place of ``size`` bytes at ``offset``."""
        return Place(self.address + offset, size)


class Buffer:
    """Memory on the GPU, zeroed; freed with the object. address: as an int; size in bytes."""

    def __init__(self, gpu: Gpu, size: int) -> None:
        self.size = size
        with gpu.lock:
            try:
                self.address = int(gpu.call('cuMemAlloc', size))
            except DeviceError as error:
                if failures.lost():
                    raise
                free, total = gpu.memory()
                raise DeviceError(f'{error} ({size / 1e6:.1f} MB asked for, {free / 1e6:.0f} of '
                                  f'{total / 1e6:.0f} MB free)') from error
            weakref.finalize(self, gpu.give_back, 'cuMemFree', self.address)
            gpu.transfers().clear(self)
            gpu.transfers().wait()

    def part(self, offset: int, size: int) -> Place:
        """Return the Place of ``size`` bytes at ``offset``."""
        return Place(self.address, self.size).part(offset, size)
