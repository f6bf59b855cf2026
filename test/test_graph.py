# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Edits of a bundle's graph leave its numbers as they are."""
from dataclasses import replace
import re

import cv2
import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import pytest
from streaming import step
from tiny_bundle import (
    build_model, info, mean_confidence, NumpyStudent, PLAIN, write_tiny_bundle)

from ros_vseg import backends, graph
from ros_vseg.bundle import Bundle, EMPTY_SLOT
from ros_vseg.errors import BundleError
from ros_vseg.graph import (
    at_size, group_by_eight, parse_size, ring_model, with_batch, with_pool_frames)
from ros_vseg.positions import position_codes

onnxruntime = pytest.importorskip('onnxruntime')


def image(number, size):
    """Return a smooth image uint8 [H, W, 3] that moves with its number."""
    coarse = np.random.default_rng(1).uniform(0, 255, (7, 9, 3)).astype(np.float32)
    wide = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.roll(wide.clip(0, 255).astype(np.uint8), 9 * number, axis=1)


def run(model, inputs):
    """Return the outputs, by name, of an onnx.ModelProto, or of its bytes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else model.SerializeToString(), options,
        providers=['CPUExecutionProvider'])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))


def clip(bundle, frames=5):
    """Scores [frames, K, h, w] of a bundle's stream: with the pool empty, warming up and full."""
    stream = backends.load(bundle, 'onnxruntime', threads=1).stream()
    size = bundle.info.height, bundle.info.width
    return np.stack([step(stream, image(number, size)) for number in range(frames)])


def inputs_of(bundle, seed=0, slots=None):
    """Return inputs of one image with a full pool of what prototypes look like."""
    shapes, rng = bundle.info.shapes(), np.random.default_rng(seed)
    _, height, width, _ = shapes['image']
    pool = rng.standard_normal(shapes['pool']).astype(np.float32)
    return {'image': image(seed, (height, width))[None], 'pool': pool,
            'pool_mask': np.zeros(shapes['pool_mask'], np.float32)}


def dims(model):
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in [*model.graph.input, *model.graph.output]}


def test_own_size_is_the_bundle_itself(student, tiny):
    assert at_size(student, None) is student and at_size(student, (400, 528)) is student
    assert at_size(tiny, [96, 128]) is tiny


@pytest.mark.parametrize('size, coarse', [
    ((256, 512), (64, 128)), ((200, 264), (50, 66)), ((97, 35), (25, 9)), ((32, 32), (8, 8))])
def test_student_runs_at_another_size(student, size, coarse):
    """Also where the size is no multiple of 32, nor of the stride of the scores."""
    other = at_size(student, size)
    assert (other.info.height, other.info.width) == size and other.path == student.path
    assert replace(other.info, height=400, width=528) == student.info
    assert other.sha256 not in (student.sha256, at_size(student, (64, 64)).sha256)
    assert dims(onnx.load_model_from_string(other.model)) == other.info.shapes()
    scores = clip(other)
    assert scores.shape == (5, 11, *coarse) and np.isfinite(scores).all()
    assert scores.std() > 0.1 and np.abs(scores[4] - scores[0]).max() > 0.1


@pytest.mark.parametrize('size', [(256, 512), (200, 264), (104, 72)])
def test_numbers_at_another_size_are_the_reference_networks(tiny, size):
    reference = NumpyStudent(info(size))
    expected = np.stack([step(reference, image(number, size)) for number in range(5)])
    assert np.abs(clip(at_size(tiny, size)) - expected).max() < 1e-3


@pytest.mark.parametrize('between', [(256, 512), (200, 264), (97, 35)])
def test_way_to_another_size_and_back_changes_nothing(student, between):
    back = at_size(at_size(student, between), (400, 528))
    assert back.info == student.info
    # but for the last bits of the codes of positions, which are computed anew
    np.testing.assert_allclose(clip(back, 2), clip(student, 2), atol=1e-4)


def test_size_does_not_change_the_bundle_it_is_made_of(student):
    before = bytes(student.model)
    at_size(student, (64, 96))
    assert student.model == before and student.info.height == 400


def ring_info(bundle):
    return replace(bundle.info, pool_frames=bundle.info.pool_frames + 1)


def batch_of_two(bundle):
    model = onnx.load_model_from_string(ring_model(bundle))
    return with_batch(model, bundle.info, 2, bundle.path)


