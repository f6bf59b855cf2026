# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that become no bundle, and what is said of them; black and white tell them too."""
from dataclasses import replace
from pathlib import Path

import networks_to_wrap as networks
import numpy as np
import onnx
from onnx import helper, TensorProto
import pytest
from test_wrap import ANY, CAMVID, IMAGE, MEAN, SIZE, STD, two_classes, wrapped as of_camvid

from ros_vseg.errors import BundleError
from ros_vseg.labels import LabelSet
from ros_vseg.scores import comes_from_sigmoid, recognise
from ros_vseg.wrap import Options, wrap

FOUR = LabelSet('four', tuple('abcd'), tuple((number, 0, 0) for number in range(4)))
PIXELS = Options(mean=[0], std=[1], scale=255)
MAP: networks.Shape = [1, 1, 64, 96]


def of_brightness(net: networks.Net, operations: list[tuple[str, list[float]]]) -> str:
    """Add operations on the mean of the channels, one after the other; return the output."""
    tensor = net.add('ReduceMean', ['image', net.constant('axes', np.array([1]))], 'grey')
    for number, (operator, values) in enumerate(operations):
        more = [net.constant(f'value_{number}', np.float32(value)) for value in values]
        tensor = net.add(operator, [tensor, *more], f'step_{number}')
    return tensor


def wrapped(operations: list[tuple[str, list[float]]], options: Options, folder) -> tuple:
    net = networks.Net()
    output = of_brightness(net, operations)
    model = net.model({'image': [1, 3, 64, 96]}, {output: (MAP, TensorProto.FLOAT)})
    (folder / 'network.onnx').write_bytes(model.SerializeToString())
    return wrap(folder / 'network.onnx', folder / 'b.onnx', FOUR, options)


def test_labels_of_white_are_looked_at(tmp_path):
    """Only where the picture is white has this network a label that no class has."""
    steps = [('Div', [64]), ('Floor', [])]
    assert wrapped(steps, replace(PIXELS, kind='labels'), tmp_path)[1] == 'labels'
    bright = [('Div', [63]), ('Floor', [])]
    with pytest.raises(BundleError, match='labels from 0.0 to 4.0, but the label set has 4'):
        wrapped(bright, replace(PIXELS, kind='labels'), tmp_path)


def test_fractions_are_no_labels(tmp_path):
    with pytest.raises(BundleError, match='no whole numbers'):
        wrapped([('Div', [100])], replace(PIXELS, kind='labels'), tmp_path)


def test_what_is_not_finite_for_black_is_refused(tmp_path):
    net = networks.Net()
    output = of_brightness(net, [('Log', [])])
    model = net.model({'image': [1, 3, 64, 96]}, {output: (MAP, TensorProto.FLOAT)})
    (tmp_path / 'network.onnx').write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r'not finite for some pictures \(black'):
        wrap(tmp_path / 'network.onnx', tmp_path / 'b.onnx', two_classes(),
             replace(PIXELS, kind='logits'))


def test_the_grid_that_fits_tells_the_classes_axis():
    """A grid of four rows, in a network of four classes."""
    last = np.random.default_rng(0).normal(size=(1, 4, 6, 4)).astype(np.float32)
    for axes in ((1, 3), (3, 1)):
        scores = recognise([last], 4, axes, None, 'it', False, (32, 48))
        assert (scores.axis, scores.grid) == (3, (4, 6))
        first = recognise([last], 4, axes, None, 'it', False, (48, 32))
        assert (first.axis, first.grid) == (1, (6, 4))


@pytest.mark.parametrize('operator', ['Clip', 'Min', 'Max'])
def test_a_limited_sigmoid_is_one(operator):
    net = networks.Net()
    tensor = net.add('Sigmoid', ['image'], 'sigmoid')
    limits = [net.constant(f'limit_{number}', np.float32(value))
              for number, value in enumerate([0.1, 0.9][:2 if operator == 'Clip' else 1])]
    net.add(operator, [tensor, *limits], 'limited')
    model = net.model({'image': [1, 3, 64, 96]}, {'limited': ([1, 3, 64, 96], TensorProto.FLOAT)})
    assert comes_from_sigmoid(model, 'limited')


def refusal(tmp_path: Path, model: onnx.ModelProto, **options: object) -> str:
    with pytest.raises(BundleError) as error:
        of_camvid(tmp_path, model, **options)
    assert '\n' not in str(error.value) and len(str(error.value)) < 400
    assert not (tmp_path / 'bundle.onnx').exists()
    return str(error.value)


@pytest.mark.parametrize('shape, options, reason', [
    (ANY, {}, r'image is [N, 3, H, W]: its height or width is open: give --size HxW'),
    ([1, 3, 64, 'W'], {}, 'height or width is open'),
    ([1, 3, 64, 'W'], {'size': (32, 96)}, 'cannot run at 32x96: leave --size out'),
    (IMAGE, {'size': (96, 64)}, 'cannot run at 96x64'),
    (ANY, {'size': (0, 64)}, 'size 0x64 is too small'),
    (ANY, {'size': (4, 4)}, 'cannot run in onnxruntime'),
    ([2, 3, *SIZE], {}, 'export the network for one image at a time'),
    (IMAGE, {'layout': 'nhwc'}, 'not nhwc with 3 channels: give --layout nchw'),
    (IMAGE, {'mean': ()}, 'give --mean as the network was trained with'),
    (IMAGE, {'std': (1, 2)}, 'give --std as the network was trained with'),
    (IMAGE, {'std': (0.2, 0, 0.2)}, '--std 0.2 0 0.2 is not above 0'),
    (IMAGE, {'mean': (float('nan'),)}, 'give --mean'),
    (IMAGE, {'mean': (0,), 'std': (1,)}, 'give --scale 1 or --scale 255'),
    (IMAGE, {'scores': 'out'}, "has no output 'out': its outputs are scores"),
    (IMAGE, {'scores': 'image'}, "has no output 'image'"),
    (IMAGE, {'kind': 'labels'}, 'is [1, 11, 8, 12], not a label map')])
