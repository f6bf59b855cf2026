# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Plain ONNX networks as other people export them, small and with random weights."""
import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, TensorProto

node = helper.make_node
Shape = list[int | str]


class Net:
    """Collects nodes and weights of a network."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        """Add a constant and return its name."""
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """Add random weights that keep the size of what they multiply."""
        fan_in = int(np.prod(shape[1:]))
        array = 1.5 * self.rng.standard_normal(shape) / np.sqrt(fan_in)
        return self.constant(name, array.astype(np.float32))

    def add(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Add a node and return its output."""
        self.nodes.append(node(operator, inputs, [output], **attributes))
        return output

    def model(self, inputs: dict[str, Shape], outputs: dict[str, tuple[Shape, int]],
              kind: int = TensorProto.FLOAT, opset: int = 18) -> onnx.ModelProto:
        """Return the network; outputs have a shape and a type each."""
        graph = helper.make_graph(
            self.nodes, 'network',
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, output, shape)
             for name, (shape, output) in outputs.items()], self.weights)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=8)


def _features(net: Net, image: str, channels: int = 8, stride: int = 8) -> str:
    net.add('Conv', [image, net.weight('stem', channels, 3, stride, stride)], 'stem_out',
            strides=[stride, stride])
    return net.add('Tanh', ['stem_out'], 'features')


def fcn(classes: int, shape: Shape, opset: int = 18) -> onnx.ModelProto:
    """As torchvision's FCN: ``out`` and ``aux``, logits at the image's size."""
    net, dims = Net(), [1, classes, *shape[2:]]
    features = _features(net, 'input')
    net.constant('roi', np.zeros(0, np.float32))
    net.constant('scales', np.zeros(0, np.float32))
    net.constant('image_size', np.int64(shape[2:]))
    net.constant('zero', np.int64([0]))
    net.constant('two', np.int64([2]))
    for output in ('out', 'aux'):
        coarse = net.add('Conv', [features, net.weight(f'{output}_w', classes, 8, 1, 1)],
                         f'{output}_coarse')
        net.add('Shape', [coarse], f'{output}_shape')
        net.add('Slice', [f'{output}_shape', 'zero', 'two'], f'{output}_front')
        net.add('Concat', [f'{output}_front', 'image_size'], f'{output}_size', axis=0)
        net.add('Resize', [coarse, 'roi', 'scales', f'{output}_size'], output, mode='linear',
                coordinate_transformation_mode='half_pixel')
    return net.model({'input': shape}, {name: (dims, TensorProto.FLOAT)
                                        for name in ('out', 'aux')}, opset=opset)


