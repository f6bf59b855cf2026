# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What context is worth: clean and degraded drives with the pool, without, with a wrong one."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ros_vseg import backends
from ros_vseg.backends.base import Backend
from ros_vseg.bundle import Bundle
from ros_vseg.decode import decode
from ros_vseg.labels import LabelSet
from ros_vseg.resize import resize_image
from ros_vseg.stream import Stream

from .data.clips import ClipSource, FRAME_NS
from .data.degrade import degradation_schedule, degrade, frame_rng, HELD_OUT
from .evaluate import check_classes, Network, ScoreStream, VideoMetrics
from .metrics import ConfidenceMetrics, ConfusionMatrix
from .models.student import Student


EARLIER = 50  # frames between a frame and those of the pool 'earlier'
BURSTS = {2: 6, 4: 8, 8: 12}  # bad frames in a row -> frames from one burst to the next

Image = npt.NDArray[np.uint8]
Labelled = tuple[Image, Image | None]  # labels, 255 times the confidence
Report = dict[str, dict[str, float]]  # by case and pool


class LabelStream(Protocol):
    """A model as it is asked here; images uint8 [H, W, 3] RGB of any size -> [H, W]."""

    def begin(self) -> None:
        """Start a drive."""

    def step(self, image: Image) -> Labelled:
        """Label the next frame of a drive, with the pool that the frames before it left."""

    def after(self, earlier: Sequence[Image], image: Image) -> Labelled:
        """Label a frame with a pool of ``earlier`` frames and nothing else."""


class ModelStream:
    """``LabelStream`` of a student or teacher in eval mode, at a size (height, width)."""

    def __init__(self, model: Network, size: Sequence[int]) -> None:
        self._size = tuple(size)
        self._drive = model.stream()
        # frames that a case names enter, good or not
        self._pool = model.stream(admit=False) if isinstance(model, Student) else model.stream()
        self.begin = self._drive.reset

    def _label(self, stream: ScoreStream, image: Image) -> Labelled:
        small = np.ascontiguousarray(resize_image(image, self._size))
        scores = stream.step(small).float().cpu().numpy()
        return decode(scores, image.shape[:2], confidence=True)

    def step(self, image: Image) -> Labelled:
        """See LabelStream."""
        return self._label(self._drive, image)

    def after(self, earlier: Sequence[Image], image: Image) -> Labelled:
        """See LabelStream."""
        self._pool.reset()
        for frame in earlier:
            self._label(self._pool, frame)
        return self._label(self._pool, image)


class BundleStream:
    """``LabelStream`` of a loaded bundle: drives by the runtime's Stream, as on a vehicle."""

    def __init__(self, backend: Backend) -> None:
        self._backend, self._pool = backend, backend.stream()
        self.begin()

    def begin(self) -> None:
        """See LabelStream."""
        self._drive, self._stamp = Stream(self._backend), 0

    def step(self, image: Image) -> Labelled:
        """See LabelStream."""
        self._stamp += FRAME_NS
        result = self._drive.step(image, self._stamp, confidence=True)
        return result.labels, result.confidence

    def after(self, earlier: Sequence[Image], image: Image) -> Labelled:
        """See LabelStream."""
        self._pool.reset()
        for frame in earlier:
            self._pool.label(frame)
            self._pool.remember()
        made = self._pool.label(image, confidence=True)
        return made.labels, made.confidence


@dataclass
class Case:
    """
    A drive as it is shown to a model.

    ``pool``: kept; emptied before each frame; earlier, of the frames 50 before (or after) each
    frame; or other, of another source's frames. ``plan``: a drive's length to its
    ``degradation_schedule``.
    """

    name: str
    pool: str = 'kept'
    plan: Callable[[int], list[str | None]] = lambda count: [None] * count


def cases() -> list[Case]:
    """Every case of the report, in its order."""
    def bursts(length: int) -> Callable[[int], list[str | None]]:
        return lambda count: degradation_schedule(count, BURSTS[length], burst=length)

    plans = {'clean': Case.plan, 'seen kinds': lambda count: degradation_schedule(count),
             'held-out kinds': lambda count: degradation_schedule(count, kinds=HELD_OUT)}
    listed = [Case(name, pool, plan) for name, plan in plans.items()
              for pool in ('kept', 'emptied', 'earlier', 'other')]
    return listed + [Case(f'bursts of {length}', pool, bursts(length))
                     for length in BURSTS for pool in ('kept', 'emptied')]


def earlier_frames(count: int, index: int, context: int) -> list[int]:
    """Tell which ``context`` frames of a drive of ``count`` are the pool 'earlier' of a frame."""
    middle = index - EARLIER if index >= EARLIER else index + EARLIER
    return [min(max(0, place), count - 1) for place in range(middle - context, middle)]


def _has_room(case: Case, source: ClipSource[Any], context: int) -> bool:
    """Whether every drive has frames far enough from some others for the case's pool."""
    return case.pool != 'earlier' or min(map(len, source.drives)) > EARLIER + context


