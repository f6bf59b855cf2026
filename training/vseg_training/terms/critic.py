# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A critic of segmentation maps and the opponent that trains it (the HO of structured KD)."""
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, nn, Tensor
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


WIDTHS = (64, 128, 256, 512)
FORMS = ('wgan', 'hinge')
LEAST_CELLS = 32  # halved four times there are 2, which the last convolution needs

Form = Callable[[nn.Conv2d], nn.Module]


class SelfAttention(nn.Module):
    """
    Self-attention over the cells of a map (Zhang et al., SAGAN, 2019).

    y = x + gamma * softmax(q^T k) v, with gamma = 0 at the start.

    Args:
        channels: Of the map.
        form: What becomes of its convolutions.
    """

    def __init__(self, channels: int, form: Form) -> None:
        super().__init__()
        self.query, self.key = (form(nn.Conv2d(channels, channels // 8, 1)) for _ in range(2))
        self.value = form(nn.Conv2d(channels, channels, 1))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Let every cell of a map, float [B, C, h, w], look at all."""
        query, key, value = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        weights = (query.transpose(1, 2) @ key).softmax(2)
        return x + self.gamma * (value @ weights.transpose(1, 2)).view_as(x)


class Critic(nn.Module):
    """
    Score of how well a segmentation map fits its image (D; Liu's thesis, Sec. 3.3.1).

    Batch norm of image and map together, four 4x4 convolutions of stride 2 with leaky ReLU,
    self-attention after the third and the fourth, a 4x4 convolution to one channel, and its mean.
    All are padded by 1, so that maps of 32 cells do. Batch norm, which makes up for the different
    scales of image and map, uses the batch at hand, always.

    Args:
        num_classes: K.
        spectral: Whether its convolutions have spectral norm 1.
    """

    def __init__(self, num_classes: int, spectral: bool = False) -> None:
        super().__init__()
        form: Form = spectral_norm if spectral else _as_it_is
        layers: list[nn.Module] = [
            nn.BatchNorm2d(3 + num_classes, track_running_stats=False)]
        inputs = 3 + num_classes
        for number, width in enumerate(WIDTHS, 1):
            layers += [form(nn.Conv2d(inputs, width, 4, 2, 1)), nn.LeakyReLU(0.1)]
            if number >= 3:
                layers.append(SelfAttention(width, form))
            inputs = width
        self.layers = nn.Sequential(*layers, form(nn.Conv2d(inputs, 1, 4, 1, 1)))

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        """
        Score maps.

        Args:
            maps: Class probabilities, float [B, K, h, w], of at least 32 x 32 cells.
            images: Float [B, 3, h, w].

        Returns:
            Float [B].
        """
        scores: Tensor = self.layers(torch.cat([images, maps], 1)).flatten(1).mean(1)
        return scores


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """
    How far a critic is from a slope of 1 between real and fake maps (Gulrajani et al., 2017).

    GP = mean over samples of (|gradient of D at x| - 1)^2, with x = e real + (1 - e) fake and one
    e per sample, uniform in 0..1.

    Args:
        critic: From maps [B, K, h, w] to scores [B].
        real: Float [B, K, h, w].
        fake: Likewise.

    Returns:
        Scalar >= 0, with a gradient to what the critic is made of.

    Examples:
        >>> maps = torch.rand(2, 1, 1, 1, 2)
        >>> gradient_penalty(lambda x: 3 * x[:, 0, 0, 0] + 4 * x[:, 0, 0, 1], *maps)  # (5 - 1)^2
        tensor(16.)
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    gradient, = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square().mean()


class Opponent:
    """
    A critic with an optimiser of its own, outside of the network that learns from it.

    It is no part of the modules: neither the averaged weights nor the network's optimiser, with
    its weight decay, nor an export know it. ``state_dict`` is for the checkpoint.

    Args:
        num_classes: K.
        form: wgan, the Wasserstein distance with gradient penalty, as printed (Eq. 3.3), or hinge,
            the stable form with spectral norm.
        lr: Of Adam.
        penalty: Weight of the gradient penalty.

    Raises:
        ValueError: The form is unknown.
    """

    def __init__(self, num_classes: int, form: str = 'wgan', lr: float = 4e-4,
                 penalty: float = 10.0) -> None:
        if form not in FORMS:
            raise ValueError(f'form is {form!r}: use {" or ".join(FORMS)}')
        self.form, self.penalty = form, penalty
        self.critic = Critic(num_classes, form == 'hinge').requires_grad_(False).eval()
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr)

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Opponent':
        """Return itself: a copy of the network, such as its averaged weights, shares it."""
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Of the critic's weights."""
        return next(self.critic.parameters()).dtype

    def to(self, device: torch.device) -> None:
        """Move the critic and its optimiser's state to a device."""
        self.critic.to(device)
        self.optimizer.load_state_dict(self.optimizer.state_dict())  # casts to the weights' device

    def scores(self, real: Tensor, fake: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """
        Score the maps of teacher and student in one batch, whose norms they share.

        Args:
            real: The teacher's probabilities, float [B, K, h, w].
            fake: The student's.
            images: Float [B, 3, h, w].

        Returns:
            Float [B] each.
        """
        with torch.autocast(real.device.type, enabled=False):
            found = self.critic(torch.cat([real, fake]), torch.cat([images, images]))
        first, second = found.chunk(2)
        return first, second

    def learn(self, real: Tensor, fake: Tensor, images: Tensor) -> Tensor:
        """
        Train the critic by one step; processes that train together take the same one.

        Args:
            real: As in ``scores``.
            fake: Likewise.
            images: Likewise.

        Returns:
            Its loss before the step.
        """
        real, fake = real.detach(), fake.detach()
        self.critic.requires_grad_(True).train()
        loss = self._loss(real, fake, images)
        self.optimizer.zero_grad()
        loss.backward()
        _share_gradients(self.critic)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.critic.requires_grad_(False).eval()
        return loss.detach()

    def _loss(self, real: Tensor, fake: Tensor, images: Tensor) -> Tensor:
        """Loss of the critic, which tells the teacher's maps (high) from the student's (low)."""
        high, low = self.scores(real, fake, images)
        if self.form == 'hinge':
            return F.relu(1 - high).mean() + F.relu(1 + low).mean()
        with torch.autocast(real.device.type, enabled=False):
            penalty = gradient_penalty(lambda maps: self.critic(maps, images), real, fake)
        return low.mean() - high.mean() + self.penalty * penalty

    def state_dict(self) -> dict[str, Any]:
        """Weights of the critic and state of its optimiser."""
        return {'critic': self.critic.state_dict(), 'optimizer': self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.critic.load_state_dict(state['critic'])
        self.optimizer.load_state_dict(state['optimizer'])


def _as_it_is(layer: nn.Conv2d) -> nn.Module:
    return layer


def _share_gradients(module: nn.Module) -> None:
    """Give all processes the mean of their gradients."""
    if distributed.is_available() and distributed.is_initialized():
        for parameter in module.parameters():
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= distributed.get_world_size()
