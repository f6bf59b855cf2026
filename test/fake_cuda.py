# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
A FAKE of the CUDA driver, for machines without a GPU; fake_engine.py has that of an engine.

Memory is the host's and every access is checked against what was allocated. Queued work is done
when somebody waits, not before. Kernels are the real source, compiled as C++. ``calls`` records
what the driver was asked for. Handles are those of the real cuda.bindings, and each call is made
of it too, which refuses arguments of wrong types before it finds that there is no driver.

What NVIDIA's documentation refuses is refused here: calls that break the capture of a graph, and
any call after an error that leaves the process unusable. A call that would wait for a GPU that
hangs, or read beside its memory, is a Violation.
"""
from collections import Counter
import ctypes
from pathlib import Path
import shutil
import subprocess
import threading

import numpy as np
import pytest

from ros_vseg.gpu.failures import FAILURES

driver = pytest.importorskip('cuda.bindings.driver')
from cuda.pathfinder import DynamicLibNotFoundError  # noqa: E402, I100

try:
    driver.cuInit(0)
    WITHOUT_DRIVER = False
except DynamicLibNotFoundError:
    WITHOUT_DRIVER = True

SOURCES = Path(__file__).parent
KERNELS = SOURCES.parent / 'ros_vseg/gpu/kernels.cu'
ALIGNMENT = 256
# without a driver the bindings look for it at each call, under a lock that a garbage collection
# amid the search, which frees memory, would never get
SEARCH = threading.Lock()
# not allowed in a thread that captures in mode THREAD_LOCAL: they break its capture
UNSAFE = {'cuMemAlloc', 'cuMemFree', 'cuMemHostRegister', 'cuMemHostUnregister',
          'cuModuleLoadData', 'cuModuleUnload', 'cuStreamDestroy',
          'cuGraphExecDestroy'}
# on the default stream, which waits for all streams that are not non-blocking
DEFAULT_STREAM = {'cuMemsetD8', 'cuMemcpyHtoD', 'cuMemcpyDtoH'}
# wait until the GPU has done what was queued
WAITING = {'cuMemFree', 'cuMemHostUnregister', 'cuStreamSynchronize',
           'cuModuleUnload', 'cuStreamDestroy', 'cuGraphExecDestroy', 'cuDevicePrimaryCtxRelease'}


def host_kernels(folder):
    """Compile kernels.cu as C++ and return the library; skips where there is no compiler."""
    if shutil.which('g++') is None:
        pytest.skip('no g++ here')
    library = folder / 'kernels.so'
    subprocess.run(
        ['g++', '-O2', '-ffp-contract=off', '-std=c++17', '-Wall', '-Wextra', '-Werror', '-shared',
         '-fPIC', f'-I{KERNELS.parent}', f'-I{SOURCES}', '-o', library,
         SOURCES / 'host_kernels.cpp'], check=True)
    return ctypes.CDLL(str(library))


def launch(library, name, grid, block, values, types):
    """Run a kernel of ``host_kernels`` to its end."""
    held = [kind(value) for kind, value in zip(types, values)]
    pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(each) for each in held))
    triple = ctypes.c_uint * 3
    getattr(library, f'host_{name}')(triple(*grid), triple(*block), pointers)


class Violation(BaseException):
    """What a real GPU would answer by reading foreign memory, or never."""


class FakeCudaDriver:
    """
    Stands for cuda.bindings.driver.

    fail: maps a function's name to the error that it gives. hangs: whether queued work is never
    done. blocking: whether a library captures a side stream too that is not non-blocking.
    gpus: how many there are. integrated: whether they share the host's memory.
    """

    def __init__(self, library, capability=(8, 6), total=8 * 10**9, gpus=1):
        self._library, self._capability, self._total = library, capability, total
        self._memory, self._registered, self._waiting = {}, {}, {}
        self._graphs, self._functions = [], []
        self._capturing, self._time = {}, 0.0   # stream -> (thread, work)
        self._broken = set()                    # streams whose capture was disturbed
        self._dead = None                       # the error after which there is no other
        self.events, self._lock = {}, threading.RLock()
        self.calls, self.fail, self.gpus = [], {}, gpus
        self.integrated, self._mapped = False, {}
        self.violations = []
        self.hangs = self.blocking = False
        self.contexts, self.modules = Counter(), 0      # retained of each GPU, loaded

    def __getattr__(self, name):
        """Return an enumeration of the real module, or a recorded function of this fake."""
        if not name.startswith('cu'):
            return getattr(driver, name)
        work = getattr(type(self), f'_{name}')

        def call(*arguments):
            self.calls.append((name, arguments))
            if WITHOUT_DRIVER and SEARCH.acquire(blocking=False):
                try:
                    with pytest.raises(DynamicLibNotFoundError):
                        getattr(driver, name)(*arguments)
                finally:
                    SEARCH.release()
            self.check(not (self.hangs and name in WAITING), f'{name} would wait for ever')
            error = self._error(name)
            if error:
                return (getattr(self.CUresult, error), None)
            result = work(self, *arguments)
            if isinstance(result, self.CUresult):
                return (result, None)
            return (self.CUresult.CUDA_SUCCESS,
                    *(result if isinstance(result, tuple) else (result,)))
        return call

    def _error(self, name):
        """Return the name of the error that a call gives, or None."""
        if self._dead:
            return self._dead
        if name in self.fail:
            error = self.fail[name]
            if name == 'cuStreamEndCapture':
                self._capturing.clear()
            if error in FAILURES and FAILURES[error].lost:
                self._dead = error
            return error
        mine = [stream for stream, (thread, _) in self._capturing.items()
                if thread == threading.get_ident()]
        if mine and name in UNSAFE:
            self._broken.update(mine)
            return 'CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED'
        if self._capturing and name in DEFAULT_STREAM and (mine or self.blocking):
            self._broken.update(self._capturing)
            return 'CUDA_ERROR_STREAM_CAPTURE_IMPLICIT'
        return None

    def revive(self):
        """Let all that failed work again."""
        self._dead, self.hangs = None, False
        self.fail.clear()

    def counts(self):
        """Return how often each function was called since the last time, and forget it."""
        counts = Counter(name for name, _ in self.calls)
        self.calls.clear()
        return counts

    def allocated(self):
        """Return the bytes of device memory in use."""
        return sum(size for size, _ in list(self._memory.values()))

    @property
    def is_capturing(self):
        """Whether any stream is being captured."""
        return bool(self._capturing)

    def check(self, condition, what):
        """Note and raise what must never happen, past every ``except Exception``."""
        if not condition:
            self.violations.append(what)
            raise Violation(what)

    # memory

    def place(self, address, size):
        """Check that ``size`` bytes at an address are device memory, or mapped."""
        address = int(address)
        places = [(start, length) for start, (length, _) in list(self._memory.items())]
        self.check(any(start <= address and address + size <= start + length
                       for start, length in [*places, *list(self._mapped.items())]),
                   'not on the device')
        return address

    def is_pinned(self, address, size):
        """Return whether host memory is page-locked."""
        return any(start <= address and address + size <= start + length
                   for start, length in list(self._registered.items()))

    def _cuMemAlloc(self, size):
        assert size > 0
        memory = (ctypes.c_ubyte * (size + ALIGNMENT))()
        address = -(-ctypes.addressof(memory) // ALIGNMENT) * ALIGNMENT
        ctypes.memset(address, 0xAB, min(size, 64))
        self._memory[address] = size, memory
        return driver.CUdeviceptr(address)

    def _cuMemFree(self, address):
        del self._memory[address]

    def _cuMemsetD8Async(self, address, value, size, stream):
        self.queue(stream, lambda: ctypes.memset(self.place(address, size), value, size))

    def _cuMemGetInfo(self):
        return self._total - self.allocated(), self._total

    def _cuMemHostRegister(self, address, size, flags):
        if any(start < address + size and address < start + length
               for start, length in list(self._registered.items())):
            return self.CUresult.CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED
        self._registered[address] = size
        if flags & driver.CU_MEMHOSTREGISTER_DEVICEMAP:
            assert self.integrated      # elsewhere each access would cross the bus
            self._mapped[address] = 0   # of no use before its place on the device is asked for

    def _cuMemHostGetDevicePointer(self, address, flags):
        assert flags == 0
        for start, length in list(self._registered.items()):
            if start <= address < start + length and start in self._mapped:
                self._mapped[start] = length
                return driver.CUdeviceptr(address)
        return self.CUresult.CUDA_ERROR_INVALID_VALUE

    def _cuMemHostUnregister(self, address):
        del self._registered[address]
        self._mapped.pop(address, None)

    def _cuMemcpyHtoDAsync(self, target, source, size, stream):
        if self.is_pinned(source, size):
            self.queue(stream, lambda: ctypes.memmove(self.place(target, size), source, size))
            return
        values = ctypes.string_at(source, size)     # pageable: it is read now, written later
        self.queue(stream, lambda: ctypes.memmove(self.place(target, size), values, size))

    def _cuMemcpyDtoHAsync(self, target, source, size, stream):
        assert self.is_pinned(target, size) or not self._capturing.get(int(stream))
        self.queue(stream, lambda: ctypes.memmove(target, self.place(source, size), size))

    def _cuMemcpyDtoDAsync(self, target, source, size, stream):
        self.queue(stream, lambda: ctypes.memmove(
            self.place(target, size), self.place(source, size), size))

    # device and context

    def _cuInit(self, flags):
        pass

    def _cuDeviceGet(self, ordinal):
        if ordinal >= self.gpus:
            return self.CUresult.CUDA_ERROR_INVALID_DEVICE
        return driver.CUdevice(ordinal)

    def _cuDeviceGetName(self, length, device):
        return b'Fake GPU'.ljust(length, b'\0')

    def _cuDeviceGetAttribute(self, attribute, device):
        values = {**dict(zip(('COMPUTE_CAPABILITY_MAJOR', 'COMPUTE_CAPABILITY_MINOR'),
                             self._capability)),
                  'INTEGRATED': int(self.integrated), 'CAN_MAP_HOST_MEMORY': 1}
        return values.get(attribute.name[20:], 10**6)

    def _cuDriverGetVersion(self):
        return 13000

    def _cuDevicePrimaryCtxRetain(self, device):
        self.contexts[int(device)] += 1
        return driver.CUcontext(77)

    def _cuDevicePrimaryCtxRelease(self, device):
        assert self.contexts[int(device)] > 0
        self.contexts[int(device)] -= 1

    def _cuCtxSetCurrent(self, context):
        assert int(context) == 77

    # streams, events and graphs

    def queue(self, stream, work):
        """Queue work on a stream, or into the graph that it captures."""
        if int(stream) in self._capturing:
            self._capturing[int(stream)][1].append(work)
        else:
            self._waiting[int(stream)].append(work)

    def _cuStreamCreate(self, flags):
        assert flags == int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        with self._lock:
            stream = 100 + len(self._waiting)
            self._waiting[stream] = []
        return driver.CUstream(stream)

    def _cuStreamDestroy(self, stream):
        self._waiting[int(stream)] = None

    def _cuStreamQuery(self, stream):
        if int(stream) in self._capturing:
            self._broken.add(int(stream))
            return self.CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        if self.hangs and self._waiting[int(stream)]:
            return self.CUresult.CUDA_ERROR_NOT_READY
        while self._waiting[int(stream)]:
            self._waiting[int(stream)].pop(0)()

    def _cuStreamBeginCapture(self, stream, mode):
        assert mode == driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._capturing[int(stream)] = threading.get_ident(), []

    def _cuStreamEndCapture(self, stream):
        _, work = self._capturing.pop(int(stream))
        if int(stream) in self._broken:
            self._broken.discard(int(stream))
            return self.CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
        return driver.CUgraph(self._keep(work))

    def _keep(self, graph):
        with self._lock:
            self._graphs.append(graph)
            return 500 + len(self._graphs) - 1

    def _cuGraphInstantiate(self, graph, flags):
        return driver.CUgraphExec(self._keep(list(self._graphs[int(graph) - 500])))

    def _cuGraphDestroy(self, graph):
        self._graphs[int(graph) - 500] = None

    def _cuGraphExecDestroy(self, executable):
        self._graphs[int(executable) - 500] = None

    def _cuGraphLaunch(self, executable, stream):
        self._waiting[int(stream)].extend(self._graphs[int(executable) - 500])

    def graphs(self):
        """Return how many graphs are held."""
        return sum(graph is not None for graph in self._graphs)

    def _cuEventCreate(self, flags):
        with self._lock:
            event = 900 + len(self.events)
            self.events[event] = None
        return driver.CUevent(event)

    def _cuEventDestroy(self, event):
        self.events[int(event)] = None

    def _cuEventRecordWithFlags(self, event, stream, flags):
        # a graph keeps time stamps only if they are marked as external, and a stream refuses that
        assert bool(flags) == (int(stream) in self._capturing)
        self.queue(stream, lambda: self._stamp(event))

    def _stamp(self, event):
        self._time += 1.0
        self.events[int(event)] = self._time

    def _cuEventElapsedTime(self, first, last):
        return self.events[int(last)] - self.events[int(first)]

    # kernels

    def _cuModuleLoadData(self, image):
        if image[:4] != b'\x7fELF':
            return self.CUresult.CUDA_ERROR_INVALID_IMAGE
        self.modules += 1
        return driver.CUmodule(88)

    def _cuModuleUnload(self, module):
        self.modules -= 1

    def _cuModuleGetFunction(self, module, name):
        self._functions.append(name.decode())
        return driver.CUfunction(len(self._functions) - 1)

    def function(self, handle):
        """Return a kernel's name."""
        return self._functions[int(handle)]

    def _cuLaunchKernel(self, function, *rest):
        grid, block, (_, stream, (values, types), _) = rest[:3], rest[3:6], rest[6:]
        assert np.prod(block) <= 1024

        def work():
            for value, kind in zip(values, types):
                if kind is ctypes.c_void_p:
                    self.place(value, 1)
            launch(self._library, self.function(function), grid, block, values, types)
        self.queue(stream, work)
