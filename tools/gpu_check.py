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
from types import SimpleNamespace
from typing import Callable

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.decode import decode
from ros_vseg.encoding import LAYOUTS
from ros_vseg.errors import DeviceError
from ros_vseg.gpu import failures
from ros_vseg.gpu.bandwidth import bandwidths
from ros_vseg.gpu.cuda import Gpu
from ros_vseg.gpu.kernels import Axes, compile_kernels, Kernels, mask_bytes, Memory, Taps
from ros_vseg.gpu.work_queue import Queue
from ros_vseg.image import ImageReader

PATIENCE = 60.0     # seconds for one experiment
FAULT = r"""
extern "C" __global__ void illegal(float* unused) { *(volatile float*)nullptr = 1.0f; }
extern "C" __global__ void misaligned(float* memory) {
  float4 read;  // one load of 16 bytes, which the compiler cannot take apart
  asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(read.x), "=f"(read.y), "=f"(read.z), "=f"(read.w)
               : "l"((char*)memory + 4));
  *memory = read.x;
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
        print(f'{first}; lost: {known}', flush=True)    # what follows may hang
        failures._lost.clear()      # ask the driver itself
        try:
            Gpu().use()
            second = 'the GPU can be opened again'
        except DeviceError as error:
            second = str(error)
        return f'then: {second}'
    return run


def median_us(queue: Queue, work: Callable[[], None], rounds: int = 200) -> float:
    """Return the median microseconds of some work, by the GPU's clock."""
    taken = []
    for _ in range(rounds):
        queue.mark('start')
        work()
        queue.mark('end')
        queue.wait()
        taken.append(queue.times(('start', 'end'))['end'])
    return 1e6 * float(np.median(taken))


