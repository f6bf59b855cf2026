# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A model on a split, frame by frame as a stream: accuracy, steadiness over time and cost."""
import time

import numpy as np
import onnx
import torch

from ros_vseg import backends
from ros_vseg.bundle import Bundle
from ros_vseg.resize import resize_image
from ros_vseg.stream import Stream

from .export import summary
from .metrics import ConfusionMatrix, flops, parameters, TemporalConsistency, VideoConsistency
from .models.layers import resize


FRAME_NS = 66_666_667  # frames of a drive are fed at 15 Hz
WARM_UP = 3  # first frames of a run that the times leave out
WINDOWS = (8, 16)  # n of VC_n


def predict(stream, image, size=None):
    """Label image uint8 [H, W] of the next frame of a stream, at its own or another size."""
    scores = resize(stream.step(image)[None].float(), size or image.shape[:2])
    return scores[0].argmax(0).to(torch.uint8).cpu().numpy()


class VideoMetrics:
    """TC and VC_n of drives that are fed frame by frame; no pair or window joins two drives."""

    def __init__(self, num_classes):
        self.temporal = TemporalConsistency(num_classes)
        self.windows = {f'VC{length}': VideoConsistency(length) for length in WINDOWS}

    def begin(self):
        """Start a new drive."""
        self._last = None
        for metric in (self.temporal, *self.windows.values()):
            metric.begin()

    def update(self, image, truth, labels):
        """Add a frame: image uint8 [H, W, 3] RGB, truth and prediction uint8 [H, W]."""
        if self._last is not None:
            self.temporal.update(self._last[0], image, self._last[1], labels)
        for window in self.windows.values():
            window.update(truth, labels)
        self._last = image, labels

    def summary(self):
        """Return the values in percent, NaN where no drive is long enough."""
        return {'TC': 100 * self.temporal.value(), 'TC_name': self.temporal.name,
                'TC_per_drive': [round(100 * one, 2) for one in self.temporal.per_sequence()],
                **{name: 100 * window.value() for name, window in self.windows.items()}}


def _seen_by_labels(source, drive, context):
    """Frames of a drive that a labelled frame attends to, and the labelled ones."""
    return [key for number, key in enumerate(drive)
            if any(source.has_labels(one) for one in drive[number:number + context + 1])]


def _run(source, start, num_classes, context, video):
    """
    Stream every drive; (ConfusionMatrix, seconds per frame).

    ``start()`` begins a drive and returns a function: image, stamp, shape -> labels. Without video
    only frames are read that the labels of a split depend on, with context earlier ones.
    """
    confusion, seconds = ConfusionMatrix(num_classes), []
    for drive in source.drives:
        step = start()
        if video:
            video.begin()
        else:
            drive = _seen_by_labels(source, drive, context)
        for number, key in enumerate(drive):
            image, truth = source.read(key)
            begin = time.perf_counter()
            labels = step(image, number * FRAME_NS, truth.shape)
            seconds.append(time.perf_counter() - begin)
            confusion.update(truth, labels)
            if video:
                video.update(image, truth, labels)
    return confusion, np.array(seconds)


def evaluate_stream(model, source, size=None, video=None):
    """
    Run every drive of a source through a student or teacher as a stream.

    size: (height, width) that frames are resized to, None for their own. Labels are compared at
    their own size, void ignored. video: VideoMetrics that see every frame too. Returns
    (ConfusionMatrix, seconds per frame float64 [frames]). The model is in eval mode meanwhile,
    and as it was afterwards.
    """
    def start():
        stream = model.stream()

        def step(image, _, shape):
            image = resize_image(image, size or image.shape[:2])
            return predict(stream, np.ascontiguousarray(image), shape)

        return step

    training = model.training
    result = _run(source, start, model.eval().num_classes, model.context_frames, video)
    model.train(training)
    return result


