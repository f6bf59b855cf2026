# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A bundle of any ONNX network that takes an image and gives scores or labels of classes."""
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, TensorProto

from ros_vseg.bundle import BundleInfo, write_bundle
from ros_vseg.errors import BundleError
from ros_vseg.graph import WRAPPED
from ros_vseg.labels import LabelSet
from ros_vseg.network import (
    Array, choose_output, freeze, image_input, keep_only, read_network, replace_all, run_network,
    set_size)
from ros_vseg.scores import (
    before_upsampling, comes_from_sigmoid, cut_argmax, fits, recognise, Scores)

PREFIX = 'network_'     # of the network's own tensors: none is called as one of ours
CERTAIN = 16.0      # score of the label in a label map; the other classes have 0
LEAST = -87.0       # logarithm of a probability of 0: of the smallest normal float32


@dataclass(frozen=True)
class Options:
    """
    How a network takes its images and gives its scores.

    Attributes:
        mean: one number or three, in the order of ``color_order``. The network sees
            (pixel / 255 * scale - mean) / std. Empty for a network that takes uint8.
        std: as ``mean``.
        scale: 1 if mean and std are for pixels in 0..1, 255 if for 0..255. None: 255 if one of
            them is above 1, else 1.
        layout: of the image, 'nchw' or 'nhwc'.
        scores: name of the tensor with the scores, needed if there are several outputs.
        kind: 'logits', 'probabilities' or 'labels'; None: found by trying.
        size: (height, width) in pixels, for a network whose size is open.
        color_order: 'rgb' or 'bgr', as the network was trained.
    """

    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    scale: Optional[int] = None
    layout: str = 'nchw'
    scores: Optional[str] = None
    kind: Optional[str] = None
    size: Optional[tuple[int, int]] = None
    color_order: str = 'rgb'


def wrap(path: Path, output: Path, label_set: LabelSet, options: Options, *,
         name: Optional[str] = None, license: str = 'unknown',  # noqa: A002
         ) -> tuple[BundleInfo, str]:
    """
    Write a bundle, without prototypes, of a plain network.

    Args:
        path: ONNX file with one image [B, 3, H, W] or [B, H, W, 3] as its input.
        output: bundle to write.
        label_set: the network's K classes in their order.
        options: see Options.
        name: of the bundle; the file's by default.
        license: of the network's weights.

    Returns:
        The metadata, and what the scores are: 'logits', 'probabilities' or 'labels'.

    Raises:
        BundleError: The network is not of this kind, or not as the options say.
    """
    path = Path(path)
    if Path(output).exists() and Path(output).samefile(path):
        raise BundleError(f'{output} is the network itself: choose another output')
    model = read_network(path)
    image = image_input(model, options.layout, path)
    height, width = set_size(image, options.layout, options.size, path)
    kind = image.type.tensor_type.elem_type
    mean, std = normalisation(options, kind, image.name)
    source = choose_output(model, options.scores, path)
    keep_only(model, source)
    inputs = [{image.name: _network_input(picture, mean, std, options.layout, kind)}
              for picture in _pictures(height, width)]
    model = freeze(model, inputs, path)
    plain = [{image.name: _network_input(picture, mean, std, options.layout, kind)}
             for picture in _plain_pictures(height, width)]
    axes: Sequence[int] = (1, 3) if options.layout == 'nchw' else (3, 1)
    coarse = None
    if options.kind != 'labels':
        source, axis = cut_argmax(model, source, inputs, path)
        axes = axes if axis is None else [axis]
        coarse = before_upsampling(model, source, (height, width), inputs, path)
    tried, end = coarse or (model, source)
    scores = recognise(
        run_network(tried, [*inputs, *plain], path), len(label_set.names), [1] if coarse else axes,
        options.kind, f'{path}: output {source}', comes_from_sigmoid(tried, end), (height, width))
    if coarse and scores.kind == 'logits':
        model, source = coarse
    elif coarse:    # the decoder would stretch their logarithms, the network stretches them
        scores = scores._replace(shape=(*scores.shape[:2], height, width))
    # another grid is stretched to the image's
    stride = fits((height, width), scores.grid) or 1
    info = BundleInfo(
        name=name or path.stem, label_set=label_set, height=height, width=width,
        color_order=options.color_order, output_stride=stride, num_prototypes=0, channels=0,
        pool_frames=0, prototype_dim=0, trained_on={'wrapped': path.name}, metrics={},
        license=license)
    graph = _Graph(model, info)
    graph.put_before(image.name, mean, std, options.layout, kind)
    graph.put_behind(source, scores)
    write_bundle(graph.model, info, output)
    return info, scores.kind


