# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Joint and auxiliary distillation (JA-KD) and its uncertainty-aware form (U-KD)."""
from collections.abc import Sequence

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from .maps import full_precision, on_one_grid, same_width, shrink
from ..losses.mean import mean_over_processes


def joint_loss(scores: Tensor, target: Tensor, alpha: float = 0.5) -> Tensor:
    """
    Cross-entropy and regression of the teacher's probabilities, by pixel (NfS-SegNet Eq. 1 and 2).

    L_JA = sum over classes of -p^T log p^S + alpha smoothL1(p^S - p^T). Eq. 1 is printed without
    the minus.

    Args:
        scores: The student's, float [B, K, h, w].
        target: p^T, float [B, K, h, w].
        alpha: Weight of the regression.

    Returns:
        Float [B, h, w], at least the entropy of p^T.

    Examples:
        >>> import torch
        >>> one_class = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
        >>> joint_loss(torch.zeros(1, 2, 1, 1), one_class, alpha=0.5)  # log 2 + 0.5 * 2 * 0.5^3
        tensor([[[0.8181]]])
    """
    logs = F.log_softmax(scores, 1)
    regression = F.smooth_l1_loss(logs.exp(), target, reduction='none').sum(1)
    return alpha * regression - (target * logs).sum(1)


class JointAuxiliary(nn.Module):
    """
    Joint loss of the scores and of the auxiliary heads' (JA-KD; Oh et al., NfS-SegNet, Eq. 1, 2).

    L = mean over pixels of L_JA(scores) + auxiliary * its mean over the auxiliary heads: each
    learns from its twin in the teacher or, where a teacher of another kind has other heads, from
    the teacher's scores. A student that equals its teacher has nothing to learn, but L is then
    the teacher's entropy and not 0.

    Args:
        alpha: As in ``joint_loss``.
        auxiliary: Weight of the auxiliary heads; 0: they are left out.

    Examples:
        >>> import torch
        >>> one_class = torch.tensor([30.0, 0.0]).view(1, 2, 1, 1)
        >>> JointAuxiliary()(torch.zeros(1, 2, 1, 1), one_class)
        tensor(0.8181)
    """

    def __init__(self, alpha: float = 0.5, auxiliary: float = 1.0) -> None:
        super().__init__()
        self.alpha, self.auxiliary = alpha, auxiliary

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None = None,
                auxiliary: Sequence[Tensor] = (), teacher_auxiliary: Sequence[Tensor] = ()
                ) -> Tensor:
        """
        Compare scores.

        Args:
            student: Float [B, K, h, w].
            teacher: Float [B, K, h', w'].
            counted: Bool [B, H, W], False for padding.
            auxiliary: The student's of its auxiliary heads, float [B, K, h'', w''] each.
            teacher_auxiliary: Likewise.

        Returns:
            Scalar >= 0.

        Raises:
            ValueError: The numbers of classes differ.
        """
        loss = self._of(student, teacher, counted)
        if self.auxiliary and auxiliary:
            twins = (teacher_auxiliary if len(teacher_auxiliary) == len(auxiliary)
                     else [teacher] * len(auxiliary))
            of_heads = [self._of(*each, counted) for each in zip(auxiliary, twins)]
            loss = loss + self.auxiliary * torch.stack(of_heads).mean()
        return loss

    def _of(self, student: Tensor, teacher: Tensor, counted: Tensor | None) -> Tensor:
        same_width(student, teacher, 'joint distillation')
        student, teacher = on_one_grid(student, teacher)
        inside = shrink(counted, teacher)
        total = (joint_loss(student, teacher.softmax(1), self.alpha) * inside).sum()
        return mean_over_processes(total, inside.sum().to(total.dtype))


class UncertaintyAware(nn.Module):
    """
    Joint loss where the teacher is uncertain (U-KD; Oh et al., NfS-SegNet, Eq. 3).

    L = mean over the pixels with u_i > median(u) of L_JA, with the mean of several passes of the
    teacher with dropout as p^T and the sum over classes of their variance as u; the median is the
    image's. MGCNet (Eq. 13) weighs the same pixels down.

    Args:
        alpha: As in ``joint_loss``.
        passes: Of the teacher.
        rate: Of the dropout, in the teacher's six last normalised backbone layers.

    Raises:
        ValueError: One pass has no variance, or all is dropped.

    Examples:
        >>> import torch
        >>> student = torch.tensor([[30.0, 0.0], [0.0, 0.0]]).T.view(1, 2, 1, 2)
        >>> mean = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
        >>> UncertaintyAware()(student, mean, torch.tensor([[[0.0, 0.1]]]))  # the second pixel
        tensor(0.8181)
        >>> UncertaintyAware()(student, mean, torch.zeros(1, 1, 2))  # none
        tensor(0.)
    """

    def __init__(self, alpha: float = 0.5, passes: int = 5, rate: float = 0.01) -> None:
        super().__init__()
        if passes < 2:
            raise ValueError(f'passes is {passes}: the variance takes 2 or more')
        if rate >= 1:
            raise ValueError(f'rate is {rate}: give the share of values to drop, below 1')
        self.alpha, self.passes, self.rate = alpha, passes, rate

    def forward(self, student: Tensor, mean: Tensor, variance: Tensor,
                counted: Tensor | None = None) -> Tensor:
        """
        Compare scores with the teacher's passes.

        Args:
            student: Float [B, K, h, w].
            mean: Of the passes' probabilities, float [B, K, h', w'].
            variance: u, float [B, h', w'].
            counted: Bool [B, H, W]; padding (False) is in neither the mean nor the median.

        Returns:
            Scalar >= 0; 0 where no pixel is above the median, as when all u are 0.
        """
        student, mean = on_one_grid(student, mean)
        inside = shrink(counted, mean)
        u = full_precision(variance.detach())
        # of an even number the lower of the two middle values, above which lies the same half
        median = u.masked_fill(~inside, torch.nan).flatten(1).nanmedian(1).values
        chosen = inside & (u > median[:, None, None])
        total = (joint_loss(student, mean, self.alpha) * chosen).sum()
        return mean_over_processes(total, chosen.sum().to(total.dtype))
