# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A wrapped network gives the labels that it gives when it is run by hand."""
import json
from pathlib import Path
from typing import Optional

import cv2
import networks_to_wrap as networks
import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, TensorProto
import pytest

from ros_vseg import backends
from ros_vseg.bundle import Bundle
from ros_vseg.commands import cli
from ros_vseg.decode import decode
from ros_vseg.engines.engine import engine_for, graph_for
from ros_vseg.errors import BundleError
from ros_vseg.graph import at_size, with_batch
from ros_vseg.labels import LabelSet, load_label_set
from ros_vseg.stream import Stream
from ros_vseg.wrap import Options, parse_numbers, wrap

onnxruntime = pytest.importorskip('onnxruntime')

SIZE = 64, 96
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAMVID = load_label_set('camvid')
BACKENDS = [name for name in ('openvino', 'onnxruntime') if backends.available()[name] is None]
IMAGE: networks.Shape = [1, 3, *SIZE]
ANY: networks.Shape = ['N', 3, 'H', 'W']


def two_classes() -> LabelSet:
    return LabelSet('two', ('ground', 'path'), ((0, 0, 0), (255, 0, 0)))


def image(size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    """Return a smooth image uint8 [H, W, 3] in which red, green and blue differ."""
    coarse = np.random.default_rng(3).uniform(0, 255, (5, 7, 3)).astype(np.float32)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(
        np.uint8)


def by_hand(model: onnx.ModelProto, picture: npt.NDArray[np.uint8], *, layout: str = 'nchw',
            mean: npt.ArrayLike = MEAN, std: npt.ArrayLike = STD, most: float = 255,
            output: Optional[str] = None) -> np.ndarray:
    """Run the network as its authors would; return its first output, or the one named."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider'])
    entry, = session.get_inputs()
    if entry.type == 'tensor(uint8)':
        values = picture
    else:
        kind = np.float16 if entry.type == 'tensor(float16)' else np.float32
        values = ((picture / most - mean) / std).astype(kind)
    if layout == 'nchw':
        values = values.transpose(2, 0, 1)
    return session.run([output] if output else None, {entry.name: values[None]})[0]


def wrapped(tmp_path: Path, model: onnx.ModelProto, label_set: LabelSet = CAMVID,
            **options: object) -> Bundle:
    """Write a network, wrap it and load the bundle."""
    path = tmp_path / 'network.onnx'
    onnx.save(model, path)
    options = {'mean': MEAN, 'std': STD, **options}
    wrap(path, tmp_path / 'bundle.onnx', label_set, Options(**options))
    return Bundle.load(tmp_path / 'bundle.onnx')


def label(bundle: Bundle, picture: npt.NDArray[np.uint8], name: str = 'onnxruntime',
          confidence: bool = False):
    """Return the Result of a picture's first frame."""
    backend = backends.load(bundle, name, threads=1, precision='fp32')
    return Stream(backend).step(picture, 0, confidence=confidence)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether labels agree but for near ties, where there are several."""
    assert found.shape == expected.shape and len(np.unique(expected)) >= 2
    return float((found == expected).mean()) > 0.999


@pytest.mark.parametrize('name', BACKENDS)
@pytest.mark.parametrize('opset', [12, 18])
@pytest.mark.parametrize('output', ['out', 'aux'])
def test_fcn_as_of_torchvision(tmp_path, name, opset, output):
    model = networks.fcn(11, IMAGE, opset)
    bundle = wrapped(tmp_path, model, scores=output)
    assert bundle.info.output_stride == 8 and bundle.info.num_prototypes == 0
    assert (bundle.info.height, bundle.info.width) == SIZE
    expected = by_hand(model, image(), output=output)[0].argmax(0)
    assert same(label(bundle, image(), name).labels, expected)


@pytest.mark.parametrize('name', BACKENDS)
@pytest.mark.parametrize('size', [(64, 96), (32, 128)])
def test_segformer_with_open_axes(tmp_path, name, size):
    model = networks.segformer(11)
    bundle = wrapped(tmp_path, model, size=size)
    assert bundle.info.output_stride == 4
    scores = by_hand(model, image(size))
    assert scores.shape == (1, 11, size[0] // 4, size[1] // 4)
    expected, _ = decode(scores[0], size)
    assert same(label(bundle, image(size), name).labels, expected)
    operators = {node.op_type for node in onnx.load_model_from_string(bundle.model).graph.node}
    assert 'Shape' not in operators


@pytest.mark.parametrize('name', BACKENDS)
@pytest.mark.parametrize('end, layout', [('ArgMax', 'nchw'), ('TopK', 'nchw'), ('ArgMax', 'nhwc'),
                                         ('TopK', 'nhwc')])
def test_label_map(tmp_path, name, end, layout):
    shape = IMAGE if layout == 'nchw' else [1, *SIZE, 3]
    model = networks.small(11, shape, end=end, layout=layout, stride=1, output='labels')
    bundle = wrapped(tmp_path, model, layout=layout)
    expected = by_hand(model, image(), layout=layout)
    assert expected.shape == (1, *SIZE) and expected.dtype == np.int64
    result = label(bundle, image(), name, confidence=True)
    assert same(result.labels, expected[0])
    # the scores before an ArgMax tell how sure the network is; labels alone do not
    assert (result.confidence.min() >= 254) == (end == 'TopK')


def test_label_map_that_is_to_stay_one(tmp_path):
    model = networks.small(11, IMAGE, end='ArgMax', stride=1)
    bundle = wrapped(tmp_path, model, kind='labels')
    result = label(bundle, image(), confidence=True)
    assert same(result.labels, by_hand(model, image())[0]) and result.confidence.min() >= 254


@pytest.mark.parametrize('layout', ['nchw', 'nhwc'])
@pytest.mark.parametrize('end', ['', 'Softmax', 'Sigmoid'])
def test_layouts_and_kinds(tmp_path, layout, end):
    shape = IMAGE if layout == 'nchw' else [1, *SIZE, 3]
    model = networks.small(11, shape, layout=layout, end=end)
    scores = by_hand(model, image(), layout=layout)[0]
    if layout == 'nhwc':
        scores = scores.transpose(2, 0, 1)
    bundle = wrapped(tmp_path, model, layout=layout)
    result = label(bundle, image(SIZE), confidence=True)
    assert bundle.info.output_stride == 8
    centres = result.labels[3::8, 3::8]
    assert (centres == scores.argmax(0)).mean() > 0.85     # decoded between the cells
    logits = np.log(scores) if end else scores
    expected, confidence = decode(logits, SIZE, confidence=True)
    assert same(result.labels, expected)
    assert np.abs(result.confidence.astype(int) - confidence).max() <= 2


def test_probabilities_give_the_confidence_that_they_say(tmp_path):
    model = networks.small(11, IMAGE, end='Softmax', stride=1)
    result = label(wrapped(tmp_path, model), image(), confidence=True)
    expected = by_hand(model, image())[0]
    assert same(result.labels, expected.argmax(0))
    assert np.abs(result.confidence - 255 * expected.max(0)).max() <= 1.5


@pytest.mark.parametrize('end, kind', [('', None), ('Sigmoid', None), ('', 'logits'),
                                       ('Sigmoid', 'probabilities')])
def test_one_channel_for_two_classes(tmp_path, end, kind):
    model = networks.small(1, IMAGE, end=end, stride=1)
    bundle = wrapped(tmp_path, model, two_classes(), kind=kind)
    result, values = label(bundle, image(), confidence=True), by_hand(model, image())[0, 0]
    probability = values if end else 1 / (1 + np.exp(-values))
    assert same(result.labels, probability > 0.5)
    expected = 255 * np.maximum(probability, 1 - probability)
    assert np.abs(result.confidence - expected).max() <= 1.5


def test_one_channel_of_unknown_kind(tmp_path):
    """Between 0 and 1, but of no sigmoid: a label map of floats would look the same."""
    net = networks.Net()
    net.add('Conv', ['image', net.weight('stem', 1, 3, 8, 8)], 'stem_out', strides=[8, 8])
    net.add('Tanh', ['stem_out'], 'tanh')
    net.add('Abs', ['tanh'], 'scores')
    model = net.model({'image': IMAGE}, {'scores': ([1, 1, 8, 12], TensorProto.FLOAT)})
    with pytest.raises(BundleError, match='not clear of what: give --kind logits or --kind prob'):
        wrapped(tmp_path, model, two_classes())


@pytest.mark.parametrize('mean, std, scale, most', [
    ((0.5,), (0.25,), None, 255), ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), None, 1),
    ((0,), (1,), 1, 255), ((0,), (255,), None, 1), ((0,), (1,), 255, 1)])
def test_normalisation_and_its_scale(tmp_path, mean, std, scale, most):
    model = networks.small(11, IMAGE, stride=1)
    bundle = wrapped(tmp_path, model, mean=mean, std=std, scale=scale)
    expected = by_hand(model, image(), mean=mean, std=std, most=most)[0]
    scores = backends.load(bundle, 'onnxruntime', threads=1).stream().step(image())
    np.testing.assert_allclose(scores, expected, atol=1e-3 * np.abs(expected).max())


def test_colour_order_of_the_network(tmp_path):
    model = networks.small(11, IMAGE, stride=1)
    bundle = wrapped(tmp_path, model, color_order='bgr')
    expected = by_hand(model, image()[:, :, ::-1])[0].argmax(0)
    assert not same(expected, by_hand(model, image())[0].argmax(0))
    assert same(label(bundle, image()).labels, expected)


@pytest.mark.parametrize('kind, options', [
    (TensorProto.UINT8, {'mean': (), 'std': ()}), (TensorProto.FLOAT16, {})])
def test_other_types_of_images(tmp_path, kind, options):
    model = networks.small(11, IMAGE, kind=kind, stride=1)
    bundle = wrapped(tmp_path, model, **options)
    assert same(label(bundle, image()).labels, by_hand(model, image())[0].argmax(0))


@pytest.mark.parametrize('size', [(60, 90), (65, 96), (20, 96)])
def test_grid_that_is_not_of_a_stride_is_stretched(tmp_path, size):
    """Cells by rounding down, where a bundle's strides round up."""
    model = networks.small(11, ANY, stride=8)
    bundle = wrapped(tmp_path, model, size=size)
    scores = by_hand(model, image(size))[0]
    assert bundle.info.output_stride == 1 and scores.shape[1:] == (size[0] // 8, size[1] // 8)
    expected, _ = decode(scores, size)
    assert same(label(bundle, image(size)).labels, expected)


def test_camera_of_another_size(tmp_path):
    model = networks.small(11, IMAGE, stride=1)
    result = label(wrapped(tmp_path, model), image((480, 640)), confidence=True)
    assert result.labels.shape == (480, 640) and result.context_frames == 0
    assert not result.held_back and result.oldest is None


def test_several_frames_and_resets(tmp_path):
    model = networks.small(11, IMAGE, stride=1)
    stream = Stream(backends.load(wrapped(tmp_path, model), 'onnxruntime', threads=1))
    expected = by_hand(model, image())[0].argmax(0)
    for stamp in (0, 10**8, 50 * 10**8, 0):
        assert same(stream.step(image(), stamp).labels, expected)
    assert stream.resets == {'gap': 1, 'time_back': 1} and stream.held_back == 0


@pytest.mark.parametrize('mode, stride', [
    ({'coordinate_transformation_mode': 'pytorch_half_pixel'}, 8),
    ({'coordinate_transformation_mode': 'align_corners'}, 1),
    ({'coordinate_transformation_mode': 'asymmetric'}, 1), ({'mode': 'nearest'}, 1),
    ({'mode': 'cubic'}, 1)])
def test_upsampling_is_left_to_the_decoder_only_if_it_is_the_same(tmp_path, mode, stride):
    model = networks.fcn(11, IMAGE)
    for node in model.graph.node:
        if node.op_type == 'Resize':
            known = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            del node.attribute[:]
            node.attribute.extend(
                helper.make_attribute(name, value) for name, value in {**known, **mode}.items())
    bundle = wrapped(tmp_path, model, scores='out')
    assert bundle.info.output_stride == stride
    assert same(label(bundle, image()).labels, by_hand(model, image())[0].argmax(0))


def test_tensor_inside_the_network(tmp_path):
    model = networks.fcn(11, IMAGE)
    bundle = wrapped(tmp_path, model, scores='features', label_set=LabelSet(
        'channels', tuple('abcdefgh'), ((0, 0, 0),) * 8))
    expected, _ = decode(by_hand(networks.cut(model, 'features'), image())[0], SIZE)
    assert same(label(bundle, image()).labels, expected)


def test_weights_listed_as_inputs(tmp_path):
    """As exporters of old did."""
    model = networks.small(11, IMAGE, stride=1)
    for weight in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(
            weight.name, weight.data_type, list(weight.dims)))
    assert same(label(wrapped(tmp_path, model), image()).labels,
                by_hand(networks.small(11, IMAGE, stride=1), image())[0].argmax(0))


def test_weights_in_a_file_of_their_own(tmp_path):
    model = networks.small(11, IMAGE, stride=1)
    expected = by_hand(model, image())[0].argmax(0)
    path = tmp_path / 'network.onnx'
    onnx.save(model, path, save_as_external_data=True, location='weights.bin', size_threshold=0)
    wrap(path, tmp_path / 'bundle.onnx', CAMVID, Options(MEAN, STD))
    (tmp_path / 'weights.bin').rename(tmp_path / 'moved.bin')
    assert same(label(Bundle.load(tmp_path / 'bundle.onnx'), image()).labels, expected)
    with pytest.raises(BundleError, match='network.onnx.*weights.bin'):
        wrap(path, tmp_path / 'other.onnx', CAMVID, Options(MEAN, STD))


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
@pytest.mark.parametrize('end', ['', 'Softmax', 'TopK'])
def test_graph_for_an_engine(tmp_path, precision, end):
    """In lower precision too it is a graph that runs and gives the labels."""
    model = networks.small(11, IMAGE, end=end, stride=1)
    graph = graph_for(wrapped(tmp_path, model), precision, 'sm86', tmp_path)
    onnx.checker.check_model(graph, full_check=True)
    values = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=['CPUExecutionProvider']).run(
            ['scores'], {'image': image()[None]})[0]
    expected = by_hand(model, image())[0]
    expected = expected if end == 'TopK' else expected.argmax(0)
    assert values.dtype == np.float32 and (values[0].argmax(0) == expected).mean() > 0.98


