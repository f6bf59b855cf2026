# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What two backends make of the same frames, and the layers that they spend their time in."""
from fake_backend import frame
import numpy as np
import onnx
import pytest
from tiny_bundle import PLAIN, write_tiny_bundle

from ros_vseg import backends
from ros_vseg.backends.base import Labels
from ros_vseg.bench import layers
from ros_vseg.bench.tools import Context
from ros_vseg.bundle import Bundle
from ros_vseg.commands import compare as compare_module
from ros_vseg.commands.cli import main
from ros_vseg.commands.compare import compare, load
from ros_vseg.errors import BackendError, VsegError
from ros_vseg.graph import at_size

pytest_plugins = ['fake_fixtures']
IMAGES = [frame(number, (96, 128)) for number in range(6)]


class Altered:
    """A backend that gives another label to ``pixels`` of a frame's pixels, by its number."""

    name, device, problem = 'altered', 'CPU fp32', None

    def __init__(self, backend, pixels):
        self.bundle, self._stream, self._pixels = backend.bundle, backend.stream(), iter(pixels)
        self.remember = self._stream.remember

    def stream(self, table=None):
        return self

    def label(self, image, confidence=False):
        made = self._stream.label(image)
        labels = made.labels.copy()
        labels.flat[:next(self._pixels)] += 1
        return Labels(labels, None, {}, None, made.scores + np.float32(0.25))


@pytest.mark.parametrize('changes', [{}, {'context_frames': 1}, PLAIN])
def test_two_libraries_agree_on_the_same_float32_graph(tmp_path, changes):
    bundle = Bundle.load(write_tiny_bundle(tmp_path / 'tiny.onnx', **changes))
    found = compare(load(bundle, 'onnxruntime'), load(bundle, 'openvino:fp32'), IMAGES)
    assert found.frames == 6 and found.agreement > 0.999
    assert 0 <= found.score_difference < 1e-3
    assert found.departure is None and found.no_layers is None
    assert found.lines()[-1].endswith('none: no layer differs by 1% of its largest value')


def test_the_worst_frame_and_the_largest_difference_are_told(bundle):
    backend = load(Bundle.load(bundle), 'onnxruntime')
    found = compare(backend, Altered(backend, [0, 5, 96, 5, 0, 96]), IMAGES, limit=5)
    assert (found.frames, found.worst) == (5, 2)
    assert found.worst_agreement == pytest.approx(1 - 1 / 128)
    assert found.agreement == pytest.approx(1 - (106 / 5) / (96 * 128))
    assert found.score_difference == pytest.approx(0.25, abs=1e-5)
    assert 'two ONNX graphs' in found.lines()[-1]


def test_the_first_layer_that_departs_is_named(bundle, monkeypatch):
    """Also where what departs is not a number."""
    first, second = (load(Bundle.load(bundle), name) for name in ('onnxruntime', 'openvino:fp32'))
    run, seen = compare_module._run, []
    nodes = onnx.load_model_from_string(first.graph).graph.node
    third, fifth = [node for node in nodes if node.op_type in ('Conv', 'MatMul', 'Add')][1:3]

    def altered(backend, graph, inputs):
        made = run(backend, graph, inputs)
        seen.append(inputs)
        if backend is second:
            made[third.output[0]] = made[third.output[0]] + spoil
            made[fifth.output[0]] = made[fifth.output[0]] * 2
        return made

    monkeypatch.setattr(compare_module, '_run', altered)
    for spoil in (np.float32(1e3), np.float32(np.nan)):
        found = compare(first, second, IMAGES)
        assert found.departure.name == (third.name or third.output[0])
        assert found.departure.kind == third.op_type
    assert (seen[0]['pool_mask'] == seen[1]['pool_mask']).all()


def test_backend_on_fake_gpu_is_compared_without_its_scores(load):
    backend = load()
    found = compare(backend, backends.load(backend.bundle, 'onnxruntime'), IMAGES)
    assert found.agreement == 1 and found.score_difference is None
    assert 'not compared' in found.lines()[2] and found.departure is None


def test_what_cannot_be_compared_is_refused(bundle):
    student = Bundle.load(bundle)
    with pytest.raises(BackendError, match="backend 'none' is unknown"):
        load(student, 'none:fp32')
    with pytest.raises(BackendError, match="precision 'half' is unknown"):
        load(student, 'openvino:half')
    backend = load(student, 'onnxruntime')
    with pytest.raises(VsegError, match='no frames'):
        compare(backend, backend, [])


def test_compare_and_layers_on_the_command_line(bundle, capsys):
    assert main(['compare', 'onnxruntime', 'openvino:fp32', '--bundle', str(bundle),
                 '--limit', '3']) == 0
    assert 'of 3 frames' in capsys.readouterr().out
    assert main(['compare', 'onnxruntime', 'openvino', '--limit', '0']) == 2
    assert main(['bench', 'layers', '--backend', 'onnxruntime', '--bundle', str(bundle),
                 '--rounds', '2']) == 0
    assert 'Conv ' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
def test_layers_are_the_graphs_own_and_longest_first(bundle, name):
    context = Context(bundle, 3, name)
    found = layers.layer_times(context)
    assert any('Conv' in layer.kind for layer in found)
    assert all(0 <= layer.seconds < 1 for layer in found)
    rows = layers.bench_layers(context)
    times = [float(row.measured.split()[0]) for row in rows[:min(len(found), layers.SHOWN)]]
    assert times == sorted(times, reverse=True) and times[0] > 0
    assert sum(float(row.measured.split()[0]) for row in rows[:-1]) == pytest.approx(
        float(rows[-1].measured.split()[0]), abs=0.02)


def test_layers_see_the_size_that_is_asked_for(bundle):
    whole, part = (Context(bundle, 3, 'onnxruntime', size) for size in (None, (48, 64)))
    assert part.backend.graph != whole.backend.graph
    assert part.bundle.info.height == at_size(whole.bundle, (48, 64)).info.height == 48
    assert layers.layer_times(part)


def test_layers_on_fake_gpu_are_those_that_tensorrts_profiler_tells(load, fake):
    pytest.importorskip('tensorrt_rtx')
    times = load().stream().layer_times(IMAGES[0], 4)
    assert list(times) == ['convolution', 'softmax']
    assert sorted(set(times['convolution'])) == pytest.approx([2e-3, 3e-3])
    assert times['softmax'] == pytest.approx([5e-4] * 4)


def test_a_backend_without_a_profiler_is_refused(bundle):
    backend = load(Bundle.load(bundle), 'onnxruntime')
    context = Context(bundle)
    context.backend = Altered(backend, [])
    with pytest.raises(VsegError, match='layers are not told by backend altered'):
        layers.layer_times(context)
