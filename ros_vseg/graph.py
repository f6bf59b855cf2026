# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Edits of a bundle's graph that keep its numbers: input size, batch, slots of the pool."""
from dataclasses import replace
import hashlib
from pathlib import Path
import re
from typing import Any, Optional, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, shape_inference

from ros_vseg.bundle import Bundle, BundleInfo, forget_hash
from ros_vseg.errors import BundleError, shorten
from ros_vseg.positions import position_codes

POSITIONS = 'positions'     # initializer float32 [1, 16, h, w]: see position_codes
LONGEST, LARGEST = 8192, 2**25     # pixels of a side, and of an image: 8K video, 4320x7680
WRAPPED = 'vseg wrap'       # producer of a graph that was not made for another size or batch
SHAPE_INPUTS = {'Reshape': 1, 'Resize': 3, 'ConstantOfShape': 0, 'Expand': 1}


def parse_size(text: str) -> tuple[int, int]:
    """
    Return (height, width) of a text such as '256x512'.

    Raises:
        BundleError: it is something else, or too large.
    """
    match = re.fullmatch(r'([0-9]{1,9})x([0-9]{1,9})', text.strip())
    if match is None:
        raise BundleError(f'size {shorten(text)} is not HxW, height first, such as 256x512')
    size = int(match[1]), int(match[2])
    _refuse_large(*size)
    return size


def _refuse_large(height: int, width: int) -> None:
    """Raise BundleError for a size at which a graph takes many GB before it fails."""
    if max(height, width) > LONGEST or height * width > LARGEST:
        raise BundleError(f'size {height}x{width} is too large: give at most {LONGEST} a side and '
                          f'{LARGEST} pixels, such as 4320x7680')


def with_pool_frames(model: onnx.ModelProto, info: BundleInfo, frames: int) -> onnx.ModelProto:
    """
    Return a copy of a graph whose pool has slots for ``frames`` frames.

    The weights do not depend on the number: attention over prototypes takes any. frames = 0 takes
    the inputs pool and pool_mask away; the network then attends to its own prototypes only.
    """
    model = _copy(model)
    shapes = replace(info, pool_frames=frames).shapes()
    for name in ('pool', 'pool_mask'):
        entry = next((entry for entry in model.graph.input if entry.name == name), None)
        if entry is None:
            continue
        if frames:
            _set_dims(entry, [None, *shapes[name][1:]])
        else:
            shape = (1, 0, info.prototype_dim)[:len(entry.type.tensor_type.shape.dim)]
            model.graph.input.remove(entry)
            model.graph.initializer.append(
                numpy_helper.from_array(np.zeros(shape, np.float32), name))
    return model


def ring_model(bundle: Bundle) -> bytes:
    """Return a bundle's graph, serialised, with the slots of a Ring."""
    info = bundle.info
    if not info.pool_frames:
        return bundle.model
    model = onnx.load_model_from_string(bundle.model)
    return with_pool_frames(model, info, info.pool_frames + 1).SerializeToString()


def at_size(bundle: Bundle, size: Optional[Sequence[int]]) -> Bundle:
    """
    Return the bundle for another input size; its weights stay as they are.

    Args:
        bundle: of any size.
        size: (height, width) in pixels; None for the bundle's own.

    Raises:
        BundleError: The graph cannot be written for that size, or the size is too small or too
            large.
    """
    old = bundle.info
    if size is None or tuple(size) == (old.height, old.width):
        return bundle
    if min(size) < 32:
        raise BundleError(f'size {size[0]}x{size[1]} is too small: give at least 32x32')
    _refuse_large(size[0], size[1])
    new = replace(old, height=size[0], width=size[1])
    model = onnx.load_model_from_string(bundle.model)
    if model.producer_name == WRAPPED:
        raise BundleError(f'{bundle.path} was wrapped at {old.height}x{old.width}: wrap its '
                          f'network again with --size {size[0]}x{size[1]}')
    model = _rewrite(model, old, new, 1, bundle.path)
    data = model.SerializeToString()
    return replace(bundle, info=new, model=data, sha256=hashlib.sha256(data).hexdigest())


def with_batch(model: onnx.ModelProto, info: BundleInfo, batch: int, path: Path
               ) -> onnx.ModelProto:
    """Return a copy of a graph of ``ring_model``'s kind for several images at once."""
    if batch == 1:      # the graph's own, or a name in the place of a number
        model = _copy(model)
        for entry in [*model.graph.input, *model.graph.output]:
            _set_dims(entry, [1])
        return model
    if model.producer_name == WRAPPED:
        raise BundleError(f'{path} was wrapped for one image at a time: leave the batch out')
    ringed = replace(info, pool_frames=info.pool_frames + 1) if info.pool_frames else info
    return _rewrite(model, ringed, ringed, batch, path)


def _rewrite(model: onnx.ModelProto, old: BundleInfo, new: BundleInfo, batch: int, path: Path
             ) -> onnx.ModelProto:
    """
    Return a copy of a graph with the numbers that its exporter wrote for a size written anew.

    These are the targets of Reshape ([B, C, h w] or [B, C, h, w]), Resize, ConstantOfShape and
    Expand, and the codes of positions. BundleError if the graph then does not give outputs of the
    size's shapes.
    """
    model, shapes = _copy(model), new.shapes()
    for entry in [*model.graph.input, *model.graph.output]:
        _set_dims(entry, [batch, *shapes[entry.name][1:]])
    constants = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    sizes = (old.height, old.width), (new.height, new.width)
    if sizes[0] != sizes[1]:
        _move_positions(model, *sizes, path)
    for node in model.graph.node:
        place = SHAPE_INPUTS.get(node.op_type)
        if place is None or len(node.input) <= place or node.input[place] not in constants:
            continue
        new_target = _new_expand if node.op_type == 'Expand' else _new_target
        target = new_target(constants[node.input[place]], *sizes, batch)
        node.input[place] = 'shape_' + 'x'.join(map(str, target))
        if node.input[place] not in constants:
            constants[node.input[place]] = target
            model.graph.initializer.append(numpy_helper.from_array(target, node.input[place]))
    _drop_unused(model)
    _check_outputs(model, shapes, batch, path)
    return model


