# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a network says of black, white and noise is looked at before it becomes a bundle."""
from dataclasses import replace

import networks_to_wrap as networks
import numpy as np
from onnx import TensorProto
import pytest

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
    two = LabelSet('two', ('a', 'b'), ((0, 0, 0), (1, 0, 0)))
    net = networks.Net()
    output = of_brightness(net, [('Log', [])])
    model = net.model({'image': [1, 3, 64, 96]}, {output: (MAP, TensorProto.FLOAT)})
    (tmp_path / 'network.onnx').write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r'not finite for some pictures \(black'):
        wrap(tmp_path / 'network.onnx', tmp_path / 'b.onnx', two, replace(PIXELS, kind='logits'))


def test_the_grid_that_fits_tells_the_classes_axis():
    """A grid of four rows, in a network of four classes."""
    last = np.random.default_rng(0).normal(size=(1, 4, 6, 4)).astype(np.float32)
    for layout in ('nchw', 'nhwc'):
        scores = recognise([last], 4, layout, None, 'it', False, (32, 48))
        assert (scores.axis, scores.grid) == (3, (4, 6))
        first = recognise([last], 4, layout, None, 'it', False, (48, 32))
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
