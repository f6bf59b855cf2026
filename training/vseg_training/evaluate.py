# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A model on a split, frame by frame as a stream: accuracy, steadiness over time and cost."""
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
import time
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
import torch

from ros_vseg import backends
from ros_vseg.bundle import Bundle
from ros_vseg.labels import LabelSet
from ros_vseg.resize import resize_image
from ros_vseg.stream import Stream

from .confusion import confusion_rows
from .data.clips import ClipSource, FRAME_NS, Key, Pixels, two_sizes
from .export import summary
from .geometry import geometry_metrics, GeometryMetrics, Seen, seen
from .metrics import (
    by_category, ConfusionMatrix, flops, InstanceIoU, parameters, TemporalConsistency,
    VideoConsistency)
from .metrics.categories import CATEGORIES
from .models.kinds import Network
from .models.layers import resize


WARM_UP = 3  # first frames of a run that the times leave out
WINDOWS = (8, 16)  # n of VC_n

Seconds = npt.NDArray[np.float64]  # per frame
# image, stamp, (H, W) -> labels, and how to get what else is said of the frame
Step = Callable[[Pixels, int, tuple[int, int]], tuple[Pixels, Callable[[], Seen]]]


class ScoreStream(Protocol):
    """A stream of frames through a network."""

    def step(self, image: Pixels) -> torch.Tensor:
        """Scores [K, h, w] of the next frame, uint8 [H, W, 3] RGB."""


def predict(stream: ScoreStream, image: Pixels, size: tuple[int, int] | None = None) -> Pixels:
    """Label image uint8 [H, W] of the next frame of a stream, at its own or another size."""
    scores = resize(stream.step(image)[None].float(), size or image.shape[:2])
    return scores[0].argmax(0).to(torch.uint8).cpu().numpy()


class VideoMetrics:
    """TC and VC_n of drives that are fed frame by frame; no pair or window joins two drives."""

    def __init__(self, num_classes: int) -> None:
        self.temporal = TemporalConsistency(num_classes)
        self.windows = {f'VC{length}': VideoConsistency(length) for length in WINDOWS}
        self._last: tuple[Pixels, Pixels, str] | None = None

    def begin(self) -> None:
        """Start a new drive."""
        self._last = None
        self.temporal.begin()
        for window in self.windows.values():
            window.begin()

    def update(self, image: Pixels, truth: Pixels, labels: Pixels, name: str) -> None:
        """
        Add a frame.

        Args:
            image: uint8 [H, W, 3] RGB.
            truth: uint8 [H, W].
            labels: uint8 [H, W], the prediction.
            name: Of the frame.

        Raises:
            ValueError: The frame differs in size from the one before it.
        """
        if self._last is not None:
            if image.shape != self._last[0].shape:
                raise two_sizes(self._last[2], self._last[0].shape[:2], name, image.shape[:2])
            self.temporal.update(self._last[0], image, self._last[1], labels)
        for window in self.windows.values():
            window.update(truth, labels)
        self._last = image, labels, name

    def summary(self) -> dict[str, Any]:
        """Return the values in percent, NaN where no drive is long enough."""
        drives = [round(100 * value, 2) for value in self.temporal.per_sequence()]
        values = {name: 100 * window.value() for name, window in self.windows.items()}
        return {'TC': 100 * self.temporal.value(), 'TC_name': self.temporal.name,
                'TC_per_drive': drives, **values}


def _seen_by_labels(source: ClipSource[Key], drive: Sequence[Key], context: int) -> list[Key]:
    """Frames of a drive that a labelled frame attends to, and the labelled ones."""
    labelled = [source.has_labels(key) for key in drive]
    return [key for number, key in enumerate(drive) if any(labelled[number:number + context + 1])]


def _run(source: ClipSource[Key], start: Callable[[], Step], num_classes: int, context: int,
         video: VideoMetrics | None, instances: InstanceIoU | None,
         geometry: GeometryMetrics | None) -> tuple[ConfusionMatrix, Seconds]:
    """
    Stream every drive.

    ``start()`` begins a drive and returns what labels its frames. Without video and geometry only
    frames are read that the labels of a split depend on, with context earlier ones.
    """
    confusion, seconds = ConfusionMatrix(num_classes), []
    for drive in source.drives:
        step = start()
        if video:
            video.begin()
        elif not geometry:
            drive = _seen_by_labels(source, drive, context)
        for number, key in enumerate(drive):
            image, truth = source.read(key)
            begin = time.perf_counter()
            labels, look = step(image, number * FRAME_NS, truth.shape)
            seconds.append(time.perf_counter() - begin)
            confusion.update(truth, labels)
            if video:
                video.update(image, truth, labels, source.frame_name(key))
            if instances and source.has_labels(key):
                instances.update(source.instances(key), labels)
            if geometry:
                geometry.update(image.shape[:2], source.geometry(key), look())
    return confusion, np.array(seconds)