@pytest.mark.parametrize('make', [
    lambda: (networks.fcn(11, IMAGE, 12), {'scores': 'out'}),
    lambda: (networks.segformer(11), {'size': SIZE}),
    lambda: (networks.small(11, IMAGE, end='Softmax'), {}),
    lambda: (networks.small(11, IMAGE, end='TopK', stride=1), {})],
    ids=['fcn', 'segformer', 'probabilities', 'labels'])
def test_engine(tmp_path, make):
    """Built for another machine's GPU, where TensorRT for RTX is installed."""
    pytest.importorskip('tensorrt_rtx')
    model, options = make()
    bundle = wrapped(tmp_path, model, **options)
    _, header, engine = engine_for(bundle, 'sm86', 'fp16', folder=tmp_path)
    assert header['inputs'] == {'image': ['UINT8', [1, *SIZE, 3]]}
    assert header['outputs'] == {'scores': ['FLOAT', bundle.info.shapes()['scores']]}
    assert len(engine) > 1000


def test_wrapped_bundles_are_not_rewritten(tmp_path):
    """What the numbers in their graphs mean is not known."""
    bundle = wrapped(tmp_path, networks.segformer(11), size=SIZE)
    with pytest.raises(BundleError, match='was wrapped at 64x96: wrap its network again with '
                       '--size 128x192'):
        at_size(bundle, (128, 192))
    assert at_size(bundle, SIZE) is bundle
    model = onnx.load_model_from_string(bundle.model)
    with pytest.raises(BundleError, match='for one image at a time: leave the batch out'):
        with_batch(model, bundle.info, 2, bundle.path)


