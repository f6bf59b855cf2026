# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a student learns from: the same targets from a teacher at work or from its soft labels."""
from typing import NamedTuple, Optional

import torch

from .structure import structural_loss
from .uncertainty import uncertainty_loss, uncertainty_map
from ..models.layers import resize_labels
from ..models.teacher import mean_prediction, Teacher


class Targets(NamedTuple):
    """
    A teacher's view of a clip.

    probabilities [B, L, K, h, w] (mean prediction, Eq. 9), uncertainty [B, L, h, w] (Eq. 12),
    projection [B, L, N, h', w'] (Eq. 1; None where the teacher has none).
    """

    probabilities: torch.Tensor
    uncertainty: torch.Tensor
    projection: Optional[torch.Tensor] = None


@torch.no_grad()
def teacher_targets(network, clip, places=None):
    """
    Targets of a fixed network for a clip uint8 [B, L, 3, H, W], at places as in its ``forward``.

    A teacher with several streams keeps the dropout of their heads; a student as a teacher has one
    stream, and no uncertainty.
    """
    if isinstance(network, Teacher):
        output = network.monte_carlo()(clip, places)
        streams = [scores.float().softmax(2) for scores in output['streams']]
    else:
        output = network.eval()(clip, places)
        streams = [output['scores'].float().softmax(2)]
    projection = output['projection']
    if projection is not None:
        projection = projection.unflatten(3, output['features'].shape[-2:])
    return Targets(mean_prediction(streams), uncertainty_map(streams), projection)


def distillation_terms(output, targets, counted, class_weights=None, structural=True):
    """
    Named terms of MGCNet's distillation: uncertainty (L_uct) and structural (L_st).

    output: of ``Student.forward``; counted: bool [B*L, H, W], False for padding; class_weights
    [K]: those of the supervised loss; structural: whether L_st is wanted. Returns scalars by name.
    """
    scores = output['scores'].flatten(0, 1)
    terms = {'uncertainty': uncertainty_loss(
        scores, targets.probabilities.flatten(0, 1), targets.uncertainty.flatten(0, 1),
        _shrink(counted, scores.shape[2:]), class_weights)}
    if structural:
        if output['projection'] is None or targets.projection is None:
            raise ValueError('structural distillation needs prototypes in teacher and student: '
                             'set distill.structural to 0')
        grid, teacher_grid = output['features'].shape[-2:], targets.projection.shape[-2:]
        terms['structural'] = structural_loss(
            output['projection'].flatten(0, 1), targets.projection.flatten(0, 1).flatten(2),
            grid, teacher_grid, _shrink(counted, grid).flatten(1))
    return terms


def _shrink(counted, size):
    return resize_labels(counted, size).bool()
