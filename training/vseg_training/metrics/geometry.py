# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of depth and of surface normals."""
import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.floating]


class DepthMetrics:
    """
    What monocular depth is measured by (Eigen et al., 2014), pooled over all pixels.

    Examples:
        >>> metrics = DepthMetrics()
        >>> metrics.update(np.array([10.0, 10.0, 0.0]), np.array([11.0, 20.0, 5.0]))
        >>> {name: round(value, 3) for name, value in metrics.summary().items()}
        {'rel': 0.55, 'log10': 0.171, 'rms': 7.106, 'delta1': 50.0, 'delta2': 50.0, 'delta3': 50.0}
    """

    def __init__(self) -> None:
        self._sums, self._count = np.zeros(6), 0

    def update(self, truth: _Floats, depth: _Floats) -> None:
        """Count the pixels of two maps in metres of one shape; a truth of 0 is not known."""
        known = truth > 0
        truth, depth = truth[known].astype(float), np.maximum(depth[known], 1e-3).astype(float)
        ratio = np.maximum(truth / depth, depth / truth)
        each = [np.abs(depth - truth) / truth, np.abs(np.log10(depth / truth)),
                (depth - truth) ** 2, *(ratio < 1.25 ** power for power in (1, 2, 3))]
        self._sums += [values.sum() for values in each]
        self._count += truth.size

    def summary(self) -> dict[str, float]:
        """
        Return the means.

        Returns:
            rel (mean absolute relative error), log10 (mean error of the logarithm), rms (root of
            the mean square, metres), and delta1 to delta3 (percent of pixels within a factor of
            1.25, 1.25^2 and 1.25^3); NaN without a pixel.
        """
        mean = self._sums / self._count if self._count else np.full(6, np.nan)
        return {'rel': float(mean[0]), 'log10': float(mean[1]), 'rms': float(np.sqrt(mean[2])),
                **{f'delta{number}': float(100 * mean[2 + number]) for number in (1, 2, 3)}}


class NormalsMetrics:
    """
    Mean angle between surface normals, over all pixels.

    Examples:
        >>> metrics = NormalsMetrics()
        >>> metrics.update(np.array([[0.0, -1.0, 0.0]]), np.array([[0.0, -3.0, 3.0]]))
        >>> round(metrics.summary()['angle'], 3)
        45.0
    """

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def update(self, truth: _Floats, normals: _Floats) -> None:
        """Count normals [..., 3] of any length; a truth of length 0 is not known."""
        known = (truth ** 2).sum(-1) > 0.5
        truth, normals = truth[known].astype(float), normals[known].astype(float)
        length = np.maximum(np.linalg.norm(normals, axis=-1), 1e-12)
        length *= np.linalg.norm(truth, axis=-1)
        cosine = (truth * normals).sum(-1) / length
        self._sum += np.degrees(np.arccos(cosine.clip(-1, 1))).sum()
        self._count += len(truth)

    def summary(self) -> dict[str, float]:
        """Return the mean angle in degrees; NaN without a pixel."""
        return {'angle': float(self._sum / self._count) if self._count else float('nan')}
