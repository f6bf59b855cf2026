# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A graph in another precision is in that precision, and has the same labels but for a few."""
from itertools import islice
import logging

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference, TensorProto
import pytest
from streaming import label

from tiny_bundle import info, NumpyStudent, PLAIN, write_tiny_bundle

from ros_vseg import backends
from ros_vseg import calibrate as calibration
from ros_vseg.backends.base import Ring
from ros_vseg.bundle import Bundle
from ros_vseg.calibrate import calibrate
from ros_vseg.decode import decode
from ros_vseg.engines.engine import calibrated_path, graph_for
from ros_vseg.engines.precision import KINDS, lower, quantize
from ros_vseg.errors import EngineError
from ros_vseg.graph import ring_model
from ros_vseg.media.frames import Frame
from ros_vseg.media.sources import open_source
from ros_vseg.processes import demo_clip
from ros_vseg.resize import resize_image

onnxruntime = pytest.importorskip('onnxruntime')

CALIBRATED, FIRST, LAST = 8, 60, 66     # frames of the clip: to calibrate with, to look at


@pytest.fixture(scope='module')
def model(student):
    return onnx.load_model_from_string(ring_model(student))


@pytest.fixture(scope='module')
def frames():
    return [frame.image for frame in islice(open_source(demo_clip()), FIRST, LAST)]


@pytest.fixture(scope='module')
def expected(student, frames):
    """Return the labels [frames, H, W] of float32."""
    stream = backends.load(student, 'onnxruntime', threads=1).stream()
    return np.stack([label(stream, image).labels for image in frames])


@pytest.fixture(scope='module')
def folder(tmp_path_factory, student):
    """Return a folder that has the student calibrated by the first frames of the clip."""
    folder = tmp_path_factory.mktemp('engines')
    path, count = calibrate(student, islice(open_source(demo_clip()), CALIBRATED), folder)
    assert count == CALIBRATED and path == calibrated_path(student, folder)
    return folder


@pytest.fixture(scope='module')
def quantized(student, folder):
    return onnx.load(calibrated_path(student, folder))


def labels(model, info, images):
    """
    Labels [frames, H, W] of an onnx.ModelProto that sees the images as a stream.

    A graph with Q/DQ runs as it is written, in float: the integer kernels that ONNX Runtime would
    make of it saturate on processors without VNNI, and have other numbers in float16.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    if any(node.op_type == 'QuantizeLinear' for node in model.graph.node):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    ring, result = Ring(info), []
    pool = np.zeros((1, ring.masks.shape[1], info.prototype_dim), np.float32)
    for image in images:
        scores, prototypes = session.run(['scores', 'prototypes'], {
            'image': resize_image(image, (info.height, info.width))[None], 'pool': pool,
            'pool_mask': ring.masks[ring.state][None]})
        start = ring.slot * info.num_prototypes
        pool[:, start:start + info.num_prototypes] = prototypes
        ring.advance()
        result.append(decode(scores[0], image.shape[:2])[0])
    return np.stack(result)


def ends(model):
    return [(value.name, value.type.tensor_type.elem_type, str(value.type.tensor_type.shape))
            for value in [*model.graph.input, *model.graph.output]]


def kinds(model):
    """Types of what is computed between inputs and outputs, by name."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True)
    return {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}


