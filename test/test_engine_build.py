# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The build's settings on a FAKE of classic TensorRT, and the words for GPUs to build for."""
import logging
import types

import pytest

from ros_vseg.engines import build
from ros_vseg.errors import EngineError

MEGABYTE = 10**6


class FakeCache:
    """Stands for ITimingCache."""

    def __init__(self, known):
        self.known = known

    def serialize(self):
        return b'timed'


class FakeConfig:
    """Stands for IBuilderConfig; create_timing_cache gives None for bytes that it cannot read."""

    def __init__(self):
        self.flags, self.limits, self.cache = set(), {}, None

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def set_flag(self, flag):
        self.flags.add(flag)

    def set_memory_pool_limit(self, pool, size):
        self.limits[pool] = size

    def create_timing_cache(self, known):
        return None if known == b'damaged' else FakeCache(known)

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache is None:
            raise TypeError('incompatible function arguments')      # as pybind11 does
        if cache.known == b'of another version':
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class Trt:
    """Stands for the module tensorrt."""

    __name__, __version__ = 'tensorrt', '10.3.0'
    BuilderFlag = types.SimpleNamespace(TF32='tf32', REQUIRE_USER_ALLOCATION='user allocation')
    MemoryPoolType = types.SimpleNamespace(WORKSPACE='workspace')

    class IProgressMonitor:
        pass


@pytest.fixture
def config(monkeypatch):
    config = FakeConfig()
    Trt.__name__ = 'tensorrt'
    config.builder = types.SimpleNamespace(create_builder_config=lambda: config)
    return config


def configure(config, timing_cache='', workspace=0):
    return build._configure(Trt, config.builder, 'sm87', timing_cache, workspace)


def test_engine_never_allocates_while_frames_run(config):
    assert configure(config).flags == {'user allocation'}


def test_workspace_of_a_build_has_a_limit(config):
    assert configure(config, workspace=5).limits == {'workspace': 5}


@pytest.mark.parametrize('workspace, limit', [(0, 0.5), (300, None)])
def test_workspace_is_half_of_the_free_memory_unless_said(monkeypatch, workspace, limit):
    free, seen = 3000 * MEGABYTE, []

    class Gpu:
        capability = 'sm87'

        def __init__(self, device):
            assert device == 2

        def use(self):
            pass

        def memory(self):
            return free, 2 * free

    def stop(trt, builder, capability, timing_cache, workspace):
        seen.append(workspace)
        raise EngineError('far enough')
    trt = types.SimpleNamespace(__name__='tensorrt', __version__='10.3.0',
                                Builder=lambda logger: None)
    monkeypatch.setattr(build, 'Gpu', Gpu)
    monkeypatch.setattr(build, 'find_module', lambda: trt)
    monkeypatch.setattr(build, 'make_logger', lambda trt: None)
    monkeypatch.setattr(build, '_parse', lambda *_: types.SimpleNamespace(
        num_layers=0, num_inputs=0, num_outputs=0, get_layer=None, get_input=None,
        get_output=None))
    monkeypatch.setattr(build, '_configure', stop)
    with pytest.raises(EngineError, match='far enough'):
        build._build(__import__('pathlib').Path(__file__), None, 'sm87', '', 2, workspace)
    assert seen == [int(limit * free) if limit else workspace * MEGABYTE]


@pytest.mark.parametrize('content', [b'damaged', b'of another version'])
def test_timing_cache_that_is_not_taken_is_set_aside_and_named(config, tmp_path, capsys, content):
    path = tmp_path / '10.3.timing'
    path.write_bytes(content)
    assert configure(config, str(path)).cache.known == b''
    assert not path.exists() and (tmp_path / '10.3.refused').read_bytes() == content
    assert f'"warning": "timing cache {path} is damaged or of another' in capsys.readouterr().out


def test_timing_cache_that_is_taken_is_used(config, tmp_path, capsys):
    path = tmp_path / '10.3.timing'
    path.write_bytes(b'timed')
    assert configure(config, str(path)).cache.known == b'timed'
    assert path.exists() and capsys.readouterr().out == ''


def test_timing_cache_that_cannot_be_written_does_not_cost_the_engine(config, tmp_path, capsys):
    configure(config, str(tmp_path / 'new.timing'))
    in_the_way = tmp_path / 'file'
    in_the_way.write_text('')
    build._keep_timing_cache(config, in_the_way / 'x.timing')
    assert '"warning": ' in capsys.readouterr().out
    build._keep_timing_cache(config, tmp_path / 'x.timing')
    assert (tmp_path / 'x.timing').read_bytes() == b'timed'


def test_warnings_of_the_child_are_logged(caplog):
    with caplog.at_level(logging.WARNING):
        report, last = build._follow(
            ['vseg {"warning": "look"}\n', 'words\n', 'vseg {"layers": {}}\n'], 'sm86', False)
    assert (report, last, caplog.messages) == ({'layers': {}}, 'words', ['look'])


@pytest.mark.parametrize('text, targets', [
    ('sm86', ['sm86']), ('SM_86', ['sm86']), ('8.6', ['sm86']), ('86', ['sm86']),
    ('sm86, sm_120,7.5', ['sm86', 'sm120', 'sm75'])])
def test_gpus_to_build_for_are_understood(text, targets):
    pytest.importorskip('tensorrt_rtx')
    assert build.parse_targets(text) == targets


@pytest.mark.parametrize('text, reason', [
    ('', "GPU '' is not a compute capability: give one such as sm86, sm_86 or 8.6"),
    ('none', "GPU 'none' is not"), ('current', "GPU 'current' is not"),
    ('sm86,', "GPU '' is not"), ('sm86,sm33', 'does not build for sm33 here: it knows sm'),
    ('sm_87', 'does not build for sm87')])
def test_gpus_that_nothing_is_built_for_are_refused_before_the_first_build(text, reason):
    pytest.importorskip('tensorrt_rtx')
    with pytest.raises(EngineError) as error:
        build.parse_targets(text)
    assert reason in str(error.value)
