# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Bundles: what is written is read back, and a bad file is named with its fault."""
import hashlib
import json
import os

import numpy as np
import onnx
from onnx import numpy_helper
import pytest
from tiny_bundle import build_model, info, PLAIN, write_tiny_bundle

from ros_vseg import bundle as bundle_module
from ros_vseg.bundle import Bundle, BundleInfo, default_bundle_path, write_bundle
from ros_vseg.errors import BundleError, LabelSetError


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('bundle') / 'tiny.onnx')


@pytest.fixture(scope='module')
def tree():
    return info().to_dict()


def changed(tree, key, value):
    """Return a copy of the tree with one dotted key set, or removed where value is ``...``."""
    tree = json.loads(json.dumps(tree))
    *parents, last = key.split('.')
    node = tree
    for parent in parents:
        node = node[int(parent) if isinstance(node, list) else parent]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return tree


def write_raw(path, metadata, model=None):
    """Write a whole ONNX file whose ``vseg`` property is the given text, without any check."""
    model = model or build_model(info())
    onnx.helper.set_model_props(model, {'vseg': metadata})
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    onnx.helper.set_model_props(model, {'vseg': metadata, 'vseg_sha256': digest})
    path.write_bytes(model.SerializeToString())
    return path


def refusal(path):
    """Return the message with which a file is refused; it must name the file."""
    with pytest.raises(BundleError) as error:
        Bundle.load(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_round_trip(tmp_path):
    written = info(size=(64, 160), context_frames=2, color_order='bgr', label_set='cityscapes',
                   trained_on={'data': ['a', 'b'], 'steps': 7}, metrics={'miou': 0.5},
                   license='CC-BY-4.0')
    path = tmp_path / 'deep' / 'student.onnx'
    write_bundle(build_model(written), written, path)
    bundle = Bundle.load(str(path))
    assert bundle.info == written
    assert bundle.num_classes == 19
    assert bundle.path == path
    assert bundle.model == path.read_bytes()
    assert bundle.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert os.listdir(path.parent) == ['student.onnx']


def test_metadata_is_the_documented_json(path):
    properties = {p.key: p.value for p in onnx.load(path).metadata_props}
    tree = json.loads(properties['vseg'])
    assert set(tree) == {'format_version', 'name', 'label_set', 'input', 'output_stride',
                         'prototypes', 'trained_on', 'metrics', 'license'}
    assert tree['format_version'] == 2
    assert tree['input'] == {'height': 96, 'width': 128, 'color_order': 'rgb'}
    assert tree['output_stride'] == 8
    assert tree['prototypes'] == {'N': 4, 'C': 8, 'T': 3, 'D': 14}
    assert tree['label_set']['classes'][3] == {
        'id': 3, 'name': 'road', 'color': [128, 64, 128]}


def test_writing_keeps_the_weights(path):
    stored = {tensor.name: numpy_helper.to_array(tensor)
              for tensor in onnx.load(path).graph.initializer}
    expected = build_model(info()).graph.initializer
    assert len(stored) == len(expected) > 6
    for each in expected:
        np.testing.assert_array_equal(stored[each.name], numpy_helper.to_array(each))


def test_shapes_round_up():
    assert info(size=(97, 130)).shapes() == {
        'image': [1, 97, 130, 3], 'scores': [1, 11, 13, 17], 'prototypes': [1, 4, 14],
        'pool': [1, 12, 14], 'pool_mask': [1, 12]}
    assert set(info(context_frames=0).shapes()) == {'image', 'scores', 'prototypes'}
    assert info(**PLAIN, has_confidence=True).shapes() == {
        'image': [1, 96, 128, 3], 'scores': [1, 11, 12, 16], 'confidence': [1]}


@pytest.mark.parametrize('batch', [1, 'batch'])
@pytest.mark.parametrize('context_frames', [0, 1])
def test_batch_may_be_fixed_or_symbolic(tmp_path, batch, context_frames):
    path = write_tiny_bundle(tmp_path / 'b.onnx', batch=batch, context_frames=context_frames)
    assert Bundle.load(path).info.pool_frames == context_frames


def test_missing_file(tmp_path):
    assert 'No such file' in refusal(tmp_path / 'none.onnx')


def test_folder_instead_of_file(tmp_path):
    assert 'directory' in refusal(tmp_path)


@pytest.mark.parametrize('keep', [0, 1, 100, 0.5, -1])
def test_truncated(tmp_path, path, keep):
    data = path.read_bytes()
    cut = tmp_path / 'cut.onnx'
    cut.write_bytes(data[:int(len(data) * keep) if isinstance(keep, float) else keep])
    refusal(cut)


@pytest.mark.parametrize('content', [
    b'hello, I am no network\n' * 20, b'\x89PNG\r\n\x1a\n' + bytes(200), bytes(1000)])
def test_other_files(tmp_path, content):
    other = tmp_path / 'other.onnx'
    other.write_bytes(content)
    assert f'not an ONNX file, or is damaged or truncated ({len(content)} bytes)' in refusal(other)


def test_name_that_no_file_can_have(tmp_path):
    assert 'cannot be read (embedded null byte)' in refusal(tmp_path / 'a\0b.onnx')
    with pytest.raises(BundleError, match='cannot be written .*null byte'):
        write_tiny_bundle(tmp_path / 'a\0b.onnx')
    assert os.listdir(tmp_path) == []


def test_onnx_without_metadata(tmp_path):
    plain = tmp_path / 'plain.onnx'
    plain.write_bytes(build_model(info()).SerializeToString())
    assert "not a bundle: it has no 'vseg' metadata" in refusal(plain)


@pytest.mark.parametrize('text', ['', '{', 'name: tiny'])
def test_metadata_that_is_not_json(tmp_path, text):
    assert 'not JSON' in refusal(write_raw(tmp_path / 'b.onnx', text))


@pytest.mark.parametrize('text', ['[]', '3', 'null'])
def test_metadata_that_is_no_object(tmp_path, text):
    assert 'wrong metadata at metadata' in refusal(write_raw(tmp_path / 'b.onnx', text))


@pytest.mark.parametrize('key', [
    'name', 'format_version', 'label_set', 'label_set.void_id', 'input', 'input.height',
    'input.color_order', 'output_stride', 'prototypes.N', 'prototypes.D', 'rates.min',
    'trained_on', 'metrics', 'license'])
def test_missing_key(tmp_path, tree, key):
    tree = {**tree, 'rates': {'min': 5, 'max': 30}}
    text = json.dumps(changed(tree, key, ...))
    last = key.split('.')[-1]
    assert f"'{last}' is a required property" in refusal(write_raw(tmp_path / 'b.onnx', text))


@pytest.mark.parametrize('key, value', [
    ('name', 3), ('name', ''), ('format_version', 0), ('format_version', '1'),
    ('input.height', 96.5), ('input.height', 0), ('input.color_order', 'grb'),
    ('output_stride', 'eight'), ('prototypes.N', 0), ('prototypes.T', -1),
    ('label_set.classes', []), ('label_set.classes.0.color', [0, 0]),
    ('label_set.void_id', 256), ('trained_on', 'camvid'), ('license', None),
    ('prototypes', None), ('rates', [5, 30]), ('rates.min', 0), ('rates.max', '30'),
    ('temperature', 0), ('temperature', -1.5), ('temperature', None),
    ('format_version', True), ('input.width', True), ('prototypes.N', True),
    ('label_set.void_id', True), ('output_stride', True), ('rates.max', True),
    ('temperature', True)])
def test_wrong_value_is_named(tmp_path, tree, key, value):
    tree = {**tree, 'rates': {'min': 5, 'max': 30}, 'temperature': 1.5}
    text = json.dumps(changed(tree, key, value))
    assert f'wrong metadata at {key}: ' in refusal(write_raw(tmp_path / 'b.onnx', text))


@pytest.mark.parametrize('key, value, reason', [
    ('label_set.void_id', 3, 'void id 3'),
    ('label_set.classes.1.id', 12, 'ids'),
    ('label_set.classes.1.name', 'sky', 'differ')])
def test_label_set_that_contradicts_itself(tmp_path, tree, key, value, reason):
    assert reason in refusal(write_raw(
        tmp_path / 'b.onnx', json.dumps(changed(tree, key, value))))


def test_newer_format(tmp_path, tree):
    tree = {**changed(tree, 'format_version', 3), 'license': ['what comes after']}
    message = refusal(write_raw(tmp_path / 'b.onnx', json.dumps(tree)))
    assert 'has format 3, but this ros_vseg reads up to 2: update ros_vseg' in message


@pytest.mark.parametrize('metrics, reason', [
    ('{"miou": NaN}', 'nan is not a finite number'),
    ('{"miou": [[-Infinity]]}', '-inf is not a finite number'),
    ('{"miou": 1e999}', 'inf is not a finite number'),
    ('{"miou": 1' + '0' * 400 + '}', 'a whole number has more than 64 bits'),
    ('{"miou": 1' + '0' * 5000 + '}', ''),    # Python 3.11 does not even read it
    ('{"miou": ' + '[' * 60 + ']' * 60 + '}', 'nested more than 50 levels deep'),
    ('{"miou": ' + '[' * 200000 + ']' * 200000 + '}', 'nested too deeply'),
    ('{"miou": ' + '{"a":' * 900 + '1' + '}' * 900 + '}', 'nested')])
def test_numbers_and_nesting_that_nothing_can_handle(tmp_path, tree, metrics, reason):
    text = json.dumps(changed(tree, 'metrics', 'HERE')).replace('"HERE"', metrics)
    message = refusal(write_raw(tmp_path / 'b.onnx', text))
    assert reason in message and 'export it again' in message and len(message) < 300


@pytest.mark.parametrize('rates', [(30, 5), (30.0, 29.9)])
def test_rates_in_the_wrong_order(tmp_path, tree, rates):
    text = json.dumps({**tree, 'rates': {'min': rates[0], 'max': rates[1]}})
    assert f'at rates: min {rates[0]} is above max {rates[1]}' in refusal(
        write_raw(tmp_path / 'b.onnx', text))


@pytest.mark.parametrize('values', [{'metrics': {'miou': float('nan')}}, {'rates': (0, 30)},
                                    {'temperature': float('inf')}, {'rates': (40, 30)},
                                    {'num_prototypes': 0}])
def test_wrong_numbers_are_not_written(tmp_path, values):
    with pytest.raises(BundleError, match='new bundle has wrong metadata'):
        write_bundle(build_model(info()), info(**values), tmp_path / 'b.onnx')
    assert os.listdir(tmp_path) == []


def test_rates_and_temperature_are_kept(tmp_path):
    path = write_tiny_bundle(tmp_path / 'b.onnx', rates=(5, 60.5), temperature=2)
    found = Bundle.load(path).info
    assert (found.rates, found.temperature) == ((5.0, 60.5), 2.0)
    assert found.to_dict()['rates'] == {'min': 5.0, 'max': 60.5}
    plain = Bundle.load(write_tiny_bundle(path)).info
    assert (plain.rates, plain.temperature) == (None, None)
    assert not {'rates', 'temperature'} & set(plain.to_dict())


def test_whole_floats_are_whole_numbers(tmp_path, tree):
    """As JSON schema has it."""
    found = Bundle.load(write_raw(
        tmp_path / 'b.onnx', json.dumps(changed(tree, 'input.height', 96.0)))).info
    assert found == info() and isinstance(found.height, int)


@pytest.mark.parametrize('has_confidence', [False, True])
@pytest.mark.parametrize('changes', [PLAIN, {'context_frames': 0}, {}])
def test_prototypes_pool_and_confidence_may_be_absent(tmp_path, changes, has_confidence):
    path = write_tiny_bundle(tmp_path / 'b.onnx', has_confidence=has_confidence, **changes)
    bundle = Bundle.load(path)
    assert bundle.info == info(has_confidence=has_confidence, **changes)
    assert bundle.has_confidence == has_confidence
    assert ('prototypes' in bundle.info.to_dict()) == (changes is not PLAIN)
    if changes is PLAIN:
        found = bundle.info
        assert (found.num_prototypes, found.channels, found.pool_frames, found.prototype_dim) == (
            0, 0, 0, 0)


def test_plain_metadata_with_a_graph_that_has_prototypes(tmp_path, tree):
    message = refusal(write_raw(tmp_path / 'b.onnx', json.dumps(changed(tree, 'prototypes', ...))))
    assert 'graph and metadata differ in pool, pool_mask, prototypes' in message


@pytest.mark.parametrize('dims, kind', [
    ([2], onnx.TensorProto.FLOAT), ([1, 1], onnx.TensorProto.FLOAT), ([], onnx.TensorProto.FLOAT),
    ([1], onnx.TensorProto.DOUBLE)])
def test_confidence_of_another_kind(tmp_path, tree, dims, kind):
    model = build_model(info(has_confidence=True))
    model.graph.output.pop()
    model.graph.output.append(onnx.helper.make_tensor_value_info('confidence', kind, dims))
    message = refusal(write_raw(tmp_path / 'b.onnx', json.dumps(tree), model))
    assert 'confidence is ' in message and 'in the graph' in message


@pytest.mark.parametrize('key, value, name', [
    ('prototypes.N', 5, 'prototypes is [1, 4, 14]'), ('prototypes.T', 2, 'pool is [1, 12, 14]'),
    ('prototypes.T', 0, 'pool, pool_mask'), ('prototypes.D', 15, 'prototypes is [1, 4, 14]'),
    ('input.height', 104, 'image is [1, 96, 128, 3]'), ('input.width', 64, 'image is'),
    ('output_stride', 4, 'scores is [1, 11, 12, 16]')])
def test_graph_that_contradicts_the_metadata(tmp_path, tree, key, value, name):
    message = refusal(write_raw(tmp_path / 'b.onnx', json.dumps(changed(tree, key, value))))
    assert name in message and 'graph' in message


def test_graph_with_another_number_of_classes(tmp_path, tree):
    cityscapes = info(label_set='cityscapes').to_dict()['label_set']
    text = json.dumps({**tree, 'label_set': cityscapes})
    assert ('scores is [1, 11, 12, 16] in the graph, but [1, 19, 12, 16] by the metadata'
            in refusal(write_raw(tmp_path / 'b.onnx', text)))


@pytest.mark.parametrize('name, kind, right', [
    ('image', onnx.TensorProto.FLOAT, 'UINT8'), ('pool', onnx.TensorProto.FLOAT16, 'FLOAT')])
def test_graph_with_another_type(tmp_path, tree, name, kind, right):
    model = build_model(info())
    [value] = [value for value in model.graph.input if value.name == name]
    value.type.tensor_type.elem_type = kind
    message = refusal(write_raw(tmp_path / 'b.onnx', json.dumps(tree), model))
    assert f'{name} is not {right} in the graph' in message


def test_graph_with_a_fixed_larger_batch(tmp_path, tree):
    message = refusal(write_raw(
        tmp_path / 'b.onnx', json.dumps(tree), build_model(info(), batch=2)))
    assert 'image is [2, 96, 128, 3] in the graph' in message


def test_writing_refuses_what_loading_would(tmp_path):
    path = tmp_path / 'b.onnx'
    with pytest.raises(BundleError, match='image is .* in the graph'):
        write_bundle(build_model(info()), info(size=(64, 64)), path)
    with pytest.raises(BundleError, match='color_order'):
        write_bundle(build_model(info()), info(color_order='grey'), path)
    assert os.listdir(tmp_path) == []


def test_info_of_a_newer_format_is_not_written(tmp_path):
    with pytest.raises(BundleError, match='format 3'):
        write_bundle(build_model(info()), info(format_version=3), tmp_path / 'b.onnx')


@pytest.mark.parametrize('fails', ['write', 'replace'])
def test_write_is_whole_or_nothing(tmp_path, path, monkeypatch, fails):
    target = tmp_path / 'b.onnx'
    target.write_bytes(path.read_bytes())

    def full_disk(*args):
        raise OSError(28, 'No space left on device')

    if fails == 'write':
        monkeypatch.setattr(bundle_module.Path, 'write_bytes', full_disk)
    else:
        monkeypatch.setattr(os, 'replace', full_disk)
    with pytest.raises(BundleError, match=r'b.onnx cannot be written \(No space left'):
        write_tiny_bundle(target, seed=5)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ['b.onnx']
    assert target.read_bytes() == path.read_bytes()


def test_unwritable_folder(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(BundleError, match='cannot be written'):
        write_tiny_bundle(tmp_path / 'file' / 'b.onnx')
    assert os.listdir(tmp_path) == ['file']


def test_label_set_errors_are_bundle_errors_only_for_bundles(tree):
    broken = changed(tree, 'label_set.void_id', 3)
    with pytest.raises(BundleError):
        BundleInfo.from_dict(broken)
    with pytest.raises(LabelSetError):
        type(info().label_set).from_dict(broken['label_set'])


def test_shipped_student_does_not_tell_of_the_machine_that_exported_it():
    data = default_bundle_path().read_bytes()
    assert b'site-packages' not in data and b'File "' not in data
