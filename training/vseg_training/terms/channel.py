# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Channel-wise distillation (CD)."""
import torch
from torch import nn, Tensor
from torch.nn import functional as F

from .maps import on_one_grid, same_width, shrink
from ..losses.mean import mean_over_processes


FORMS = ('kl', 'swapped', 'l2', 'bhattacharyya', 'plain')


class ChannelWise(nn.Module):
    """
    KL divergence over space in every channel (CD; Shu et al., 2021; Liu's thesis, Eq. 4.2 to 4.4).

    L = tau^2 / (B C) sum_c KL(phi(y_c^T) || phi(y_c^S)), with phi = softmax over space of y / tau.

    On scores it needs the scores themselves: stored probabilities cannot serve, as the sum over
    classes that they are divided by differs from pixel to pixel. The papers' weights are 3 on
    scores (tau 4) and 35 to 50 on features.

    Args:
        tau: Temperature.
        form: What takes the place of KL(T || S), as the thesis compares (Table 4.4): ``swapped``,
            KL(S || T), which does not converge there; ``l2``, the sum over space of
            (phi^T - phi^S)^2; ``bhattacharyya``, -ln sum sqrt(phi^T phi^S); ``plain``, the mean of
            (y^T - y^S)^2 over space, with neither phi nor tau ("L2 w/o NORM"): on features this is
            feature mimicking (MIMIC; Li et al., 2017; thesis, Table 3.7).
        widths: Channels of student and teacher; a 1x1 convolution then maps one to the other.
            None: both have as many, as scores have.

    Raises:
        ValueError: The form is unknown.

    Examples:
        >>> import torch
        >>> teacher = torch.tensor([[[[50.0, 50.0], [0.0, 0.0]]]])  # looks at two of four pixels
        >>> ChannelWise(tau=1)(torch.zeros_like(teacher), teacher)  # log 2
        tensor(0.6931)
        >>> ChannelWise(tau=1)(teacher + 7, teacher)  # what all pixels share does not count
        tensor(0.)
    """

    def __init__(self, tau: float = 4.0, form: str = 'kl', widths: tuple[int, int] | None = None
                 ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f'form is {form!r}: use {", ".join(FORMS)}')
        self.tau, self.form = tau, form
        self.adapter = nn.Identity() if widths is None else nn.Conv2d(*widths, 1)

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None = None) -> Tensor:
        """
        Compare scores or features.

        Args:
            student: Float [B, C, h, w].
            teacher: Float [B, C', h', w'].
            counted: Bool [B, H, W]; padding (False) is left out of both distributions.

        Returns:
            Scalar >= 0.

        Raises:
            ValueError: The widths differ and the term has no adapter.
        """
        student = self.adapter(student)
        same_width(student, teacher, 'channel-wise distillation')
        student, teacher = on_one_grid(student, teacher)
        inside = shrink(counted, teacher)
        if self.form == 'plain':
            difference = (student - teacher).square().mean(1).masked_fill(~inside, 0)
            return mean_over_processes(difference.sum(), inside.sum().to(difference.dtype))
        logs, target = self._logs(student, inside), self._logs(teacher, inside)
        return self.tau ** 2 * self._divergence(logs, target).mean()

    def _divergence(self, logs: Tensor, target: Tensor) -> Tensor:
        """How the student's and the teacher's log phi [B, C, h*w] differ, float [B, C]."""
        if self.form == 'l2':
            return (target.exp() - logs.exp()).square().sum(2)
        if self.form == 'bhattacharyya':
            return -torch.logsumexp((target + logs) / 2, 2)
        if self.form == 'swapped':
            logs, target = target, logs
        return (target.exp() * (target - logs)).sum(2)

    def _logs(self, maps: Tensor, inside: Tensor) -> Tensor:
        """Logarithm of phi, float [B, C, h*w]."""
        # finite, so that an image of padding alone gives 0 and not NaN
        lowest = torch.finfo(maps.dtype).min / 2
        maps = (maps / self.tau).masked_fill(~inside[:, None], lowest)
        return F.log_softmax(maps.flatten(2), 2)