def test_batch_gives_each_image_what_it_gets_alone(student):
    wide = batch_of_two(student)
    assert dims(wide) == {
        name: [2, *shape[1:]] for name, shape in ring_info(student).shapes().items()}
    alone = [inputs_of(replace(student, info=ring_info(student)), seed) for seed in (0, 5)]
    alone[1]['pool_mask'][:, 32:] = EMPTY_SLOT
    found = run(wide, {
        name: np.concatenate([each[name] for each in alone]) for name in alone[0]})
    for number, one in enumerate(alone):
        for name, expected in run(ring_model(student), one).items():
            np.testing.assert_allclose(found[name][number], expected[0], atol=1e-3)
    assert np.abs(found['scores'][0] - found['scores'][1]).max() > 1


def test_batch_and_size_at_once(student):
    one = at_size(student, (200, 264))
    both = batch_of_two(one)
    alone = inputs_of(replace(one, info=ring_info(one)))
    found = run(both, {name: np.concatenate([values] * 2) for name, values in alone.items()})
    expected = run(ring_model(one), alone)['scores'][0]
    for scores in found['scores']:
        np.testing.assert_allclose(scores, expected, atol=1e-3)


@pytest.mark.parametrize('size', [(31, 528), (400, 16), (0, 0), (-64, 64)])
def test_size_that_is_too_small_names_the_fix(student, size):
    with pytest.raises(BundleError) as error:
        at_size(student, size)
    assert str(error.value) == (
        f'size {size[0]}x{size[1]} is too small: give at least 32x32')


@pytest.mark.parametrize('size', [(99999, 99999), (8193, 32), (32, 8193), (8192, 4097)])
def test_size_that_is_too_large_is_refused_before_it_is_built(student, monkeypatch, size):
    monkeypatch.setattr(graph, '_rewrite', None)
    said = (f'^size {size[0]}x{size[1]} is too large: give at most 8192 a side and 33554432 '
            'pixels, such as 4320x7680$')
    with pytest.raises(BundleError, match=said):
        at_size(student, size)
    with pytest.raises(BundleError, match=said):
        parse_size(f'{size[0]}x{size[1]}')


def test_size_as_text():
    assert parse_size(' 256x512\n') == (256, 512) and parse_size('8192x4096') == (8192, 4096)
    with pytest.raises(BundleError, match='^size 1000000x64 is too large'):
        parse_size('1000000x64')
    for text in ('256', '256x', '-1x64', '1e3x64', '٣x64', 'x' * 10**6):
        with pytest.raises(BundleError, match='is not HxW') as error:
            parse_size(text)
        assert len(str(error.value)) < 150


def test_graph_that_cannot_be_resized_names_the_fix(tiny):
    """The tiny one pads no image, and has a mask of its own for one image."""
    with pytest.raises(BundleError) as error:
        at_size(tiny, (100, 130))
    assert re.fullmatch(r'.*tiny.onnx cannot run at 100x130 with batch 1 \(.+\): export it at '
                        'that size', str(error.value))
    with pytest.raises(BundleError, match=r'at 96x128 with batch 2 \(.+\): export it'):
        batch_of_two(tiny)


def test_graph_whose_scores_would_have_another_shape_is_refused(tiny):
    model = onnx.load_model_from_string(tiny.model)
    last = next(node for node in model.graph.node if node.output[0] == 'scores')
    last.output[0] = 'uncut'
    for name, values in (('begin', [0, 0]), ('end', [12, 16]), ('axes', [2, 3])):
        model.graph.initializer.append(numpy_helper.from_array(np.int64(values), name))
    model.graph.node.append(
        helper.make_node('Slice', ['uncut', 'begin', 'end', 'axes'], ['scores']))
    cut = replace(tiny, model=model.SerializeToString())
    with pytest.raises(BundleError, match=r'scores is .1, 11, 12, 16., not .1, 11, 16, 20.'):
        at_size(cut, (128, 160))


@pytest.mark.parametrize('name', ['student', 'tiny'])
def test_pool_without_slots_is_an_empty_one(request, name):
    bundle = request.getfixturevalue(name)
    model = onnx.load_model_from_string(bundle.model)
    alone = with_pool_frames(model, bundle.info, 0)
    assert [value.name for value in alone.graph.input] == ['image']
    assert model.SerializeToString() == onnx.load_model_from_string(
        bundle.model).SerializeToString()
    inputs = inputs_of(bundle)
    inputs['pool_mask'][:] = EMPTY_SLOT
    expected, found = run(model, inputs), run(alone, {'image': inputs['image']})
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, atol=1e-4)
    inputs['pool_mask'][:] = 0
    assert np.abs(run(model, inputs)['scores'] - expected['scores']).max() > 0.1