def parse_numbers(texts: Optional[Sequence[str]], name: str) -> tuple[float, ...]:
    """Return the numbers of an option's texts, such as 0.5 or 0.5,0.4,0.3; else BundleError."""
    try:
        return tuple(float(part) for text in texts or ()
                     for part in text.replace(',', ' ').split())
    except ValueError:
        raise BundleError(f'{name} {" ".join(texts or ())} is not one number or three, such as '
                          '0.485 0.456 0.406') from None


def normalisation(options: Options, kind: int, name: str
                  ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """
    Return mean and standard deviation, float32 [3], of pixels in 0..255.

    Args:
        options: see Options.
        kind: type of the network's input, of onnx.TensorProto.
        name: of the input, for messages.

    Raises:
        BundleError: They are missing, of a wrong number, or their scale is not clear.
    """
    mean, std = np.array(options.mean, np.float64), np.array(options.std, np.float64)
    if kind == TensorProto.UINT8:
        if mean.size or std.size:
            raise BundleError(f'input {name} takes pixels as they are (UINT8): leave --mean and '
                              '--std out')
        return np.zeros(3, np.float32), np.ones(3, np.float32)
    for option, values in (('--mean', mean), ('--std', std)):
        if values.size not in (1, 3) or not np.isfinite(values).all():
            raise BundleError(f'input {name} takes normalised pixels: give {option} as the '
                              'network was trained with, one number or three, such as '
                              '0.485 0.456 0.406')
    if not (std > 0).all():
        raise BundleError(f'--std {" ".join(map(str, options.std))} is not above 0')
    scale = options.scale
    if scale is None and (mean == 0).all() and (std == 1).all():
        raise BundleError('mean 0 and std 1 fit pixels in 0..1 and in 0..255: give --scale 1 or '
                          '--scale 255')
    if scale is None:
        scale = 255 if max(mean.max(), std.max()) > 1 else 1
    to_pixels = np.full(3, 255 / scale)
    return (mean * to_pixels).astype(np.float32), (std * to_pixels).astype(np.float32)


def _pictures(height: int, width: int) -> list[npt.NDArray[np.uint8]]:
    """Return two images uint8 [H, W, 3] to try a network with: smooth, with some noise."""
    rng, pictures = np.random.default_rng(0), []
    for cells in (4, 16):
        smooth = cv2.resize(rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32),
                            (width, height), interpolation=cv2.INTER_LINEAR)
        pictures.append((smooth + rng.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8))
    return pictures


def _plain_pictures(height: int, width: int) -> list[npt.NDArray[np.uint8]]:
    """Return images uint8 [H, W, 3] of which a network may say else: black, white, noise, hues."""
    hues = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return [np.zeros_like(noise), np.full_like(noise, 255), noise,
            cv2.resize(hues[None], (width, height), interpolation=cv2.INTER_NEAREST)]


def _network_input(picture: npt.NDArray[np.uint8], mean: npt.NDArray[np.float32],
                   std: npt.NDArray[np.float32], layout: str, kind: int) -> Array:
    """Return an image as the network takes it."""
    values = picture if kind == TensorProto.UINT8 else (picture - mean) / std
    planes = values.transpose(2, 0, 1) if layout == 'nchw' else values
    return np.ascontiguousarray(planes[None], helper.tensor_dtype_to_np_dtype(kind))


