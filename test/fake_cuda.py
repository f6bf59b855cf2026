# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
A FAKE of the CUDA driver and of a TensorRT engine, for machines without a GPU.

Memory is the host's and every access is checked against what was allocated. Queued work is done
when somebody waits, not before. Kernels are the real source, compiled as C++; the engine is the
real graph, in ONNX Runtime. ``calls`` records what the driver was asked for. Handles are those of
the real cuda.bindings, and each call is made of it too, which refuses arguments of wrong types
before it finds that there is no driver.
"""
from collections import Counter
import ctypes
from pathlib import Path
import shutil
import subprocess
import threading

import numpy as np
import onnxruntime
import pytest

from ros_vseg.graph import ring_model

driver = pytest.importorskip('cuda.bindings.driver')
from cuda.pathfinder import DynamicLibNotFoundError  # noqa: E402, I100

try:
    driver.cuInit(0)
    WITHOUT_DRIVER = False
except DynamicLibNotFoundError:
    WITHOUT_DRIVER = True

SOURCES = Path(__file__).parent
KERNELS = SOURCES.parent / 'ros_vseg/gpu/kernels.cu'


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
    pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(one) for one in held))
    triple = ctypes.c_uint * 3
    getattr(library, f'host_{name}')(triple(*grid), triple(*block), pointers)


class FakeCudaDriver:
    """Stands for cuda.bindings.driver; ``fail`` maps a function's name to the error it gives."""

    def __init__(self, library, capability=(8, 6), total=8 * 10**9):
        self._library, self._capability, self._total = library, capability, total
        self._memory, self._registered, self._waiting = {}, {}, {0: []}
        self._graphs, self._functions = [], []
        self._capturing, self._time = {}, 0.0   # by stream
        self.events, self._lock = {}, threading.Lock()
        self.calls, self.fail = [], {}

    def __getattr__(self, name):
        """Return an enumeration of the real module, or a recorded function of this fake."""
        if not name.startswith('cu'):
            return getattr(driver, name)
        work = getattr(type(self), f'_{name}')

        def call(*arguments):
            self.calls.append((name, arguments))
            if WITHOUT_DRIVER:
                with pytest.raises(DynamicLibNotFoundError):
                    getattr(driver, name)(*arguments)
            if name in self.fail:
                return (getattr(self.CUresult, self.fail[name]), None)
            result = work(self, *arguments)
            return (self.CUresult.CUDA_SUCCESS,
                    *(result if isinstance(result, tuple) else (result,)))
        return call

    def counts(self):
        """Return how often each function was called since the last time, and forget it."""
        counts = Counter(name for name, _ in self.calls)
        self.calls.clear()
        return counts

    def allocated(self):
        """Return the bytes of device memory in use."""
        return sum(len(memory) for memory in self._memory.values())

    # memory

    def place(self, address, size):
        """Check that ``size`` bytes at an address are device memory."""
        address = int(address)
        assert any(start <= address and address + size <= start + len(memory)
                   for start, memory in list(self._memory.items())), 'not on the device'
        return address

    def pinned(self, address, size):
        assert any(start <= address and address + size <= start + length
                   for start, length in list(self._registered.items())), 'not page-locked'
        return address

    def _cuMemAlloc(self, size):
        assert size > 0
        memory = (ctypes.c_ubyte * size)(*([0xAB] * min(size, 64)))
        self._memory[ctypes.addressof(memory)] = memory
        return driver.CUdeviceptr(ctypes.addressof(memory))

    def _cuMemFree(self, address):
        del self._memory[address]

    def _cuMemsetD8(self, address, value, size):
        self.queue(0, lambda: ctypes.memset(self.place(address, size), value, size))

    def _cuMemGetInfo(self):
        return self._total - self.allocated(), self._total

    def _cuMemHostRegister(self, address, size, flags):
        self._registered[address] = size

    def _cuMemHostUnregister(self, address):
        del self._registered[address]

    def _cuMemcpyHtoD(self, target, source, size):
        # from pageable memory: it is read now, but written some time later
        values = ctypes.string_at(source, size)
        self.queue(0, lambda: ctypes.memmove(self.place(target, size), values, size))

    def _cuMemcpyDtoH(self, target, source, size):
        ctypes.memmove(target, self.place(source, size), size)

    def _cuMemcpyHtoDAsync(self, target, source, size, stream):
        self.pinned(source, size)
        self.queue(stream, lambda: ctypes.memmove(self.place(target, size), source, size))

    def _cuMemcpyDtoHAsync(self, target, source, size, stream):
        self.pinned(target, size)
        self.queue(stream, lambda: ctypes.memmove(target, self.place(source, size), size))

    def _cuMemcpyDtoDAsync(self, target, source, size, stream):
        self.queue(stream, lambda: ctypes.memmove(
            self.place(target, size), self.place(source, size), size))

    # device and context

    def _cuInit(self, flags):
        pass

    def _cuDeviceGet(self, ordinal):
        return driver.CUdevice(ordinal)

    def _cuDeviceGetName(self, length, device):
        return b'Fake GPU'.ljust(length, b'\0')

    def _cuDeviceGetAttribute(self, attribute, device):
        return dict(zip(('COMPUTE_CAPABILITY_MAJOR', 'COMPUTE_CAPABILITY_MINOR'),
                        self._capability)).get(attribute.name[20:], 10**6)

    def _cuDriverGetVersion(self):
        return 13000

    def _cuDevicePrimaryCtxRetain(self, device):
        return driver.CUcontext(77)

    def _cuCtxSetCurrent(self, context):
        assert int(context) == 77

    def _cuCtxSynchronize(self):
        for stream, work in list(self._waiting.items()):
            if work:
                self._cuStreamSynchronize(stream)

    # streams, events and graphs

    def queue(self, stream, work):
        """Queue work on a stream, or into the graph that it captures."""
        self._capturing.get(int(stream), self._waiting[int(stream)]).append(work)

    def _cuStreamCreate(self, flags):
        with self._lock:
            stream = 100 + len(self._waiting)
            self._waiting[stream] = []
        return driver.CUstream(stream)

    def _cuStreamDestroy(self, stream):
        self._waiting[int(stream)] = None

    def _cuStreamSynchronize(self, stream):
        while self._waiting[int(stream)]:
            self._waiting[int(stream)].pop(0)()

    def _cuStreamBeginCapture(self, stream, mode):
        self._capturing[int(stream)] = []

    def _cuStreamEndCapture(self, stream):
        return driver.CUgraph(self._keep(self._capturing.pop(int(stream))))

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
        assert image[:4] == b'\x7fELF'
        return driver.CUmodule(88)

    def _cuModuleGetFunction(self, module, name):
        self._functions.append(name.decode())
        return driver.CUfunction(len(self._functions) - 1)

    def function(self, handle):
        """Return a kernel's name."""
        return self._functions[int(handle)]

    def _cuLaunchKernel(self, function, *rest):
        grid, block, (_, stream, (values, types), _) = rest[:3], rest[3:6], rest[6:]

        def work():
            for value, kind in zip(values, types):
                if kind is ctypes.c_void_p:
                    self.place(value, 1)
            launch(self._library, self.function(function), grid, block, values, types)
        self.queue(stream, work)


