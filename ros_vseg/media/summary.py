# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a recorded run amounts to: counts, frame rate, latency, agreement with exact labels."""
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ros_vseg.media.iou import ConfusionMatrix

T = TypeVar('T')

ANY_CLASSES = 255    # ids that may be a class; 255 is void
LATENCY_LIMIT = 60.0    # seconds; an older or a future stamp is of another clock
LATENCY_UNKNOWN = 'unknown: the stamps are not of this clock'
PAIRS_KEPT = 64      # label images that wait for their exact ones, or the other way round


class Summary:
    """Numbers of one run, gathered frame by frame."""

    def __init__(self) -> None:
        self._latencies: list[int] = []
        self._arrivals: list[int] = []
        self._labels: dict[int, npt.NDArray[np.uint8]] = {}     # by stamp, without exact ones
        self._exact: dict[int, npt.NDArray[np.uint8]] = {}
        self._twice: dict[int, None] = {}       # stamps that two images of a kind have waited with
        self._exact_came, self._ambiguous = False, 0
        self._confusion = ConfusionMatrix(ANY_CLASSES)
        self.compared = self.other_size = 0

    @property
    def labels(self) -> int:
        """Number of label images so far."""
        return len(self._arrivals)

    def add_label(self, labels: npt.NDArray[np.uint8], stamp: int, now: int) -> None:
        """Count a label image uint8 [H,W] of time ``stamp`` that arrived at ``now``, both ns."""
        self._arrivals.append(now)
        if is_latency((now - stamp) / 1e9):
            self._latencies.append(now - stamp)
        exact = self._exact.pop(stamp, None)
        if exact is None:
            self._wait(self._labels, stamp, labels)
        else:
            self._compare(exact, labels)

    def add_exact(self, exact: npt.NDArray[np.uint8], stamp: int) -> None:
        """Take the exact labels uint8 [H,W] (255 = void) of the frame at ``stamp``, ns."""
        self._exact_came = True
        labels = self._labels.pop(stamp, None)
        if labels is None:
            self._wait(self._exact, stamp, exact)
        else:
            self._compare(exact, labels)

    def _compare(self, exact: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
        if exact.shape == labels.shape:
            self._confusion.update(exact, labels)
            self.compared += 1
        else:
            self.other_size += 1

    def _wait(self, waiting: dict[int, npt.NDArray[np.uint8]], stamp: int,
              labels: npt.NDArray[np.uint8]) -> None:
        """Keep an image until its other half comes, unless nothing tells which that is."""
        if stamp in self._twice:
            self._ambiguous += 1
        elif waiting.pop(stamp, None) is not None:
            self._ambiguous += 2
            _keep(self._twice, stamp, None)
        else:
            _keep(waiting, stamp, labels)

    @property
    def ambiguous(self) -> int:
        """Number of images, labels or exact ones, not compared since others have their stamp."""
        return self._ambiguous if self._exact_came else 0

    def to_dict(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """
        Return everything as JSON-ready numbers; latency in ms.

        Where no stamp is of this clock, as those of an old bag, ``latency_ms`` is None and
        ``latency`` says so.
        ``iou`` as fractions, of the classes that occur (see ConfusionMatrix), and their mean
        ``miou``, where ``names`` of the classes are given and exact labels have pixels of them.
        """
        result: dict[str, Any] = {
            'labels': self.labels, 'fps': self._fps(), 'compared': self.compared,
            'ambiguous': self.ambiguous, 'other_size': self.other_size}
        if self._latencies:
            percentiles = np.percentile(self._latencies, (50, 95, 99)) / 1e6
            result['latency_ms'] = dict(zip(('p50', 'p95', 'p99'), percentiles.round(2).tolist()))
        elif self.labels:
            result.update(latency_ms=None, latency=LATENCY_UNKNOWN)
        if self.compared and names:
            iou = {name: iou for name, iou in zip(names, self._confusion.iou().tolist())
                   if iou == iou}
            if iou:
                result.update(iou=iou, miou=float(np.mean(list(iou.values()))))
        return result

    def problems(self, names: Sequence[str] = ()) -> list[str]:
        """
        Return in words why exact labels were not compared.

        Args:
            names: of the classes, as for ``to_dict``.

        Returns:
            a line for each reason; none where all was well.
        """
        found = []
        if self.ambiguous:
            found.append(f'{self.ambiguous} label images were not compared, since others have the '
                         'same stamp: let the camera give every frame a stamp of its own')
        if self.other_size:
            found.append(f'{self.other_size} exact label images are of another size than the '
                         'labels and were not compared: play them at the size of the images')
        if self.compared and names and 'miou' not in self.to_dict(names):
            found.append('the exact labels have no pixel of a class, so that there is no mIoU: do '
                         'they have the ids of label_info?')
        return found

    def _fps(self) -> float:
        seconds = (self._arrivals[-1] - self._arrivals[0]) / 1e9 if self._arrivals else 0.0
        return (len(self._arrivals) - 1) / seconds if seconds > 0 else 0.0


def is_latency(seconds: float) -> bool:
    """Return whether now - stamp can be a latency, and both are of one clock."""
    return 0.0 <= seconds < LATENCY_LIMIT


def _keep(waiting: dict[int, T], stamp: int, value: T) -> None:
    waiting[stamp] = value
    if len(waiting) > PAIRS_KEPT:
        del waiting[next(iter(waiting))]
