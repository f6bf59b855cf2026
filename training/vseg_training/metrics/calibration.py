# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Whether confidence means something: expected calibration error, and wrong pixels found by it."""
import numpy as np
from numpy.typing import NDArray


BINS, GROUPS = 1500, 15  # of confidence in 0..1; the calibration error groups them


class ConfidenceMetrics:
    """
    Confidence of right and of wrong pixels, pooled in two histograms of 1,500 bins.

    ``calibration_error`` is that of Guo et al. (2017), over 15 equal ranges of confidence.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, BINS), np.int64)  # wrong, right
        self._sums = np.zeros((2, BINS))

    def update(self, truth: NDArray[np.uint8], labels: NDArray[np.uint8],
               confidence: NDArray, num_classes: int) -> None:
        """
        Add a frame.

        Args:
            truth: uint8 [H, W]; ids of ``num_classes`` and above do not count.
            labels: uint8 [H, W], the prediction.
            confidence: Float [H, W] in 0..1.
            num_classes: K.
        """
        known = truth < num_classes
        right = (truth == labels)[known].astype(np.intp)
        values = confidence[known].astype(float)
        bins = np.minimum((values * BINS).astype(np.intp), BINS - 1)
        places = right * BINS + bins
        shape = self._counts.shape
        self._counts += np.bincount(places, minlength=2 * BINS).reshape(shape)
        self._sums += np.bincount(places, values, minlength=2 * BINS).reshape(shape)

    def calibration_error(self) -> float:
        """Return the expected calibration error in [0, 1]; NaN if nothing was counted."""
        counts = self._counts.reshape(2, GROUPS, -1).sum(2)
        sums = self._sums.reshape(2, GROUPS, -1).sum((0, 2))
        total = counts.sum()
        return float(np.abs(sums - counts[1]).sum() / total) if total else float('nan')

    def auroc(self) -> float:
        """
        Return how well low confidence finds wrong pixels: area under the ROC curve, in [0, 1].

        The chance that a wrong pixel is less confident than a right one, ties counted as half;
        NaN without wrong or without right pixels.
        """
        wrong, right = self._counts.astype(float)
        if not wrong.sum() or not right.sum():
            return float('nan')
        above = right.sum() - np.cumsum(right)
        return float((wrong * (above + right / 2)).sum() / (wrong.sum() * right.sum()))
