# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The student alone leaves as a bundle: one ONNX file with its metadata."""
from collections.abc import Mapping, Sequence
import logging
from pathlib import Path
import tempfile
from typing import Any
import warnings

import numpy as np
import onnx
import torch

from ros_vseg.bundle import BundleInfo, FORMAT_VERSION, write_bundle
from ros_vseg.labels import LabelSet, load_label_set

from .metrics import ConfusionMatrix
from .models.kinds import Exportable
from .models.per_frame import PerFrame
from .models.stream import mean_confidence
from .models.student import Student
from .models.tasks import metres, range_of, split
from .recipe import class_ids, Recipe

OPSET = 18
INPUTS = ('image', 'pool', 'pool_mask')


class _Step(torch.nn.Module):
    """
    ``Student.step`` as a forward.

    Without context the pool is no input, and the mean confidence (of the largest class
    probability, [B]) no output; without prototypes there are none. Normals stay here.

    Position codes become an initializer named positions, by which the runtime finds them when it
    writes the graph for another input size.
    """

    positions: torch.Tensor | None

    def __init__(self, student: Student, image: torch.Tensor) -> None:
        super().__init__()
        self.student = student
        self.register_buffer('positions', student.codes(image.permute(0, 3, 1, 2)), False)

    def forward(self, image: torch.Tensor, pool: torch.Tensor | None = None,
                pool_mask: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        if pool is None or pool_mask is None:
            pool = image.new_zeros(len(image), 0, self.student.prototype_dim, dtype=torch.float32)
            pool_mask = pool[..., 0]
            scores, prototypes = self.student.step(image, pool, pool_mask, self.positions)
            scores, *depth = _split(self.student, scores)
            return (scores, *((prototypes,) if prototypes.shape[1] else ()), *depth)
        scores, prototypes = self.student.step(image, pool, pool_mask, self.positions)
        scores, *depth = _split(self.student, scores)
        return (scores, prototypes, mean_confidence(scores), *depth)


class _Frame(torch.nn.Module):
    """``PerFrame.step`` as a forward; the network is called student, as in ``_Step``."""

    def __init__(self, network: PerFrame) -> None:
        super().__init__()
        self.student = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _split(self.student, self.student.step(image))


def _split(student: Exportable, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Scores of the classes, and the depth [B, h, w] in metres where the network has it."""
    parts, task = split(scores, student.num_classes, student.tasks), student.tasks.depth
    return (parts['scores'], metres(parts['depth'], task)) if task else (parts['scores'],)


def _outputs(student: Exportable, count: int) -> list[str]:
    """Names of a graph's outputs; count: prototypes per frame."""
    has = {'scores': True, 'prototypes': count, 'confidence': count and student.context_frames,
           'depth': student.tasks.depth}
    return [name for name, there in has.items() if there]


def count_prototypes(student: Exportable, size: Sequence[int]) -> int:
    """Prototypes per frame of (height, width): N, or the pixels of the pixel form; 0: none."""
    if isinstance(student, PerFrame):
        return 0
    with torch.inference_mode():
        image = student.mean.new_zeros(1, 3, *size)
        return student.eval().encode(image)[2].shape[1]


def to_onnx(student: Exportable, size: Sequence[int], batch: int = 1) -> onnx.ModelProto:
    """
    ONNX graph of a network's ``step`` at one size.

    Args:
        student: It is put into eval mode.
        size: (height, width) of the uint8 input.
        batch: B of inputs and outputs.

    Returns:
        A graph with the inputs image, pool and pool_mask and the outputs scores, prototypes and
        confidence; without a pool (T = 0) the input is image alone, and there is no confidence;
        without prototypes there are none; with the task depth that comes last.
    """
    count = count_prototypes(student, size)
    slots = student.context_frames * count
    inputs = [torch.zeros(batch, *size, 3, dtype=torch.uint8)]
    if slots and not isinstance(student, PerFrame):
        inputs += [torch.zeros(batch, slots, student.prototype_dim), torch.zeros(batch, slots)]
    student = student.eval().to(  # type: ignore[call-overload]  # its stub lacks this form
        memory_format=torch.contiguous_format)
    for name in ('torch.onnx', 'onnxscript', 'onnx_ir'):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter('ignore')
        path = Path(folder) / 'student.onnx'
        step = (_Frame(student) if isinstance(student, PerFrame)
                else _Step(student, inputs[0]))
        torch.onnx.export(
            step, tuple(inputs), path, dynamo=True, opset_version=OPSET,
            input_names=INPUTS[:len(inputs)], output_names=_outputs(student, count),
            external_data=False, verbose=False)
        return forget_source(onnx.load(path))


def forget_source(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take out of a graph, in place, which lines of which files it was traced from."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input,
                 *graph.output):
        del part.metadata_props[:]
        part.ClearField('doc_string')
    return model


def export_bundle(student: Exportable, recipe: Recipe, path: Path,
                  size: Sequence[int] | None = None, metrics: dict[str, Any] | None = None,
                  temperature: float | None = None, shift: Mapping[str, float] | None = None
                  ) -> BundleInfo:
    """
    Write a student as a bundle.

    Args:
        student: It is put into eval mode.
        recipe: That it was trained by.
        path: File to write.
        size: (height, width) of the network's input, the recipe's by default.
        metrics: Go into the metadata.
        temperature: That its scores were divided by, if any.
        shift: What was added to the scores of classes, by name, for the metadata.

    Returns:
        The metadata.
    """
    size = tuple(size or recipe.data.size)
    sources = [f'{source.kind} {source.split if source.kind != "street" else list(source.seeds)}'
               for source in recipe.data.train]
    count, task = count_prototypes(student, size), student.tasks.depth
    info = BundleInfo(
        format_version=FORMAT_VERSION, name=recipe.name,
        label_set=load_label_set(recipe.data.label_set), height=size[0], width=size[1],
        color_order='rgb', output_stride=student.output_stride,
        num_prototypes=count, channels=student.channels if count else 0,
        pool_frames=student.context_frames,
        prototype_dim=0 if isinstance(student, PerFrame) or not count else student.prototype_dim,
        has_confidence=bool(count and student.context_frames),
        trained_on={'recipe': recipe.name, 'seed': recipe.seed, 'sources': sources,
                    **({'shift': dict(shift)} if shift else {})},
        metrics=metrics or {}, license=recipe.data.license, rates=recipe.data.rates,
        temperature=temperature,
        depth=range_of(task) if task else None)
    write_bundle(to_onnx(student, size), info, path)
    return info


def shift_of(named: Sequence[tuple[str, float]], label_set: str) -> torch.Tensor:
    """
    Make the shift of every class [K] out of that of some, by name.

    Raises:
        ValueError: The label set lacks a class, or one is named twice.
    """
    names = [name for name, _ in named]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f'--shift names the class {twice[0]!r} twice')
    shift = torch.zeros(len(load_label_set(label_set).names))
    shift[class_ids(names, label_set, '--shift')] = torch.tensor([value for _, value in named])
    return shift


def summary(confusion: ConfusionMatrix, label_set: LabelSet) -> dict[str, Any]:
    """MIoU, accuracy and IoU by class as plain numbers in percent, for metadata and tables."""
    iou = {name: round(100 * float(value), 2)
           for name, value in zip(label_set.names, confusion.iou()) if np.isfinite(value)}
    return {'mIoU': round(100 * confusion.mean_iou(), 2),
            'accuracy': round(100 * confusion.accuracy(), 2), 'IoU': iou}