def evaluate_stream(model: Network, source: ClipSource[Any],
                    size: Sequence[int] | None = None, video: VideoMetrics | None = None,
                    instances: InstanceIoU | None = None, geometry: GeometryMetrics | None = None
                    ) -> tuple[ConfusionMatrix, Seconds]:
    """
    Run every drive of a source through a student or teacher as a stream.

    Args:
        model: In eval mode meanwhile, and afterwards in the mode that it was in.
        source: Labels are compared at their own size; void does not count.
        size: (height, width) that frames are resized to, None for their own.
        video: Sees every frame too.
        instances: Sees every labelled frame too.
        geometry: Sees every frame too.

    Returns:
        Counts, and seconds per frame, float64 [frames].
    """
    def start() -> Step:
        stream: Any = model.stream()

        def step(image: Pixels, stamp: int, shape: tuple[int, int]
                 ) -> tuple[Pixels, Callable[[], Seen]]:
            image = resize_image(image, size or image.shape[:2])
            labels = predict(stream, np.ascontiguousarray(image), shape)
            return labels, lambda: seen(stream.parts, model.tasks)

        return step

    training = model.training
    result = _run(source, start, model.eval().num_classes, model.context_frames, video,
                  instances, geometry)
    model.train(training)
    return result


def evaluate_bundle(bundle: Bundle, source: ClipSource[Any], backend: str = 'auto',
                    video: VideoMetrics | None = None, instances: InstanceIoU | None = None,
                    geometry: GeometryMetrics | None = None, stabilize: bool = False
                    ) -> tuple[ConfusionMatrix, Seconds]:
    """
    Run every drive of a source through an exported bundle by the runtime itself.

    Arguments and result are those of ``evaluate_stream``; backend, stabilize: as in
    ``backends.load``.
    """
    loaded = backends.load(bundle, backend, stabilize=stabilize)

    def start() -> Step:
        stream = Stream(loaded)

        def step(image: Pixels, stamp: int, shape: tuple[int, int]
                 ) -> tuple[Pixels, Callable[[], Seen]]:
            result = stream.step(image, stamp)
            # kept until the next frame, when a backend on a GPU writes there again
            return np.array(result.labels), lambda: Seen(result.depth)

        return step

    return _run(source, start, bundle.num_classes, bundle.info.pool_frames, video, instances,
                geometry)


def _report(evaluate: Callable[..., tuple[ConfusionMatrix, Seconds]],
            geometry: GeometryMetrics | None, label_set: LabelSet,
            cost: Mapping[str, float | None]) -> dict[str, Any]:
    """Everything that is reported of a model as plain values; percent, millions, GFLOPs, ms."""
    video, instances = VideoMetrics(len(label_set.names)), InstanceIoU(label_set.names)
    confusion, seconds = evaluate(video=video, instances=instances, geometry=geometry)
    steady = 1000 * seconds[min(WARM_UP, len(seconds) - 1):]
    accuracy = summary(confusion, label_set)
    iou = accuracy.pop('IoU')
    accuracy['mAcc'] = 100 * confusion.mean_accuracy()
    categories = by_category(confusion, label_set.names)
    if categories is not None:
        accuracy['category_mIoU'] = 100 * categories.mean_iou()
    weighed = {name: 100 * value for name, value in instances.iou(confusion).items()}
    if weighed:
        accuracy['iIoU_mean'] = float(np.mean(list(weighed.values())))
    report = {**accuracy, **video.summary(), **cost, **(geometry.summary() if geometry else {}),
              'ms_per_frame': float(np.median(steady)), 'max_latency_ms': float(steady.max()),
              'IoU': iou}
    for name, value in report.items():
        if isinstance(value, float):
            report[name] = round(value, 2) if np.isfinite(value) else None
    if categories is not None:
        report['category_IoU'] = {name: round(100 * float(value), 2) for name, value in zip(
            CATEGORIES, categories.iou()) if np.isfinite(value)}
    if weighed:
        report['iIoU'] = {name: round(value, 2) for name, value in weighed.items()}
    return {**report, 'confusion': confusion_rows(confusion, label_set.names)}


