# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a plain ONNX network's output means, and where in the network to take its scores."""
from pathlib import Path
from typing import NamedTuple, Optional, Sequence

import cv2
import numpy as np
import onnx

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
               path: Path) -> str:
    """
    Cut off an ArgMax that makes the output, in place; return the name of the output then.

    The scores before it say how certain a label is, and upsample better than labels.
    """
    node = _origin(model, name, SAME_VALUES)
    if node is None or node.op_type != 'ArgMax':
        return name
    cut = _ending_with(model, node.input[0])
    axis = next((entry.i for entry in node.attribute if entry.name == 'axis'), 0)
    if run_network(cut, inputs[:1], path)[0].ndim != 4 or axis % 4 not in (1, 3):
        return name
    model.CopyFrom(cut)
    return node.input[0]


def cut_upsampling(model: onnx.ModelProto, name: str, size: tuple[int, int],
                   inputs: Sequence[dict[str, Array]], path: Path) -> str:
    """
    Cut off a bilinear Resize to the image's size, in place; return the name of the output then.

    ``decode`` does the same for the labels alone, at a fraction of the cost.
    """
    node = _origin(model, name, ('Cast', 'Identity'))
    if node is None or node.op_type != 'Resize':
        return name
    cut = _ending_with(model, node.input[0])
    for coarse, full in zip(run_network(cut, inputs, path), run_network(model, inputs, path)):
        if full.ndim != 4 or full.shape[2:] != size or not fits(size, coarse.shape[2:]):
            return name
        for small, large in zip(coarse[0].astype(np.float32), full[0]):
            expected = cv2.resize(small, size[::-1], interpolation=cv2.INTER_LINEAR)
            if not np.allclose(expected, large, atol=1e-3 * np.abs(large).max()):
                return name
    model.CopyFrom(cut)
    return node.input[0]


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


def recognise(values: Sequence[Array], classes: int, layout: str, kind: Optional[str], where: str,
              is_sigmoid: bool, size: tuple[int, int]) -> Scores:
    """
    Find out what a network's output means.

    Args:
        values: what it was for some images.
        classes: their number by the label set.
        layout: of the network's image, 'nchw' or 'nhwc'.
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
    axes = (1, 3) if layout == 'nchw' else (3, 1)
    found = [axis for axis in axes if shape[axis] == classes]
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
    if not all(((array >= 0) & (array <= 1 + 1e-3)).all() for array in values):
        return 'logits'
    adds_up = all(np.allclose(array.sum(axis, dtype=np.float64), 1, atol=1e-2)
                  for array in values)
    if is_sigmoid or (adds_up and not is_binary):
        return 'probabilities'
    if is_binary:
        raise BundleError(f'{where} has one channel for two classes, and it is not clear of what: '
                          'give --kind logits or --kind probabilities')
    return 'logits'


def fits(size: tuple[int, int], grid: tuple[int, ...]) -> Optional[int]:
    """Return the stride by which an image has a grid of cells, None if there is none."""
    return next((stride for stride in range(1, max(size) + 1)
                 if tuple(-(-pixels // stride) for pixels in size) == tuple(grid)), None)