def constants(model):
    """Tensors of the graph, whether initializers or attributes, by name."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        found.update({f'{node.output[0]} {each.name}': each.t for each in node.attribute
                      if each.type == onnx.AttributeProto.TENSOR})
    return found


@pytest.mark.parametrize('precision', KINDS)
def test_all_but_the_ends_is_lowered(model, precision):
    before = model.SerializeToString()
    lowered = lower(model, precision)
    assert model.SerializeToString() == before
    onnx.checker.check_model(lowered)
    assert ends(lowered) == ends(model)
    assert {kind for _, kind, _ in ends(lowered)} == {TensorProto.FLOAT, TensorProto.UINT8}
    assert TensorProto.FLOAT not in {tensor.data_type for tensor in constants(lowered).values()}
    # what only the mean confidence needs stays as it is
    kept = [name for name, kind in kinds(lowered).items() if kind == TensorProto.FLOAT]
    made = {node.output[0]: node.op_type for node in lowered.graph.node}
    # bf16 is cast from bytes through float: TensorRT 10.3 knows no other way
    through = ['Cast'] if precision == 'bf16' else []
    assert sorted(made[name] for name in kept) == [*through, 'ReduceMax', 'Softmax']
    assert set(kinds(lowered).values()) == {KINDS[precision], TensorProto.FLOAT}
    assert set(kinds(model).values()) == {TensorProto.FLOAT}
    casts = [node for node in lowered.graph.node if node.op_type == 'Cast']
    # the image, pool and pool_mask, scores and prototypes
    assert len(casts) == 5 + len(through)


def test_float16_keeps_the_labels(model, student, frames, expected):
    found = labels(lower(model, 'fp16'), student.info, frames)
    assert (found == expected).mean() >= 0.995 and len(np.unique(expected)) > 4
    # the stream of these tests is the backends'
    np.testing.assert_array_equal(labels(model, student.info, frames[:3]), expected[:3])


@pytest.mark.parametrize('precision, largest', [('fp16', 65504), ('bf16', 1e9)])
def test_constants_of_any_kind_are_lowered_and_clipped_to_float16(precision, largest):
    """But for the scales of Resize, which are float32 by its definition."""
    values = np.float32([1e9, -1e9, 65504, 1.5, 0]).reshape(1, 1, 1, 5)
    node = helper.make_node
    nodes = [
        node('Constant', [], ['c'], value=numpy_helper.from_array(values, 'c')),
        node('Add', ['x', 'w'], ['a']), node('Add', ['a', 'c'], ['b']),
        node('ConstantOfShape', ['n'], ['zero']), node('Cast', ['b'], ['d'], to=TensorProto.FLOAT),
        node('Add', ['d', 'zero'], ['e']), node('Resize', ['e', '', 'scales'], ['y'])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 1, size])
            for name, size in (('x', 5), ('y', 10))]
    lowered = lower(helper.make_model(helper.make_graph(nodes, 'one', ends[:1], ends[1:], [
        numpy_helper.from_array(values, 'w'), numpy_helper.from_array(np.int64([5]), 'n'),
        numpy_helper.from_array(np.float32([1, 1, 1, 2]), 'scales')])), precision)
    onnx.checker.check_model(lowered)
    assert set(kinds(lowered).values()) == {KINDS[precision]}
    found = constants(lowered)
    assert found.pop('n').data_type == TensorProto.INT64
    assert found.pop('scales').data_type == TensorProto.FLOAT and len(found) == 3
    for name in ('w', 'c value'):
        array = numpy_helper.to_array(found[name]).astype(np.float64).reshape(-1)
        np.testing.assert_allclose(array, [largest, -largest, 65504, 1.5, 0], rtol=0.004)


def test_int8_keeps_the_labels_of_frames_it_was_not_calibrated_with(
        quantized, student, frames, expected):
    """As it is, its values are rounded to 8 bits but multiplied in float on every processor."""
    found = labels(quantized, student.info, frames)
    assert 0.98 <= (found == expected).mean() < 1       # 1: it is not quantised


def test_convolutions_but_the_first_and_the_depthwise_are_quantised(model, quantized):
    made = {node.output[0]: node for node in quantized.graph.node if node.output}
    weights = {tensor.name: tensor for tensor in quantized.graph.initializer}
    originals = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = [node for node in quantized.graph.node if node.op_type == 'Conv']
    assert len(convolutions) == 59
    floating = 0
    for number, node in enumerate(convolutions):
        groups = next((each.i for each in node.attribute if each.name == 'group'), 1)
        assert all(weights[name].data_type == TensorProto.FLOAT for name in node.input[2:])
        if number == 0 or groups > 1:
            floating += 1
            assert weights[node.input[1]].data_type == TensorProto.FLOAT
            continue
        values, weight = (made[name] for name in node.input[:2])
        assert values.op_type == weight.op_type == 'DequantizeLinear'
        assert made[values.input[0]].op_type == 'QuantizeLinear'
        assert weights[weight.input[0]].data_type == TensorProto.INT8
        whole, scales = (numpy_helper.to_array(weights[name]) for name in weight.input[:2])
        scales = scales.reshape(-1, *[1] * (whole.ndim - 1))
        before = originals[weight.input[0].removesuffix('_quantized')]
        assert len(scales) == len(whole)
        assert (np.abs(whole * scales - before) <= scales).all()    # rounded twice at most
    assert floating == 1 + 16


def test_scales_are_symmetric_and_hold_in_float16(quantized):
    weights = {tensor.name: numpy_helper.to_array(tensor)
               for tensor in quantized.graph.initializer}
    nodes = [node for node in quantized.graph.node if 'quantizelinear' in node.op_type.lower()]
    assert len(nodes) > 100
    for node in nodes:
        scale, zero = weights[node.input[1]], weights[node.input[2]]
        assert scale.min() >= 2**-14 and np.isfinite(scale.astype(np.float16)).all()
        assert zero.dtype == np.int8 and not zero.any()


def test_engine_is_built_from_the_calibrated_graph(student, folder, quantized, frames, expected):
    """Lowered to float16 around its int8."""
    built = graph_for(student, 'int8', 'sm86', folder)
    assert ends(built) == ends(quantized)
    found, before = constants(built), constants(quantized)
    assert TensorProto.FLOAT not in {each.data_type for each in found.values()}
    whole = {name: one for name, one in before.items() if one.data_type == TensorProto.INT8}
    assert len(whole) > 42 and all(found[name] == one for name, one in whole.items())
    assert built.opset_import[0].version >= 19      # Q/DQ take scales of float16 from it on
    found = labels(built, student.info, frames[:3])
    # 0.994 in ONNX Runtime 1.31, 0.972 in 1.23, the last one for Python 3.10
    assert (found == expected[:3]).mean() >= 0.96


def noise(count, size=(60, 80)):
    rng = np.random.default_rng(0)
    return (Frame(rng.integers(0, 256, (*size, 3), np.uint8), number, '', str(number))
            for number in range(count))


def test_graph_without_names_is_quantised_and_left_as_it_was(tiny):
    graph = onnx.load_model_from_string(ring_model(tiny))
    before, filters = graph.SerializeToString(), list(logging.getLogger().filters)
    assert {node.name for node in graph.graph.node} == {''}
    found = quantize(graph, [
        {'image': frame.image[None], 'pool': np.zeros((1, 16, 14), np.float32),
         'pool_mask': np.zeros((1, 16), np.float32)} for frame in noise(2, (96, 128))])
    assert graph.SerializeToString() == before and ends(found) == ends(graph)
    assert logging.getLogger().filters == filters
    weights = [node.input[0] for node in found.graph.node if node.op_type == 'DequantizeLinear']
    assert sum(name.endswith('_quantized') for name in weights) == 3    # not the first's


def test_calibration_sees_the_pool_as_the_stream_does(tiny, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(calibration, 'quantize',
                        lambda graph, inputs: (seen.extend(inputs), graph)[1])
    monkeypatch.setattr(calibration, 'MOST', 9)
    source = noise(20)
    assert calibrate(tiny, source, tmp_path)[1] == 9 and len(list(source)) == 11
    assert [int((each['pool_mask'] == 0).sum()) for each in seen] == [0, 4, 8] + [12] * 6
    for number, one in enumerate(seen):
        filled = np.abs(one['pool'].reshape(4, 4, 14)).max((1, 2)) > 0
        assert filled.sum() == min(number, 4) and one['image'].shape == (1, 96, 128, 3)


@pytest.mark.parametrize('count', [0, 7])
def test_too_few_frames_to_calibrate_with_are_counted(tiny, tmp_path, count):
    with pytest.raises(EngineError, match=f'^{count} frames are too few .*: give at least 8'):
        calibrate(tiny, noise(count), tmp_path / 'folder')
    assert not (tmp_path / 'folder').exists()


def test_bundle_that_is_not_calibrated_says_how_to_fix_it(student, tmp_path):
    with pytest.raises(EngineError, match='is not calibrated for int8 .*--calibrate') as error:
        graph_for(student, 'int8', 'sm86', tmp_path)
    assert str(student.path) in str(error.value)
    calibrated_path(student, tmp_path).write_bytes(b'damaged')
    with pytest.raises(EngineError, match='is not calibrated for int8 .*--calibrate'):
        graph_for(student, 'int8', 'sm86', tmp_path)


def test_calibration_of_another_bundle_is_refused(student, folder, tiny, tmp_path):
    data = calibrated_path(student, folder).read_bytes()
    path = calibrated_path(tiny, tmp_path)
    path.write_bytes(data)
    with pytest.raises(EngineError) as error:
        graph_for(tiny, 'int8', 'sm86', tmp_path)
    assert str(error.value) == f'{path} is of another bundle: remove it and calibrate again'


def run(model, inputs):
    """Return the outputs by name of an onnx.ModelProto, as it is."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))


