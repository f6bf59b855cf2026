# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The precision of a graph is in the graph: float16, bfloat16, and int8 with explicit Q/DQ."""
import logging
from pathlib import Path
import tempfile
from typing import Any, Collection, Iterable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, shape_inference, TensorProto
from tqdm import tqdm

KINDS = {'fp16': TensorProto.FLOAT16, 'bf16': TensorProto.BFLOAT16}
LARGEST_HALF, SMALLEST_HALF = np.float32(65504), np.float32(2**-14)


def lower(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """
    Return a copy of a graph that computes in 'fp16' or 'bf16'.

    Inputs and outputs keep their types: a Cast stands after each float input and before each
    output. Weights are rounded, and clipped to what float16 holds. Q/DQ stay as they are. What
    only the output ``confidence`` needs stays in float32: it is a mean of thousands of values.
    """
    kind = KINDS[precision]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    tail, full = _take_tail(copy)
    del graph.value_info[:]
    kept = {name for node in graph.node if node.op_type == 'Resize' for name in node.input[1:]}
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and weight.name not in kept:
            weight.CopyFrom(_lowered(weight, weight.name, kind))
    for node in graph.node:
        _lower_attributes(node, kind)
    if kind == TensorProto.BFLOAT16:
        _cast_bytes_through_float(graph)
    _cast_ends(graph, kind, {name for node in tail for name in node.output})
    graph.node.extend(tail)
    graph.initializer.extend(full)
    for entry in copy.opset_import:
        if entry.domain in ('', 'ai.onnx'):     # 19: Q/DQ take float16 scales
            entry.version = max(entry.version, 19)
    return copy


def _take_tail(model: onnx.ModelProto) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """
    Take the nodes that only ``confidence`` needs out of a graph; return them with their weights.

    The graph's outputs are float32 when they read them; of other floats they read a Cast.
    """
    graph, outputs = model.graph, {entry.name for entry in model.graph.output}
    if 'confidence' not in outputs:
        return [], []
    needed = outputs - {'confidence'}
    tail: list[onnx.NodeProto] = []
    rest: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        is_needed = not needed.isdisjoint(node.output)
        (rest if is_needed else tail).insert(0, node)
        needed.update(node.input if is_needed else ())
    inferred = shape_inference.infer_shapes(model).graph
    made = {name for node in tail for name in node.output} | outputs
    floats = {entry.name for entry in inferred.value_info
              if entry.type.tensor_type.elem_type == TensorProto.FLOAT} - made
    weights = {tensor.name: tensor for tensor in graph.initializer
               if tensor.data_type == TensorProto.FLOAT}
    renamed = {name: f'{name}_full' for node in tail for name in node.input
               if name in floats or name in weights}
    for node in tail:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(rest)
    casts = [helper.make_node('Cast', [name], [full], to=TensorProto.FLOAT)
             for name, full in renamed.items() if name in floats]
    return casts + tail, [numpy_helper.from_array(numpy_helper.to_array(weights[name]), full)
                          for name, full in renamed.items() if name in weights]


def _cast_bytes_through_float(graph: onnx.GraphProto) -> None:
    """
    Cast uint8 inputs to float32, and that to bfloat16.

    TensorRT 10 converts uint8 to float32 and float16 only (NvInferRuntimeBase.h, kUINT8).
    """
    bytes_ = {entry.name for entry in graph.input
              if entry.type.tensor_type.elem_type == TensorProto.UINT8}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type == 'Cast' and node.input[0] in bytes_:
            name = node.output[0]
            node.output[0] = f'{name}_float'
            for attribute in node.attribute:
                attribute.i = TensorProto.FLOAT if attribute.name == 'to' else attribute.i
            nodes.append(helper.make_node('Cast', [f'{name}_float'], [name],
                                          to=TensorProto.BFLOAT16))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _lowered(tensor: TensorProto, name: str, kind: int) -> TensorProto:
    array = numpy_helper.to_array(tensor)
    if kind == TensorProto.FLOAT16:
        array = array.clip(-LARGEST_HALF, LARGEST_HALF)
    return helper.make_tensor(name, kind, array.shape, array.reshape(-1))


def _lower_attributes(node: onnx.NodeProto, kind: int) -> None:
    if node.op_type == 'ConstantOfShape' and not node.attribute:    # float32 if nothing is said
        node.attribute.append(helper.make_attribute(
            'value', helper.make_tensor('value', TensorProto.FLOAT, [1], [0.0])))
    for attribute in node.attribute:
        if node.op_type == 'Cast' and attribute.name == 'to':
            attribute.i = kind if attribute.i == TensorProto.FLOAT else attribute.i
        elif attribute.type == onnx.AttributeProto.TENSOR:
            if attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(_lowered(attribute.t, attribute.t.name, kind))


def _cast_ends(graph: onnx.GraphProto, kind: int, full: Collection[str] = ()) -> None:
    """Cast what enters and leaves a graph, but for the outputs named ``full``."""
    first, last = [], []
    for entry in graph.input:
        if entry.type.tensor_type.elem_type == TensorProto.FLOAT:
            first.append(helper.make_node('Cast', [entry.name], [f'{entry.name}_low'], to=kind))
    for entry in [entry for entry in graph.output if entry.name not in full]:
        last.append(helper.make_node('Cast', [f'{entry.name}_low'], [entry.name],
                                     to=entry.type.tensor_type.elem_type))
    renamed = {node.input[0]: node.output[0] for node in first}
    renamed.update({node.output[0]: node.input[0] for node in last})
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)


