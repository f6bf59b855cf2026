# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""``vseg bench``: the project's figures, measured on this machine in one run."""
import datetime
import importlib
from types import ModuleType
from typing import Iterable

from ros_vseg.bench.tools import Context, machine

NAMES = {
    'stream': 'reuse of prototypes against the per-frame network and against recomputing',
    'decoder': 'label decoder against dense upsampling and argmax',
    'backends': 'one step of every backend',
    'latency': 'camera callback to published label, through the node',
    'dds': '1024x2048 camera at 10 Hz over DDS',
    'memory': 'memory of the node over 2,000 frames',
    'cameras': 'four cameras at 15 Hz: age of their labels, and shares',
}
ON_GPU = {'device': 'stages on the GPU, against the floor of bytes and operations'}
ON_REQUEST = {'layers': "the network's layers, longest first, by the backend's own profiler"}


def run(context: Context, names: Iterable[str] = ()) -> int:
    """Measure and print a Markdown table; return the exit code, 1 if a target is missed."""
    print(f'{context.bundle.info.name}, {machine()}, {datetime.date.today()}, '
          'medians of one run\n', flush=True)
    print('| what | measured | target | met |\n| --- | --- | --- | --- |')
    missed, details = 0, []
    for name in names or NAMES:
        for row in getattr(module(name), f'bench_{name}')(context):
            met = {None: '', True: 'yes', False: 'no'}[row.met]
            print(f'| {row.what} | {row.measured} | {row.target} | {met} |', flush=True)
            missed += row.met is False
            if row.detail and row.detail not in details:
                details.append(row.detail)
    print('\n' + '\n'.join(details))
    return 1 if missed else 0


def module(name: str) -> ModuleType:
    """Return the module that holds a benchmark; imported on demand: half of them need ROS."""
    file = {'stream': 'network', 'backends': 'network', 'decoder': 'decoder', 'device': 'device',
            'cameras': 'cameras', 'layers': 'layers'}
    return importlib.import_module(f'ros_vseg.bench.{file.get(name, "node")}')
