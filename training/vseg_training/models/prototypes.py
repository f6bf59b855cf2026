# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Pixel-to-prototype non-local operation (MGCNet, Sec. III-A and III-B)."""
import torch
from torch import nn

from .layers import conv_bn_relu


EMPTY = -1e4  # added to attention scores of slots that hold no prototypes; finite in float16


class PrototypeGeneration(nn.Module):
    """
    Features to N semantic prototypes (MGCNet Eq. 1 and 2).

    ``forward``: float [B, C, h, w] -> prototypes [B, N, C], projection P [B, N, h*w]. Each row
    of P is a distribution over pixels (softmax over space).
    """

    def __init__(self, channels, num_prototypes):
        super().__init__()
        self.projection = nn.Conv2d(channels, num_prototypes, 1)

    def forward(self, features):
        projection = self.projection(features).flatten(2).softmax(-1)
        return projection @ features.flatten(2).transpose(1, 2), projection


class PixelGeneration(nn.Module):
    """
    The pixel-to-pixel form (MGCNet, Table III): every pixel is its own prototype.

    ``forward``: float [B, C, h, w] -> prototypes [B, h*w, C], projection None.
    """

    def forward(self, features):
        return features.flatten(2).transpose(1, 2), None


class PrototypeAttention(nn.Module):
    """
    Attention of pixels to prototypes of one or several frames (MGCNet Eq. 3, 4, 7 and 8, SSC).

    theta, phi, g and F_out are shared by the per-frame and the short-term context. phi(N) and g(N)
    are computed once per prototype by ``memorise`` and reused by every later frame: that is what
    the pool stores. ``scale`` multiplies the attention scores (the paper states none: 1).
    """

    def __init__(self, channels, key_channels, scale=1.0):
        super().__init__()
        self.theta = nn.Conv2d(channels, key_channels, 1)
        self.phi = nn.Linear(channels, key_channels)
        self.g = nn.Linear(channels, channels)
        self.out = conv_bn_relu(2 * channels, channels)
        self.key_channels, self.scale = key_channels, scale

    def memorise(self, prototypes):
        """Prototypes [B, N, C] -> memory [B, N, D]: keys phi(N) and values g(N) side by side."""
        return torch.cat([self.phi(prototypes), self.g(prototypes)], -1)

    def forward(self, features, memory, mask=None):
        """
        Augment features with the context in memory.

        features [B, C, h, w], memory [B, M, D], mask [B, M] (0 or EMPTY, added to the attention
        scores; None: all slots are filled) -> [B, C, h, w].
        """
        keys, values = memory.split([self.key_channels, features.shape[1]], -1)
        queries = self.theta(features).flatten(2).transpose(1, 2)
        scores = queries @ keys.transpose(1, 2) * self.scale
        if mask is not None:
            scores = scores + mask[:, None]
        context = scores.softmax(-1) @ values
        context = context.transpose(1, 2).unflatten(2, features.shape[2:])
        return self.out(torch.cat([features, context], 1))


class NoPrototypes(nn.Module):
    """No prototypes, for the baseline of MGCNet's Table I: float [B, C, h, w] -> [B, 0, C]."""

    def forward(self, features):
        return features.new_zeros(len(features), 0, features.shape[1]), None


class NoAttention(nn.Module):
    """``PrototypeAttention`` without prototypes: features stay as they are."""

    def memorise(self, prototypes):
        """Return the (absent) prototypes."""
        return prototypes

    def forward(self, features, memory, mask=None):
        return features


def causal_mask(frames, num_prototypes, context, like):
    """
    Mask under which frame t of a clip attends to frames t-context..t.

    Returns [frames, frames*num_prototypes] of 0 and EMPTY, with the dtype and device of ``like``.
    """
    index = torch.arange(frames, device=like.device)
    age = index[:, None] - index[None]
    mask = like.new_zeros(frames, frames).masked_fill_((age < 0) | (age > context), EMPTY)
    return mask.repeat_interleave(num_prototypes, 1)
