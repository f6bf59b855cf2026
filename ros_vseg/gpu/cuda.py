# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
The CUDA driver as the backend needs it: one GPU, memory, streams, events, graphs, kernels.

By NVIDIA's cuda-bindings: pycuda has no CUDA graphs, and must be compiled where it is installed.
"""
from array import array
import weakref

import numpy as np

from ros_vseg.errors import DeviceError

MENDS = {
    'CUDA_ERROR_OUT_OF_MEMORY': 'end other programs on the GPU, use fewer cameras, a smaller size '
                                'or precision fp16',
    'CUDA_ERROR_NO_DEVICE': 'no NVIDIA GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES',
    'CUDA_ERROR_SYSTEM_DRIVER_MISMATCH': 'restart after the driver update',
    'CUDA_ERROR_INSUFFICIENT_DRIVER': 'update the NVIDIA driver',
    'CUDA_ERROR_UNKNOWN': 'check the GPU by nvidia-smi and dmesg',
}
LOST = 'the GPU may be lost: see nvidia-smi and dmesg, and restart the node'


def driver():
    """Return cuda.bindings.driver; DeviceError if it is not installed."""
    try:
        from cuda.bindings import driver as module
    except ImportError as error:
        raise DeviceError(f'{error}: pip install cuda-bindings') from error
    return module


class Gpu:
    """
    The first visible NVIDIA GPU, by its primary context, which TensorRT uses too.

    capability: 'sm86'; name: for people; model: name and number of multiprocessors, since all
    Jetson Orins have one name; cuda_version: the newest that the driver knows. DeviceError: no
    driver, one that is too old, no GPU.
    """

    def __init__(self):
        self._driver = driver()
        try:
            self._driver.cuInit(0)
        except Exception as error:  # the library is looked for at the first call
            raise DeviceError('no NVIDIA driver is installed here (libcuda was not found): '
                              'install it, or use backend openvino') from error
        self.call('cuInit', 0)
        self.device = self.call('cuDeviceGet', 0)
        attribute = self._driver.CUdevice_attribute
        self._attributes = {
            name: getattr(attribute, f'CU_DEVICE_ATTRIBUTE_{name}') for name in (
                'COMPUTE_CAPABILITY_MAJOR', 'COMPUTE_CAPABILITY_MINOR', 'MULTIPROCESSOR_COUNT',
                'CLOCK_RATE')}
        self.capability = (f'sm{self.attribute("COMPUTE_CAPABILITY_MAJOR")}'
                           f'{self.attribute("COMPUTE_CAPABILITY_MINOR")}')
        name = self.call('cuDeviceGetName', 256, self.device)
        self.name = name.split(b'\0')[0].decode()
        self.model = f'{self.name}_{self.attribute("MULTIPROCESSOR_COUNT")}SM'
        version = self.call('cuDriverGetVersion')
        self.cuda_version = f'{version // 1000}.{version % 1000 // 10}'
        self._context = None

    def attribute(self, name):
        """Return a device attribute by its name without CU_DEVICE_ATTRIBUTE_."""
        return self.call('cuDeviceGetAttribute', self._attributes[name], self.device)

    def call(self, function, *arguments):
        """Call the driver; its results without the error code. DeviceError names what failed."""
        try:
            code, *results = getattr(self._driver, function)(*arguments)
        except RuntimeError as error:   # cuda-bindings: the driver lacks the function
            raise DeviceError(f'{function}: {error}: update the NVIDIA driver') from error
        if int(code):
            name = getattr(code, 'name', str(code))
            raise DeviceError(f'{function} failed on the GPU with {name}: {MENDS.get(name, LOST)}')
        return results[0] if len(results) == 1 else results

    def use(self):
        """Make the GPU the calling thread's own; each must, before all but ``attribute``."""
        if self._context is None:   # takes memory on the GPU: not for looking alone
            self._context = self.call('cuDevicePrimaryCtxRetain', self.device)
        self.call('cuCtxSetCurrent', self._context)

    def memory(self):
        """Return (free, total) bytes."""
        return self.call('cuMemGetInfo')

    def allocate(self, size):
        """Return a Buffer of ``size`` bytes of zeros on the GPU."""
        return Buffer(self, size)

    def pinned(self, shape):
        """
        Return a page-locked uint8 array on the host.

        Its base is an array.array, which a ROS message takes over without a copy.
        """
        memory = array('B', bytes(int(np.prod(shape))))
        address, size = memory.buffer_info()
        self.call('cuMemHostRegister', address, size, 0)
        flat = np.frombuffer(memory, np.uint8)      # lives as long as any view of it
        weakref.finalize(flat, self._quietly, 'cuMemHostUnregister', address)
        return flat.reshape(shape)

    def _quietly(self, function, *arguments):
        """Give something back: a GPU that is lost has nothing left to give back to."""
        try:
            self.use()
            self.call(function, *arguments)
        except Exception:
            pass

    def upload(self, values):
        """Return a Buffer that holds a copy of an array."""
        values = np.ascontiguousarray(values)
        buffer = Buffer(self, values.nbytes)
        self.call('cuMemcpyHtoD', buffer.address, values.ctypes.data, values.nbytes)
        self.settle()
        return buffer

    def settle(self):
        """Wait for what set memory up: queues do not wait for it."""
        self.call('cuStreamSynchronize', 0)

    def download(self, buffer, shape, dtype=np.float32):
        """Return a copy of a Buffer's begin as an array, after all that was queued before."""
        values = np.empty(shape, dtype)
        self.call('cuCtxSynchronize')
        self.call('cuMemcpyDtoH', values.ctypes.data, buffer.address, values.nbytes)
        return values

    def queue(self):
        """Return a new Queue."""
        return Queue(self)


