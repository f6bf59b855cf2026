# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Temporal loss of efficient temporal consistency (ETC)."""
import torch
from torch import nn, Tensor
from torch.nn import functional as F

from .maps import full_precision, shown, shrink
from ..losses.mean import mean_over_processes
from ..models.layers import resize


class TemporalConsistencyLoss(nn.Module):
    """
    A moving pixel keeps its class (ETC; Liu et al., 2020, Eq. 1; Liu's thesis, Eq. 5.1).

    L = mean over pixels i of V_i |q_t^i - warp(q_t+k)^i|^2, with q = softmax over classes, and
    V = exp(-scale mean_c |I_t - warp(I_t+k)|) of images in 0..1; it is 0 where the flow leaves the
    frame.

    The later frame is warped backward onto the earlier one. As printed, with scale 1, V masks
    nothing: on CamVid it is 0.98 where the flow is right and 0.96 where it is wrong. The paper's
    code sums over colours that are divided by their standard deviation, which comes to a scale of
    13, and multiplies both maps by V, which comes to 26. The paper's weight is 0.1.

    Args:
        scale: Of the difference of colours, the larger the stricter.

    Examples:
        >>> import torch
        >>> image = torch.zeros(1, 3, 1, 2)
        >>> road = torch.tensor([30.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
        >>> still = torch.zeros(1, 2, 1, 2)
        >>> term = TemporalConsistencyLoss()
        >>> term(road, road, image, image, still)
        tensor(0.)
        >>> term(road, -road, image, image, still)  # every pixel changes its class
        tensor(2.)
        >>> term(road, -road, image, image + 255, still) < 1e-5  # it shows something else
        tensor(True)
    """

    def __init__(self, scale: float = 13.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, scores: Tensor, later_scores: Tensor, images: Tensor, later_images: Tensor,
                flow: Tensor, counted: Tensor | None = None,
                later_counted: Tensor | None = None) -> Tensor:
        """
        Compare the scores of one network in two frames; gradients go into both.

        Args:
            scores: Float [B, K, h, w] of frame t.
            later_scores: Likewise, of frame t + k.
            images: [B, 3, H, W] in 0..255 of frame t.
            later_images: Likewise, of frame t + k.
            flow: Float [B, 2, H, W], in pixels of the image: what is at (x, y) in frame t is at
                (x + flow[0], y + flow[1]) in frame t + k.
            counted: Bool [B, H, W], False for padding in frame t.
            later_counted: Likewise, in frame t + k.

        Returns:
            Scalar in [0, 2].

        Raises:
            ValueError: Flow and images differ in size.
        """
        if flow.shape[2:] != images.shape[2:] or flow.shape[1] != 2:
            raise ValueError(f'temporal loss: the flow is {list(flow.shape)}, the images are '
                             f'{list(images.shape)}: give a flow [B, 2, H, W] of their size')
        now = full_precision(scores).softmax(1)
        later = full_precision(later_scores).softmax(1)
        motion = _to_grid(flow.detach().to(now.dtype), now)
        inside = shrink(counted, now)
        kept = visibility(shown(images, now), shown(later_images, now), motion, self.scale)
        if later_counted is not None:
            there = shrink(later_counted, now)[:, None].to(now.dtype)
            kept = kept * (warp(there, motion)[:, 0] > 0.999)
        difference = (now - warp(later, motion)).square().sum(1)
        total = (kept * inside * difference).sum()
        return mean_over_processes(total, inside.sum().to(total.dtype))


def visibility(image: Tensor, later: Tensor, flow: Tensor, scale: float = 13.0) -> Tensor:
    """
    V: whether a pixel is seen in the later frame where the flow points to.

    Args:
        image: Float [B, 3, h, w] in 0..1.
        later: Likewise, of the later frame.
        flow: Float [B, 2, h, w] in pixels, from the earlier frame to the later one.
        scale: As in ``TemporalConsistencyLoss``.

    Returns:
        Float [B, h, w] in 0..1, 0 where the flow leaves the frame.

    Examples:
        >>> import torch
        >>> image = torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2)  # black, white
        >>> flow = torch.zeros(1, 2, 1, 2)
        >>> visibility(image, image, flow)
        tensor([[[1., 1.]]])
        >>> flow[:, 0] = 1  # one pixel to the right: onto white, and out of the frame
        >>> visibility(image, image, flow) < 1e-5
        tensor([[[True, True]]])
    """
    x, y = _targets(flow)
    height, width = flow.shape[2:]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    error = (image - warp(later, flow)).abs().mean(1)
    return torch.exp(-scale * error) * inside


def warp(later: Tensor, flow: Tensor) -> Tensor:
    """Maps [B, C, h, w] of the later frame, seen from the earlier one; 0 outside the frame."""
    x, y = _targets(flow)
    height, width = flow.shape[2:]
    # the centre of pixel x is at (2 x + 1) / width - 1
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], 3)
    return F.grid_sample(later, grid, mode='bilinear', padding_mode='zeros', align_corners=False)


def _targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and rows [B, h, w] that a flow points at."""
    height, width = flow.shape[2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    return x, y


def _to_grid(flow: Tensor, like: Tensor) -> Tensor:
    """Flow [B, 2, H, W] in pixels of the image as [B, 2, h, w] in cells of a map."""
    height, width = like.shape[2:]
    share = flow.new_tensor([width / flow.shape[3], height / flow.shape[2]])
    return resize(flow, (height, width)) * share[:, None, None]
