# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Pixel-to-prototype non-local operation (MGCNet, Sec. III-A and III-B)."""
import math

import torch
from torch import nn, Tensor
from torch.nn import functional as F

from .layers import conv_bn_relu


EMPTY = -1e4  # added to attention scores of slots that hold no prototypes; finite in float16


class PrototypeGeneration(nn.Module):
    """
    Features to N semantic prototypes (MGCNet Eq. 1 and 2).

    P = softmax over space of a 1x1 convolution of X, and the prototypes are P X^T.

    Args:
        channels: C of the features.
        num_prototypes: N.
    """

    def __init__(self, channels: int, num_prototypes: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, num_prototypes, 1)

    def forward(self, features: Tensor, counted: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        Gather the prototypes of single frames.

        Args:
            features: X, float [B, C, h, w].
            counted: Bool [B, h, w], False for padding, of which no prototype is made; None: there
                is none.

        Returns:
            Prototypes float [B, N, C] and projection P [B, N, h*w], whose rows are distributions
            over pixels.
        """
        scores = self.projection(features)
        if counted is not None:
            scores = scores.masked_fill(~counted[:, None], EMPTY)
        projection = scores.flatten(2).softmax(-1)
        return projection @ features.flatten(2).transpose(1, 2), projection


class PixelGeneration(nn.Module):
    """The pixel-to-pixel form (MGCNet, Table III): every pixel, padding too, is a prototype."""

    def forward(self, features: Tensor, counted: Tensor | None = None) -> tuple[Tensor, None]:
        """Map features [B, C, h, w] to prototypes [B, h*w, C] without a projection."""
        return features.flatten(2).transpose(1, 2), None


class PrototypeAttention(nn.Module):
    """
    Attention of pixels to prototypes of one or several frames (MGCNet Eq. 3, 4, 7 and 8, SSC).

    theta, phi, g and F_out are shared by the per-frame and the short-term context. phi(N) and g(N)
    are computed once per prototype by ``memorise`` and reused by every later frame: that is what
    the pool stores.

    There are two forms. 'literal' is Eq. 3 as printed, with scores multiplied by ``scale`` (the
    paper states none: 1). While it trains, the part of the scores that all pixels have in common
    grows until every pixel reads the same prototype. 'cosine' compares directions: theta and phi
    are L2-normalised and the scores multiplied by a learned temperature. It starts as a
    similarity kernel: theta and phi from the same weights, g as the identity, F_out as 0.7 of the
    feature plus 0.3 of its context.

    Args:
        channels: C of the features, which is also that of the context.
        key_channels: Width of theta and phi.
        form: 'cosine' or 'literal'.
        scale: Factor of the literal form's scores.
        positions: Channels of position codes beside the features that are attended from and to.
    """

    def __init__(self, channels: int, key_channels: int, form: str = 'cosine', scale: float = 1.0,
                 positions: int = 0) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels + positions, key_channels, 1)
        self.phi = nn.Linear(channels + positions, key_channels)
        self.g = nn.Linear(channels + positions, channels)
        self.out = conv_bn_relu(2 * channels, channels)
        self.key_channels, self.form, self.scale = key_channels, form, scale
        if form == 'cosine':
            self.temperature = nn.Parameter(torch.tensor(10.0))
            self._start_as_kernel(channels)
        elif form != 'literal':
            raise ValueError(f'model.attention {form!r} is unknown: use cosine or literal')

    @torch.no_grad()
    def _start_as_kernel(self, channels: int) -> None:
        """Set the weights so that a pixel at first reads the prototypes that are like it."""
        for layer in (self.theta, self.phi, self.g):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.phi.weight, std=self.phi.in_features ** -0.5)
        self.theta.weight.copy_(self.phi.weight[:, :, None, None])
        nn.init.eye_(self.g.weight)
        identity = torch.eye(channels)
        mixing = torch.cat([0.7 * identity, 0.3 * identity], 1)[..., None, None]
        self.out[0].get_parameter('weight').copy_(mixing)

    def memorise(self, prototypes: Tensor) -> Tensor:
        """
        Compute what attention needs of prototypes, once in their life.

        Args:
            prototypes: Float [B, N, C], with position codes [B, N, C + positions].

        Returns:
            Memory float [B, N, D]: keys phi(N) and values g(N) side by side.
        """
        keys = self.phi(prototypes)
        if self.form == 'cosine':
            keys = F.normalize(keys, dim=-1)
        return torch.cat([keys, self.g(prototypes)], -1)

    def _queries(self, located: Tensor) -> Tensor:
        """Queries [B, h*w, key channels], whose products with keys are attention scores."""
        queries = self.theta(located).flatten(2).transpose(1, 2)
        if self.form == 'cosine':
            return F.normalize(queries, dim=-1) * self.temperature
        return queries * self.scale

    def forward(self, features: Tensor, memory: Tensor, mask: Tensor | None = None,
                codes: Tensor | None = None) -> Tensor:
        """
        Augment features with the context in memory.

        Args:
            features: Float [B, C, h, w].
            memory: Float [B, M, D] of ``memorise``.
            mask: Float [B, M], 0 or EMPTY, added to the attention scores; None: all are filled.
            codes: Position codes [B, positions, h, w], where the module has them.

        Returns:
            Augmented features [B, C, h, w] (Eq. 4).
        """
        keys, values = memory.split([self.key_channels, features.shape[1]], -1)
        scores = self._queries(locate(features, codes)) @ keys.transpose(1, 2)
        if mask is not None:
            scores = scores + mask[:, None]
        context = scores.softmax(-1) @ values
        context = context.transpose(1, 2).unflatten(2, features.shape[2:])
        return self.out(torch.cat([features, context], 1))


class NoPrototypes(nn.Module):
    """No prototypes, for the baseline of MGCNet's Table I."""

    def forward(self, features: Tensor, counted: Tensor | None = None) -> tuple[Tensor, None]:
        """Map features [B, C, h, w] to no prototypes, [B, 0, C]."""
        return features.new_zeros(len(features), 0, features.shape[1]), None


class NoAttention(nn.Module):
    """``PrototypeAttention`` without prototypes: features stay as they are."""

    def memorise(self, prototypes: Tensor) -> Tensor:
        """Return the (absent) prototypes."""
        return prototypes

    def forward(self, features: Tensor, memory: Tensor, mask: Tensor | None = None,
                codes: Tensor | None = None) -> Tensor:
        """Return the features."""
        return features


POSITION_CHANNELS = 16
_FREQUENCIES = (1, 2, 4, 8)
_POSITION_GAIN = 3.0  # against features of about 0 to 6


def position_codes(size: tuple[int, int], places: Tensor | None = None,
                   like: Tensor | None = None) -> Tensor:
    """
    Fourier codes of where in the camera's image the cells of a feature map lie.

    Args:
        size: (h, w) of the feature map.
        places: Float [B, 4], rows (ax, bx, ay, by): the cell at the share u of the map's width is
            at the share ax u + bx of the camera image's, and likewise in height. None: the map
            covers the camera image.
        like: A tensor on whose device the codes are to be.

    Returns:
        Float32 [B, 16, h, w], B = 1 without places: sine and cosine of pi k x and of pi k y, for
        k = 1, 2, 4, 8, times 3.
    """
    if places is None:
        places = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    device = places.device if like is None else like.device
    places = places.to(device, torch.float32)
    height, width = size
    x = (torch.arange(width, device=device) + 0.5) / width
    y = (torch.arange(height, device=device) + 0.5) / height
    x = places[:, 0:1] * x + places[:, 1:2]
    y = places[:, 2:3] * y + places[:, 3:4]
    codes = []
    for k in _FREQUENCIES:
        across = (math.pi * k * x)[:, None, :].expand(-1, height, -1)
        down = (math.pi * k * y)[:, :, None].expand(-1, -1, width)
        codes += [across.sin(), across.cos(), down.sin(), down.cos()]
    return _POSITION_GAIN * torch.stack(codes, 1)


def locate(features: Tensor, codes: Tensor | None) -> Tensor:
    """Features [B, C, h, w] with codes [1 or B, P, h, w] beside them: [B, C + P, h, w]."""
    if codes is None:
        return features
    codes = codes.to(features.dtype).expand(len(features), -1, -1, -1)
    return torch.cat([features, codes], 1)


def causal_mask(frames: int, num_prototypes: int, context: int, like: Tensor) -> Tensor:
    """
    Mask under which frame t of a clip attends to frames t-context..t.

    Args:
        frames: L of the clip.
        num_prototypes: N of each frame.
        context: T, earlier frames that are seen.
        like: A tensor whose dtype and device the mask takes.

    Returns:
        [frames, frames*num_prototypes] of 0 and EMPTY.
    """
    index = torch.arange(frames, device=like.device)
    age = index[:, None] - index[None]
    mask = like.new_zeros(frames, frames).masked_fill_((age < 0) | (age > context), EMPTY)
    return mask.repeat_interleave(num_prototypes, 1)
