# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Co-training of the teacher's streams (MGCNet Eq. 10)."""
import torch

from .mean import mean_over_processes
from ..models.teacher import mean_prediction


def _entropy(probabilities):
    # torch.special.entr has an infinite gradient where a probability is 0
    logs = probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()
    return -(probabilities * logs).sum(2)


def co_training_loss(streams, counted):
    """
    Jensen-Shannon divergence of the streams, a mean over pixels (Eq. 10).

    As printed, Eq. 10 is unbounded below; with H the Shannon entropy it is the loss of deep
    co-training, H(mean of streams) - mean of H(stream), which is minimised. streams: scores
    [B, L - tau, K, h, w] as ``Teacher.forward`` gives them; counted: bool [B, L, h, w], False for
    padding. Frames with one stream alone do not count. Returns a scalar in [0, log S], S streams.
    """
    probabilities = [stream.float().softmax(2) for stream in streams]
    divergence = (_entropy(mean_prediction(probabilities))
                  - mean_prediction([_entropy(p) for p in probabilities])).clamp(min=0)
    divergence, counted = divergence[:, 1:], counted[:, 1:]
    return mean_over_processes((divergence * counted).sum(), counted.sum().float())