def _move_positions(model: onnx.ModelProto, old: tuple[int, int], new: tuple[int, int],
                    path: Path) -> None:
    """Write the codes of positions, in place, for the grid of another size."""
    for entry in model.graph.initializer:
        if entry.name != POSITIONS:
            continue
        codes = numpy_helper.to_array(entry)
        grid = codes.shape[2:]
        if len(grid) != 2 or codes.dtype != np.float32 or codes.shape[:2] != (1, 16) or (
                not np.allclose(codes[0], position_codes(grid[0], grid[1]), atol=1e-3)):
            raise BundleError(f'{path} has positions of its own kind: export it at '
                              f'{new[0]}x{new[1]}')
        height, width = (_scaled(*axis) for axis in zip(grid, old, new))
        entry.CopyFrom(numpy_helper.from_array(position_codes(height, width)[None], POSITIONS))


def group_by_eight(model: onnx.ModelProto) -> None:
    """
    Write depthwise convolutions, in place, with groups of eight channels.

    The new weights are zero but for the channel's own, so the numbers stay. For Turing (SM75),
    where TensorRT for RTX pads one-channel groups to eight channels by constants of seven times
    the feature map, in the engine file.
    """
    weights = {entry.name: entry for entry in model.graph.initializer}
    for node in model.graph.node:
        group = next((entry for entry in node.attribute if entry.name == 'group'), None)
        if node.op_type != 'Conv' or group is None or node.input[1] not in weights:
            continue
        weight = weights[node.input[1]]
        array = numpy_helper.to_array(weight)
        if array.shape[1] != 1 or len(array) != group.i or len(array) % 8:
            continue
        wide = np.zeros((len(array), 8, *array.shape[2:]), array.dtype)
        wide[np.arange(len(array)), np.arange(len(array)) % 8] = array[:, 0]
        node.input[1] = f'{weight.name}_by_eight'
        if node.input[1] not in weights:
            weights[node.input[1]] = numpy_helper.from_array(wide, node.input[1])
            model.graph.initializer.append(weights[node.input[1]])
        group.i = len(array) // 8
    _drop_unused(model)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]    # shapes inside follow from the new ones
    forget_hash(copy)
    return copy


def _set_dims(entry: onnx.ValueInfoProto, dims: Sequence[Optional[int]]) -> None:
    for dim, value in zip(entry.type.tensor_type.shape.dim, dims):
        if value is not None:
            dim.dim_value = value


def _new_target(target: npt.NDArray[Any], old: tuple[int, int], new: tuple[int, int], batch: int
                ) -> npt.NDArray[np.int64]:
    """Write a constant shape anew: the batch first, height and width or their product last."""
    target = np.array(target, np.int64)
    target[0] = batch if target[0] == 1 else target[0]
    if len(target) == 4:
        target[2:] = [_scaled(*axis) for axis in zip(target[2:], old, new)]
    elif len(target) == 3 and target[2] > 0:
        stride = _stride(target[2], old)
        if stride:
            target[2] = np.prod([-(-pixels // stride) for pixels in new])
    return target


def _new_expand(target: npt.NDArray[Any], old: tuple[int, int], new: tuple[int, int], batch: int
                ) -> npt.NDArray[np.int64]:
    """Write the shape of an Expand anew; a 1 in it is as long as what expands."""
    if len(target) == 3:    # the lengths of queries and keys, [B, h w or N, 1] to D
        return np.array([batch if target[0] == 1 else target[0], 1, target[2]], np.int64)
    if len(target) == 4 and (target[2:] == 1).all():
        return np.array([batch if target[0] == 1 else target[0], *target[1:]], np.int64)
    return _new_target(target, old, new, batch)


def _stride(cells: int, size: tuple[int, int]) -> Optional[int]:
    """Return the stride 2^k at which an image of ``size`` has so many cells, or None."""
    height, width = size
    return next((2**k for k in range(8) if -(-height // 2**k) * -(-width // 2**k) == cells), None)


def _scaled(coarse: int, old: int, new: int) -> int:
    """Return how long an axis of ``coarse`` cells is for a new input: ceil(new / stride)."""
    stride = next((2**k for k in range(8) if -(-old // 2**k) == coarse), None)
    return -(-new // stride) if stride else coarse


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [entry for entry in model.graph.initializer if entry.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _check_outputs(model: onnx.ModelProto, shapes: dict[str, list[int]], batch: int, path: Path
                   ) -> None:
    """Raise BundleError unless the graph is consistent and gives outputs of its shapes."""
    bare = _copy(model)
    for entry in bare.graph.output:
        entry.type.tensor_type.ClearField('shape')
    try:
        onnx.checker.check_model(model)
        inferred = shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
        found = {entry.name: [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
                 for entry in inferred.graph.output}
    except (shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        found, reason = {}, str(error).strip().splitlines()[-1]
    for name in (entry.name for entry in model.graph.output):
        expected = [batch, *shapes[name][1:]]
        if found.get(name) != expected:
            reason = f'{name} is {found[name]}, not {expected}' if found else reason
            raise BundleError(f'{path} cannot run at {shapes["image"][1]}x{shapes["image"][2]} '
                              f'with batch {batch} ({reason}): export it at that size')
