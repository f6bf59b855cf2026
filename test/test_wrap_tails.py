# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""However a network ends, its bundle gives the network's own labels."""
from typing import Any

import networks_to_wrap as networks
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from test_wrap import BACKENDS, by_hand, IMAGE, image, label, SIZE, two_classes, wrapped

from ros_vseg.decode import decode
from ros_vseg.engines.engine import graph_for
from ros_vseg.labels import LabelSet
from ros_vseg.resize import resize_image

Step = tuple[str, dict[str, Any]]
CAMERA = 150, 217       # neither the network's size nor its proportions


def resize(mode: str = 'linear', coordinates: str = 'half_pixel', **more: Any) -> Step:
    return 'Resize', {'mode': mode, 'coordinate_transformation_mode': coordinates,
                      **(more or {'size': SIZE})}


SOFTMAX, SIGMOID, ARGMAX = ('Softmax', {'axis': 1}), ('Sigmoid', {}), ('ArgMax', {'axis': 1})
LAST = ('Transpose', {'perm': [0, 2, 3, 1]})
RESIZES = {f'{mode}, {coordinates}': resize(mode, coordinates) for mode, coordinates in (
    *((mode, coordinates) for mode in ('linear', 'cubic', 'nearest')
      for coordinates in ('half_pixel', 'align_corners', 'asymmetric')),
    ('linear', 'pytorch_half_pixel'), ('linear', 'half_pixel_symmetric'),
    ('nearest', 'tf_half_pixel_for_nn'))}
TAILS: dict[str, list[Step]] = {
    'resize': [resize()],
    'softmax, resize': [SOFTMAX, resize()],
    'softmax, resize, argmax': [SOFTMAX, resize(), ARGMAX],
    'sigmoid, resize': [SIGMOID, resize()],
    'sigmoid, resize, argmax': [SIGMOID, resize(), ARGMAX],
    'resize, softmax': [resize(), SOFTMAX],
    'resize, softmax, argmax': [resize(), SOFTMAX, ARGMAX],
    'resize, argmax': [resize(), ARGMAX],
    'resize, argmax of 3 axes': [resize(), ('ArgMax', {'axis': -3, 'keepdims': 0})],
    'logsoftmax, resize': [('LogSoftmax', {'axis': 1}), resize()],
    'resize, logsoftmax': [resize(), ('LogSoftmax', {'axis': 1})],
    'softmax, resize, last': [SOFTMAX, resize(), LAST],
    'softmax, resize, last, argmax': [SOFTMAX, resize(), LAST, ('ArgMax', {'axis': 3})],
    'last, softmax': [resize(), LAST, ('Softmax', {'axis': 3})],
    'clip, resize': [('Clip', {'values': [-0.5, 0.5]}), resize()],
    'softmax, clip, resize': [SOFTMAX, ('Clip', {'values': [1e-6, 1]}), resize()],
    'resize, clip': [resize(), ('Clip', {'values': [-2, 2]})],
    'mul, softmax, resize': [('Mul', {'values': [8]}), SOFTMAX, resize()],
    'div, softmax, resize': [('Div', {'values': [0.1]}), SOFTMAX, resize()],
    'softmax, mul, resize': [SOFTMAX, ('Mul', {'values': [255]}), resize()],
    'two resizes': [resize(scale=2), resize()],
    'softmax, two resizes': [SOFTMAX, resize(scale=2), resize()],
    'resize, softmax, resize': [resize(scale=2), SOFTMAX, resize()],
    'resize to half, softmax': [resize(scale=4), SOFTMAX, resize(scale=2)],
    'softmax, resize of corners': [SOFTMAX, resize('linear', 'align_corners')]}
OTHER: dict[str, list[Step]] = {
    **{f'resize, {name}': [step] for name, step in RESIZES.items()},
    **{f'softmax, resize, {name}': [SOFTMAX, step] for name, step in RESIZES.items()}}


def classes_of(number: int) -> LabelSet:
    return LabelSet('numbers', tuple(f'class {each}' for each in range(number)),
                    tuple((each, 0, 0) for each in range(number)))


