# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Long-term context: the loss on video IDs (MGCNet Sec. III-C)."""
from torch import Tensor
from torch.nn import functional as F


def video_id_loss(scores: Tensor, videos: Tensor, form: str = 'softmax') -> Tensor:
    """
    Classification loss of the long-term context module, L_cls.

    Args:
        scores: Float [B, V] of ``LongTermContext``.
        videos: Int64 [B], the clips' video IDs in 0..V-1.
        form: 'softmax' cross-entropy, or 'bce', the paper's binary cross-entropy on the one-hot
            ID, a mean over IDs too.

    Returns:
        Scalar >= 0.

    Raises:
        ValueError: The form is unknown.

    Examples:
        >>> import torch
        >>> scores, videos = torch.zeros(1, 4), torch.tensor([2])
        >>> round(video_id_loss(scores, videos).item(), 4)  # log 4
        1.3863
        >>> round(video_id_loss(scores, videos, 'bce').item(), 4)  # log 2
        0.6931
    """
    if form == 'softmax':
        return F.cross_entropy(scores.float(), videos)
    if form == 'bce':
        one_hot = F.one_hot(videos, scores.shape[1]).float()
        return F.binary_cross_entropy_with_logits(scores.float(), one_hot)
    raise ValueError(f'loss.video_id {form!r} is unknown: use softmax or bce')