@pytest.mark.parametrize('name', ['student', 'tiny'])
def test_slot_that_is_masked_changes_nothing(request, name):
    """Wherever it lies: the ring's slot at work moves."""
    bundle = request.getfixturevalue(name)
    per_frame = bundle.info.num_prototypes
    model = onnx.load_model_from_string(bundle.model)
    wider = with_pool_frames(model, bundle.info, bundle.info.pool_frames + 1)
    assert wider.SerializeToString() == ring_model(bundle)
    assert dims(wider) == replace(
        bundle.info, pool_frames=bundle.info.pool_frames + 1).shapes()
    inputs = inputs_of(bundle)
    expected = run(model, inputs)
    for slot in range(bundle.info.pool_frames + 1):
        pool, mask = (np.insert(inputs[key], [slot * per_frame] * per_frame, value, axis=1)
                      for key, value in (('pool', 9), ('pool_mask', EMPTY_SLOT)))
        for key, values in run(wider, {**inputs, 'pool': pool, 'pool_mask': mask}).items():
            np.testing.assert_allclose(values, expected[key], atol=1e-4)


def test_bundle_without_a_pool_has_no_ring(tmp_path):
    alone = Bundle.load(write_tiny_bundle(tmp_path / 'alone.onnx', context_frames=0))
    assert ring_model(alone) == alone.model
    symbolic = with_pool_frames(build_model(info(), batch='batch'), info(), 4)
    assert dims(symbolic)['pool'] == [0, 16, 14]    # 0: the batch keeps its name
    assert symbolic.graph.input[1].type.tensor_type.shape.dim[0].dim_param == 'batch'


def test_students_depthwise_convolutions_by_eight_give_the_same(student):
    model = onnx.load_model_from_string(student.model)
    expected = run(model, inputs_of(student))
    before = [attribute.i for node in model.graph.node for attribute in node.attribute
              if attribute.name == 'group']
    group_by_eight(model)
    after = [attribute.i for node in model.graph.node for attribute in node.attribute
             if attribute.name == 'group']
    assert after == [max(each // 8, 1) for each in before] and max(before) == 1152
    for name, values in run(model, inputs_of(student)).items():
        np.testing.assert_allclose(values, expected[name], atol=1e-3)


@pytest.mark.parametrize('inputs, outputs, groups, expected', [
    (16, 16, 16, 2), (8, 8, 8, 1), (12, 12, 12, 12), (16, 16, 2, 2), (16, 32, 16, 16),
    (16, 16, 1, 1)])
def test_only_depthwise_convolutions_of_whole_eights_are_rewritten(
        inputs, outputs, groups, expected):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, inputs // groups, 3, 3)).astype(np.float32)
    node = helper.make_node('Conv', ['x', 'weight'], ['y'], group=groups, pads=[1, 1, 1, 1])
    model = helper.make_model(helper.make_graph(
        [node], 'one', [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, inputs, 5, 6])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1, outputs, 5, 6])],
        [numpy_helper.from_array(weight, 'weight')]),
        opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    before, data = model.SerializeToString(), {
        'x': rng.standard_normal((1, inputs, 5, 6)).astype(np.float32)}
    group_by_eight(model)
    assert next(attribute.i for attribute in model.graph.node[0].attribute
                if attribute.name == 'group') == expected
    assert (model.SerializeToString() == before) == (expected == groups)
    np.testing.assert_allclose(run(model, data)['y'], run(before, data)['y'], atol=1e-5)


def test_position_codes_are_the_sines_and_cosines_of_cell_centres():
    codes = position_codes(3, 4)
    assert codes.shape == (16, 3, 4) and codes.dtype == np.float32
    for channel, (k, wave, axis) in enumerate(
            (k, wave, axis) for k in (1, 2, 4, 8) for axis in 'xy' for wave in (np.sin, np.cos)):
        for i in range(3):
            for j in range(4):
                where = (j + 0.5) / 4 if axis == 'x' else (i + 0.5) / 3
                assert codes[channel, i, j] == pytest.approx(3 * wave(np.pi * k * where), abs=1e-5)
    np.testing.assert_array_equal(position_codes(5, 4)[:2, 0], codes[:2, 0])    # x alone


