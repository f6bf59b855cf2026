# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Long-term context module (MGCNet Sec. III-C); it exists in training alone."""
from torch import nn


class LongTermContext(nn.Module):
    """
    Video ID of a clip from its nearby and distant frames.

    ``forward``: features of nearby and of as many distant frames, [B, L, C, h, w] each -> scores
    [B, V]. Global average pooling per frame, mean over the frames, and a multilayer perceptron.
    """

    def __init__(self, channels, num_videos):
        super().__init__()
        self.perceptron = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, num_videos))

    def forward(self, nearby, distant):
        pooled = nearby.mean((1, 3, 4)) + distant.mean((1, 3, 4))
        return self.perceptron(pooled / 2)
