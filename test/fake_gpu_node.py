# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
The real node in a process of its own, on a FAKE GPU that is lost after some frames.

``python fake_gpu_node.py KERNELS FRAMES ERROR --ros-args ...``; KERNELS: library of
``host_kernels``; ERROR: name of the CUresult that every call gives from then on.
"""
import ctypes
import faulthandler
import sys

from fake_cuda import FakeCudaDriver
from fake_engine import FakeEngine, USER_MANAGED

from ros_vseg.backends import tensorrt
from ros_vseg.engines.jit import Contexts
from ros_vseg.gpu import cuda
from ros_vseg.nodes import vseg_node as node


class LostGpu(FakeCudaDriver):
    """Fails at every call once it has replayed ``frames`` graphs."""

    def __init__(self, library, frames, error):
        super().__init__(library)
        self._left, self._last_error = frames, error

    def __getattr__(self, name):
        if name == 'cuGraphLaunch':
            self._left -= 1
        if name.startswith('cu') and self._left < 0:
            return lambda *_: (getattr(self.CUresult, self._last_error), None)
        return super().__getattr__(name)


def main():
    """Run the node; the backend tensorrt is the real one on the fakes."""
    faulthandler.dump_traceback_later(45)    # into the log: a test waits for a minute
    driver = LostGpu(ctypes.CDLL(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

    def load(bundle, options, name='tensorrt'):
        contexts = Contexts(FakeEngine(driver, bundle), None, USER_MANAGED)
        gpu = cuda.Gpu()
        gpu.use()
        return tensorrt.TensorRtBackend(bundle, gpu, contexts, 'fp32')

    cuda.driver = lambda: driver
    tensorrt.load, tensorrt.missing = load, lambda name: None
    return node.main(sys.argv[4:])


if __name__ == '__main__':
    sys.exit(main())
