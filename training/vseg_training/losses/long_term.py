# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Long-term context: the loss on video IDs (MGCNet Sec. III-C)."""
from torch.nn import functional as F


def video_id_loss(scores, videos, form='softmax'):
    """
    Classification loss of the long-term context module, L_cls.

    scores [B, V], videos int64 [B] in 0..V-1 -> scalar. form: 'softmax' cross-entropy, or 'bce',
    the paper's binary cross-entropy on the one-hot ID. ValueError for another form.
    """
    if form == 'softmax':
        return F.cross_entropy(scores.float(), videos)
    if form == 'bce':
        one_hot = F.one_hot(videos, scores.shape[1]).float()
        return F.binary_cross_entropy_with_logits(scores.float(), one_hot)
    raise ValueError(f'loss.video_id {form!r} is unknown: use softmax or bce')
