# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A plain ONNX network on its way into a bundle: read, checked, pruned, brought up to date."""
from pathlib import Path
import tempfile
from typing import Any, Iterable, Optional, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, TensorProto, version_converter
import onnxruntime

from ros_vseg.bundle import KEY
from ros_vseg.errors import BundleError

OPSET, IR_VERSION = 18, 8       # what a network is brought to if it is older
ALIKE = 0.999       # share of values that must stay as they are thereby
INPUT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8)

Array = npt.NDArray[Any]


def read_network(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, its weights beside it included; BundleError if it is not a network."""
    try:
        model = onnx.load(path)
    except OSError as error:        # also weights in a file of their own
        raise BundleError(f'network {path} cannot be read ({error.strerror or error}): give an '
                          'ONNX file, with its weights beside it') from error
    except Exception as error:      # protobuf and the checker have no common base
        raise BundleError(f'{path} is not an ONNX file, or is damaged: {first_line(error)}'
                          ) from error
    if not model.graph.node:
        raise BundleError(f'{path} is not an ONNX file, or has no network in it')
    if any(entry.key == KEY for entry in model.metadata_props):
        raise BundleError(f'{path} is a bundle already: use it as it is')
    return model


def image_input(model: onnx.ModelProto, layout: str, path: Path) -> onnx.ValueInfoProto:
    """Return the network's only input; BundleError if it is not an image in ``layout``."""
    weights = {entry.name for entry in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    if len(inputs) != 1:
        names = ', '.join(entry.name for entry in inputs) or 'none'
        raise BundleError(f'{path} has {len(inputs)} inputs ({names}): only networks with one '
                          'image as their input can be wrapped')
    replace_all(model.graph.input, inputs)      # old exporters list the weights there too
    image = model.graph.input[0]
    kind = image.type.tensor_type.elem_type
    where = f'{path}: input {image.name} is {describe(image)}'
    if kind not in INPUT_TYPES:
        raise BundleError(f'{where} of type {TensorProto.DataType.Name(kind)}: only FLOAT, '
                          'FLOAT16 and UINT8 images can be wrapped')
    shape = lengths(image)
    if not shape:
        return image
    channel, other = (1, 3) if layout == 'nchw' else (3, 1)
    if len(shape) != 4:
        raise BundleError(f'{where}: only images of four axes can be wrapped, such as '
                          '[1, 3, H, W]')
    if shape[channel] not in (0, 3):
        advice = (f'give --layout {"nhwc" if layout == "nchw" else "nchw"}' if shape[other] == 3
                  else 'only networks for colour images can be wrapped')
        raise BundleError(f'{where}, not {layout} with 3 channels: {advice}')
    if shape[0] > 1:
        raise BundleError(f'{where}: export the network for one image at a time')
    return image


def lengths(entry: onnx.ValueInfoProto) -> list[int]:
    """Return the shape of an input or output, 0 for axes of open length; [] if it has none."""
    return [dim.dim_value for dim in entry.type.tensor_type.shape.dim]


def describe(entry: onnx.ValueInfoProto) -> str:
    """Return the shape of an input or output for a message."""
    dims = [str(dim.dim_value or dim.dim_param or '?') for dim in entry.type.tensor_type.shape.dim]
    return f'[{", ".join(dims)}]' if dims else 'of unknown shape'


def set_size(image: onnx.ValueInfoProto, layout: str, size: Optional[tuple[int, int]],
             path: Path) -> tuple[int, int]:
    """
    Give a network's input its size, in place.

    Args:
        image: the input.
        layout: 'nchw' or 'nhwc'.
        size: (height, width) for a network whose size is open, or None.
        path: of the network, for messages.

    Returns:
        (height, width) in pixels.

    Raises:
        BundleError: The size is open and none was given, or it is fixed to another one.
    """
    start = 2 if layout == 'nchw' else 1
    fixed = (lengths(image) or [0] * 4)[start:start + 2]
    where = f'{path}: input {image.name} is {describe(image)}'
    if size is None and 0 in fixed:
        raise BundleError(f'{where}: its height or width is open: give --size HxW, height first')
    height, width = size or (fixed[0], fixed[1])
    if fixed[0] not in (0, height) or fixed[1] not in (0, width):
        raise BundleError(f'{where}: it cannot run at {height}x{width}: leave --size out, or '
                          'export it at that size')
    if min(height, width) < 1:
        raise BundleError(f'size {height}x{width} is too small: give HxW, height first')
    dims = [1, 3, height, width] if layout == 'nchw' else [1, height, width, 3]
    kind = image.type.tensor_type.elem_type
    image.CopyFrom(helper.make_tensor_value_info(image.name, kind, dims))
    return height, width


def choose_output(model: onnx.ModelProto, wanted: Optional[str], path: Path) -> str:
    """Return the name of the tensor with the scores: the only output, or the one ``wanted``."""
    outputs = [entry.name for entry in model.graph.output]
    if wanted is None and len(outputs) == 1:
        return outputs[0]
    listed = ', '.join(f'{entry.name} {describe(entry)}' for entry in model.graph.output)
    if wanted is None:
        raise BundleError(f'{path} has {len(outputs)} outputs ({listed}): name the one with the '
                          'scores by --scores NAME')
    if wanted not in outputs and not any(wanted in node.output for node in model.graph.node):
        raise BundleError(f'{path} has no output {wanted!r}: its outputs are {listed}')
    return wanted


def keep_only(model: onnx.ModelProto, name: str) -> None:
    """Make a tensor the only output, in place, and drop what it does not need."""
    graph, needed = model.graph, {name}
    nodes: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            nodes.insert(0, node)
            needed |= _names_read(node)
    known = [entry for entry in graph.output if entry.name == name]
    replace_all(graph.node, nodes)
    replace_all(graph.initializer,
                [weight for weight in graph.initializer if weight.name in needed])
    replace_all(graph.output, known or [helper.make_empty_tensor_value_info(name)])
    replace_all(graph.value_info, [])


def _names_read(node: onnx.NodeProto) -> set[str]:
    """Names of the tensors that a node reads, in the graphs inside it (If, Loop) too."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= _names_read(inner)
            names.update(entry.name for entry in graph.output)
    return names


def replace_all(field: Any, kept: Iterable[Any]) -> None:
    """Put messages, of this field or new ones, in the place of a repeated field's."""
    copies = [type(part).FromString(part.SerializeToString()) for part in kept]
    del field[:]
    field.extend(copies)


def producer(model: onnx.ModelProto, name: str) -> Optional[onnx.NodeProto]:
    """Return the node that makes a tensor, or None for inputs and weights."""
    return next((node for node in model.graph.node if name in node.output), None)


def run_network(model: onnx.ModelProto, inputs: Sequence[dict[str, Array]], path: Path
                ) -> list[Array]:
    """Return what the network's only output is for each of ``inputs``."""
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), _quiet(), providers=['CPUExecutionProvider'])
        values = [session.run(None, arrays)[0] for arrays in inputs]
        output, = session.get_outputs()
    except Exception as error:      # its errors have no common base
        raise BundleError(f'{path} cannot run in onnxruntime {onnxruntime.__version__}: '
                          f'{first_line(error)}') from error
    if not all(isinstance(array, np.ndarray) and array.dtype.kind in 'fiub' for array in values):
        raise BundleError(f'{path}: output {output.name} is {output.type}, no tensor of numbers: '
                          'choose another one by --scores')
    return values


