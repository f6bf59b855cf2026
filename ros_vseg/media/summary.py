# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a recorded run amounts to: counts, frame rate, latency, agreement with exact labels."""
import numpy as np

from ros_vseg.media.iou import ConfusionMatrix

ANY_CLASSES = 255    # ids that may be a class; 255 is void
PAIRS_KEPT = 64      # label images that wait for their exact ones, or the other way round


class Summary:
    """Numbers of one run, gathered frame by frame."""

    def __init__(self):
        self._latencies, self._arrivals = [], []
        self._waiting = {'labels': {}, 'exact': {}}
        self._confusion = ConfusionMatrix(ANY_CLASSES)
        self.compared = 0

    @property
    def labels(self):
        """Number of label images so far."""
        return len(self._arrivals)

    def add_label(self, labels, stamp, now):
        """Count a label image uint8 [H,W] of time ``stamp`` that arrived at ``now``, both ns."""
        self._arrivals.append(now)
        self._latencies.append(now - stamp)
        self._pair('labels', 'exact', stamp, labels)

    def add_exact(self, exact, stamp):
        """Take the exact labels uint8 [H,W] (255 = void) of the frame at ``stamp``, ns."""
        self._pair('exact', 'labels', stamp, exact)

    def _pair(self, mine, other, stamp, labels):
        partner = self._waiting[other].pop(stamp, None)
        if partner is None:
            waiting = self._waiting[mine]
            waiting[stamp] = labels
            if len(waiting) > PAIRS_KEPT:
                del waiting[next(iter(waiting))]
        elif partner.shape == labels.shape:
            exact, labels = (partner, labels) if mine == 'labels' else (labels, partner)
            self._confusion.update(exact, labels)
            self.compared += 1

    def to_dict(self, names=()):
        """
        Return everything as JSON-ready numbers; latency in ms.

        ``iou`` as fractions, of the classes that occur (see ConfusionMatrix), and their mean
        ``miou``, where ``names`` of the classes are given and exact labels came.
        """
        result = {'labels': self.labels, 'fps': self._fps(), 'compared': self.compared}
        if self._latencies:
            percentiles = np.percentile(self._latencies, (50, 95, 99)) / 1e6
            result['latency_ms'] = dict(zip(('p50', 'p95', 'p99'), percentiles.round(2).tolist()))
        if self.compared and names:
            result['iou'] = {name: iou for name, iou in zip(names, self._confusion.iou().tolist())
                             if iou == iou}
            result['miou'] = float(np.mean(list(result['iou'].values())))
        return result

    def _fps(self):
        if len(self._arrivals) < 2:
            return 0.0
        return (len(self._arrivals) - 1) / ((self._arrivals[-1] - self._arrivals[0]) / 1e9)
