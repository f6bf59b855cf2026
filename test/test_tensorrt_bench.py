# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the device runs on a FAKE GPU: its times are none, its rows are."""
from dataclasses import replace
from pathlib import Path

from fake_backend import STAGES
from fake_engine import FakeEngine
import pytest

from ros_vseg import backends
from ros_vseg.backends import tensorrt
from ros_vseg.bench import device as bench_device
from ros_vseg.bench.tools import Context
from ros_vseg.errors import VsegError
from ros_vseg.gpu import bandwidth

pytest_plugins = ['fake_fixtures']


def test_stages_on_fake_gpu_are_measured_against_a_floor(load, fake, monkeypatch, bundle):
    """The times are the fake's, one per mark: what counts is that all of it runs."""
    def engine_for(bundle, *_, **__):
        shapes = replace(bundle.info, pool_frames=4).shapes()   # with the slot at work
        ends = {name: ['UINT8' if name == 'image' else 'FLOAT', shape]
                for name, shape in shapes.items()}
        outputs = {name: ends.pop(name) for name in ('scores', 'prototypes')}
        return Path('none.engine'), {'inputs': ends, 'outputs': outputs}, bundle

    monkeypatch.setattr(bench_device, 'engine_for', engine_for)
    monkeypatch.setattr(bandwidth, 'COPY', 1000)
    monkeypatch.setattr(bench_device, 'CAMERA', (135, 250))
    monkeypatch.setattr(tensorrt, 'deserialize', lambda engine, *_: FakeEngine(fake, engine))
    monkeypatch.setattr(backends, 'load', lambda *_, **__: load())
    context = Context(bundle, rounds=4, backend='tensorrt')
    rows = bench_device.bench_device(context)
    assert [row.what.split(',')[0] for row in rows] == [
        *STAGES, 'all stages', 'whole frame with host copy', 'resize and decode',
        'network with T = 3 reused', '4 cameras', 'network alone', 'network alone']
    assert 'camera 135x250, network 96x128' in rows[0].what
    assert rows[0].measured == '1.000 ms' and 'floor of upload' in rows[0].detail
    operations, weights = bench_device.cost(context.bundle)
    stem = 2 * 8 * 12 * 16 * 3 * 8 * 8
    assert stem < operations < 2 * stem and weights > 0


def test_device_benchmark_refuses_a_processor(bundle):
    with pytest.raises(VsegError, match='add --backend tensorrt'):
        bench_device.bench_device(Context(bundle, backend='onnxruntime'))


def test_floor_of_a_gpu_that_we_do_not_know_is_not_made_up(load, fake, monkeypatch, bundle):
    fake._capability = (11, 0)
    monkeypatch.setattr(bandwidth, 'COPY', 1000)
    backend = load()
    assert bench_device.stage_floors(backend, Context(bundle).bundle)['network'] is None
    assert bench_device._floor_text('network', None, backend.gpu) == (
        'floor of network: not known for sm110')
