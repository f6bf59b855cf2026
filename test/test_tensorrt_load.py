# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What the TensorRT backend keeps for the next start and refuses at this one, on FAKES."""
import hashlib
import logging
import re

from fake_cuda import FakeCudaDriver
from fake_engine import FakeEngine
import pytest

from ros_vseg import backends
from ros_vseg.backends import tensorrt
from ros_vseg.bundle import Bundle
from ros_vseg.engines import build
from ros_vseg.engines.jit import Contexts
from ros_vseg.errors import DeviceError, EngineError
from ros_vseg.gpu import cuda, kernels

pytest_plugins = ['fake_fixtures']


class FakeRuntimeConfig:
    """Stands for TensorRT for RTX's runtime configuration and its cache of compiled kernels."""

    def __init__(self):
        self.kernels, self.known = None, b''

    def create_runtime_cache(self):
        return self

    def deserialize(self, data):
        self.known = data if data == b'compiled' else b''
        return bool(self.known)

    def set_runtime_cache(self, kernels):
        self.kernels = kernels

    def serialize(self):
        return b'compiled'


def test_kernels_that_tensorrt_rtx_compiles_are_kept(fake, tmp_path):
    gpu = cuda.Gpu()

    class Engine:
        def create_runtime_config(self):
            return FakeRuntimeConfig()

        def create_execution_context(self, config):
            return config

    path = tmp_path / 'one.jit'
    contexts = Contexts(Engine(), path)
    assert contexts.new(gpu)[0].kernels.known == b'' and not path.exists()
    contexts.keep(logging)
    assert path.read_bytes() == b'compiled'
    assert Contexts(Engine(), path).new(gpu)[0].kernels.known == b'compiled'
    path.write_bytes(b'of another version')
    contexts = Contexts(Engine(), path)
    assert contexts.new(gpu)[0].kernels.known == b''
    contexts.keep(logging)
    assert path.read_bytes() == b'compiled'


def test_bundle_is_loaded_with_a_real_engine_on_the_fakes(fake, bundle, tmp_path, monkeypatch):
    pytest.importorskip('tensorrt_rtx')
    seen = []

    def deserialize(engine, path, gpu):
        seen.append((engine, path, gpu.capability))
        return FakeEngine(fake, Bundle.load(bundle))

    monkeypatch.setattr(tensorrt, 'deserialize', deserialize)
    backend = backends.load(Bundle.load(bundle), 'tensorrt', engines=tmp_path)
    assert (backend.name, backend.device) == ('tensorrt', 'Fake GPU fp16')
    (engine, path, capability), = seen
    assert capability == 'sm86' and path.parent == tmp_path and '-sm86-fp16-' in path.name
    assert path.read_bytes().endswith(engine)
    again = backends.load(Bundle.load(bundle), engines=tmp_path, may_build=False, fallback=True)
    assert again.name == 'tensorrt' and again.problem is None and seen[1] == seen[0]


@pytest.mark.parametrize('text, kind, reason', [
    ('Cuda Runtime (cudaError 35: CUDA driver version is insufficient)', DeviceError,
     'the driver knows CUDA up to 13.0, too old for fake_trt 9'),
    ('Cuda Runtime (out of memory)', DeviceError,
     'engine x.engine could not be loaded .*end other programs'),
    ('The engine plan file is generated on an incompatible device', EngineError,
     'refuses engine x.engine .*incompatible device.*remove the file')])
def test_engine_that_is_refused_on_fake_gpu_says_what_to_do(fake, monkeypatch, text, kind, reason):
    class Logger:
        class Severity:
            ERROR = 1

    class Trt:
        ILogger, __name__, __version__ = Logger, 'fake_trt', '9'

        class Runtime:
            def __init__(self, logger):
                self._logger = logger

            def deserialize_cuda_engine(self, engine):
                self._logger.log(0, text)

    monkeypatch.setattr(build, 'find_module', lambda: Trt)
    Trt.__name__ = 'fake_trt'
    with pytest.raises(kind, match=reason):
        tensorrt.deserialize(b'', 'x.engine', cuda.Gpu())


def test_compiled_kernels_of_fake_gpu_are_kept(fake, tmp_path, monkeypatch):
    """NVRTC takes a second; a file that is damaged or refused is replaced."""
    compiled = []
    monkeypatch.setattr(kernels, 'compile_kernels',
                        lambda capability: compiled.append(capability) or b'\x7fELF code')
    gpu = cuda.Gpu()
    gpu.use()
    kernels.Kernels(gpu, tmp_path)
    path, = tmp_path.glob('kernels-sm86-*.cubin')
    whole = path.read_bytes()
    kernels.Kernels(gpu, tmp_path)
    assert compiled == ['sm86']
    for damaged in (b'', whole[:-1], whole[:-1] + b'?', hashlib.sha256(b'no code').digest()
                    + b'no code'):
        path.write_bytes(damaged)
        kernels.Kernels(gpu, tmp_path)
        assert path.read_bytes() == whole
    assert compiled == 5 * ['sm86']
    kernels.Kernels(gpu, None)
    in_the_way = tmp_path / 'file'
    in_the_way.write_text('')
    kernels.Kernels(gpu, in_the_way)
    assert compiled == 7 * ['sm86'] and list(tmp_path.glob('*.cubin')) == [path]


def test_kept_kernels_are_those_of_this_source(fake, tmp_path, monkeypatch):
    names = {kernels._file_name('sm86'), kernels._file_name('sm87')}
    other = tmp_path / 'kernels.cu'
    other.write_text('// another source')
    monkeypatch.setattr(kernels, 'SOURCE', other)
    names.add(kernels._file_name('sm86'))
    monkeypatch.setattr(kernels, 'OPTIONS', ())
    names.add(kernels._file_name('sm86'))
    assert len(names) == 4


@pytest.mark.parametrize('capability, reason', [
    ((8, 6), None), ((9, 0), 'does not build for sm90 here: it knows .*sm86')])
def test_fake_gpu_that_tensorrt_does_not_know_is_not_chosen(
        library, monkeypatch, capability, reason):
    """As TensorRT for RTX on an H200, where ``auto`` is to take the next backend."""
    if build.find_module().__name__ != 'tensorrt_rtx':
        pytest.skip('classic TensorRT knows the GPU that is there')
    monkeypatch.setattr(cuda, 'driver', lambda: FakeCudaDriver(library, capability=capability))
    found = tensorrt.missing()
    assert found is None if reason is None else re.search(reason, found)