def segformer(classes: int, heads: int = 2) -> onnx.ModelProto:
    """Logits at stride 4 of a network for any size: attention over shapes made in the graph."""
    net, width = Net(), 8
    features = _features(net, 'pixel_values', width, 4)
    net.add('Shape', [features], 'grid')
    for name, start, stop in (('batch', 0, 1), ('area', 2, 4)):
        net.constant(f'{name}_from', np.int64([start]))
        net.constant(f'{name}_to', np.int64([stop]))
        net.add('Slice', ['grid', f'{name}_from', f'{name}_to'], name)
    net.add('ReduceProd', ['area'], 'cells', keepdims=1)
    net.constant('parts', np.int64([heads, width // heads]))
    net.constant('whole', np.int64([width]))
    net.add('Concat', ['batch', 'cells', 'parts'], 'split_shape', axis=0)
    net.add('Concat', ['batch', 'whole', 'area'], 'join_shape', axis=0)
    net.constant('flat_shape', np.int64([0, width, -1]))
    net.add('Reshape', [features, 'flat_shape'], 'flat')
    net.add('Transpose', ['flat'], 'tokens', perm=[0, 2, 1])
    for name, perm in (('q', [0, 2, 1, 3]), ('k', [0, 2, 3, 1]), ('v', [0, 2, 1, 3])):
        net.add('MatMul', ['tokens', net.weight(f'{name}_w', width, width)], f'{name}_all')
        net.add('Reshape', [f'{name}_all', 'split_shape'], f'{name}_split')
        net.add('Transpose', [f'{name}_split'], name, perm=perm)
    net.add('MatMul', ['q', 'k'], 'attention')
    net.add('Softmax', ['attention'], 'attended', axis=-1)
    net.add('MatMul', ['attended', 'v'], 'mixed')
    net.add('Transpose', ['mixed'], 'mixed_back', perm=[0, 1, 3, 2])
    net.add('Reshape', ['mixed_back', 'join_shape'], 'context')
    net.add('Add', ['context', features], 'both')
    net.add('Conv', ['both', net.weight('head', classes, width, 1, 1)], 'logits')
    shape: Shape = ['batch', classes, 'height_4', 'width_4']
    return net.model({'pixel_values': ['batch', 3, 'height', 'width']},
                     {'logits': (shape, TensorProto.FLOAT)})


def small(classes: int, shape: Shape, *, layout: str = 'nchw', end: str = '', stride: int = 8,
          kind: int = TensorProto.FLOAT, output: str = 'scores', opset: int = 18
          ) -> onnx.ModelProto:
    """
    Return one convolution and a classifier, whose input is called ``image``.

    end: the operator that makes the output of the logits, '' for none; 'ArgMax' gives labels,
    'TopK' gives labels without an ArgMax.
    """
    net, image = Net(), 'image'
    if kind != TensorProto.FLOAT:
        image = net.add('Cast', [image], 'image_float', to=TensorProto.FLOAT)
    if layout == 'nhwc':
        image = net.add('Transpose', [image], 'image_planes', perm=[0, 3, 1, 2])
    if kind == TensorProto.UINT8:
        image = net.add('Div', [image, net.constant('most', np.float32(255))], 'image_scaled')
    tensor = net.add('Conv', [_features(net, image, stride=stride),
                              net.weight('head', classes, 8, 1, 1)], 'logits')
    axis, result = 1, TensorProto.FLOAT
    if layout == 'nhwc':
        tensor, axis = net.add('Transpose', [tensor], 'logits_last', perm=[0, 2, 3, 1]), 3
    if end == 'Softmax':
        tensor = net.add(end, [tensor], 'ended', axis=axis)
    elif end == 'ArgMax':
        tensor, result = net.add(end, [tensor], 'ended', axis=axis, keepdims=0), TensorProto.INT64
    elif end == 'TopK':
        net.nodes.append(node('TopK', [tensor, net.constant('one', np.int64([1]))],
                              ['best', 'best_of'], axis=axis))
        tensor = net.add('Squeeze', ['best_of', net.constant('axis', np.int64([axis]))], 'ended')
        result = TensorProto.INT64
    elif end:
        tensor = net.add(end, [tensor], 'ended')
    net.add('Identity', [tensor], output)
    return net.model({'image': shape}, {output: (None, result)}, kind, opset)


def ending(classes: int, shape: Shape, steps: list[tuple[str, dict]], *, opset: int = 18,
           offset: float = 0) -> onnx.ModelProto:
    """
    Return a convolution and a classifier of stride 8 that ends with some operators.

    steps: operators and their attributes. 'Resize' has ``size``, (height, width), or ``scale``,
    too; 'Mul', 'Div' and 'Clip' have ``values``, their constants. offset: of all logits.
    """
    net = Net()
    tensor = net.add('Conv', [_features(net, 'image'), net.weight('head', classes, 8, 1, 1)],
                     'logits')
    tensor = net.add('Add', [tensor, net.constant('offset', np.float32(offset))], 'moved')
    for number, (operator, known) in enumerate(steps):
        attributes, inputs = dict(known), [tensor]
        inputs += [net.constant(f'value_{number}_{place}', np.float32(value))
                   for place, value in enumerate(attributes.pop('values', []))]
        if operator in ('Resize', 'Upsample'):
            size, scale = attributes.pop('size', None), attributes.pop('scale', 1)
            inputs += [''] * (opset > 10)
            if size:
                inputs += ['', net.constant(f'size_{number}', np.int64([1, classes, *size]))]
            else:
                inputs.append(net.constant(f'scale_{number}', np.float32([1, 1, scale, scale])))
        tensor = net.add(operator, inputs, f'step_{number}', **attributes)
    kind = TensorProto.INT64 if steps and steps[-1][0] == 'ArgMax' else TensorProto.FLOAT
    return net.model({'image': shape}, {tensor: (None, kind)}, opset=opset)


def cut(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a network with a tensor inside it as its only output."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    del other.graph.output[:]
    other.graph.output.append(helper.make_empty_tensor_value_info(name))
    return other
