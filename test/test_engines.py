# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""TensorRT builds the shipped student for GPUs that are not here, and says what it refuses."""
from dataclasses import replace
import importlib
from itertools import islice
import re
import types

import onnx
import pytest
from tiny_bundle import PLAIN, write_tiny_bundle

from ros_vseg.bundle import Bundle
from ros_vseg.calibrate import calibrate
from ros_vseg.engines import build
from ros_vseg.engines.cache import read_header
from ros_vseg.engines.engine import engine_for, graph_for
from ros_vseg.errors import EngineError
from ros_vseg.media.sources import open_source
from ros_vseg.processes import demo_clip

trt = pytest.importorskip('tensorrt_rtx')

# what the layers of a precision compute in; int8 has float16 around its convolutions
LAYERS = {'fp32': 'FLOAT', 'fp16': 'HALF', 'bf16': 'BF16', 'int8': 'HALF'}
SMALLEST = {'fp32': 1.0, 'fp16': 0.5, 'bf16': 0.5, 'int8': 0.25}     # the weights alone


@pytest.fixture(scope='module')
def folder(tmp_path_factory, student):
    """Return a folder of engines that has the student calibrated for int8."""
    folder = tmp_path_factory.mktemp('engines')
    calibrate(student, islice(open_source(demo_clip()), 8), folder)
    return folder


def only_rtx(monkeypatch, **modules):
    """Make ``modules``, and none but these, importable as TensorRT."""
    real = importlib.import_module

    def without(name, *arguments):
        if name in modules:
            return modules[name]
        if name in build.MODULES:
            raise ImportError(f'No module named {name!r}')
        return real(name, *arguments)
    monkeypatch.setattr(importlib, 'import_module', without)


@pytest.mark.parametrize('precision', LAYERS)
@pytest.mark.parametrize('capability', ['sm86', 'sm89'])
def test_student_is_built(student, folder, capability, precision):
    path, header, engine = engine_for(student, capability, precision, folder=folder)
    assert header['inputs'] == {
        'image': ['UINT8', [1, 400, 528, 3]], 'pool': ['FLOAT', [1, 4 * 32, 192]],
        'pool_mask': ['FLOAT', [1, 4 * 32]]}
    assert header['outputs'] == {
        'scores': ['FLOAT', [1, 11, 100, 132]], 'prototypes': ['FLOAT', [1, 32, 192]],
        'confidence': ['FLOAT', [1]]}
    assert (header['capability'], header['precision'], header['bundle'], header['version']) == (
        capability, precision, student.sha256, trt.__version__)
    kind = LAYERS[precision]
    # the softmax of the mean confidence stays in float32
    assert {f'{kind} SOFTMAX', 'FLOAT SOFTMAX'} == {
        name for name in header['layers'] if name.endswith(' SOFTMAX')}
    for layer in ('CONVOLUTION', 'MATRIX_MULTIPLY', 'RESIZE'):
        assert [name for name in header['layers'] if name.endswith(f' {layer}')] == [
            f'{kind} {layer}']
    assert header['layers'][f'{kind} CONVOLUTION'] == 59
    assert header['layers'].get('INT8 QUANTIZE', 0) == (74 if precision == 'int8' else 0)
    size = len(student.model)
    assert SMALLEST[precision] * size * 0.9 < len(engine) == header['bytes'] < 4 * size
    assert path.parent == folder and read_header(path) == (header, engine)


def test_auto_precision_is_fp16(student, folder):
    path, header, _ = engine_for(student, 'sm86', folder=folder)
    assert header['precision'] == 'fp16' and '-sm86-fp16-b1-' in path.name


def test_depthwise_convolutions_of_turing_do_not_swell_the_engine(student, folder):
    """It pads one-channel groups by constants of seven times the feature map."""
    _, header, engine = engine_for(student, 'sm75', 'fp16', folder=folder)
    assert header['layers']['HALF CONVOLUTION'] == 59
    assert len(engine) < 4 * len(student.model)


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_precision_that_turing_lacks_says_what_to_do(student, folder, precision):
    with pytest.raises(EngineError) as error:
        engine_for(student, 'sm75', precision, folder=folder)
    assert str(error.value) == (f'GPUs of sm75 have no {precision} matrix products in TensorRT '
                                'for RTX: use precision fp16 or int8')


def test_build_that_is_refused_does_not_swell_the_next(student, folder):
    """A builder that failed leaves state behind in its process."""
    half = graph_for(student, 'fp16', 'sm86', folder).SerializeToString()
    before, _ = build.build(half, 'sm86', progress=False)
    full = graph_for(student, 'fp32', 'sm86', folder).SerializeToString()
    with pytest.raises(EngineError, match=f'tensorrt_rtx {trt.__version__} cannot build for sm75: '
                                          '.*FP32 GEMM is not supported'):
        build.build(full, 'sm75', progress=False)
    after, _ = build.build(half, 'sm86', progress=False)
    assert abs(len(after) - len(before)) < 0.01 * len(before)