def freeze(model: onnx.ModelProto, inputs: Sequence[dict[str, Array]], path: Path
           ) -> onnx.ModelProto:
    """
    Return a network of one size in OPSET or newer, with all that follows from its size computed.

    Exporters of networks for any size compute shapes in the graph, of which TensorRT refuses some.

    Args:
        model: network whose input has its size.
        inputs: to try it with.
        path: of the network, for messages.

    Raises:
        BundleError: It cannot run, or not in OPSET, or gives other values there.
    """
    before = run_network(model, inputs, path)
    frozen = _fold(model)
    version = next((entry.version for entry in frozen.opset_import if not entry.domain), OPSET)
    try:
        # first: before version 4 all weights would have to be inputs too
        frozen.ir_version = max(frozen.ir_version, IR_VERSION)
        if version < OPSET:
            frozen = version_converter.convert_version(frozen, OPSET)
        if version < 11:    # which had no coordinate_transformation_mode; the converter forgets it
            for node in frozen.graph.node:
                if node.op_type == 'Resize':
                    _set_old_coordinates(node)
        after = run_network(frozen, inputs, path)
    except Exception as error:  # the converter's errors have no common base
        raise BundleError(f'{path} is of opset {version} and cannot be brought to {OPSET} '
                          f'({first_line(error)}): export it with opset {OPSET}') from error
    if min(map(_alike, before, after)) < ALIKE:
        raise BundleError(f'{path} is of opset {version} and computes something else in {OPSET}: '
                          f'export it with opset {OPSET}')
    return frozen


def _set_old_coordinates(node: onnx.NodeProto) -> None:
    """Say in a Resize, in place, what Upsample and Resize were before opset 11."""
    kept = [entry for entry in node.attribute if entry.name == 'mode']
    replace_all(node.attribute, [
        *kept, helper.make_attribute('coordinate_transformation_mode', 'asymmetric'),
        helper.make_attribute('nearest_mode', 'floor')])


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a network without what is constant in it, as onnxruntime computes it."""
    with tempfile.TemporaryDirectory(prefix='vseg-') as folder:
        file = Path(folder) / 'folded.onnx'
        options = _quiet()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(file)
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=['CPUExecutionProvider'])
        folded = onnx.load(file)
    used = {node.domain for node in folded.graph.node} | {''}
    replace_all(folded.opset_import,
                [entry for entry in folded.opset_import if entry.domain in used])
    return folded


def _alike(before: Array, after: Array) -> float:
    """
    Return the share of values that stay as they are, but for the last bits.

    What counts is how values vary along an axis: a constant that all have in common, or a class
    has, would hide that they moved.
    """
    if before.dtype.kind != 'f':
        return float((before == after).mean())
    finite = np.where(np.isfinite(before), before, 0).astype(np.float64)
    spread = min((float(np.ptp(finite, axis).mean())
                  for axis, length in enumerate(before.shape) if length > 1), default=0.0)
    return float(np.isclose(before, after, rtol=10 * float(np.finfo(before.dtype).eps),
                            atol=1e-3 * spread + 1e-9, equal_nan=True).mean())


def _quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()),
                type(error).__name__)