@pytest.fixture(params=[{}, PLAIN], ids=['prototypes', 'plain'])
def confident(request, tmp_path):
    """Return a tiny bundle that gives its mean confidence, with prototypes or without."""
    return Bundle.load(write_tiny_bundle(
        tmp_path / 'tiny.onnx', has_confidence=True, **request.param))


@pytest.mark.parametrize('precision', [*KINDS, 'int8'])
def test_confidence_stays_in_float32(confident, tmp_path, precision):
    """Softmax and means are of the scores that the graph gives."""
    if precision == 'int8':
        calibrate(confident, noise(8), tmp_path)
    lowered = graph_for(confident, precision, 'sm86', tmp_path)
    onnx.checker.check_model(lowered)
    found = kinds(lowered)
    assert [found[name] for name in ('probabilities', 'largest')] == [TensorProto.FLOAT] * 2
    assert found['linear'] == KINDS['bf16' if precision == 'bf16' else 'fp16']
    assert {kind for _, kind, _ in ends(lowered)} == {TensorProto.FLOAT, TensorProto.UINT8}
    if precision == 'bf16':
        return      # not for ONNX Runtime on processors
    image = next(noise(1, (96, 128))).image
    pool = {value.name: np.zeros(
        [dim.dim_value for dim in value.type.tensor_type.shape.dim], np.float32)
        for value in lowered.graph.input if value.name != 'image'}
    outputs = run(lowered, {'image': image[None], **pool})
    scores = outputs['scores'][0].astype(np.float64)
    largest = 1 / np.exp(scores - scores.max(0)).sum(0)
    assert outputs['confidence'] == pytest.approx([largest.mean()], abs=1e-6)


