# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What context is worth: clean and degraded drives with the pool, without, with a wrong one."""
from dataclasses import dataclass
from typing import Callable, Optional, Protocol, Sequence

import numpy as np
from numpy.typing import NDArray

from ros_vseg.admission import Admission
from ros_vseg.decode import decode
from ros_vseg.resize import resize_image

from .data.clips import ClipSource
from .data.degrade import degradation_schedule, degrade, frame_rng, HELD_OUT
from .evaluate import VideoMetrics
from .metrics import ConfidenceMetrics, ConfusionMatrix


EARLIER = 50  # frames between a frame and those of the pool 'earlier'
BURSTS = {2: 6, 4: 8, 8: 12}  # bad frames in a row -> frames from one burst to the next


class ScoreStream(Protocol):
    """A stream at the network's size: images uint8 [h, w, 3] in, scores [K, h', w'] out."""

    def step(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores of the next frame, which enters the pool if it is good enough."""

    def reset(self) -> None:
        """Empty the pool."""


class ModelStream:
    """``ScoreStream`` of a student or teacher in eval mode."""

    def __init__(self, model) -> None:
        self._stream = model.stream()
        self.reset = self._stream.reset

    def step(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._stream.step(np.ascontiguousarray(image)).float().cpu().numpy()


class BundleStream:
    """``ScoreStream`` of a bundle on a backend, by the rules of ``ros_vseg.stream``."""

    def __init__(self, backend) -> None:
        self._stream, self._admission = backend.stream(), Admission()

    def step(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        scores = self._stream.step(np.ascontiguousarray(image))
        if self._admission.admits(self._stream.mean_confidence):
            self._stream.remember()
        return scores

    def reset(self) -> None:
        self._stream.reset()
        self._admission.reset()


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
    plan: Callable[[int], list[Optional[str]]] = lambda count: [None] * count


def cases() -> list[Case]:
    """Every case of the report, in its order."""
    def bursts(length: int) -> Callable[[int], list[Optional[str]]]:
        return lambda count: degradation_schedule(count, BURSTS[length], burst=length)

    plans = {'clean': Case.plan, 'seen kinds': lambda count: degradation_schedule(count),
             'held-out kinds': lambda count: degradation_schedule(count, kinds=HELD_OUT)}
    listed = [Case(name, pool, plan) for name, plan in plans.items()
              for pool in ('kept', 'emptied', 'earlier', 'other')]
    return listed + [Case(f'bursts of {length}', pool, bursts(length))
                     for length in BURSTS for pool in ('kept', 'emptied')]


class _Drive:
    """Frames of a drive at the network's size, read once for all cases."""

    def __init__(self, source: ClipSource, keys: Sequence, size: tuple[int, int]) -> None:
        self.images, self.truths = zip(*(source.read(key) for key in keys))
        self.size = size

    def frame(self, index: int, kind: Optional[str] = None) -> NDArray[np.uint8]:
        """Frame of the network's size, degraded as the camera would give it."""
        image = self.images[index]
        if kind:
            image = degrade(image, frame_rng(0, index), kind)
        return resize_image(image, self.size)


def _fill(stream: ScoreStream, case: Case, drive: _Drive, index: int, context: int,
          other: Sequence[NDArray[np.uint8]]) -> None:
    """Put into the pool what the case says that frame ``index`` shall find there."""
    if case.pool == 'kept':
        return
    stream.reset()
    if case.pool == 'other':
        for image in other[:context]:
            stream.step(image)
    elif case.pool == 'earlier':
        middle = index - EARLIER if index >= EARLIER else index + EARLIER
        for place in range(middle - context, middle):
            stream.step(drive.frame(min(max(0, place), len(drive.images) - 1)))


def measure(stream: ScoreStream, case: Case, drives: Sequence[_Drive], context: int,
            num_classes: int, other: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """
    Run a case.

    Args:
        stream: Of the model.
        case: What is shown.
        drives: Whole drives in order.
        context: T of the model.
        num_classes: K.
        other: Frames of another source at the network's size, for the pool 'other'.

    Returns:
        In percent mIoU, TC, VC8, VC16 of all frames and ``bad`` (mIoU of the degraded frames);
        ``ECE`` of the frames that are not degraded and ``AUROC`` of those that are, in 0..1. NaN
        where nothing was counted. TC's flow is that of the frames before degradation.
    """
    every, bad = ConfusionMatrix(num_classes), ConfusionMatrix(num_classes)
    video = VideoMetrics(num_classes)
    good_confidence, bad_confidence = ConfidenceMetrics(), ConfidenceMetrics()
    for drive in drives:
        stream.reset()
        video.begin()
        for index, kind in enumerate(case.plan(len(drive.images))):
            _fill(stream, case, drive, index, context, other)
            truth = drive.truths[index]
            labels, confidence = decode(
                stream.step(drive.frame(index, kind)), truth.shape, confidence=True)
            every.update(truth, labels)
            video.update(drive.images[index], truth, labels)
            if kind:
                bad.update(truth, labels)
            (bad_confidence if kind else good_confidence).update(
                truth, labels, confidence / 255, num_classes)
    steady = video.summary()
    return {'mIoU': 100 * every.mean_iou(), 'TC': steady['TC'], 'VC8': steady['VC8'],
            'VC16': steady['VC16'], 'bad': 100 * bad.mean_iou(),
            'ECE': good_confidence.calibration_error(), 'AUROC': bad_confidence.auroc()}


def report(stream: ScoreStream, source: ClipSource, size: tuple[int, int], context: int,
           num_classes: int, other: Sequence[NDArray[np.uint8]],
           chosen: Optional[Sequence[Case]] = None) -> dict[str, dict[str, float]]:
    """
    Run all cases on a source; arguments as in ``measure``.

    Returns:
        By case and pool, such as 'seen kinds, kept': the dict of ``measure``.
    """
    drives = [_Drive(source, keys, size) for keys in source.drives]
    return {f'{case.name}, {case.pool}':
            measure(stream, case, drives, context, num_classes, other)
            for case in (chosen or cases())}


def other_frames(source: ClipSource, size: tuple[int, int],
                 count: int) -> list[NDArray[np.uint8]]:
    """Frames of another source's first drive, at the network's size, for the pool 'other'."""
    return [resize_image(source.read_image(key), size) for key in source.drives[0][:count]]


def table(reports: dict[str, dict[str, dict[str, float]]]) -> str:
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
