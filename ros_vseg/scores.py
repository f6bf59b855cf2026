# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a plain ONNX network's output means, and where in the network to take its scores."""
from pathlib import Path
from typing import NamedTuple, Optional, Sequence

import cv2
import numpy as np
import onnx
from onnx import helper

from ros_vseg.errors import BundleError
from ros_vseg.network import Array, keep_only, producer, run_network

KINDS = ('logits', 'probabilities', 'labels')
# what leaves labels and scores as they are, on the way back to the node that makes them
SAME_VALUES = ('Cast', 'Identity', 'Reshape', 'Squeeze', 'Unsqueeze')
SAME_RANGE = (*SAME_VALUES, 'Clip', 'Max', 'Min', 'Resize', 'Transpose')


class Scores(NamedTuple):
    """
    What a network's output means.

    kind: of KINDS; axis: of the classes, 1 or 3; is_binary: whether it has one channel for two
    classes, the score of the second; shape: of the output.
    """

    kind: str
    axis: int
    is_binary: bool
    shape: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the output in cells."""
        if len(self.shape) < 4 or self.axis == 1:
            return self.shape[-2], self.shape[-1]
        return self.shape[1], self.shape[2]


def cut_argmax(model: onnx.ModelProto, name: str, inputs: Sequence[dict[str, Array]],
               path: Path) -> tuple[str, Optional[int]]:
    """
    Cut off an ArgMax that makes the output, in place; return the output's name then, and its axis.

    The scores before it say how certain a label is, and upsample better than labels.
    """
    node = _origin(model, name, (*SAME_VALUES, 'Transpose'))
    if node is None or node.op_type != 'ArgMax':
        return name, None
    cut = _ending_with(model, node.input[0])
    axis = next((entry.i for entry in node.attribute if entry.name == 'axis'), 0) % 4
    values, labels = (run_network(each, inputs[:1], path)[0] for each in (cut, model))
    if values.ndim != 4 or values.dtype.kind != 'f' or axis not in (1, 3):
        return name, None
    if (values.argmax(axis).ravel() == labels.ravel()).mean() < 0.99:   # rows are columns
        return name, None
    model.CopyFrom(cut)
    return node.input[0], axis


def before_upsampling(model: onnx.ModelProto, name: str, size: tuple[int, int],
                      inputs: Sequence[dict[str, Array]], path: Path
                      ) -> Optional[tuple[onnx.ModelProto, str]]:
    """
    Return the network up to a bilinear Resize to the image's size, with its output's name.

    ``decode`` does the same for the labels alone, at a fraction of the cost. None if the network
    ends with something else. What is cut off is tried with noise: scores that hardly vary, or lie
    far from 0, would hide that corners are aligned.
    """
    node = _origin(model, name, ('Cast', 'Identity'))
    if node is None or node.op_type != 'Resize':
        return None
    cut = _ending_with(model, node.input[0])
    coarse, output = (run_network(each, inputs[:1], path)[0] for each in (cut, model))
    if (coarse.ndim != 4 or {coarse.dtype.kind, output.dtype.kind} != {'f'}
            or not fits(size, coarse.shape[2:])):
        return None
    noise = np.random.default_rng(0).normal(size=coarse.shape).astype(coarse.dtype)
    full = _resized(model, node, noise, path)
    if full is None or full.shape != (*coarse.shape[:2], *size):
        return None
    # one channel tells of all: a Resize treats them alike
    expected = cv2.resize(noise[0, 0].astype(np.float32), size[::-1],
                          interpolation=cv2.INTER_LINEAR)
    return (cut, node.input[0]) if np.allclose(expected, full[0, 0], atol=1e-2) else None


def _resized(model: onnx.ModelProto, node: onnx.NodeProto, values: Array, path: Path
             ) -> Optional[Array]:
    """Return what a Resize of constant size makes of values, None if its size is no constant."""
    constants = [entry for entry in model.graph.initializer if entry.name in node.input[1:]]
    if len(constants) != len({*node.input[1:]} - {''}):
        return None
    ends = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype),
                                          shape)
            for name, shape in ((node.input[0], values.shape), (node.output[0], None))]
    alone = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    alone.graph.CopyFrom(helper.make_graph([node], 'resize', ends[:1], ends[1:], constants))
    return run_network(alone, [{node.input[0]: values}], path)[0]


def comes_from_sigmoid(model: onnx.ModelProto, name: str) -> bool:
    """Return whether a tensor has a sigmoid's values, moved or stretched."""
    node = _origin(model, name, SAME_RANGE)
    return node is not None and node.op_type == 'Sigmoid'