def street_like_scores(classes: int, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return scores float32 [K, h, w] with regions like a street's, not noise."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 3, (9, 12, classes)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    smooth = smooth.reshape(height, width, classes)
    return np.ascontiguousarray(smooth.transpose(2, 0, 1))


def kernels_against_floors(classes: int, network: tuple[int, int]) -> Callable[[], str]:
    """Return an experiment that times our kernels for a camera of 1024x2048."""
    def run() -> str:
        gpu, camera = opened(), (1024, 2048)
        inside = bandwidths(gpu)[2]
        shape = (classes, network[0] // 4, network[1] // 4)
        scores = street_like_scores(*shape)
        kernels, queue = Kernels(gpu), gpu.queue()
        image = gpu.upload(np.random.default_rng(0).integers(0, 256, (*camera, 3), np.uint8))
        small, source = gpu.allocate(3 * network[0] * network[1]), gpu.upload(scores)
        masks, out = gpu.allocate(mask_bytes(shape)), gpu.allocate(camera[0] * camera[1])
        taps, axes = Taps(gpu, camera, network), Axes(gpu, shape[1:], camera)
        table = gpu.upload(np.arange(256, dtype=np.uint8))
        pixels = camera[0] * camera[1]
        work: dict[str, tuple[Callable[[], None], int]] = {
            'resize': (lambda: kernels.resize(queue, image, 'rgb8', camera, small, network,
                                              taps, False),
                       3 * pixels + 3 * network[0] * network[1]),
            'candidates': (lambda: kernels.candidates(queue, source, shape, masks),
                           scores.nbytes + mask_bytes(shape)),
            'confidence': (lambda: kernels.confidence(queue, source, shape, masks, axes, out),
                           scores.nbytes + pixels),
            'labels': (lambda: kernels.labels(queue, source, shape, masks, axes, table, out),
                       scores.nbytes + pixels)}
        lines = []
        for name, (launch, moved) in work.items():
            taken = median_us(queue, launch)
            lines.append(f'{name} {taken:.1f} us (floor {1e6 * moved / inside:.1f})')
        same = bool(np.array_equal(gpu.download(out, camera, np.uint8), decode(scores, camera)[0]))
        return (f'network {network[0]}x{network[1]}, {classes} classes, copies inside at '
                f'{inside / 1e12:.2f} TB/s: {", ".join(lines)}; labels as the processor: {same}')
    return run


def encodings() -> str:
    """Convert and resize each encoding that goes up as it is, from a camera of 1024x2048."""
    gpu, camera, network = opened(), (1024, 2048), (400, 528)
    kernels, queue, reader = Kernels(gpu), gpu.queue(), ImageReader('check')
    small, whole = Taps(gpu, camera, network), Taps(gpu, camera, camera)
    out = gpu.allocate(3 * camera[0] * camera[1])
    lines = []
    for name in ('rgb8', 'bgr8', 'bgra8', 'mono8', 'yuv422', 'yuyv', 'nv12', 'nv21',
                 'bayer_rggb8'):
        layout = LAYOUTS[name]
        step = layout.channels * camera[1]
        size = step * int(camera[0] * sum(plane.rows * plane.width for plane in layout.planes))
        data = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        message = SimpleNamespace(height=camera[0], width=camera[1], encoding=name,
                                  is_bigendian=0, step=step, data=data)
        source = gpu.upload(data)
        kernels.resize(queue, source, name, camera, out, camera, whole, False)
        queue.wait()
        same = np.array_equal(gpu.download(out, (*camera, 3), np.uint8), reader.read(message))
        taken = median_us(queue, lambda: kernels.resize(queue, source, name, camera, out, network,
                                                        small, False))
        lines.append(f'{name} {taken:.1f} us, as the processor: {same}')
    return '; '.join(lines)


def mapped() -> str:
    """Let the kernels read and write the processor's own memory, as they do on a Jetson."""
    gpu, camera, network = opened(), (1024, 2048), (400, 528)
    gpu.maps_host = True
    image, labels = gpu.pinned((*camera, 3)), gpu.pinned(camera)
    image[:] = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    scores = street_like_scores(11, 100, 132)
    kernels, queue, source = Kernels(gpu), gpu.queue(), gpu.upload(scores)
    taps, axes = Taps(gpu, camera, network), Axes(gpu, (100, 132), camera)
    small, masks = gpu.allocate(3 * network[0] * network[1]), gpu.allocate(
        mask_bytes((11, 100, 132)))
    table, copied = gpu.upload(np.arange(256, dtype=np.uint8)), gpu.upload(image)
    place, there = gpu.mapped(image), gpu.mapped(labels)

    def resized(read: Memory) -> npt.NDArray[np.uint8]:
        kernels.resize(queue, read, 'rgb8', camera, small, network, taps, False)
        queue.wait()
        return gpu.download(small, (*network, 3), np.uint8)

    kernels.candidates(queue, source, (11, 100, 132), masks)
    kernels.labels(queue, source, (11, 100, 132), masks, axes, table, there)
    queue.wait()
    equal = (bool(np.array_equal(resized(place), resized(copied))),
             bool(np.array_equal(labels, decode(scores, camera)[0])))
    return f'image read in place as a copy: {equal[0]}; labels written in place: {equal[1]}'


def graphs() -> str:
    """Compare a graph of 85 small launches with the launches, and weigh graphs in memory."""
    gpu = opened()
    queue, buffer = gpu.queue(), gpu.allocate(1024)

    def work() -> None:
        for _ in range(85):
            queue.clear(buffer)

    def wall_us(run: Callable[[], None]) -> tuple[float, float]:
        launched, whole = [], []
        for _ in range(200):
            begin = time.perf_counter()
            run()
            launched.append(time.perf_counter() - begin)
            queue.wait()
            whole.append(time.perf_counter() - begin)
        return 1e6 * float(np.median(launched)), 1e6 * float(np.median(whole))

    begin = time.perf_counter()
    graph = queue.capture(work)
    captured = time.perf_counter() - begin
    steps, replay = wall_us(work), wall_us(lambda: queue.replay(graph))
    before = gpu.memory()[0]
    kept = [queue.capture(work) for _ in range(14)]
    memory_14 = before - gpu.memory()[0]
    kept += [queue.capture(work) for _ in range(42)]
    memory_56 = before - gpu.memory()[0]
    return (f'85 steps one by one: launch {steps[0]:.0f} us, done {steps[1]:.0f} us; as a graph: '
            f'launch {replay[0]:.0f} us, done {replay[1]:.0f} us; capture {1e3 * captured:.2f} ms;'
            f' memory of 14 graphs {memory_14}, of {len(kept)} {memory_56} bytes')


def beside_torch() -> str:
    """Decode while PyTorch uses the same GPU from another thread of the process."""
    try:
        import torch
    except ImportError:
        return 'skipped: no PyTorch here'
    if not torch.cuda.is_available():
        return 'skipped: this PyTorch has no GPU'
    gpu, stop, size = opened(), threading.Event(), (512, 1024)
    products = [0]

    def disturb() -> None:
        matrix = torch.randn(2048, 2048, device='cuda')
        while not stop.is_set():
            float((matrix @ matrix).sum())
            products[0] += 1

    thread = threading.Thread(target=disturb)
    thread.start()
    scores = street_like_scores(11, 100, 132)
    expected = decode(scores, size)[0]
    kernels, queue, wrong = Kernels(gpu), gpu.queue(), 0
    source, masks = gpu.upload(scores), gpu.allocate(mask_bytes((11, 100, 132)))
    table, axes = gpu.upload(np.arange(256, dtype=np.uint8)), Axes(gpu, (100, 132), size)
    out = gpu.allocate(size[0] * size[1])
    for _ in range(300):
        kernels.candidates(queue, source, (11, 100, 132), masks)
        kernels.labels(queue, source, (11, 100, 132), masks, axes, table, out)
        queue.wait()
        wrong += not np.array_equal(gpu.download(out, size, np.uint8), expected)
    stop.set()
    thread.join()
    return f'{wrong} of 300 label images differ beside {products[0]} products of PyTorch'


EXPERIMENTS: dict[str, Callable[[], str]] = {
    'page_locked': page_locked, 'captures_beside_threads': captures_beside_threads,
    'kernels_small': kernels_against_floors(11, (400, 528)),
    'kernels_large': kernels_against_floors(19, (1024, 2048)), 'encodings': encodings,
    'mapped': mapped, 'graphs': graphs,
    'beside_torch': beside_torch, 'waits': waits, 'illegal': fault('illegal'),
    'misaligned': fault('misaligned'), 'endless': fault('endless')}


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
            text = done.stdout.strip().replace('\n', '; ')
            text = text or done.stderr.strip().rpartition('\n')[2]
            print(f'{name}: {text} (exit code {done.returncode})', flush=True)
            ended_badly += not done.stdout
        except subprocess.TimeoutExpired as late:
            text = (late.stdout or b'').decode().strip()
            print(f'{name}: {text} (did not end in {PATIENCE:.0f} s)', flush=True)
            ended_badly += not text
    return int(ended_badly > 0)


if __name__ == '__main__':
    sys.exit(main())
