# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Co-training of the teacher's streams (MGCNet Eq. 10)."""
from collections.abc import Sequence

import torch
from torch import Tensor

from .mean import mean_over_processes
from ..models.teacher import mean_prediction


def _entropy(probabilities: Tensor) -> Tensor:
    # torch.special.entr has an infinite gradient where a probability is 0
    logs = probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()
    return -(probabilities * logs).sum(2)


def co_training_loss(streams: Sequence[Tensor], counted: Tensor) -> Tensor:
    """
    Jensen-Shannon divergence of the streams, a mean over pixels (MGCNet Eq. 10).

    L_cot = H(mean of the streams) - mean of H(stream), with H the Shannon entropy, which is the
    loss of deep co-training (Qiao et al., 2018). Eq. 10 as printed is unbounded below.

    Args:
        streams: Scores float [B, L - tau, K, h, w] as ``Teacher.forward`` gives them.
        counted: Bool [B, L, h, w], False for padding. Frames that have only one stream do not
            count either.

    Returns:
        Scalar in [0, log S] for S streams.

    Examples:
        >>> import torch
        >>> class_0 = torch.tensor([99.0, -99.0]).view(1, 1, 2, 1, 1)
        >>> clip = torch.cat([class_0, class_0], 1)
        >>> counted = torch.ones(1, 2, 1, 1, dtype=torch.bool)
        >>> co_training_loss([clip, class_0], counted).item()  # the streams agree
        0.0
        >>> round(co_training_loss([clip, -class_0], counted).item(), 4)  # they contradict: log 2
        0.6931
    """
    probabilities = [stream.float().softmax(2) for stream in streams]
    divergence = (_entropy(mean_prediction(probabilities))
                  - mean_prediction([_entropy(p) for p in probabilities])).clamp(min=0)
    divergence, counted = divergence[:, 1:], counted[:, 1:]
    return mean_over_processes((divergence * counted).sum(), counted.sum().float())