@pytest.mark.parametrize('texts, numbers', [
    (['0.5'], (0.5,)), (['1', '2', '-3e-1'], (1, 2, -0.3)), (['1,2,3'], (1, 2, 3)),
    (['1,', '2,', '3'], (1, 2, 3)), (None, ())])
def test_numbers_of_texts(texts, numbers):
    assert parse_numbers(texts, '--mean') == numbers


def test_command(tmp_path, capsys):
    model, path = networks.segformer(11), tmp_path / 'seg.onnx'
    onnx.save(model, path)
    arguments = ['wrap', path, '--classes', 'camvid', '--mean', *MEAN, '--std',
                 ','.join(map(str, STD)), '-o', tmp_path / 'seg_bundle.onnx']
    assert cli.main([str(each) for each in arguments]) == 2
    assert 'give --size HxW' in capsys.readouterr().err
    more = ('--size', '64x96', '--license', 'MIT')
    assert cli.main([str(each) for each in (*arguments, *more)]) == 0
    assert capsys.readouterr().out.endswith(
        'seg_bundle.onnx: seg at 64x96, 11 classes of camvid, logits at stride 4\n')
    assert cli.main(['info', '--json', str(tmp_path / 'seg_bundle.onnx')]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found['name'], found['license'], found['trained_on']) == (
        'seg', 'MIT', {'wrapped': 'seg.onnx'})
    bundle = Bundle.load(tmp_path / 'seg_bundle.onnx')
    expected, _ = decode(by_hand(model, image())[0], SIZE)
    assert same(label(bundle, image()).labels, expected)
    assert cli.main(['wrap', str(path), '--classes', 'camvid', '--mean', 'half', '--std', '1',
                     '-o', str(tmp_path / 'x.onnx')]) == 2
    assert '--mean half is not one number or three' in capsys.readouterr().err
