# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""int8 in OpenVINO: calibrated and checked on this processor, refused where labels are lost."""
from itertools import islice

import numpy as np
import onnx
from onnx import numpy_helper
import pytest

from ros_vseg import backends, calibrate as calibration
from ros_vseg.calibrate import calibrate_for_cpu
from ros_vseg.commands.cli import main
from ros_vseg.commands.compare import compare
from ros_vseg.engines import cpu_int8
from ros_vseg.errors import BackendError, EngineError
from ros_vseg.media.sources import open_source
from ros_vseg.processes import demo_clip

CALIBRATED = 8


def drive(first=0, count=CALIBRATED):
    return islice(open_source(demo_clip()), first, first + count)


def largest_weight(path):
    """Return the largest int8 weight of a graph."""
    return max(int(np.abs(numpy_helper.to_array(tensor).astype(int)).max())
               for tensor in onnx.load(path).graph.initializer
               if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims)


@pytest.mark.parametrize('exact', [True, False])
def test_int8_keeps_the_labels_on_this_processor(student, tmp_path, monkeypatch, exact):
    """With weights of 7 bits on every processor; of 8 where it has VNNI."""
    if exact and not cpu_int8.multiplies_exactly():
        pytest.skip('this processor has no VNNI')
    monkeypatch.setattr(cpu_int8, 'multiplies_exactly', lambda: exact)
    path, frames, bits, share = calibrate_for_cpu(student, drive(), tmp_path)
    assert (frames, bits) == (CALIBRATED, 8 if exact else 7) and 0.98 <= share < 1
    assert (largest_weight(path) > 64) == exact
    first, second = (backends.load(student, 'openvino', precision=precision, engines=tmp_path)
                     for precision in ('int8', 'fp32'))
    assert first.device == 'CPU int8'
    found = compare(first, second, [frame.image for frame in drive(60, 3)])
    assert 0.96 < found.agreement < 1


@pytest.mark.parametrize('exact, kept, bits', [
    (True, {8: 0.99}, 8), (True, {8: 0.88, 7: 0.985}, 7), (False, {7: 0.98}, 7)])
def test_weights_have_as_many_bits_as_keep_the_labels(tiny, tmp_path, monkeypatch, exact, kept,
                                                      bits):
    expected = dict(kept)
    fake_quantisation(monkeypatch, exact, kept)
    found = calibrate_for_cpu(tiny, drive(), tmp_path)
    assert found[1:] == (CALIBRATED, bits, expected[bits]) and not kept
    assert cpu_int8.read(tiny, tmp_path) == found[0].read_bytes()


@pytest.mark.parametrize('exact, kept', [(True, {8: 0.5, 7: 0.974}), (False, {7: 0.974})])
def test_int8_that_loses_labels_is_refused_with_their_share(tiny, tmp_path, monkeypatch, exact,
                                                            kept):
    fake_quantisation(monkeypatch, exact, kept)
    with pytest.raises(EngineError, match='int8 keeps 97.4 % of the labels on this processor, '
                                          'where 98 % are asked for: use precision auto'):
        calibrate_for_cpu(tiny, drive(), tmp_path / 'folder')
    assert not (tmp_path / 'folder').exists()


def fake_quantisation(monkeypatch, exact, kept):
    """Leave the graph as it is, and say that this many labels are kept, by bits."""
    tried = []

    def quantize(model, inputs, weight_bits):
        tried.append(weight_bits)
        return model

    monkeypatch.setattr(calibration, 'quantize', quantize)
    monkeypatch.setattr(calibration, '_share_kept', lambda *_: kept.pop(tried[-1]))
    monkeypatch.setattr(cpu_int8, 'multiplies_exactly', lambda: exact)


def test_a_bundle_not_calibrated_for_the_processor_says_how_to_fix_it(
        tiny, student, tmp_path, monkeypatch):
    def refused(match):
        with pytest.raises(BackendError, match=match) as error:
            backends.load(tiny, 'openvino', precision='int8', engines=tmp_path)
        assert f'vseg build {tiny.path} --precision int8 --for cpu --cal' in str(error.value)

    refused('is not calibrated for int8 on the processor')
    path = cpu_int8.path_for(tiny, tmp_path)
    path.write_bytes(b'damaged')
    refused('is not calibrated for int8 on the processor')
    cpu_int8.keep(student, onnx.load_model_from_string(student.model), 7, tmp_path).replace(path)
    refused('is of another bundle')
    cpu_int8.keep(tiny, onnx.load_model_from_string(tiny.model), 8, tmp_path)
    monkeypatch.setattr(cpu_int8, 'multiplies_exactly', lambda: False)
    refused('weights of 8 bits, whose products saturate on this processor')


@pytest.mark.parametrize('text, exact', [
    ('model name\t: with avx_vnni in its name\nflags\t\t: sse avx2 avx512f\n', False),
    ('flags\t\t: sse avx2 avx512_vnni fma\n', True), ('flags\t\t: avx2 avx_vnni\n', True),
    ('Features\t: fp asimd asimddp\n', True), ('Features\t: fp asimd\n', False)])
def test_exact_processors_are_known_by_their_flags(tmp_path, text, exact):
    (tmp_path / 'cpuinfo').write_text(text)
    assert cpu_int8.multiplies_exactly(tmp_path / 'cpuinfo') == exact
    assert not cpu_int8.multiplies_exactly(tmp_path / 'missing')


def test_build_for_cpu_on_the_command_line(bundle, tmp_path, monkeypatch, capsys):
    command = ['build', str(bundle), '--for', 'cpu', '--engines', str(tmp_path)]
    assert main(command) == 2
    assert 'give --precision int8 --calibrate PATH' in capsys.readouterr().err
    fake_quantisation(monkeypatch, False, {7: 0.99})
    assert main([*command, '--precision', 'int8', '--calibrate', str(demo_clip())]) == 0
    assert 'weights of 7 bits, 99.00 % of the labels of fp32' in capsys.readouterr().out
