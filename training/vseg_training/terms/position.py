# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Position information distillation (the PIDM of IDD)."""
import torch
from torch import nn, Tensor

from .maps import full_precision, on_one_grid, shrink
from ..losses.mean import mean_over_processes


HIDDEN, BATCH, RATE = 64, 8, 3e-3  # of the head and of its training


class PositionInformation(nn.Module):
    """
    Where a pixel is, as far as features tell (PIDM; Zhang et al., IDD, 2022, Eq. 4 and 5).

    L = mean over pixels of (x^S - x^T)^2 + (y^S - y^T)^2, where x and y are what one head finds in
    the features of either network. The head (a 1x1 and a 3x3 convolution) is trained before the
    first step to find x/W and y/H of the crop in the teacher's features, and then fixed; the
    student reaches it through a 1x1 convolution of its own.

    Args:
        widths: Channels of student and teacher.
        steps: Of the head's training.

    Examples:
        >>> term = PositionInformation((8, 16))  # of which the adapter is trained by the student
        >>> [tuple(x.shape) for x in term.parameters() if x.requires_grad]
        [(16, 8, 1, 1), (16,)]
    """

    def __init__(self, widths: tuple[int, int], steps: int = 300) -> None:
        super().__init__()
        self.steps = steps
        self.adapter = nn.Conv2d(*widths, 1)
        self.head = nn.Sequential(nn.Conv2d(widths[1], HIDDEN, 1), nn.ReLU(),
                                  nn.Conv2d(HIDDEN, 2, 3, padding=1)).requires_grad_(False)

    def prepare(self, features: Tensor, counted: Tensor | None = None) -> float:
        """
        Train the head on a teacher's features, and fix it.

        Args:
            features: Float [B, C', h, w] of as many crops.
            counted: Bool [B, H, W], False for padding.

        Returns:
            Root of the mean squared error of its last steps, in widths of a crop; a head that
            learned nothing has 0.29.
        """
        self.head.requires_grad_(True)
        optimizer = torch.optim.Adam(self.head.parameters(), RATE)
        inside, errors = shrink(counted, features), []
        chance = torch.Generator().manual_seed(0)
        for _ in range(self.steps):
            chosen = torch.randint(len(features), (BATCH,), generator=chance)
            part, kept = features[chosen], inside[chosen]
            difference = self._found(part, kept) - positions(part)
            error = (difference.square().mean(1) * kept).sum() / kept.sum().clamp(min=1)
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            errors.append(error.detach())
        optimizer.zero_grad()
        self.head.requires_grad_(False)
        return torch.stack(errors[-10:]).mean().sqrt().item()

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None = None) -> Tensor:
        """
        Compare features.

        Args:
            student: Float [B, C, h, w].
            teacher: Float [B, C', h', w'].
            counted: Bool [B, H, W]; padding (False) is neither compared nor seen by the head.

        Returns:
            Scalar >= 0.
        """
        student, teacher = on_one_grid(self.adapter(student), teacher)
        inside = shrink(counted, teacher)
        difference = self._found(student, inside) - self._found(teacher, inside)
        total = (difference.square().sum(1) * inside).sum()
        return mean_over_processes(total, inside.sum().to(total.dtype))

    def _found(self, features: Tensor, inside: Tensor) -> Tensor:
        """X and y that the head finds in features [B, C', h, w], float [B, 2, h, w]."""
        with torch.autocast(features.device.type, enabled=False):
            # the head is in the precision of the training, the features need not be
            kept = features.masked_fill(~inside[:, None], 0).to(next(self.head.parameters()).dtype)
            found: Tensor = self.head(kept)
        return full_precision(found)


def positions(like: Tensor) -> Tensor:
    """
    Find where the cells of a map are: x/W and y/H of their centres.

    Args:
        like: [B, C, h, w].

    Returns:
        Float [2, h, w] in 0..1.

    Examples:
        >>> positions(torch.zeros(1, 1, 1, 2))
        tensor([[[0.2500, 0.7500]],
        <BLANKLINE>
                [[0.5000, 0.5000]]])
    """
    height, width = like.shape[2:]
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