@pytest.mark.parametrize('capability', ['sm90', 'sm3'])
def test_gpu_that_is_not_built_for_is_an_error_that_names_the_others(tiny, folder, capability):
    with pytest.raises(EngineError) as error:
        engine_for(tiny, capability, 'fp32', folder=folder)
    assert f'does not build for {capability}' in str(error.value)
    assert {'sm75', 'sm86', 'sm89'} <= set(re.findall(r'sm\d+', str(error.value)))
    assert not list(folder.glob(f'*-{capability}-*.engine'))


def test_unknown_precision_names_those_that_are_known(tiny, folder):
    with pytest.raises(EngineError, match="'int4' is not one of TensorRT: use fp32, fp16, bf16"):
        engine_for(tiny, 'sm86', 'int4', folder=folder)


def test_operator_that_is_refused_is_named(tiny, folder):
    model = onnx.load_model_from_string(tiny.model)
    [node] = [node for node in model.graph.node if node.op_type == 'Tanh']
    node.op_type, node.name = 'Det', 'the_riddle'
    model.graph.output.pop()
    riddle = replace(tiny, model=model.SerializeToString(), sha256='f' * 64)
    with pytest.raises(EngineError) as error:
        engine_for(riddle, 'sm86', 'fp32', folder=folder)
    assert "refuses operator 'Det' (node 'the_riddle'" in str(error.value)
    assert 'use backend onnxruntime' in str(error.value)


def test_graph_that_is_damaged_is_an_error():
    with pytest.raises(EngineError, match='tensorrt_rtx'):
        build.build(b'no graph', 'sm86', progress=False)


def test_student_for_several_images_at_once_is_built(student, folder):
    path, header, _ = engine_for(student, 'sm86', 'fp16', folder=folder, batch=2)
    assert '-b2-' in path.name and header['batch'] == 2
    assert {name: shape for name, (_, shape) in {**header['inputs'], **header['outputs']}.items()
            } == {'image': [2, 400, 528, 3], 'pool': [2, 128, 192], 'pool_mask': [2, 128],
                  'scores': [2, 11, 100, 132], 'prototypes': [2, 32, 192], 'confidence': [2]}


@pytest.mark.parametrize('changes', [{}, PLAIN], ids=['prototypes', 'plain'])
@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'bf16'])
def test_mean_confidence_is_computed_in_float32(tmp_path, changes, precision):
    bundle = Bundle.load(write_tiny_bundle(
        tmp_path / 'tiny.onnx', has_confidence=True, **changes))
    _, header, _ = engine_for(bundle, 'sm86', precision, folder=tmp_path)
    assert header['outputs']['confidence'] == ['FLOAT', [1]]
    assert ('prototypes' in header['outputs']) == (changes is not PLAIN)
    assert header['layers']['FLOAT REDUCE'] == 2
    assert {name for name in header['layers'] if name.endswith(' CONVOLUTION')} == {
        f'{LAYERS[precision]} CONVOLUTION'}


@pytest.mark.parametrize('modules', [{}, {'tensorrt': types.SimpleNamespace()}, {
    'tensorrt': types.SimpleNamespace(__version__='8.6.1')}])
def test_without_tensorrt_both_ways_to_install_it_are_named(tiny, folder, monkeypatch, modules):
    """A stub without libraries, or one that is too old, is none."""
    only_rtx(monkeypatch, **modules)
    with pytest.raises(EngineError) as error:
        engine_for(tiny, 'sm86', folder=folder)
    for part in ('no TensorRT (tensorrt', "No module named 'tensorrt_rtx'",
                 'pip install tensorrt-rtx-cu13', 'apt install python3-libnvinfer on a Jetson'):
        assert part in str(error.value)
    assert ('8.6.1 is older than 10' in str(error.value)) == any(
        hasattr(each, '__version__') for each in modules.values())


def test_classic_tensorrt_comes_first(monkeypatch):
    classic = types.SimpleNamespace(__version__='10.3.0')
    only_rtx(monkeypatch, tensorrt=classic, tensorrt_rtx=trt)
    assert build.find_module() is classic
    only_rtx(monkeypatch, tensorrt_rtx=trt)
    assert build.find_module() is trt


def test_engine_is_built_once(tiny, folder, monkeypatch):
    first = engine_for(tiny, 'sm86', 'fp16', folder=str(folder))

    def fail(*_, **__):
        raise AssertionError('it is built again')
    monkeypatch.setattr(build, 'build', fail)
    assert engine_for(tiny, 'sm86', 'fp16', folder=folder) == first
    assert engine_for(tiny, 'sm86', 'fp16', folder=folder, may_build=False) == first
    with pytest.raises(AssertionError, match='it is built again'):
        engine_for(tiny, 'sm89', 'fp16', folder=folder)


def test_engine_that_may_not_be_built_is_refused(tiny, folder):
    path, *_ = engine_for(tiny, 'sm86', 'fp16', folder=folder)
    with pytest.raises(EngineError, match='no engine .*-sm80-fp16-.*`vseg build`') as error:
        engine_for(tiny, 'sm80', 'fp16', folder=folder, may_build=False)
    assert path.name in str(error.value)


def test_engines_lie_in_the_users_cache(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    path, header, engine = engine_for(tiny, 'sm86', 'fp32')
    assert path.parent == tmp_path / 'ros_vseg' and read_header(path) == (header, engine)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert engine_for(tiny, 'sm86', 'fp32', folder='~/ros_vseg', may_build=False)[0] == path
