# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
What only a real GPU can say of the driver, as lines of text: a step of tools/gpu_check.sh.

Each experiment runs in a process of its own, since some leave their process unusable; one that
does not end is killed after a minute.
"""
import ctypes
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import threading
import time
from typing import Callable

import numpy as np

from ros_vseg.errors import DeviceError
from ros_vseg.gpu import failures
from ros_vseg.gpu.cuda import Gpu
from ros_vseg.gpu.kernels import compile_kernels

PATIENCE = 60.0     # seconds for one experiment
FAULT = r"""
extern "C" __global__ void illegal(float* unused) { *(volatile float*)nullptr = 1.0f; }
extern "C" __global__ void misaligned(float* memory) {
  volatile float4* odd = (volatile float4*)((char*)memory + 4);
  odd->x = odd->y;
}
extern "C" __global__ void endless(float* memory) { while (*(volatile float*)memory == 0.0f) {} }
"""


def opened(wait_limit: float = 5.0) -> Gpu:
    """Return the GPU, made the thread's own."""
    gpu = Gpu(wait_limit=wait_limit)
    gpu.use()
    return gpu


def page_locked() -> str:
    """Register small arrays that share pages, and change the size of a camera often."""
    gpu = opened()
    before = gpu.memory()[0]
    small = [gpu.pinned((64,)) for _ in range(100)]
    for number in range(200):
        gpu.pinned((480 + number, 640, 3))
    del small
    return f'free memory {before} before, {gpu.memory()[0]} after'


def captures_beside_threads() -> str:
    """Capture while other threads set up and free memory."""
    gpu, stop = opened(), threading.Event()
    errors: list[str] = []
    buffer = gpu.allocate(4096)
    queue = gpu.queue()

    def disturb() -> None:
        gpu.use()
        while not stop.is_set():
            gpu.upload(np.zeros(100_000, np.uint8))

    threads = [threading.Thread(target=disturb) for _ in range(3)]
    for thread in threads:
        thread.start()
    seconds = []
    for _ in range(500):
        start = time.perf_counter()
        try:
            queue.capture(lambda: queue.clear(buffer))
        except DeviceError as error:
            errors.append(str(error))
        seconds.append(time.perf_counter() - start)
    stop.set()
    for thread in threads:
        thread.join()
    return (f'{len(errors)} of 500 captures failed {errors[:1]}; '
            f'{1e3 * float(np.median(seconds)):.3f} ms each')


def waits() -> str:
    """Measure what a wait costs the processor, and how late it notices."""
    gpu = opened()
    source, target = gpu.allocate(2**28), gpu.allocate(2**28)
    queue, late = gpu.queue(), []
    busy, start = time.process_time(), time.perf_counter()
    for _ in range(300):
        begin = time.perf_counter()
        queue.mark('start')
        for _ in range(8):
            queue.copy_inside(target, source)
        queue.mark('end')
        queue.wait()
        late.append(time.perf_counter() - begin - queue.times(('start', 'end'))['end'])
    share = (time.process_time() - busy) / (time.perf_counter() - start)
    p50, p99 = np.percentile(late, (50, 99))
    return (f'processor {100 * share:.0f} % busy; launch and wait beside the work: '
            f'p50 {1e3 * p50:.3f} ms, p99 {1e3 * p99:.3f} ms')


def fault(name: str) -> Callable[[], str]:
    """Return an experiment that runs a kernel of FAULT, and then asks the GPU for more."""
    def run() -> str:
        gpu = opened(wait_limit=3.0)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / 'fault.cu'
            source.write_text(FAULT)
            module = gpu.call('cuModuleLoadData', compile_kernels(gpu.capability, source))
        function = gpu.call('cuModuleGetFunction', module, name.encode())
        queue, memory = gpu.queue(), gpu.allocate(64)
        try:
            queue.launch(function, (1, 1, 1), (1, 1, 1), (memory.address,), (ctypes.c_void_p,))
            queue.wait()
            first = 'no error'
        except DeviceError as error:
            first = str(error)
        known = failures.lost() is not None
        failures._lost.clear()      # ask the driver itself
        try:
            Gpu().use()
            second = 'the GPU can be opened again'
        except DeviceError as error:
            second = str(error)
        return f'{first}; lost: {known}; then: {second}'
    return run


EXPERIMENTS: dict[str, Callable[[], str]] = {
    'page_locked': page_locked, 'captures_beside_threads': captures_beside_threads,
    'waits': waits, 'illegal': fault('illegal'), 'misaligned': fault('misaligned'),
    'endless': fault('endless')}


def main() -> int:
    """Run the experiment that is named, or all of them, each as a child; return the exit code."""
    if len(sys.argv) > 1:
        print(EXPERIMENTS[sys.argv[1]](), flush=True)
        os._exit(0)     # freeing the memory of a GPU that hangs would take for ever
    ended_badly = 0
    for name in EXPERIMENTS:
        try:
            done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True,
                                  timeout=PATIENCE)
            text = done.stdout.strip() or done.stderr.strip().rpartition('\n')[2]
            print(f'{name}: {text} (exit code {done.returncode})', flush=True)
            ended_badly += not done.stdout
        except subprocess.TimeoutExpired:
            print(f'{name}: did not end in {PATIENCE:.0f} s', flush=True)
            ended_badly += 1
    return int(ended_badly > 0)


if __name__ == '__main__':
    sys.exit(main())