def scores_of(model: onnx.ModelProto, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the network's own scores [K, H, W] of a picture, before an ArgMax."""
    last = model.graph.node[-1]
    at_end = by_hand(networks.cut(model, last.input[0]) if last.op_type == 'ArgMax' else model,
                     picture)[0]
    is_last = last.op_type == 'Transpose' or any(
        each.name == 'axis' and each.i == 3 for each in last.attribute)
    return at_end.transpose(2, 0, 1) if is_last else at_end


def agreement(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    assert found.shape == expected.shape
    return float((found == expected).mean())


@pytest.mark.parametrize('tail, number', [
    *((tail, number) for tail in TAILS for number in (2, 19, 255)),
    *((tail, 19) for tail in OTHER)])
def test_labels_are_the_networks_own(tmp_path, tail, number):
    model = networks.ending(number, IMAGE, {**TAILS, **OTHER}[tail])
    bundle = wrapped(tmp_path, model, classes_of(number))
    scores = scores_of(model, image())
    expected = by_hand(model, image()) if 'argmax' in tail else scores.argmax(0)
    assert len(np.unique(expected)) >= min(number, 10)
    # OpenVINO knows no half_pixel_symmetric, and says so
    for name in BACKENDS if 'symmetric' not in tail else ['onnxruntime']:
        assert agreement(label(bundle, image(), name).labels, expected.reshape(SIZE)) > 0.999

    # at a camera's size the labels are those of the network's scores, stretched once more; where
    # they are left to the decoder it stretches them once in all
    picture = image(CAMERA)
    scores = scores_of(model, resize_image(picture, SIZE))
    is_probable = scores.min() >= 0 and np.allclose(scores.sum(0), 1, atol=1e-3)
    stretched, _ = decode(np.log(scores) if is_probable else scores, CAMERA)
    least = 0.999 if bundle.info.output_stride == 1 else 0.95 if 'clip' not in tail else 0.8
    assert agreement(label(bundle, picture).labels, stretched) > least


@pytest.mark.parametrize('end', [[], [SOFTMAX], [SIGMOID], [SOFTMAX, ARGMAX], [ARGMAX]])
@pytest.mark.parametrize('number', [2, 19, 255])
def test_labels_on_a_coarse_grid_are_the_networks_own(tmp_path, end, number):
    model = networks.ending(number, IMAGE, end)
    bundle = wrapped(tmp_path, model, classes_of(number))
    grid = tuple(length // 8 for length in SIZE)
    own = by_hand(model, image())
    own = own.reshape(grid) if ARGMAX in end else own[0].argmax(0)
    result = label(bundle, image())
    assert bundle.info.output_stride == 8
    assert agreement(decode(result.scores, grid)[0], own) > 0.98    # ties of few cells


@pytest.mark.parametrize('end, limit', [
    ([resize()], 0), ([SIGMOID, resize()], 0.5), ([resize(), SIGMOID], 0.5),
    ([SIGMOID, resize('cubic')], 0.5), ([SIGMOID, resize('linear', 'align_corners')], 0.5),
    ([('Div', {'values': [0.05]}), SIGMOID, resize()], 0.5),
    ([SIGMOID, resize(), ('Clip', {'values': [0.1, 0.9]})], 0.5)])
def test_one_channel_for_two_classes(tmp_path, end, limit):
    model = networks.ending(1, IMAGE, end)
    bundle = wrapped(tmp_path, model, two_classes())
    for name in BACKENDS:
        found = label(bundle, image(), name).labels
        assert agreement(found, by_hand(model, image())[0, 0] > limit) > 0.999


@pytest.mark.parametrize('name', BACKENDS)
def test_probabilities_that_are_all_but_0_differ(tmp_path, name):
    """As where a pixel is of none of the classes."""
    steps: list[Step] = [SIGMOID, ('Mul', {'values': [1e-9]}), resize()]
    model = networks.ending(19, IMAGE, steps)
    bundle = wrapped(tmp_path, model, classes_of(19), kind='probabilities')
    expected = by_hand(model, image())[0]
    assert agreement(label(bundle, image(), name).labels, expected.argmax(0)) > 0.999


@pytest.mark.parametrize('opset, operator', [
    (9, 'Upsample'), (10, 'Resize'), (13, 'Resize'), (18, 'Resize')])
def test_scores_far_from_0_hide_no_other_upsampling(tmp_path, opset, operator):
    """Asymmetric before opset 11, of which the converter to newer ones makes half pixels."""
    attributes = {'mode': 'linear', 'scale': 8, **(
        {} if opset < 11 else {'coordinate_transformation_mode': 'asymmetric'})}
    model = networks.ending(19, IMAGE, [(operator, attributes)], offset=4000, opset=opset)
    bundle = wrapped(tmp_path, model, classes_of(19))
    assert agreement(label(bundle, image()).labels, by_hand(model, image())[0].argmax(0)) > 0.999


def test_grid_with_as_many_columns_as_classes(tmp_path):
    """The ArgMax says which axis the classes have."""
    size = 88, 88
    model = networks.ending(11, [1, 3, *size], [LAST, ('ArgMax', {'axis': 3})])
    bundle = wrapped(tmp_path, model, classes_of(11))
    found = decode(label(bundle, image(size)).scores, (11, 11))[0]
    assert agreement(found, by_hand(model, image(size)).reshape(11, 11)) > 0.98


@pytest.mark.parametrize('names', [
    {'logits': 'network_image'}, {'logits': 'network_scores', 'moved': 'scores'},
    {'logits': 'vseg_5_Cast_0', 'moved': 'vseg_6_Sub_2_0'}, {'image': 'scores', 'moved': 'image'},
    {'moved': 'image_low', 'features': 'scores_low'}])
def test_tensors_called_as_those_of_a_bundle(tmp_path, names):
    model = networks.ending(11, IMAGE, [])
    for old, new in names.items():
        rename(model.graph, old, new)
    bundle = wrapped(tmp_path, model, classes_of(11))
    onnx.checker.check_model(onnx.load_model_from_string(bundle.model), full_check=True)
    onnx.checker.check_model(graph_for(bundle, 'fp16', 'sm86', tmp_path), full_check=True)
    expected, _ = decode(by_hand(networks.ending(11, IMAGE, []), image())[0], SIZE)
    assert agreement(label(bundle, image()).labels, expected) > 0.999


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for entry in (*graph.input, *graph.output):
        entry.name = new if entry.name == old else entry.name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
