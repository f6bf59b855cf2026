# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Which backend is chosen, on machines that lack some, and with a FAKE of onnxruntime-gpu."""
import importlib
import logging
import tempfile

import pytest
from streaming import INSTALLED, needs

from ros_vseg import backends
from ros_vseg.backends import tensorrt
from ros_vseg.commands import doctor
from ros_vseg.errors import BackendError


def test_auto_takes_the_first_installed_and_says_so(tiny, caplog):
    with caplog.at_level(logging.INFO, 'ros_vseg.backends'):
        backend = backends.load(tiny, threads=1)
    assert backend.name == INSTALLED[0]
    assert [record.message for record in caplog.records] == [
        f'backend {backend.name} on {backend.device}']


def hide(monkeypatch, *packages):
    """Make packages look as if they were not installed."""
    real = importlib.import_module

    def without(name, *args):
        if name in packages:
            raise ImportError(f"No module named '{name}'")
        return real(name, *args)
    monkeypatch.setattr(importlib, 'import_module', without)


@needs('onnxruntime')
def test_auto_falls_back_and_says_why(tiny, monkeypatch, caplog):
    hide(monkeypatch, 'openvino')
    with caplog.at_level(logging.INFO, 'ros_vseg.backends'):
        assert backends.load(tiny, threads=1).name == 'onnxruntime'
    assert "no openvino: No module named 'openvino'" in caplog.text


def test_missing_backend_names_the_package(tiny, monkeypatch):
    hide(monkeypatch, 'openvino', 'onnxruntime')
    assert 'pip install openvino' in backends.available()['openvino']
    with pytest.raises(BackendError, match='openvino cannot be used .*pip install openvino'):
        backends.load(tiny, 'openvino')
    with pytest.raises(BackendError, match='no backend is installed'):
        backends.load(tiny)


class FakeOnnxRuntimeGpu:
    """
    FAKE of onnxruntime-gpu: all of its providers are listed, whether they work or not.

    state: 'no GPU', as onnxruntime-gpu 1.31 behaves on a machine without one; 'fails' at the
    first run; 'works'. What it is asked for on the CPU the real onnxruntime does.
    """

    def __init__(self, state):
        import onnxruntime
        self._real, self.state, self.tried, self.has_libraries = onnxruntime, state, [], False

    def __getattr__(self, name):
        return getattr(self._real, name)

    def get_available_providers(self):
        return ['TensorrtExecutionProvider', 'CUDAExecutionProvider', 'CPUExecutionProvider']

    def preload_dlls(self):
        print('Failed to load libcudnn.so.9')   # as the real one, of each that is not there
        self.has_libraries = True

    def InferenceSession(self, model, options, providers, enable_fallback):   # noqa: N802
        provider = providers[0] if isinstance(providers[0], str) else providers[0][0]
        session = self._real.InferenceSession(model, options, providers=['CPUExecutionProvider'])
        if provider == 'CPUExecutionProvider':
            return session
        assert self.has_libraries   # pip's lie where no linker looks
        self.tried.append(provider)
        if self.state == 'no GPU' and provider == 'TensorrtExecutionProvider':
            raise RuntimeError('/src/state.cc:729 void Register(Options&) Please install TensorRT '
                               'libraries.\n')
        return FakeSession(session, provider, self.state)


class FakeSession:
    """FAKE session on a provider of FakeOnnxRuntimeGpu."""

    def __init__(self, session, provider, state):
        self._session, self._provider, self._state = session, provider, state

    def get_providers(self):
        mine = [] if self._state == 'no GPU' else [self._provider]
        return [*mine, 'CPUExecutionProvider']

    def run(self, outputs, inputs):
        if self._state == 'fails':
            raise RuntimeError('CUDA failure 999: unknown error')
        return self._session.run(outputs, inputs)


@pytest.fixture
def fake_gpu(monkeypatch):
    """Return a function that puts a FakeOnnxRuntimeGpu in the place of onnxruntime."""
    module = pytest.importorskip('ros_vseg.backends.onnxruntime')
    monkeypatch.setattr(tensorrt, 'missing', lambda name: 'no GPU')

    def make(state):
        fake = FakeOnnxRuntimeGpu(state)
        monkeypatch.setattr(module, 'onnxruntime', fake)
        module._try.cache_clear()
        return fake
    yield make
    module._try.cache_clear()