class _Frames:
    """Calibration inputs as onnxruntime asks for them."""

    def __init__(self, inputs: Iterable[dict[str, npt.NDArray[Any]]]) -> None:
        self._inputs = iter(tqdm(inputs, 'calibrate', ncols=80, disable=None))

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self._inputs, None)


def quantize(model: onnx.ModelProto, inputs: Iterable[dict[str, npt.NDArray[Any]]],
             weight_bits: int = 8) -> onnx.ModelProto:
    """
    Return a copy of a graph whose convolutions have Q/DQ: post-training, static.

    int8, symmetric; weights per channel, activations per tensor; biases stay floating (TensorRT's
    parser refuses int32 ones), and so do the first convolution, whose input spreads the widest,
    and the depthwise ones, which int8 would pad with constants of several times the feature map.

    Args:
        model: the graph in float32.
        inputs: its input arrays by name, for each calibration frame: they give the ranges. In a
            terminal a bar shows how many are done.
        weight_bits: 8, or 7 for processors whose sums of two products saturate.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, quantize_static, QuantType
    copy = onnx.ModelProto()    # its weights are moved into a file and lost
    copy.CopyFrom(model)
    for number, node in enumerate(copy.graph.node):
        node.name = node.name or f'node_{number}'   # nodes are left out by their names
    convolutions = [node for node in copy.graph.node if node.op_type == 'Conv']
    floating = convolutions[:1] + [node for node in convolutions if _is_depthwise(node)]
    logging.getLogger().addFilter(_no_advice)
    try:
        with tempfile.TemporaryDirectory(prefix='vseg-') as folder:
            path = Path(folder) / 'quantized.onnx'
            quantize_static(
                copy, path, _Frames(inputs), quant_format=QuantFormat.QDQ, per_channel=True,
                op_types_to_quantize=['Conv'], nodes_to_exclude=[node.name for node in floating],
                activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                reduce_range=weight_bits == 7,
                extra_options={'ActivationSymmetric': True, 'WeightSymmetric': True,
                               'QuantizeBias': False})
            quantized = onnx.load(path)
    finally:
        logging.getLogger().removeFilter(_no_advice)
    _raise_scales(quantized.graph)
    return quantized


def _is_depthwise(node: onnx.NodeProto) -> bool:
    return any(entry.name == 'group' and entry.i > 1 for entry in node.attribute)


def _no_advice(record: logging.LogRecord) -> bool:
    return 'pre-processing' not in record.getMessage()


def _raise_scales(graph: onnx.GraphProto) -> None:
    """Quantise weights again whose scale would be 0 in float16: channels that are all but dead."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != 'DequantizeLinear' or node.input[0] not in tensors:
            continue
        weight, scale = tensors[node.input[0]], tensors[node.input[1]]
        old = numpy_helper.to_array(scale)
        new = np.maximum(old, SMALLEST_HALF)
        if (new == old).all():
            continue
        values = numpy_helper.to_array(weight)
        ratio = np.reshape(old / new, (-1, *[1] * (values.ndim - 1)))
        values = np.rint(values * ratio).astype(np.int8)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        scale.CopyFrom(numpy_helper.from_array(new, scale.name))
