# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Mean intersection over union, and accuracy, from one pooled confusion matrix."""
import numpy as np
import numpy.typing as npt


class ConfusionMatrix:
    """
    Counts of (true class, predicted class), pooled over all images it is given.

    Pixels whose true id is ``num_classes`` or more (void) do not count; a prediction of no class
    is a miss of the true one.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, truth: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
        """Add label images uint8 [..., H, W] of equal shape."""
        known = truth < self.num_classes
        wide = self.num_classes + 1
        pairs = truth[known].astype(np.int64) * wide + np.minimum(labels[known], self.num_classes)
        self.counts += np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)

    def iou(self) -> npt.NDArray[np.float64]:
        """Return the IoU per class in 0..1, float [K]; NaN for a class that is in neither."""
        hits = np.diagonal(self.counts)
        union = self.counts.sum(1) + self.counts.sum(0)[:self.num_classes] - hits
        iou: npt.NDArray[np.float64] = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
        return iou

    def mean_iou(self) -> float:
        """Return the mean IoU of the classes that occur, in [0, 1]; NaN if nothing was counted."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float('nan')

    def accuracy(self) -> float:
        """Return the share of the counted pixels that are right, in [0, 1]; NaN without any."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float('nan')

    def mean_accuracy(self) -> float:
        """
        Return the mean over classes of the share of a class's pixels that are right (mAcc).

        In [0, 1]; classes that no true pixel has do not count, NaN if nothing was counted.
        """
        totals = self.counts.sum(1)
        there = totals > 0
        shares = np.diagonal(self.counts)[there] / totals[there]
        return float(shares.mean()) if there.any() else float('nan')
