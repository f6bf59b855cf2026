# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
A FAKE of a TensorRT engine on the FAKE CUDA driver: the real graph, in ONNX Runtime.

It refuses what TensorRT's headers refuse: addresses that are no multiple of 256 bytes ("the
pointer must have at least 256-byte alignment"), a run without all addresses, an output that
overlaps an input, and contexts without the working memory that they are to be given.
"""
import ctypes

import numpy as np
import onnxruntime

from ros_vseg.graph import ring_model

ALIGNMENT = 256
USER_MANAGED = 'user managed'
WORKING_MEMORY = 3000


class FakeEngine:
    """Stands for TensorRT's ICudaEngine; ``contexts`` holds those that were made."""

    device_memory_size_v2 = WORKING_MEMORY

    def __init__(self, driver, bundle):
        self._driver, self._bundle = driver, bundle
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self._session = onnxruntime.InferenceSession(
            ring_model(bundle), options, providers=['CPUExecutionProvider'])
        self.contexts = []

    def create_execution_context(self, strategy=None):
        context = FakeContext(self._driver, self._session, strategy == USER_MANAGED)
        self.contexts.append(context)
        return context


class FakeContext:
    """
    Stands for TensorRT's IExecutionContext.

    runs: the addresses of each run. refuses: whether nothing can be queued. capturable: what it
    says of that.
    """

    def __init__(self, driver, session, needs_memory=False):
        self._driver, self._session, self._needs_memory = driver, session, needs_memory
        self._inputs = {value.name: value for value in session.get_inputs()}
        self._outputs = {value.name: value for value in session.get_outputs()}
        self._addresses, self.runs = {}, []
        self.refuses, self.capturable = False, True
        self.profiler = None

    def set_device_memory(self, memory, size):
        assert memory % ALIGNMENT == 0 and size >= WORKING_MEMORY
        self.memory = memory
        self._driver.place(memory, size)
        self._needs_memory = False

    def is_stream_capturable(self, handle):
        return self.capturable

    def set_tensor_address(self, name, address):
        if address % ALIGNMENT or not (name in self._inputs or name in self._outputs):
            return False
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        self._driver.check(not self._needs_memory, 'a context without its working memory')
        self._driver.check(self._addresses.keys() == self._inputs.keys() | self._outputs.keys(),
                           'a tensor without an address')
        if self.refuses:
            return False
        addresses = dict(self._addresses)
        self._driver.queue(stream, lambda: self._run(addresses))
        return True

    def _span(self, one):
        kind = np.uint8 if 'uint8' in one.type else np.float32
        return kind, int(np.prod(one.shape)) * np.dtype(kind).itemsize

    def _run(self, addresses):
        self.runs.append(addresses)
        if self.profiler is not None:   # in milliseconds
            self.profiler.report_layer_time('convolution', 2.0 + len(self.runs) % 2)
            self.profiler.report_layer_time('softmax', 0.5)

        def view(one):
            kind, size = self._span(one)
            memory = (ctypes.c_ubyte * size).from_address(
                self._driver.place(addresses[one.name], size))
            return np.frombuffer(memory, kind).reshape(one.shape)

        inputs = {name: view(one) for name, one in self._inputs.items()}
        for output in self._outputs.values():
            self._driver.check(
                not any(np.shares_memory(view(output), value) for value in inputs.values()),
                f'{output.name} overlaps an input')
        outputs = self._session.run(list(self._outputs), inputs)
        for one, values in zip(self._outputs.values(), outputs):
            view(one)[:] = values
