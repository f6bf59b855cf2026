# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Instance-level IoU (iIoU): a far pedestrian counts as much as a near one."""
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ros_vseg.media.iou import ConfusionMatrix


# mean pixels of an instance, of the classes that have instances (Cityscapes' own evaluation)
MEAN_SIZES = {
    'person': 3462.4756337644, 'rider': 3930.4788056518, 'car': 12794.0202738185,
    'truck': 27855.1264367816, 'bus': 35732.1511111111, 'train': 67583.7075812274,
    'motorcycle': 6298.7200839748, 'bicycle': 4672.3249222261}


class InstanceIoU:
    """
    IoU in which every instance weighs the same (iIoU; Cordts et al., 2016, Sec. 4.2).

    iIoU = iTP / (iTP + FP + iFN): a pixel of an instance counts the mean size of its class over
    the instance's own size; what others are taken for counts as in the plain IoU.

    Args:
        names: Of the K classes; those without a mean size have no iIoU.

    Examples:
        >>> near_and_far = np.array([[1001] * 9 + [1002]], np.int32)  # class 1, two instances
        >>> labels = np.array([[1] * 9 + [0]], np.uint8)  # the far one is missed
        >>> confusion, instances = ConfusionMatrix(2), InstanceIoU(['road', 'person'])
        >>> confusion.update((near_and_far // 1000).astype(np.uint8), labels)
        >>> instances.update(near_and_far, labels)
        >>> round(float(confusion.iou()[1]), 6), round(instances.iou(confusion)['person'], 6)
        (0.9, 0.5)
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.sizes = {number: MEAN_SIZES[name] for number, name in enumerate(names)
                      if name in MEAN_SIZES}
        self.names = list(names)
        self._hits, self._misses = (dict.fromkeys(self.sizes, 0.0) for _ in range(2))
        self._frames, self._complete = 0, True

    def update(self, instances: npt.NDArray[np.int32] | None, labels: npt.NDArray[np.uint8]
               ) -> None:
        """
        Add a frame.

        Args:
            instances: [H, W], 1000 times the class and the number of the instance; negative where
                there is none, as in a crowd. None: not known, and then neither is the iIoU.
            labels: Predicted classes, [H, W].
        """
        if instances is None:
            self._complete = False
            return
        self._frames += 1
        found, places = np.unique(instances, return_inverse=True)
        places = places.ravel()  # NumPy 2.0 keeps the image's shape
        right = labels.ravel() == (instances.ravel() // 1000)
        sizes = np.bincount(places)
        hits = np.bincount(places, weights=right)
        for instance, size, hit in zip(found.tolist(), sizes.tolist(), hits.tolist()):
            number = instance // 1000
            if number in self.sizes:
                self._hits[number] += hit * self.sizes[number] / size
                self._misses[number] += (size - hit) * self.sizes[number] / size

    def iou(self, confusion: ConfusionMatrix) -> Mapping[str, float]:
        """
        Return the iIoU of every class with instances, in 0..1; empty where they are not known.

        Args:
            confusion: Of the same frames, for the pixels of other classes (FP).
        """
        others = confusion.counts.sum(0)[:-1] - np.diagonal(confusion.counts)
        ious = {}
        for number in self.sizes if self._frames and self._complete else ():
            union = self._hits[number] + self._misses[number] + float(others[number])
            if union:
                ious[self.names[number]] = self._hits[number] / union
        return ious