@pytest.mark.parametrize('precision', KINDS)
def test_confidence_that_reads_more_than_the_scores_stays_in_float32(precision):
    """A value of the rest is cast, and a weight that both parts have is kept in both kinds."""
    node, weight = helper.make_node, np.float32([1 / 3])
    nodes = [node('Mul', ['x', 'third'], ['inner']), node('Relu', ['inner'], ['scores']),
             node('Mul', ['inner', 'third'], ['a']), node('Add', ['a', 'scores'], ['b']),
             node('Mul', ['b', 'own'], ['c']), node('ReduceMean', ['c'], ['confidence'])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (('x', [1, 4]), ('scores', [1, 4]), ('confidence', [1, 1]))]
    model = helper.make_model(helper.make_graph(nodes, 'one', ends[:1], ends[1:], [
        numpy_helper.from_array(weight, 'third'), numpy_helper.from_array(3 * weight, 'own')]),
        opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    lowered = lower(model, precision)
    onnx.checker.check_model(lowered, full_check=True)
    found = kinds(lowered)
    assert [found[name] for name in 'abc'] == [TensorProto.FLOAT] * 3
    assert found['inner'] == KINDS[precision]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in lowered.graph.initializer}
    assert stored['third_full'] == weight and stored['third'].dtype != np.float32


def test_plain_network_is_calibrated_and_built_of_its_own_graph(tmp_path):
    plain = Bundle.load(write_tiny_bundle(tmp_path / 'plain.onnx', **PLAIN))
    assert calibrate(plain, noise(9), tmp_path)[1] == 9
    image = next(noise(1, (96, 128))).image
    expected = NumpyStudent(info(**PLAIN)).step(image)
    for precision, share in (('fp32', 1), ('fp16', 0.99), ('int8', 0.9)):
        built = graph_for(plain, precision, 'sm86', tmp_path)
        assert [value.name for value in built.graph.input] == ['image']
        assert [value.name for value in built.graph.output] == ['scores']
        scores = run(built, {'image': image[None]})['scores'][0]
        assert (scores.argmax(0) == expected.argmax(0)).mean() >= share
    assert [value.type.tensor_type.shape.dim[0].dim_value for value in [
        *graph_for(plain, 'fp16', 'sm86', tmp_path, batch=3).graph.output]] == [3]


@pytest.mark.parametrize('precision, casts', [
    ('bf16', {TensorProto.FLOAT}), ('fp16', {TensorProto.FLOAT16})])
@pytest.mark.parametrize('which', ['tiny', 'student'])
def test_bytes_are_cast_only_to_what_tensorrt_10_converts_them_to(request, tmp_path, which,
                                                                  precision, casts):
    """NvInferRuntimeBase.h 10.3: "kUINT8 conversions are only supported for {kFLOAT, kHALF}"."""
    model = graph_for(request.getfixturevalue(which), precision, 'sm86', tmp_path)
    onnx.checker.check_model(model)
    bytes_ = {entry.name for entry in model.graph.input
              if entry.type.tensor_type.elem_type == TensorProto.UINT8}
    readers = [node for node in model.graph.node if bytes_ & set(node.input)]
    assert readers and {node.op_type for node in readers} == {'Cast'}
    assert {entry.i for node in readers for entry in node.attribute} == casts
    after = {output for node in readers for output in node.output}
    assert precision == 'fp16' or {
        entry.i for node in model.graph.node if after & set(node.input)
        for entry in node.attribute} == {TensorProto.BFLOAT16}
