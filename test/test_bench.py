# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmarks measure what they say: same labels on both sides, turns taken, real processes."""
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from streaming import step
from tiny_bundle import NumpyStudent, PLAIN, write_tiny_bundle

from ros_vseg import backends
from ros_vseg.bench import decoder as bench_decoder
from ros_vseg.bench import network as bench_network
from ros_vseg.bench import node as bench_node
from ros_vseg.bench import table as bench
from ros_vseg.bench.tools import Context, interleave, Measurement, ratio
from ros_vseg.decode import decode


CPU = ['CPUExecutionProvider']


@pytest.fixture(scope='module')
def context(tmp_path_factory):
    path = tmp_path_factory.mktemp('bundle') / 'tiny.onnx'
    return Context(write_tiny_bundle(path), rounds=3)


def test_contenders_take_turns():
    calls = []
    times = interleave({'a': lambda: calls.append('a'), 'b': lambda: calls.append('b')}, 4, 1)
    assert calls == ['a', 'b'] * 5
    assert all(len(values) == 4 and (values >= 0).all() for values in times.values())


def test_ratio_is_taken_within_rounds():
    slow_then_fast = np.array([10.0, 1.0, 2.0])
    assert ratio(3 * slow_then_fast, slow_then_fast) == 3


def test_per_frame_network_is_the_student_without_memory(context):
    bundle = bench_network.per_frame(context.bundle)
    student = NumpyStudent(replace(context.bundle.info, pool_frames=0))
    for name in ('onnxruntime', 'openvino'):
        stream = backends.load(bundle, name, precision='fp32').stream()
        for image in context.images[:3]:
            assert np.allclose(step(stream, image), step(student, image), atol=1e-3)
            assert stream.context_frames == 0


def test_prototypes_only_are_those_of_the_whole_network(context):
    image = context.images[0][None]
    part = onnxruntime.InferenceSession(
        bench_network.prototypes_only(context.bundle), providers=CPU)
    whole = onnxruntime.InferenceSession(context.bundle.model, providers=CPU)
    shapes = context.bundle.info.shapes()
    everything = whole.run(['prototypes'], {
        'image': image, 'pool': np.zeros(shapes['pool'], np.float32),
        'pool_mask': np.zeros(shapes['pool_mask'], np.float32)})
    assert [entry.name for entry in part.get_outputs()] == ['prototypes']
    assert np.array_equal(part.run(None, {'image': image})[0], everything[0])


def test_dense_contenders_give_the_decoder_s_labels(context):
    scores = bench_decoder.real_scores(context)
    ours = decode(scores, bench_decoder.SIZE)[0]
    for name, dense in bench_decoder.dense_contenders(scores).items():
        assert np.mean(dense() == ours) > 0.9999, name     # ties and rounding aside


@pytest.mark.parametrize('name', ['stream', 'decoder', 'backends'])
def test_rows_have_a_figure_each(context, name):
    rows = getattr(bench.module(name), f'bench_{name}')(context)
    assert rows
    for row in rows:
        assert float(row.measured.split()[0]) > 0
        assert (row.met is None) == (row.target == '')


@pytest.mark.parametrize('changes, reason', [
    (PLAIN, 'the bundle has no prototypes'),
    ({'context_frames': 0}, 'the bundle has no pool (T = 0)')])
def test_rows_that_need_a_pool_are_skipped_and_say_why(tmp_path, capsys, changes, reason):
    context = Context(write_tiny_bundle(tmp_path / 'tiny.onnx', **changes), rounds=2)
    assert bench.run(context, ['stream', 'backends']) == 0
    printed = capsys.readouterr().out
    assert f'| stream with prototypes reused | skipped: {reason} |  |  |' in printed
    assert 'one step of onnxruntime' in printed


def test_node_is_measured_over_dds(context):
    result = bench_node.run_node(context, (360, 480), rate=10, count=20)
    received = int(result['camera']['received'])
    assert 0 < result['labels'] <= received <= result['sent'] == 20
    assert result['latency_ms']['p50'] > float(result['camera']['processing_p50_ms']) > 0
    assert min(result['memory_mb'][-4:]) > 50


def test_table_is_markdown_and_a_missed_target_is_the_exit_code(context, capsys, monkeypatch):
    rows = [Measurement('this', '1.0 x', 'at most 2 x', True),
            Measurement('that', '3.0 x', 'at most 2 x', False, 'detail')]
    monkeypatch.setattr(bench_decoder, 'bench_decoder', lambda context: rows[:count])
    for count, code in ((1, 0), (2, 1)):
        assert bench.run(context, ['decoder']) == code
    printed = capsys.readouterr().out.splitlines()
    assert '| that | 3.0 x | at most 2 x | no |' in printed
    assert printed[-1] == 'detail'
