# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Whether confidence means something: expected calibration error, and wrong pixels found by it."""
from typing import Any

import numpy as np
import numpy.typing as npt


BINS, GROUPS = 1500, 15  # of confidence in 0..1; the calibration error groups them


class ConfidenceMetrics:
    """
    Confidence of right and of wrong pixels, pooled in two histograms of 1,500 bins.

    Examples:
        >>> truth = np.zeros((2, 4), np.uint8)
        >>> labels = np.array([[0, 0, 0, 0], [0, 0, 0, 1]], np.uint8)  # one of eight is wrong
        >>> confidence = np.full((2, 4), 0.875)
        >>> confidence[1, 3] = 0.5
        >>> metric = ConfidenceMetrics()
        >>> metric.update(truth, labels, confidence, num_classes=2)
        >>> metric.auroc()  # the wrong pixel is the least confident
        1.0
        >>> metric.calibration_error()  # 7/8 of 1 - 0.875, and 1/8 of 0.5 - 0
        0.171875
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, BINS), np.int64)  # wrong, right
        self._sums = np.zeros((2, BINS))

    def update(self, truth: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8],
               confidence: npt.NDArray[Any], num_classes: int) -> None:
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
        """
        Return the expected calibration error (Guo et al., 2017) over 15 equal ranges b.

        ECE = sum_b |sum of confidence in b - right pixels in b| / pixels, in [0, 1]; NaN if
        nothing was counted.
        """
        counts = self._counts.reshape(2, GROUPS, -1).sum(2)
        sums = self._sums.reshape(2, GROUPS, -1).sum((0, 2))
        total = counts.sum()
        return float(np.abs(sums - counts[1]).sum() / total) if total else float('nan')

    def auroc(self) -> float:
        """
        Return how well low confidence finds wrong pixels: area under the ROC curve, in [0, 1].

        It is the chance that a wrong pixel is less confident than a right one, ties counted as
        half; NaN without wrong or without right pixels.
        """
        wrong, right = self._counts.astype(float)
        if not wrong.sum() or not right.sum():
            return float('nan')
        above = right.sum() - np.cumsum(right)
        return float((wrong * (above + right / 2)).sum() / (wrong.sum() * right.sum()))