def located(tiny, how='Expand', codes=None):
    """Return the tiny bundle with scores that positions add to, and the weights of that."""
    model, shape = onnx.load_model_from_string(tiny.model), [1, 16, 12, 16]
    codes = position_codes(*shape[2:])[None] if codes is None else codes
    where = np.random.default_rng(2).standard_normal((11, 16, 1, 1)).astype(np.float32)
    place = [node.output[0] for node in model.graph.node].index('scores')
    model.graph.node[place].output[0] = 'before'
    model.graph.initializer.extend([
        numpy_helper.from_array(codes, 'positions'), numpy_helper.from_array(where, 'where'),
        numpy_helper.from_array(np.int64(shape), 'expanded')])
    for node in (
            helper.make_node('Add', ['before', 'bias'], ['scores']),
            helper.make_node('Conv', ['places', 'where'], ['bias']),
            helper.make_node('Expand', ['positions', 'expanded'], ['places'])
            if how == 'Expand' else helper.make_node('Concat', ['positions'], ['places'], axis=0)):
        model.graph.node.insert(place + 1, node)
    return replace(tiny, model=model.SerializeToString()), where[:, :, 0, 0]


@pytest.mark.parametrize('how', ['Expand', 'Concat'])
@pytest.mark.parametrize('size', [(96, 128), (128, 64), (200, 264)])
def test_positions_follow_the_size(tiny, size, how):
    bundle, where = located(tiny, how)
    reference, grid = NumpyStudent(info(size)), (size[0] // 8, size[1] // 8)
    bias = np.einsum('kp,phw->khw', where, position_codes(*grid))
    assert np.abs(bias).max() > 5
    expected = [step(reference, image(number, size)) + bias for number in range(2)]
    other = at_size(bundle, size)
    assert np.abs(clip(other, 2) - expected).max() < 1e-3
    held, = [tensor for tensor in onnx.load_model_from_string(other.model).graph.initializer
             if tensor.name == 'positions']
    assert list(held.dims) == [1, 16, *grid]
    back = at_size(other, (96, 128))
    np.testing.assert_array_equal(clip(back, 2), clip(bundle, 2))


@pytest.mark.parametrize('codes', [
    2 * position_codes(12, 16)[None], position_codes(12, 16)[None, ::-1].copy()])
def test_positions_of_another_kind_are_refused_at_another_size(tiny, codes):
    bundle, _ = located(tiny, codes=codes)
    with pytest.raises(BundleError, match='tiny.onnx has positions of its own kind: export it at '
                                          '128x64'):
        at_size(bundle, (128, 64))


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """Return a bundle without prototypes that gives its mean confidence."""
    return Bundle.load(write_tiny_bundle(
        tmp_path_factory.mktemp('plain') / 'plain.onnx', has_confidence=True, **PLAIN))


@pytest.mark.parametrize('size', [(96, 128), (200, 264)])
def test_network_without_prototypes_at_another_size(plain, size):
    other = at_size(plain, size)
    assert dims(onnx.load_model_from_string(other.model)) == other.info.shapes()
    picture = image(3, size)
    found = run(other.model, {'image': picture[None]})
    expected = NumpyStudent(other.info).step(picture)
    assert np.abs(found['scores'][0] - expected).max() < 1e-3
    assert found['confidence'] == pytest.approx([mean_confidence(expected)], abs=1e-5)


def test_network_without_prototypes_for_several_images(plain):
    assert ring_model(plain) == plain.model
    pictures = np.stack([image(0, (96, 128)), image(30, (96, 128))])
    found = run(batch_of_two(plain), {'image': pictures})
    for number, picture in enumerate(pictures):
        alone = run(plain.model, {'image': picture[None]})
        np.testing.assert_allclose(found['scores'][number], alone['scores'][0], atol=1e-4)
        np.testing.assert_allclose(found['confidence'][number], alone['confidence'][0], atol=1e-5)
    assert abs(found['confidence'][0] - found['confidence'][1]) > 1e-4


def test_positions_of_one_image_serve_several(plain):
    bundle, _ = located(plain)
    pictures = np.stack([image(0, (96, 128)), image(30, (96, 128))])
    found = run(batch_of_two(bundle), {'image': pictures})['scores']
    for number, picture in enumerate(pictures):
        expected = run(bundle.model, {'image': picture[None]})['scores'][0]
        np.testing.assert_allclose(found[number], expected, atol=1e-4)


def test_edited_graph_does_not_state_the_hash_of_the_file(plain):
    other = onnx.load_model_from_string(at_size(plain, (64, 64)).model)
    assert [entry.key for entry in other.metadata_props] == ['vseg']
