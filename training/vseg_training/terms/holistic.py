# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Holistic distillation (HO of structured KD)."""
import torch
from torch import nn, Tensor

from .critic import Opponent
from .maps import on_one_grid, shown, shrink


class Holistic(nn.Module):
    """
    How real a critic finds the student's maps (HO; Liu et al., 2019; Liu's thesis, Eq. 3.3, 3.4).

    L = E[D(Q^T | I)] - E[D(Q^S | I)], with the class probabilities Q and the image I at their
    size. The critic D learns to tell them apart, one step before each of the student's; form wgan,
    as printed, makes L a Wasserstein distance, form hinge is the stable one. The paper's weight is
    0.1, and its critic is trained by Adam at 4e-4 with a gradient penalty of weight 10. It lowers
    temporal consistency there (thesis, Sec. 5.4.2). Of depth the critic sees the depth map (Sec.
    3.3.3), as the mean bin, 0 for the nearest and 1 for the farthest.

    Args:
        num_classes: K, classes or bins of depth.
        form: As in ``Opponent``.
        lr: Likewise.
        penalty: Likewise.
        of: What the maps are, ``scores`` or ``depth``.

    Examples:
        >>> import torch
        >>> maps, image = torch.rand(1, 2, 32, 32), 255 * torch.rand(1, 3, 32, 32)
        >>> loss = Holistic(2)(maps, maps, None, image)  # the critic finds both as real
        >>> loss.abs().item() < 1e-5
        True

    Attributes:
        opponent: Hidden from the modules: see there.
    """

    def __init__(self, num_classes: int, form: str = 'wgan', lr: float = 4e-4,
                 penalty: float = 10.0, of: str = 'scores') -> None:
        super().__init__()
        self.of = of
        self.opponent = Opponent(1 if of == 'depth' else num_classes, form, lr, penalty)

    def forward(self, student: Tensor, teacher: Tensor, counted: Tensor | None,
                images: Tensor) -> Tensor:
        """
        Compare scores; the critic stays as it is.

        Args:
            student: Float [B, K, h, w].
            teacher: Float [B, K, h', w'].
            counted: Bool [B, H, W]; the critic sees 0 in padding (False).
            images: [B, 3, H, W] in 0..255.

        Returns:
            Scalar.
        """
        real, fake = self.opponent.scores(*self._seen(student, teacher, counted, images))
        return real.mean() - fake.mean()

    def learn(self, student: Tensor, teacher: Tensor, counted: Tensor | None, images: Tensor
              ) -> Tensor:
        """Train the critic by one step; arguments as in ``forward``; returns its loss."""
        return self.opponent.learn(*self._seen(student.detach(), teacher, counted, images))

    def _seen(self, student: Tensor, teacher: Tensor, counted: Tensor | None, images: Tensor
              ) -> tuple[Tensor, Tensor, Tensor]:
        """What the critic sees: the teacher's map, the student's, the image."""
        student, teacher = on_one_grid(student, teacher)
        inside = shrink(counted, teacher)[:, None]
        image = shown(images, teacher)
        real, fake, image = (x.masked_fill(~inside, 0).to(self.opponent.dtype)
                             for x in (self._map(teacher), self._map(student), image))
        return real, fake, image

    def _map(self, scores: Tensor) -> Tensor:
        """Probabilities [B, K, h, w], or the depth map [B, 1, h, w]."""
        found = scores.softmax(1)
        if self.of == 'depth':
            places = torch.linspace(0, 1, scores.shape[1], device=scores.device)
            found = torch.einsum('bkhw,k->bhw', found, places.to(found))[:, None]
        return found
