# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Long-term context module (MGCNet Sec. III-C), which exists only while a network trains."""
import torch
from torch import nn, Tensor

from .layers import counted_cells


class LongTermContext(nn.Module):
    """
    Tells from nearby and distant frames which video a clip is from.

    Global average pooling per frame, the mean over all frames, and a multilayer perceptron.

    Args:
        channels: C of the features.
        num_videos: V, the number of video IDs.
    """

    def __init__(self, channels: int, num_videos: int) -> None:
        super().__init__()
        self.perceptron = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, num_videos))

    def forward(self, nearby: Tensor, distant: Tensor, counted: Tensor,
                counted_distant: Tensor) -> Tensor:
        """
        Classify clips.

        Args:
            nearby: Features float [B, L, C, h, w] of the clip's frames.
            distant: Features of as many distant frames, of the same shape.
            counted: Bool [B, L, H, W], False for padding in the clip's frames.
            counted_distant: Likewise, in the distant ones.

        Returns:
            Scores float [B, V].
        """
        pooled = _mean(nearby, counted) + _mean(distant, counted_distant)
        return self.perceptron(pooled / 2)


def _mean(features: Tensor, counted: Tensor) -> Tensor:
    """Mean [B, C] over the frames of each frame's mean over what is not padding."""
    cells = counted_cells(counted.flatten(0, 1), features.shape[3:])
    cells = cells.unflatten(0, features.shape[:2])
    # a sum of many cells would overflow in float16
    wide = torch.promote_types(features.dtype, torch.float32)
    total = features.where(cells[:, :, None], 0).sum((3, 4), dtype=wide)
    pooled = (total / cells.sum((2, 3)).clamp(min=1)[..., None]).mean(1)
    return pooled.to(features.dtype)
