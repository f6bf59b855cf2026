# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""One temperature that makes a student's confidence mean what it says (Guo et al., 2017)."""
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ros_vseg.resize import resize_image

from .data.clips import ClipSource
from .models.kinds import Exportable
from .models.tasks import of_classes


PER_FRAME = 2000  # pixels that are looked at
BOUNDS = (0.05, 20.0)


def _samples(student: Exportable, source: ClipSource,
             size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scores [M, K] and labels [M] of pixels of every labelled frame, streamed in order."""
    scores, labels = [], []
    rng = np.random.default_rng(0)
    for drive in source.drives:
        stream = student.stream()
        for key in drive:
            image, truth = source.read(key)
            coarse = stream.step(np.ascontiguousarray(resize_image(image, size)))
            fine = F.interpolate(coarse[None].float(), truth.shape, mode='bilinear')[0]
            known = np.flatnonzero(truth < len(coarse))
            chosen = torch.from_numpy(rng.permutation(known)[:PER_FRAME])
            scores.append(fine.flatten(1)[:, chosen].T.cpu())
            labels.append(torch.from_numpy(truth).flatten()[chosen].long())
    return torch.cat(scores), torch.cat(labels)


def best_temperature(scores: Tensor, labels: Tensor) -> float:
    """
    Find the temperature of least cross-entropy by golden-section search on its logarithm.

    Args:
        scores: Float [M, K].
        labels: Int64 [M] in 0..K-1.

    Returns:
        The t in 0.05..20 for which softmax(scores / t) has the least mean cross-entropy.

    Raises:
        ValueError: There is no pixel to look at.

    Examples:
        >>> scores = torch.tensor([[5.0, 0.0]] * 4)  # says 99 % each time
        >>> labels = torch.tensor([0, 0, 0, 1])  # and is right three times of four
        >>> round(best_temperature(scores, labels), 2)  # 5 / log 3
        4.55
    """
    if not len(labels):
        raise ValueError('no labelled pixel to fit a temperature on: give a split with labels')
    low, high = np.log(BOUNDS)
    ratio = (np.sqrt(5) - 1) / 2

    def loss(logarithm: float) -> float:
        return F.cross_entropy(scores / float(np.exp(logarithm)), labels).item()

    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


@torch.no_grad()
def calibrate(student: Exportable, source: ClipSource, size: tuple[int, int]) -> float:
    """
    Fit a temperature on a split and fold it into the student's last convolution, in place.

    Labels stay as they are, since all scores of a pixel are divided by the same number.

    Args:
        student: In eval mode.
        source: Frames with labels.
        size: (height, width) of the network's input.

    Returns:
        The temperature.
    """
    temperature = best_temperature(*_samples(student, source, size))
    for part in of_classes(student.head.get_submodule('classify'), student.num_classes):
        part.div_(temperature)
    return temperature