def report_model(model: Network, source: ClipSource[Any], size: Sequence[int],
                 label_set: LabelSet) -> dict[str, Any]:
    """
    Report of a student or teacher on a source.

    Args:
        model: It is put into eval mode.
        source: With labels.
        size: (height, width) of the network's input.
        label_set: Of the labels.

    Returns:
        mIoU, accuracy, mAcc, TC, TC_name, TC_per_drive, VC8, VC16 and IoU by class in percent;
        parameters_M in millions; GFLOPs of a frame with a full pool; ms_per_frame (median) and
        max_latency_ms of resize, network and decoding after ``WARM_UP`` frames; confusion, see
        ``confusion_rows``; what ``GeometryMetrics`` gives; category_mIoU and category_IoU where
        the classes are Cityscapes'; iIoU_mean and iIoU where the source has instances.
        None: undefined here.
    """
    model.eval()
    cost = {'parameters_M': parameters(model) / 1e6,
            'GFLOPs': flops(model.stream().step, (size[0], size[1]), model.context_frames) / 1e9}
    return _report(partial(evaluate_stream, model, source, size),
                   geometry_metrics(model.tasks, size[0]), label_set, cost)


def check_classes(path: Path, bundle: Bundle, label_set: LabelSet) -> None:
    """Raise ValueError if a bundle knows other classes than the data has."""
    if bundle.info.label_set.names != label_set.names:
        raise ValueError(f'{path} has the classes of {bundle.info.label_set.name}, but the data '
                         f'those of {label_set.name}: give the recipe of its data by --config')


def report_bundle(path: Path, source: ClipSource[Any], backend: str, label_set: LabelSet,
                  stabilize: bool = False) -> dict[str, Any]:
    """``report_model`` of a bundle by the runtime; its GFLOPs are None: count the checkpoint's."""
    bundle = Bundle.load(path)
    check_classes(path, bundle, label_set)
    graph = onnx.load_from_string(bundle.model).graph
    floats = [np.prod(value.dims) for value in graph.initializer
              if value.data_type == onnx.TensorProto.FLOAT]
    cost = {'parameters_M': float(np.sum(floats)) / 1e6, 'GFLOPs': None}
    info = bundle.info
    return _report(partial(evaluate_bundle, bundle, source, backend, stabilize=stabilize),
                   GeometryMetrics(info.depth, False, info.height) if info.depth else None,
                   label_set, cost)


COLUMNS = {'mIoU': 'mIoU', 'category_mIoU': 'category mIoU', 'iIoU_mean': 'iIoU', 'mAcc': 'mAcc',
           'accuracy': 'pixel accuracy', 'TC': None, 'VC8': 'VC8', 'VC16': 'VC16',
           'parameters_M': 'parameters (M)', 'GFLOPs': 'GFLOPs/frame',
           'rel': 'rel', 'log10': 'log10', 'rms': 'rms (m)', 'delta1': 'delta1',
           'delta2': 'delta2', 'delta3': 'delta3', 'angle': 'angle of normals (deg)',
           'ms_per_frame': 'median ms/frame', 'max_latency_ms': 'max latency (ms)'}


def _cell(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ['---', *['---:'] * (len(head) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def tables(reports: Mapping[str, dict[str, Any]]) -> str:
    """Markdown of reports by model name: a row per model, then the IoU of a row per class."""
    temporal = next(iter(reports.values()))['TC_name']  # it names the flow method
    columns = {key: title or temporal for key, title in COLUMNS.items()
               if any(key in report for report in reports.values())}
    rows = [[name, *(_cell(report.get(key)) for key in columns)]
            for name, report in reports.items()]
    blocks = [_markdown(['model', *columns.values()], rows),
              f'Times are after {WARM_UP} warm-up frames; TC is pooled over all drives.']
    for key, title in (('IoU', 'IoU'), ('category_IoU', 'category IoU'), ('iIoU', 'iIoU')):
        ious = [report.get(key, {}) for report in reports.values()]
        names = dict.fromkeys(name for values in ious for name in values)
        if names:
            blocks.append(_markdown(
                [title, *reports],
                [[name, *(_cell(values.get(name)) for values in ious)] for name in names]))
    return '\n\n'.join(blocks)
