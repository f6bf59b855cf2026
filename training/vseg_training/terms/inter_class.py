# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Inter-class distance distillation (the IDDM of IDD)."""
import torch
from torch import nn, Tensor

from .maps import class_means, full_precision
from ..losses.mean import mean_over_processes


class InterClassDistance(nn.Module):
    """
    How far the classes of an image are from each other (IDD; Zhang et al., 2022, Eq. 2 and 3).

    L = mean over pairs i < j of (e_ij^S - e_ij^T)^2, where e_ij = |v_i - v_j| and v_i is the mean
    feature of class i, each network's e divided by its mean over the image's pairs. Distances are
    numbers whatever the width, and each network's features keep their own grid: there is neither
    adapter nor resize. It needs labels.

    Args:
        num_classes: K.
        min_cells: A class counts in an image where it has so many cells in both networks.

    Examples:
        >>> import torch
        >>> labels = torch.tensor([[[0, 1, 2]]])
        >>> teacher = torch.tensor([0.0, 1.0, 2.0]).view(1, 1, 1, 3)  # distances 1, 2, 1
        >>> student = torch.tensor([0.0, 2.0, 2.0]).view(1, 1, 1, 3)  # distances 2, 2, 0
        >>> term = InterClassDistance(3, min_cells=1)
        >>> term(student, teacher, labels)  # 1.5, 1.5, 0 against 0.75, 1.5, 0.75
        tensor(0.3750)
        >>> term(5 * teacher, teacher, labels)  # scale does not count
        tensor(0.)
    """

    def __init__(self, num_classes: int, min_cells: int = 4) -> None:
        super().__init__()
        self.num_classes, self.min_cells = num_classes, min_cells

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """
        Compare features.

        Args:
            student: Float [B, C, h, w].
            teacher: Float [B, C', h', w'].
            labels: Int64 [B, H, W]; ids of K and above (void, padding) do not count.

        Returns:
            Scalar >= 0; 0 where no image has two classes.
        """
        own, present = self._distances(full_precision(student), labels)
        target, also_present = self._distances(full_precision(teacher.detach()), labels)
        pairs = present & also_present
        difference = _relative(own, pairs) - _relative(target, pairs)
        total = (difference.square() * pairs).sum()
        return mean_over_processes(total, pairs.sum().to(total.dtype))

    def _distances(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Distances of all pairs of classes, float [B, pairs], and which there are."""
        means, counts = class_means(features, labels, self.num_classes)
        first, second = torch.triu_indices(
            self.num_classes, self.num_classes, 1, device=features.device)
        enough = counts >= self.min_cells
        distances = torch.linalg.vector_norm(means[:, first] - means[:, second], dim=2)
        return distances, enough[:, first] & enough[:, second]


def _relative(distances: Tensor, pairs: Tensor) -> Tensor:
    """Distances [B, pairs] over their mean in the image."""
    distances = distances * pairs
    mean = distances.sum(1) / pairs.sum(1).clamp(min=1)
    return distances / mean.clamp(min=1e-12)[:, None]
