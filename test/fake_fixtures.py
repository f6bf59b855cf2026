# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the TensorRT backend on the FAKE driver and engine."""
from fake_cuda import FakeCudaDriver, host_kernels
from fake_engine import FakeEngine, USER_MANAGED
import pytest
from tiny_bundle import write_tiny_bundle

from ros_vseg.backends import tensorrt
from ros_vseg.bundle import Bundle
from ros_vseg.engines.jit import Contexts
from ros_vseg.gpu import cuda, failures


@pytest.fixture(scope='session')
def library(tmp_path_factory):
    return host_kernels(tmp_path_factory.mktemp('kernels'))


@pytest.fixture(scope='session')
def kernel_folder(tmp_path_factory):
    """Return a folder that keeps the compiled kernels for all tests."""
    return tmp_path_factory.mktemp('cubin')


@pytest.fixture
def fake(library, monkeypatch):
    driver = FakeCudaDriver(library)
    monkeypatch.setattr(cuda, 'driver', lambda: driver)
    monkeypatch.setattr(failures, '_lost', [])
    yield driver
    driver.revive()     # for what is freed after the test
    assert driver.violations == []


@pytest.fixture
def load(fake, bundle, tmp_path, kernel_folder):
    """Return a function that makes a TensorRtBackend of a tiny bundle on the fakes."""
    def make(wait_limit=5.0, **changes):
        path = write_tiny_bundle(tmp_path / 'tiny.onnx', **changes) if changes else bundle
        loaded = Bundle.load(path)
        engine, gpu = FakeEngine(fake, loaded), cuda.Gpu(wait_limit=wait_limit)
        gpu.use()
        backend = tensorrt.TensorRtBackend(
            loaded, gpu, Contexts(engine, tmp_path / 'tiny.jit', USER_MANAGED), 'fp32',
            kernel_folder)
        backend.engine = engine     # for the tests to look at
        return backend
    return make