class Buffer:
    """Memory on the GPU, zeroed; freed with the object. address: as an int; size in bytes."""

    def __init__(self, gpu, size):
        self.size = size
        try:
            self.address = int(gpu.call('cuMemAlloc', size))
        except DeviceError as error:
            free, total = gpu.memory()
            raise DeviceError(f'{error} ({size / 1e6:.1f} MB asked for, {free / 1e6:.0f} of '
                              f'{total / 1e6:.0f} MB free)') from error
        weakref.finalize(self, gpu._quietly, 'cuMemFree', self.address)
        gpu.call('cuMemsetD8', self.address, 0, size)
        gpu.settle()


class Queue:
    """A CUDA stream with timing events and graphs; ``handle``: as an int, for TensorRT."""

    def __init__(self, gpu):
        self._gpu = gpu
        flags = gpu._driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        self.stream = gpu.call('cuStreamCreate', int(flags))
        self.handle = int(self.stream)
        self._events, self._capturing = {}, False
        weakref.finalize(self, gpu._quietly, 'cuStreamDestroy', self.stream)

    def copy_to_gpu(self, buffer, values):
        """Queue a copy of a pinned array to a Buffer."""
        self._gpu.call('cuMemcpyHtoDAsync', buffer.address, values.ctypes.data, values.nbytes,
                       self.stream)

    def copy_to_host(self, values, buffer):
        """Queue a copy of a Buffer to a pinned array."""
        self._gpu.call('cuMemcpyDtoHAsync', values.ctypes.data, buffer.address, values.nbytes,
                       self.stream)

    def copy_inside(self, target, source):
        """Queue a copy of a Buffer to another one of its size."""
        self._gpu.call('cuMemcpyDtoDAsync', target.address, source.address, source.size,
                       self.stream)

    def launch(self, function, grid, block, values, types):
        """Queue a kernel; values and their ctypes types (None for a pointer) as cuda-bindings."""
        self._gpu.call('cuLaunchKernel', function, *grid, *block, 0, self.stream,
                       (tuple(values), tuple(types)), 0)

    def mark(self, name):
        """Queue a time stamp; ``times`` reads it."""
        if name not in self._events:
            event = self._gpu.call('cuEventCreate', 0)
            self._events[name] = event
            weakref.finalize(self, self._gpu._quietly, 'cuEventDestroy', event)
        flags = self._gpu._driver.CUevent_record_flags
        self._gpu.call('cuEventRecordWithFlags', self._events[name], self.stream,
                       int(flags.CU_EVENT_RECORD_EXTERNAL if self._capturing
                           else flags.CU_EVENT_RECORD_DEFAULT))

    def times(self, names):
        """Return the seconds between neighbouring marks, by the later one's name."""
        return {later: 1e-3 * self._gpu.call(
            'cuEventElapsedTime', self._events[earlier], self._events[later])
            for earlier, later in zip(names, names[1:])}

    def wait(self):
        """Wait for all that was queued; DeviceError if any of it failed."""
        self._gpu.call('cuStreamSynchronize', self.stream)

    def capture(self, work):
        """Return a Graph of all that ``work()`` queues; nothing of it is carried out yet."""
        mode = self._gpu._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._gpu.call('cuStreamBeginCapture', self.stream, mode)
        self._capturing = True
        try:
            work()
        finally:
            self._capturing = False
            graph = self._gpu.call('cuStreamEndCapture', self.stream)
        return Graph(self._gpu, graph)

    def replay(self, graph):
        """Queue all of a Graph at once."""
        self._gpu.call('cuGraphLaunch', graph.executable, self.stream)


class Graph:
    """What a Queue captured, made ready to be queued again and again."""

    def __init__(self, gpu, graph):
        self.executable = gpu.call('cuGraphInstantiate', graph, 0)
        gpu.call('cuGraphDestroy', graph)
        weakref.finalize(self, gpu._quietly, 'cuGraphExecDestroy', self.executable)