def evaluate_bundle(bundle, source, backend='auto', video=None, stabilize=False):
    """
    Run every drive of a source through an exported bundle by the runtime itself.

    Arguments and result are those of ``evaluate_stream``; backend, stabilize: as in
    ``backends.load``.
    """
    loaded = backends.load(bundle, backend, stabilize=stabilize)

    def start():
        stream = Stream(loaded)
        # kept until the next frame, when a backend on a GPU writes there again
        return lambda image, stamp, _: np.array(stream.step(image, stamp).labels)

    return _run(source, start, bundle.num_classes, bundle.info.pool_frames, video)


def _report(evaluate, label_set, cost):
    """Everything that is reported of a model as plain values; percent, millions, GFLOPs, ms."""
    video = VideoMetrics(len(label_set.names))
    confusion, seconds = evaluate(video)
    steady = 1000 * seconds[min(WARM_UP, len(seconds) - 1):]
    accuracy = summary(confusion, label_set)
    iou = accuracy.pop('IoU')
    report = {**accuracy, **video.summary(), **cost, 'ms_per_frame': float(np.median(steady)),
              'max_latency_ms': float(steady.max()), 'IoU': iou}
    for name, value in report.items():
        if isinstance(value, float):
            report[name] = round(value, 2) if np.isfinite(value) else None
    return report


def report_model(model, source, size, label_set):
    """
    Report of a student or teacher on a source, at an input size (height, width).

    A dict of mIoU, accuracy, TC, TC_name, TC_per_drive, VC8, VC16 and IoU by class in percent,
    parameters_M in millions, GFLOPs of a frame with a full pool, and ms_per_frame (median) and
    max_latency_ms of resize, network and decoding after ``WARM_UP`` frames. None: undefined here.
    """
    model.eval()
    cost = {'parameters_M': parameters(model) / 1e6,
            'GFLOPs': flops(model.stream().step, size, model.context_frames) / 1e9}
    return _report(lambda video: evaluate_stream(model, source, size, video), label_set, cost)


def report_bundle(path, source, backend, label_set, stabilize=False):
    """``report_model`` of a bundle by the runtime; its GFLOPs are None: count the checkpoint's."""
    bundle = Bundle.load(path)
    if bundle.info.label_set.names != label_set.names:
        raise ValueError(f'{path} has the classes of {bundle.info.label_set.name}, but the data '
                         f'those of {label_set.name}: give the recipe of its data by --config')
    graph = onnx.load_from_string(bundle.model).graph
    floats = [np.prod(value.dims) for value in graph.initializer
              if value.data_type == onnx.TensorProto.FLOAT]
    cost = {'parameters_M': float(np.sum(floats)) / 1e6, 'GFLOPs': None}
    return _report(lambda video: evaluate_bundle(bundle, source, backend, video, stabilize),
                   label_set, cost)


COLUMNS = {'mIoU': 'mIoU', 'accuracy': 'pixel accuracy', 'TC': None, 'VC8': 'VC8', 'VC16': 'VC16',
           'parameters_M': 'parameters (M)', 'GFLOPs': 'GFLOPs/frame',
           'ms_per_frame': 'median ms/frame', 'max_latency_ms': 'max latency (ms)'}


def _cell(value):
    return '-' if value is None else f'{value:.2f}'


def _markdown(head, rows):
    lines = [head, ['---'] + ['---:'] * (len(head) - 1), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def tables(reports):
    """Markdown of reports by model name: a row per model, then the IoU of a row per class."""
    temporal = next(iter(reports.values()))['TC_name']  # it names the flow method
    head = ['model', *(title or temporal for title in COLUMNS.values())]
    rows = [[name, *(_cell(report[key]) for key in COLUMNS)] for name, report in reports.items()]
    classes = list(dict.fromkeys(one for report in reports.values() for one in report['IoU']))
    ious = [[one, *(_cell(report['IoU'].get(one)) for report in reports.values())]
            for one in classes]
    return (f'{_markdown(head, rows)}\n\nTimes are after {WARM_UP} warm-up frames; TC is pooled '
            f'over all drives.\n\n{_markdown(["IoU", *reports], ious)}')
