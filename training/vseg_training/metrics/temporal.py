# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How steady predictions are over time: TC (ETC, appendix B) and VC_n (VSPW)."""
import cv2
import numpy as np

from ros_vseg.media.iou import ConfusionMatrix

from ..data.clips import VOID


def dis_flow(image, later):
    """
    Optical flow by DIS (Kroeger et al., 2016; OpenCV's preset medium).

    Images uint8 [H, W, 3] RGB -> float32 [H, W, 2]: pixel (x, y) of ``image`` is at
    (x, y) + flow[y, x] in ``later``, in pixels.
    """
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return method.calc(*(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in (image, later)), None)


FLOWS = {'dis': dis_flow}


def warp_labels(labels, flow):
    """
    Labels that a flow points at, by nearest neighbour.

    labels uint8 [H, W] of the later frame, flow float32 [H, W, 2] from the earlier one -> (uint8
    [H, W] on the earlier frame, bool [H, W]: whether the flow points into the frame).
    """
    height, width = labels.shape
    x = np.rint(np.arange(width) + flow[..., 0])
    y = np.rint(np.arange(height)[:, None] + flow[..., 1])
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = (np.where(inside, one, 0).astype(np.intp) for one in (x, y))
    return labels[y, x], inside


def warp_labels_legacy(labels, flow):
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
    onto the earlier one; where the flow leaves the frame a pixel does not count. TC depends on the
    flow method: ``name`` says which. ``legacy`` warps as ETC's published code does.
    """

    def __init__(self, num_classes, flow='dis', legacy=False):
        if flow not in FLOWS:
            raise ValueError(f'flow {flow!r} is unknown: use {", ".join(FLOWS)}')
        self.name = f'TC ({flow.upper()}{", legacy" if legacy else ""})'
        self.num_classes = num_classes
        self._flow = FLOWS[flow]
        self._warp = warp_labels_legacy if legacy else warp_labels
        self._sequences = []

    def begin(self):
        """Start a new sequence; ``per_sequence`` tells them apart."""
        self._sequences.append(ConfusionMatrix(self.num_classes))

    def update(self, previous_image, image, previous_labels, labels):
        """Add two consecutive frames: images uint8 [H, W, 3] RGB, predictions uint8 [H, W]."""
        shapes = {one.shape[:2] for one in (previous_image, image, previous_labels, labels)}
        if len(shapes) > 1:
            raise ValueError(f'the frames of a drive differ in size: {sorted(shapes)}')
        if not self._sequences:
            self.begin()
        warped, inside = self._warp(labels, self._flow(previous_image, image))
        self._sequences[-1].update(previous_labels[inside], warped[inside])

    def per_sequence(self):
        """TC of every sequence of two frames or more, in [0, 1]; Eq. 8 is their mean."""
        return [one.mean_iou() for one in self._sequences if one.counts.any()]

    def value(self):
        """TC in [0, 1] from one matrix of all sequences; NaN without two consecutive frames."""
        pooled = ConfusionMatrix(self.num_classes)
        for one in self._sequences:
            pooled.counts += one.counts
        return pooled.mean_iou()


class VideoConsistency:
    """
    VC_n (VSPW): of the pixels whose truth is constant over n frames, those whose prediction is.

    As in VSPW's published code, which the published numbers come from, a constant prediction need
    not be the right one. Unlike there every window of n frames counts, also the last, and pixels
    that are void in a frame of the window do not. The value is the mean over windows.
    """

    def __init__(self, length):
        self.length = length
        self._shares = []
        self.begin()

    def begin(self):
        """Start a new sequence: no window reaches back over its start."""
        self._last = None

    def update(self, truth, labels):
        """Add the next frame: truth (255 is void) and prediction, uint8 [H, W]."""
        if self._last is None:
            self._last = truth, labels
            self._runs = [np.zeros(truth.shape, np.int32)] * 2
        elif self._last[0].shape != truth.shape:
            raise ValueError('the frames of a drive differ in size: '
                             f'{sorted((self._last[0].shape, truth.shape))}')
        # for how many frames a pixel has been what it is; a window is constant from n on
        self._runs = [np.where(now == last, run, 0) + 1
                      for now, last, run in zip((truth, labels), self._last, self._runs)]
        self._runs[0][truth == VOID] = 0
        self._last = truth, labels
        constant, predicted = (run >= self.length for run in self._runs)
        if constant.any():
            self._shares.append(float(predicted[constant].mean()))

    def value(self):
        """Mean over windows in [0, 1]; NaN if no window has a pixel that counts."""
        return float(np.mean(self._shares)) if self._shares else float('nan')
