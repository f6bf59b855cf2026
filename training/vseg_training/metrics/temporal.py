# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How steady predictions are over time: TC (ETC, appendix B) and VC_n (VSPW)."""
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.media.iou import ConfusionMatrix

from ..data.clips import VOID


Image = npt.NDArray[np.uint8]
Flow = npt.NDArray[np.float32]


def dis_flow(image: Image, later: Image) -> Flow:
    """
    Optical flow by DIS (Kroeger et al., 2016; OpenCV's preset medium).

    Args:
        image: uint8 [H, W, 3], RGB.
        later: A later frame of the same size.

    Returns:
        Float32 [H, W, 2] in pixels: pixel (x, y) of ``image`` is at (x, y) + flow[y, x] in
        ``later``.
    """
    preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
    method = cv2.DISOpticalFlow_create(preset)  # type: ignore[attr-defined]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return method.calc(grey, cv2.cvtColor(later, cv2.COLOR_RGB2GRAY), None)


FLOWS: dict[str, Callable[[Image, Image], Flow]] = {'dis': dis_flow}


def warp_labels(labels: Image, flow: Flow) -> tuple[Image, npt.NDArray[np.bool_]]:
    """
    Labels that a flow points at, by nearest neighbour.

    Args:
        labels: uint8 [H, W] of the later frame.
        flow: Float32 [H, W, 2] in pixels, from the earlier frame to the later one.

    Returns:
        Labels uint8 [H, W] on the earlier frame, and bool [H, W]: whether the flow points into
        the frame.

    Examples:
        >>> later = np.array([[1, 2, 3]], np.uint8)
        >>> flow = np.zeros((1, 3, 2), np.float32)
        >>> flow[..., 0] = 1  # one pixel to the right
        >>> warped, inside = warp_labels(later, flow)
        >>> warped[inside].tolist(), inside.tolist()
        ([2, 3], [[True, True, False]])
    """
    height, width = labels.shape
    x = np.rint(np.arange(width) + flow[..., 0])
    y = np.rint(np.arange(height)[:, None] + flow[..., 1])
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    columns = np.where(inside, x, 0).astype(np.intp)
    rows = np.where(inside, y, 0).astype(np.intp)
    return labels[rows, columns], inside