def _pool(case: Case, source: ClipSource[Any], drive: Sequence[Any], index: int, context: int,
          other: Sequence[Image]) -> Sequence[Image]:
    """Frames that the case puts into the pool of frame ``index``."""
    if case.pool == 'other':
        return other[:context]
    if case.pool == 'earlier':
        return [source.read_image(drive[place])
                for place in earlier_frames(len(drive), index, context)]
    return []


def measure(stream: LabelStream, case: Case, source: ClipSource[Any], context: int,
            num_classes: int, other: Sequence[Image]) -> dict[str, float]:
    """
    Run a case.

    Args:
        stream: Of the model.
        case: What is shown.
        source: Whole drives of it are streamed.
        context: T of the model.
        num_classes: K.
        other: Frames of another source, for the pool 'other'.

    Returns:
        In percent mIoU, TC, VC8, VC16 of all frames and ``bad`` (mIoU of the degraded frames);
        ``ECE`` of the frames that are not degraded and ``AUROC`` of those that are, in 0..1. NaN
        where nothing was counted, and of the pool 'earlier' where a drive has no more than 50 + T
        frames. TC's flow is that of the frames before degradation.
    """
    every, bad = ConfusionMatrix(num_classes), ConfusionMatrix(num_classes)
    video = VideoMetrics(num_classes)
    good_confidence, bad_confidence = ConfidenceMetrics(), ConfidenceMetrics()
    for drive in source.drives if _has_room(case, source, context) else ():
        stream.begin()
        video.begin()
        for index, kind in enumerate(case.plan(len(drive))):
            image, truth = source.read(drive[index])
            shown = degrade(image, frame_rng(0, index), kind) if kind else image
            labels, confidence = (np.array(part, np.uint8) for part in (
                stream.step(shown) if case.pool == 'kept' else
                stream.after(_pool(case, source, drive, index, context, other), shown)))
            every.update(truth, labels)
            video.update(image, truth, labels, source.frame_name(drive[index]))
            if kind:
                bad.update(truth, labels)
            (bad_confidence if kind else good_confidence).update(
                truth, labels, confidence / 255, num_classes)
    steady = video.summary()
    return {'mIoU': 100 * every.mean_iou(), 'TC': steady['TC'], 'VC8': steady['VC8'],
            'VC16': steady['VC16'], 'bad': 100 * bad.mean_iou(),
            'ECE': good_confidence.calibration_error(), 'AUROC': bad_confidence.auroc()}


def report(stream: LabelStream, source: ClipSource[Any], other: ClipSource[Any], context: int,
           num_classes: int, chosen: Sequence[Case] | None = None) -> Report:
    """
    Run cases on a source.

    Args:
        stream: Of the model.
        source: Drives to measure.
        other: The first frames of its first drive are the pool 'other'.
        context: T of the model.
        num_classes: K.
        chosen: Cases, all by default; with T = 0, which has no pool, those with 'kept' alone.

    Returns:
        By case and pool, such as 'seen kinds, kept': the dict of ``measure``.
    """
    frames = [other.read_image(key) for key in other.drives[0][:context]]
    return {f'{case.name}, {case.pool}':
            measure(stream, case, source, context, num_classes, frames)
            for case in (chosen or cases()) if context or case.pool == 'kept'}


def report_model(model: Network, source: ClipSource[Any], other: ClipSource[Any],
                 size: Sequence[int], chosen: Sequence[Case] | None = None) -> Report:
    """``report`` of a student or teacher in eval mode, at an input size (height, width)."""
    return report(ModelStream(model, size), source, other, model.context_frames,
                  model.num_classes, chosen)


def report_bundle(path: Path, source: ClipSource[Any], other: ClipSource[Any], backend: str,
                  label_set: LabelSet) -> Report:
    """``report`` of a bundle on a backend; ValueError if the data has another label set."""
    bundle = Bundle.load(path)
    check_classes(path, bundle, label_set)
    return report(BundleStream(backends.load(bundle, backend)), source, other,
                  bundle.info.pool_frames, bundle.num_classes)


def plain(reports: dict[str, Report]) -> list[dict[str, Any]]:
    """
    Reports as JSON may hold them.

    Args:
        reports: By model.

    Returns:
        A dict per model of its name and its cases; None for a value that is undefined.
    """
    return [{'model': model, 'cases': {
        case: {name: round(float(value), 4) if math.isfinite(value) else None
               for name, value in values.items()}
        for case, values in measured.items()}} for model, measured in reports.items()]


def table(reports: dict[str, Report]) -> str:
    """Markdown of reports by model: a row per model, case and pool."""
    columns = ['mIoU', 'TC', 'VC8', 'VC16', 'bad', 'ECE', 'AUROC']
    heads = ['mIoU', 'TC (DIS)', 'VC8', 'VC16', 'mIoU, degraded frames', 'ECE', 'AUROC']
    lines = [['model', 'frames, pool', *heads], ['---'] * 2 + ['---:'] * len(heads)]
    for model, cases_of in reports.items():
        for case, values in cases_of.items():
            cells = ('-' if np.isnan(values[name]) else
                     f'{values[name]:.3f}' if name in ('ECE', 'AUROC') else f'{values[name]:.2f}'
                     for name in columns)
            lines.append([model, case, *cells])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
