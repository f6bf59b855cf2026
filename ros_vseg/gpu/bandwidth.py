# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How fast a GPU copies: what no stage of a frame can beat."""
from ros_vseg.gpu.cuda import Gpu

COPY = 256 * 2**20   # bytes, far beyond every cache


def bandwidths(gpu: Gpu) -> tuple[float, float, float]:
    """Return bytes a second to the GPU, from it, and inside it (read and written), by copies."""
    host, queue = gpu.pinned((COPY,)), gpu.queue()
    source, target = gpu.allocate(COPY), gpu.allocate(COPY)
    work = {'up': lambda: queue.copy_to_gpu(source, host),
            'down': lambda: queue.copy_to_host(host, source),
            'inside': lambda: queue.copy_inside(target, source)}
    rates = {}
    for name, copy in work.items():
        seconds = []
        for _ in range(6):
            queue.mark('start')
            copy()
            queue.mark(name)
            queue.wait()
            seconds.append(queue.times(('start', name))[name])
        rates[name] = COPY / min(seconds)
    return rates['up'], rates['down'], 2 * rates['inside']
