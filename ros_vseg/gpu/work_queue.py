# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Work in order on a GPU: a CUDA stream, its time stamps, and CUDA graphs of what it queues."""
import time
from typing import Any, Callable, ContextManager, Iterable, Protocol, Sequence
import weakref

import numpy.typing as npt

from ros_vseg.gpu import failures

POLL = 1e-4     # seconds between two looks at whether the GPU is done: the core is free meanwhile


class Device(Protocol):
    """What a Queue needs of cuda.Gpu, which says what each does."""

    lock: Any

    def capturing(self) -> ContextManager[None]:
        """See cuda.Gpu."""

    def call(self, function: str, *arguments: Any) -> Any:
        """See cuda.Gpu."""

    def is_idle(self, stream: Any) -> bool:
        """See cuda.Gpu."""

    def constant(self, group: str, name: str) -> Any:
        """See cuda.Gpu."""

    def give_back(self, function: str, *arguments: Any) -> None:
        """See cuda.Gpu."""


class Memory(Protocol):
    """A cuda.Buffer or a cuda.Place."""

    @property
    def address(self) -> int:
        """Address on the GPU."""

    @property
    def size(self) -> int:
        """Size in bytes."""


class Queue:
    """
    A CUDA stream with timing events and graphs, used by one thread at a time.

    Attributes:
        stream: as the driver knows it.
        handle: as an int, for TensorRT.
        limit: seconds that ``wait`` waits.
        capturing: whether a graph is being captured.
    """

    def __init__(self, gpu: Device, limit: float) -> None:
        self._gpu, self.limit = gpu, limit
        flags = gpu.constant('CUstream_flags', 'CU_STREAM_NON_BLOCKING')
        with gpu.lock:
            self.stream = gpu.call('cuStreamCreate', int(flags))
        self.handle = int(self.stream)
        self.capturing = False
        self._events: dict[str, Any] = {}

    def copy_to_gpu(self, memory: Memory, values: npt.NDArray[Any]) -> None:
        """Queue a copy of an array; if it is not pinned, wait before it changes or goes."""
        self._gpu.call('cuMemcpyHtoDAsync', memory.address, values.ctypes.data, values.nbytes,
                       self.stream)

    def copy_to_host(self, values: npt.NDArray[Any], memory: Memory) -> None:
        """Queue a copy into an array."""
        self._gpu.call('cuMemcpyDtoHAsync', values.ctypes.data, memory.address, values.nbytes,
                       self.stream)

    def copy_inside(self, target: Memory, source: Memory) -> None:
        """Queue a copy of all of ``source``."""
        self._gpu.call('cuMemcpyDtoDAsync', target.address, source.address, source.size,
                       self.stream)

    def clear(self, memory: Memory) -> None:
        """Queue the filling with zeros."""
        self._gpu.call('cuMemsetD8Async', memory.address, 0, memory.size, self.stream)

    def launch(self, function: Any, grid: Sequence[int], block: Sequence[int],
               values: Iterable[Any], types: Iterable[Any]) -> None:
        """Queue a kernel; values and their ctypes types as cuda-bindings takes them."""
        self._gpu.call('cuLaunchKernel', function, *grid, *block, 0, self.stream,
                       (tuple(values), tuple(types)), 0)

    def mark(self, name: str) -> None:
        """Queue a time stamp; ``times`` reads it."""
        if name not in self._events:
            event = self._gpu.call('cuEventCreate', 0)
            self._events[name] = event
            weakref.finalize(self, self._gpu.give_back, 'cuEventDestroy', event)
        kind = 'EXTERNAL' if self.capturing else 'DEFAULT'
        flags = self._gpu.constant('CUevent_record_flags', f'CU_EVENT_RECORD_{kind}')
        self._gpu.call('cuEventRecordWithFlags', self._events[name], self.stream, int(flags))

    def times(self, names: Sequence[str]) -> dict[str, float]:
        """Return the seconds between neighbouring marks, by the later one's name."""
        return {later: 1e-3 * self._gpu.call(
            'cuEventElapsedTime', self._events[earlier], self._events[later])
            for earlier, later in zip(names, names[1:])}

    def wait(self) -> None:
        """
        Wait for all that was queued, without keeping a core busy.

        Raises:
            DeviceError: any of it failed, or it is not done within ``limit``. The GPU then counts
                as lost, since work that hangs cannot be taken back.
        """
        deadline = time.monotonic() + self.limit
        while not self._gpu.is_idle(self.stream):
            if time.monotonic() > deadline:
                raise failures.lose(f'the GPU has not finished its work within {self.limit:g} s: '
                                    f'{failures.RESTART}')
            time.sleep(POLL)

    def capture(self, work: Callable[[], None]) -> 'Graph':
        """
        Return a Graph of all that ``work()`` queues; nothing of it is carried out yet.

        No memory is set up or freed meanwhile: that could break the capture.
        """
        mode = self._gpu.constant('CUstreamCaptureMode', 'CU_STREAM_CAPTURE_MODE_THREAD_LOCAL')
        with self._gpu.capturing():
            self._gpu.call('cuStreamBeginCapture', self.stream, mode)
            self.capturing = True
            try:
                work()
            except BaseException:
                self._break_off()
                raise
            finally:
                self.capturing = False
            return Graph(self._gpu, self._gpu.call('cuStreamEndCapture', self.stream))

    def _break_off(self) -> None:
        """End a capture that failed: the stream can then be used again."""
        try:
            graph = self._gpu.call('cuStreamEndCapture', self.stream)
            self._gpu.call('cuGraphDestroy', graph)
        except Exception:
            pass    # the error that broke it off counts

    def replay(self, graph: 'Graph') -> None:
        """Queue all of a Graph at once."""
        self._gpu.call('cuGraphLaunch', graph.executable, self.stream)


class Graph:
    """What a Queue captured, made ready to be queued again and again."""

    def __init__(self, gpu: Device, graph: Any) -> None:
        try:
            self.executable = gpu.call('cuGraphInstantiate', graph, 0)
        finally:
            gpu.call('cuGraphDestroy', graph)
        weakref.finalize(self, gpu.give_back, 'cuGraphExecDestroy', self.executable)