def test_what_cannot_be_wrapped(tmp_path, shape, options, reason):
    assert reason in refusal(tmp_path, networks.small(11, shape), **options)


def test_several_outputs_are_listed(tmp_path):
    message = refusal(tmp_path, networks.fcn(11, IMAGE))
    assert ('has 2 outputs (out [1, 11, 64, 96], aux [1, 11, 64, 96]): name the one with the '
            'scores by --scores NAME') in message


@pytest.mark.parametrize('end', ['', 'Softmax', 'ArgMax'])
@pytest.mark.parametrize('classes', [10, 12, 19])
def test_wrong_number_of_classes(tmp_path, end, classes):
    message = refusal(tmp_path, networks.small(classes, IMAGE, end=end))
    assert (f'is [1, {classes}, 8, 12], but the label set has 11 classes: give the '
            "network's own classes by --classes") in message


def test_label_beyond_the_classes(tmp_path):
    message = refusal(tmp_path, networks.small(40, IMAGE, end='TopK', stride=1))
    assert 'has labels from ' in message and 'but the label set has 11 classes' in message


def test_several_inputs(tmp_path):
    model = networks.small(11, IMAGE)
    model.graph.input.append(helper.make_tensor_value_info('pool', TensorProto.FLOAT, [1]))
    assert 'has 2 inputs (image, pool)' in refusal(tmp_path, model)


@pytest.mark.parametrize('shape, kind, reason', [
    ([3, 64, 96], TensorProto.FLOAT, 'only images of four axes'),
    ([1, 1, 64, 96], TensorProto.FLOAT, 'only networks for colour images'),
    (IMAGE, TensorProto.INT64, 'of type INT64: only FLOAT, FLOAT16 and UINT8')])
def test_inputs_of_another_kind(tmp_path, shape, kind, reason):
    model = networks.small(11, IMAGE)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info('image', kind, shape))
    assert reason in refusal(tmp_path, model)


def test_output_of_another_rank(tmp_path):
    net = networks.Net()
    net.add('ReduceMean', ['image'], 'scores', keepdims=0)
    model = net.model({'image': IMAGE}, {'scores': (None, TensorProto.FLOAT)})
    assert 'is [] of float32, neither scores [1, 11, h, w] nor whole numbers' in refusal(
        tmp_path, model)


def test_a_sequence_is_no_output(tmp_path):
    model = networks.small(11, IMAGE)
    model.graph.node.append(helper.make_node('SequenceConstruct', ['scores'], ['list']))
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info(
        'list', TensorProto.FLOAT, None))
    assert ('output list is seq(tensor(float)), no tensor of numbers: choose another one by '
            '--scores') in refusal(tmp_path, model)


def test_texts_are_no_scores(tmp_path):
    model = networks.small(11, IMAGE)
    model.graph.node.append(helper.make_node(
        'Cast', ['scores'], ['texts'], to=TensorProto.STRING))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(
        'texts', TensorProto.STRING, None))
    assert 'output texts is tensor(string), no tensor of numbers' in refusal(tmp_path, model)


def test_columns_are_not_taken_for_classes(tmp_path):
    """Ten classes on a grid of 11 columns are none for a label set of 11."""
    message = refusal(tmp_path, networks.small(10, [1, 3, 64, 88]))
    assert 'is [1, 10, 8, 11], but the label set has 11 classes' in message


def test_one_channel_that_is_never_negative_may_be_a_probability(tmp_path):
    model = networks.ending(1, IMAGE, [('Sigmoid', {}), ('Mul', {'values': [255]})])
    assert 'not clear of what: give --kind' in refusal(tmp_path, model, label_set=two_classes())


def test_operator_that_nobody_knows(tmp_path):
    model = networks.small(11, IMAGE)
    model.graph.node[1].op_type, model.graph.node[1].domain = 'Riddle', 'nowhere'
    model.opset_import.append(helper.make_opsetid('nowhere', 1))
    assert 'cannot run in onnxruntime' in refusal(tmp_path, model)


@pytest.mark.parametrize('content', [b'', b'hello, I am not a network\n' * 20, bytes(1000)])
def test_other_files(tmp_path, content):
    path = tmp_path / 'network.onnx'
    path.write_bytes(content)
    with pytest.raises(BundleError, match='network.onnx is not an ONNX file'):
        wrap(path, tmp_path / 'bundle.onnx', CAMVID, Options(MEAN, STD))
    with pytest.raises(BundleError, match='nothing.onnx cannot be read .No such file'):
        wrap(tmp_path / 'nothing.onnx', tmp_path / 'bundle.onnx', CAMVID, Options(MEAN, STD))


def test_bundle_is_not_wrapped_again(tmp_path, bundle):
    with pytest.raises(BundleError, match='is a bundle already'):
        wrap(bundle, tmp_path / 'bundle.onnx', CAMVID, Options())


def test_the_network_is_never_written_over(tmp_path):
    path = tmp_path / 'network.onnx'
    path.write_bytes(b'a network')
    with pytest.raises(BundleError, match='is the network itself'):
        wrap(path, tmp_path / '.' / 'network.onnx', FOUR, PIXELS)
    assert path.read_bytes() == b'a network'


def test_one_class_alone_is_refused():
    with pytest.raises(BundleError, match='of the one class everywhere: give --classes two'):
        recognise([np.zeros((1, 1, 8, 8), np.float32)], 1, (1, 3), None, 'n', True, (8, 8))
