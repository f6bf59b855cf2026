# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Long-term context module (MGCNet Sec. III-C), which exists only while a network trains."""
from torch import nn, Tensor


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

    def forward(self, nearby: Tensor, distant: Tensor) -> Tensor:
        """
        Classify clips.

        Args:
            nearby: Features float [B, L, C, h, w] of the clip's frames.
            distant: Features of as many distant frames, of the same shape.

        Returns:
            Scores float [B, V].
        """
        pooled = nearby.mean((1, 3, 4)) + distant.mean((1, 3, 4))
        return self.perceptron(pooled / 2)