@needs('openvino')
@pytest.mark.parametrize('state, reasons', [
    ('no GPU', ('TensorrtExecutionProvider does not start (Please install TensorRT libraries.)',
                'CUDAExecutionProvider does not start (it falls back to the CPU)')),
    ('fails', ('TensorrtExecutionProvider does not start (CUDA failure 999: unknown error)',
               'CUDAExecutionProvider does not start (CUDA failure 999: unknown error)'))])
@pytest.mark.parametrize('with_fallback', [False, True])
def test_fake_onnxruntime_gpu_that_does_not_work_is_not_chosen(
        tiny, fake_gpu, state, reasons, with_fallback):
    fake_gpu(state)
    backend = backends.load(tiny, threads=1, fallback=with_fallback)
    assert backend.name == 'openvino' and backend.problem is None
    found = {finding.what: finding for finding in doctor._backends()}
    for name, reason in zip(('onnxruntime_tensorrt', 'onnxruntime_cuda'), reasons):
        assert found[f'backend {name}'].state == doctor.HINT
        assert found[f'backend {name}'].text.startswith(reason)
        assert 'it needs an NVIDIA GPU' in found[f'backend {name}'].text
        with pytest.raises(BackendError, match=f'backend {name} cannot be used here .*not start'):
            backends.load(tiny, name)


def test_fake_onnxruntime_gpu_that_works_is_tried_once(fake_gpu, capsys):
    fake = fake_gpu('works')
    for _ in range(2):
        found = backends.available()
        assert found['onnxruntime_tensorrt'] is None and found['onnxruntime_cuda'] is None
    assert fake.tried == ['TensorrtExecutionProvider', 'CUDAExecutionProvider']
    assert capsys.readouterr().out == ''


def test_fake_onnxruntime_gpu_is_not_tried_where_another_backend_comes_first(
        tiny, fake_gpu, monkeypatch):
    """To try TensorRT's provider is to build an engine."""
    fake = fake_gpu('works')
    monkeypatch.setattr(tensorrt, 'missing', lambda name: None)
    monkeypatch.setattr(tensorrt, 'load', lambda bundle, options, name: backends.load(
        bundle, 'onnxruntime'))
    backends.load(tiny, fallback=True)
    assert fake.tried == []


def test_no_backend_builds_where_building_is_not_allowed(tiny, fake_gpu, monkeypatch):
    fake_gpu('works')
    with pytest.raises(BackendError, match='onnxruntime_tensorrt builds its engine when it is '
                       'loaded: allow building, or use backend tensorrt'):
        backends.load(tiny, 'onnxruntime_tensorrt', may_build=False)
    loaded = []
    monkeypatch.setattr(backends, '_load', lambda bundle, name, options: loaded.append(
        name) or backends._module('onnxruntime').load(bundle, options))
    backends.load(tiny, may_build=False)
    backends.load(tiny)
    assert loaded == ['onnxruntime_cuda', 'onnxruntime_tensorrt']


def test_folder_for_engines_that_cannot_be_written(tiny, fake_gpu, monkeypatch, tmp_path):
    fake_gpu('works')
    (tmp_path / 'file').write_text('in the way')

    def load(folder):
        return backends.load(tiny, 'onnxruntime_tensorrt', engines=folder)

    for folder in (tmp_path / 'file', tmp_path / 'file' / 'deeper', 'a\0b'):
        with pytest.raises(BackendError, match='cannot be written .*choose another folder for'):
            load(folder)

    def read_only(*args, **options):
        raise OSError(30, 'Read-only file system')
    monkeypatch.setattr(tempfile, 'TemporaryFile', read_only)
    with pytest.raises(BackendError, match=r'engines cannot be written \(Read-only file system'):
        load(tmp_path / 'engines')


@pytest.mark.parametrize('options, reason', [
    ({'name': 'tensorflow'}, "backend 'tensorflow' is unknown: use auto, tensorrt, "),
    ({'precision': 'int3'}, "precision 'int3' is unknown: use auto, fp32, fp16, bf16, int8")])
def test_unknown_names(tiny, options, reason):
    with pytest.raises(BackendError) as error:
        backends.load(tiny, **options)
    assert reason in str(error.value)