def _ending_with(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a copy of a network that ends with a tensor inside it."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    keep_only(cut, name)
    return cut


def _origin(model: onnx.ModelProto, name: str, passed: Sequence[str]) -> Optional[onnx.NodeProto]:
    """Return the node that makes a tensor, but for operators that are passed over."""
    node = producer(model, name)
    while node is not None and node.op_type in passed:
        node = producer(model, node.input[0])
    return node


def recognise(values: Sequence[Array], classes: int, axes: Sequence[int], kind: Optional[str],
              where: str, is_sigmoid: bool, size: tuple[int, int]) -> Scores:
    """
    Find out what a network's output means.

    Args:
        values: what it was for some images.
        classes: their number by the label set.
        axes: where the classes can be, 1 or 3; the likelier first.
        kind: of KINDS if it is known, else None.
        where: network and output, for messages.
        is_sigmoid: whether a sigmoid made the output.
        size: height and width of the network's image.

    Raises:
        BundleError: It is neither scores nor labels of so many classes.
    """
    if classes == 1:
        raise BundleError(f'{where} would be of the one class everywhere: give --classes two, '
                          'first what is not it')
    shape = values[0].shape
    is_whole = values[0].dtype.kind in 'iub'
    if not all(np.isfinite(array).all() for array in values):
        raise BundleError(f'{where} is not finite for some pictures (black, white, noise): check '
                          'mean, std and the network')
    if kind == 'labels' or (kind is None and is_whole):
        return _label_map(values, classes, where)
    if is_whole or len(shape) != 4 or shape[0] != 1:
        raise BundleError(f'{where} is {list(shape)} of {values[0].dtype}, neither scores '
                          f'[1, {classes}, h, w] nor whole numbers [1, H, W]: choose another one '
                          'by --scores, or say --kind labels')
    found = [axis for axis in axes if shape[axis] == classes and (
        axis == axes[0] or _in_proportion(size, Scores('', axis, False, shape).grid))]
    # where the grid has as many rows or columns as there are classes, the grid that fits is meant
    found.sort(key=lambda axis: fits(size, Scores('', axis, False, shape).grid) is None)
    axis = found[0] if found else None
    is_binary = axis is None and classes == 2
    if is_binary:
        axis = next((axis for axis in axes if shape[axis] == 1), None)
    if axis is None:
        raise BundleError(f'{where} is {list(shape)}, but the label set has {classes} classes: '
                          "give the network's own classes by --classes")
    if kind is None:
        kind = _kind(values, axis, is_binary, is_sigmoid, where)
    return Scores(kind, axis, is_binary, shape)


def _in_proportion(size: tuple[int, int], grid: tuple[int, int]) -> bool:
    """Return whether a grid has an image's proportions, up to a cell that rounding leaves out."""
    return abs(grid[0] * size[1] - grid[1] * size[0]) <= 2 * max(size)


def _label_map(values: Sequence[Array], classes: int, where: str) -> Scores:
    shape = values[0].shape
    if len(shape) not in (2, 3, 4) or np.prod(shape) != np.prod(sorted(shape)[-2:]):
        raise BundleError(f'{where} is {list(shape)}, not a label map [1, H, W]: choose another '
                          'one by --scores')
    axis = 3 if len(shape) == 4 and shape[3] == 1 and shape[1] != 1 else 1
    if any((array != np.round(array)).any() for array in values if array.dtype.kind == 'f'):
        raise BundleError(f'{where} has values that are no whole numbers, so they are no labels: '
                          'say --kind logits or --kind probabilities, or choose another output '
                          'by --scores')
    least, most = min(map(np.min, values)), max(map(np.max, values))
    if least < 0 or most >= classes:
        raise BundleError(f'{where} has labels from {least} to {most}, but the label set has '
                          f"{classes} classes: give the network's own classes by --classes")
    return Scores('labels', axis, False, shape)


def _kind(values: Sequence[Array], axis: int, is_binary: bool, is_sigmoid: bool, where: str
          ) -> str:
    """Return whether scores are logits or probabilities, by what they were."""
    if is_binary and is_sigmoid:    # a cubic Resize goes beyond 0..1; what divides stays 0.5
        return 'probabilities'
    if is_binary and not all((array >= 0).all() for array in values):
        return 'logits'
    if is_binary:
        raise BundleError(f'{where} has one channel for two classes, and it is not clear of what: '
                          'give --kind logits or --kind probabilities')
    if not all(((array >= 0) & (array <= 1 + 1e-3)).all() for array in values):
        return 'logits'
    adds_up = all(np.allclose(array.sum(axis, dtype=np.float64), 1, atol=1e-2)
                  for array in values)
    return 'probabilities' if is_sigmoid or adds_up else 'logits'


def fits(size: tuple[int, int], grid: tuple[int, ...]) -> Optional[int]:
    """Return the stride by which an image has a grid of cells, None if there is none."""
    return next((stride for stride in range(1, max(size) + 1)
                 if tuple(-(-pixels // stride) for pixels in size) == tuple(grid)), None)