class _Graph:
    """The bundle's graph around a network: nodes are put before it and behind it."""

    def __init__(self, network: onnx.ModelProto, info: BundleInfo) -> None:
        self.model, self.info = network, info
        self.model.producer_name = WRAPPED
        _rename_all(self.model.graph)
        self._nodes: list[onnx.NodeProto] = []

    def _add(self, operator: str, name: str, *constants: Optional[Array], **attributes: Any
             ) -> str:
        """Add a node that reads a tensor and constants (None: left out); return its output."""
        output = f'vseg_{len(self.model.graph.initializer)}_{operator}_{len(self._nodes)}'
        inputs = [name]
        for number, array in enumerate(constants):
            inputs.append('' if array is None else f'{output}_{number}')
            if array is not None:
                self.model.graph.initializer.append(numpy_helper.from_array(array, inputs[-1]))
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def put_before(self, name: str, mean: npt.NDArray[np.float32], std: npt.NDArray[np.float32],
                   layout: str, kind: int) -> None:
        """Make the network's input, called ``name``, of the bundle's uint8 image."""
        tensor = 'image'
        if kind != TensorProto.UINT8:       # a cast first: TensorRT knows little of uint8
            tensor = self._add('Cast', tensor, to=TensorProto.FLOAT)
        if layout == 'nchw':
            tensor = self._add('Transpose', tensor, perm=[0, 3, 1, 2])
        if kind != TensorProto.UINT8:
            shape = (1, 3, 1, 1) if layout == 'nchw' else (1, 1, 1, 3)
            tensor = self._add('Sub', tensor, mean.reshape(shape))
            tensor = self._add('Div', tensor, std.reshape(shape))
        if kind == TensorProto.FLOAT16:
            tensor = self._add('Cast', tensor, to=TensorProto.FLOAT16)
        self._nodes.append(helper.make_node('Identity', [tensor], [PREFIX + name]))
        graph = self.model.graph
        replace_all(graph.node, [*self._nodes, *graph.node])
        replace_all(graph.input, [self._end('image', TensorProto.UINT8)])
        self._nodes = []

    def put_behind(self, name: str, scores: Scores) -> None:
        """Make the bundle's scores of the network's output, called ``name``."""
        name = PREFIX + name
        if scores.kind == 'labels':
            tensor = self._scores_of_labels(name, scores)
        else:
            tensor = self._add('Cast', name, to=TensorProto.FLOAT)
            if scores.axis == 3:
                tensor = self._add('Transpose', tensor, perm=[0, 3, 1, 2])
            if scores.is_binary:
                tensor = self._two_classes(tensor, scores.kind)
            if scores.kind == 'probabilities':      # softmax of the logarithms gives them again
                tensor = self._add('Max', tensor, np.zeros(1, np.float32))
                tensor = self._add('Log', tensor)
                tensor = self._add('Max', tensor, np.array([LEAST], np.float32))
        shape = self.info.shapes()['scores']
        if scores.grid != tuple(shape[2:]):
            size = np.array(shape, np.int64)
            tensor = self._add('Resize', tensor, None, None, size, mode='linear')
        self._nodes.append(helper.make_node('Identity', [tensor], ['scores']))
        self.model.graph.node.extend(self._nodes)
        replace_all(self.model.graph.output, [self._end('scores', TensorProto.FLOAT)])

    def _scores_of_labels(self, name: str, scores: Scores) -> str:
        tensor = self._add('Cast', name, to=TensorProto.INT32)
        tensor = self._add('Reshape', tensor, np.array([1, 1, *scores.grid], np.int64))
        ids = np.arange(len(self.info.label_set.names), dtype=np.int32).reshape(1, -1, 1, 1)
        tensor = self._add('Cast', self._add('Equal', tensor, ids), to=TensorProto.FLOAT)
        return self._add('Mul', tensor, np.array([CERTAIN], np.float32))

    def _two_classes(self, tensor: str, kind: str) -> str:
        """Return the scores of both classes: [-x / 2, x / 2] of logits, [1 - p, p] of p."""
        if kind == 'logits':
            return self._add('Mul', tensor, np.array([-0.5, 0.5], np.float32).reshape(1, 2, 1, 1))
        tensor = self._add('Mul', tensor, np.array([-1, 1], np.float32).reshape(1, 2, 1, 1))
        return self._add('Add', tensor, np.array([1, 0], np.float32).reshape(1, 2, 1, 1))

    def _end(self, name: str, kind: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, self.info.shapes()[name])


def _rename_all(graph: onnx.GraphProto) -> None:
    """Put PREFIX before the tensors of a graph and of the graphs inside it, in place."""
    for entry in (*graph.input, *graph.output, *graph.initializer, *graph.value_info,
                  *(sparse.values for sparse in graph.sparse_initializer)):
        entry.name = PREFIX + entry.name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name and PREFIX + name for name in names]   # '': left out
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename_all(inner)