def warp_labels_legacy(labels: Image, flow: Flow) -> tuple[Image, npt.NDArray[np.bool_]]:
    """
    ``warp_labels`` as ETC's published code has it: ids are interpolated and then cut to integers.

    Between ids 1 and 5 it invents 2, 3 and 4, and repeats the border outside the frame.
    """
    height, width = labels.shape
    place = flow + np.dstack(np.meshgrid(np.arange(width), np.arange(height)))
    warped = cv2.remap(labels.astype(np.float32), place.astype(np.float32), None,
                       cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped.astype(np.uint8), np.ones(labels.shape, bool)


class TemporalConsistency:
    """
    TC: mean IoU of predictions and the following ones, warped by optical flow (ETC, Eq. 7 and 8).

    The flow goes from the earlier frame to the later one, and the later prediction is warped back
    onto the earlier one; where the flow leaves the frame a pixel does not count.

    Args:
        num_classes: K.
        flow: Name of the flow method, one of ``FLOWS``.
        legacy: Whether to warp as ETC's published code does.

    Attributes:
        name: Says which flow method was used: TC depends on it.

    Raises:
        ValueError: The flow method is unknown.

    Examples:
        >>> image = np.zeros((32, 32, 3), np.uint8)  # nothing moves
        >>> before = np.zeros((32, 32), np.uint8)
        >>> after = before.copy()
        >>> after[:16] = 1
        >>> metric = TemporalConsistency(num_classes=2)
        >>> metric.update(image, image, before, before)
        >>> metric.value()
        1.0
        >>> metric.begin()
        >>> metric.update(image, image, before, after)  # IoU 0.5 of class 0, and 0 of class 1
        >>> metric.per_sequence()
        [1.0, 0.25]
    """

    def __init__(self, num_classes: int, flow: str = 'dis', legacy: bool = False) -> None:
        if flow not in FLOWS:
            raise ValueError(f'flow {flow!r} is unknown: use {", ".join(FLOWS)}')
        self.name = f'TC ({flow.upper()}{", legacy" if legacy else ""})'
        self.num_classes = num_classes
        self._flow = FLOWS[flow]
        self._warp = warp_labels_legacy if legacy else warp_labels
        self._sequences: list[ConfusionMatrix] = []

    def begin(self) -> None:
        """Start a new sequence; ``per_sequence`` tells them apart."""
        self._sequences.append(ConfusionMatrix(self.num_classes))

    def update(self, previous_image: Image, image: Image, previous_labels: Image,
               labels: Image) -> None:
        """
        Add two consecutive frames.

        Args:
            previous_image: uint8 [H, W, 3], RGB.
            image: Likewise, of the later frame.
            previous_labels: The prediction uint8 [H, W] of the earlier frame.
            labels: Likewise, of the later frame.

        Raises:
            ValueError: The sizes differ.
        """
        arrays = (previous_image, image, previous_labels, labels)
        sizes = {array.shape[:2] for array in arrays}
        if len(sizes) > 1:
            raise ValueError(f'the frames of a drive differ in size: {sorted(sizes)}')
        if not self._sequences:
            self.begin()
        warped, inside = self._warp(labels, self._flow(previous_image, image))
        self._sequences[-1].update(previous_labels[inside], warped[inside])

    def per_sequence(self) -> list[float]:
        """TC of every sequence of two frames or more, in [0, 1]; Eq. 8 is their mean."""
        return [sequence.mean_iou() for sequence in self._sequences if sequence.counts.any()]

    def value(self) -> float:
        """TC in [0, 1] from one matrix of all sequences; NaN without two consecutive frames."""
        pooled = ConfusionMatrix(self.num_classes)
        for sequence in self._sequences:
            pooled.counts += sequence.counts
        return pooled.mean_iou()


class VideoConsistency:
    """
    VC_n (VSPW): of the pixels whose truth is constant over n frames, those whose prediction is.

    As in VSPW's published code, which the published numbers come from, a constant prediction need
    not be the right one. Unlike there every window of n frames counts, also the last, and pixels
    that are void in a frame of the window do not. The value is the mean over windows.

    Args:
        length: n, in frames.

    Examples:
        >>> metric = VideoConsistency(2)
        >>> road = np.zeros((2, 2), np.uint8)
        >>> for labels in ([[0, 0], [0, 0]], [[0, 0], [0, 1]]):  # one of four pixels changes
        ...     metric.update(road, np.array(labels, np.uint8))
        >>> metric.value()
        0.75
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._shares: list[float] = []
        self.begin()

    def begin(self) -> None:
        """Start a new sequence: no window reaches back over its start."""
        self._last: tuple[Image, Image] | None = None

    def update(self, truth: Image, labels: Image) -> None:
        """
        Add the next frame.

        Args:
            truth: uint8 [H, W]; 255 is void.
            labels: The prediction, uint8 [H, W].

        Raises:
            ValueError: The size differs from the frame before.
        """
        if self._last is None:
            self._last = truth, labels
            # for how many frames a pixel has been what it is; a window is constant from n on
            self._true_run = np.zeros(truth.shape, np.int32)
            self._run = np.zeros(truth.shape, np.int32)
        last_truth, last_labels = self._last
        if last_truth.shape != truth.shape:
            raise ValueError('the frames of a drive differ in size: '
                             f'{sorted((last_truth.shape, truth.shape))}')
        self._true_run = np.where(truth == last_truth, self._true_run, 0) + 1
        self._true_run[truth == VOID] = 0
        self._run = np.where(labels == last_labels, self._run, 0) + 1
        self._last = truth, labels
        constant = self._true_run >= self.length
        if constant.any():
            self._shares.append(float((self._run >= self.length)[constant].mean()))

    def value(self) -> float:
        """Mean over windows in [0, 1]; NaN if no window has a pixel that counts."""
        return float(np.mean(self._shares)) if self._shares else float('nan')