class FakeEngine:
    """Stands for TensorRT's ICudaEngine: contexts run the graph on the fake's memory."""

    def __init__(self, driver, bundle):
        self._driver, self._bundle = driver, bundle
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self._session = onnxruntime.InferenceSession(
            ring_model(bundle), options, providers=['CPUExecutionProvider'])
        self.contexts = []

    def create_execution_context(self):
        self.contexts.append(FakeContext(self._driver, self._session))
        return self.contexts[-1]


class FakeContext:
    """Stands for TensorRT's IExecutionContext; ``runs`` holds the addresses of each run."""

    def __init__(self, driver, session):
        self._driver, self._session = driver, session
        self._inputs = {one.name: one for one in session.get_inputs()}
        self._outputs = {one.name: one for one in session.get_outputs()}
        self._addresses, self.runs = {}, []

    def set_tensor_address(self, name, address):
        if name in self._inputs or name in self._outputs:
            self._addresses[name] = address
            return True
        return False

    def execute_async_v3(self, stream):
        assert self._addresses.keys() == self._inputs.keys() | self._outputs.keys()
        addresses = dict(self._addresses)
        self._driver.queue(stream, lambda: self._run(addresses))
        return True

    def _run(self, addresses):
        self.runs.append(addresses)

        def view(one):
            kind = np.uint8 if 'uint8' in one.type else np.float32
            size = int(np.prod(one.shape)) * np.dtype(kind).itemsize
            memory = (ctypes.c_ubyte * size).from_address(
                self._driver.place(addresses[one.name], size))
            return np.frombuffer(memory, kind).reshape(one.shape)

        inputs = {name: view(one) for name, one in self._inputs.items()}
        outputs = self._session.run(list(self._outputs), inputs)
        for one, values in zip(self._outputs.values(), outputs):
            view(one)[:] = values
