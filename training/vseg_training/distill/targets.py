# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a student learns from: the same targets from a teacher at work or from its soft labels."""
from typing import NamedTuple

import torch
from torch import Tensor

from .structure import structural_loss
from .uncertainty import uncertainty_loss, uncertainty_map
from ..models.kinds import Network
from ..models.layers import counted_cells
from ..models.network import Output
from ..models.teacher import mean_prediction, Teacher
from ..terms import Maps


class Targets(NamedTuple):
    """
    A teacher's view of a clip.

    Attributes:
        probabilities: Mean prediction (Eq. 9), float [B, L, K, h, w].
        uncertainty: U (Eq. 12), float [B, L, h, w].
        projection: P (Eq. 1), float [B, L, N, h', w']; None where the teacher has none.
    """

    probabilities: Tensor
    uncertainty: Tensor
    projection: Tensor | None = None


@torch.no_grad()
def teacher_targets(network: Network, clip: Tensor, places: Tensor | None = None,
                    counted: Tensor | None = None) -> Targets:
    """
    Targets of a fixed network for a clip.

    A teacher with several streams keeps the dropout of their heads. A student in the place of a
    teacher has one stream, and no uncertainty.

    Args:
        network: Put into eval mode.
        clip: [B, L, 3, H, W] in 0..255.
        places: As in the network's ``forward``.
        counted: Likewise.
    """
    if isinstance(network, Teacher):
        output = network.monte_carlo()(clip, places, counted)
        streams = [scores.float().softmax(2) for scores in output['streams']]
    else:
        output = network.eval()(clip, places, counted)
        streams = [output['scores'].float().softmax(2)]
    projection = output['projection']
    if projection is not None:
        projection = projection.unflatten(3, output['features'].shape[-2:])
    return Targets(mean_prediction(streams), uncertainty_map(streams), projection)


def maps_of(output: Output) -> Maps:
    """Take what terms compare from a network's output."""
    streams = [scores.float() for scores in output.get('streams') or [output['scores']]]
    prediction = None
    if len(streams) > 1:
        prediction = stored_maps(mean_prediction([scores.softmax(2) for scores in streams])).scores
    return Maps(mean_prediction(streams), output['features'], output.get('auxiliary', ()),
                stages=output['stages'], depth=output.get('depth'), prediction=prediction)


@torch.no_grad()
def teacher_maps(network: Network, clip: Tensor, places: Tensor | None = None,
                 counted: Tensor | None = None) -> Maps:
    """
    Scores and features of a fixed network for a clip, without dropout.

    Args:
        network: Put into eval mode.
        clip: [B, L, 3, H, W] in 0..255.
        places: As in the network's ``forward``.
        counted: Likewise.
    """
    maps = maps_of(network.eval()(clip, places, counted))
    return maps._replace(stages=())  # no term compares them: their memory is freed


def stored_maps(probabilities: Tensor) -> Maps:
    """
    Scores of soft labels on disk: their logarithm, which has the same softmax.

    Args:
        probabilities: Float [B, L, K, h, w], 0 where a class was below 1/510.

    Returns:
        Maps without features.

    Examples:
        >>> probabilities = torch.tensor([0.25, 0.75]).view(1, 1, 2, 1, 1)
        >>> stored_maps(probabilities).scores.softmax(2).flatten()
        tensor([0.2500, 0.7500])
    """
    return Maps(probabilities.float().clamp(min=1e-6).log())


def distillation_terms(output: Output, targets: Targets, counted: Tensor,
                       class_weights: Tensor | None = None, structural: bool = True
                       ) -> dict[str, Tensor]:
    """
    Named terms of MGCNet's distillation: ``uncertainty`` (L_uct) and ``structural`` (L_st).

    Args:
        output: Of ``Student.forward``.
        targets: Of the same clip.
        counted: Bool [B*L, H, W], False for padding.
        class_weights: Float [K], those of the supervised loss.
        structural: Whether L_st is wanted.

    Returns:
        Scalars by name.

    Raises:
        ValueError: L_st is wanted and teacher or student has no prototypes.
    """
    scores = output['scores'].flatten(0, 1)
    terms = {'uncertainty': uncertainty_loss(
        scores, targets.probabilities.flatten(0, 1), targets.uncertainty.flatten(0, 1),
        counted_cells(counted, scores.shape[2:]), class_weights)}
    if structural:
        projection = output['projection']
        if projection is None or targets.projection is None:
            raise ValueError('structural distillation needs prototypes in teacher and student: '
                             'set distill.structural to 0')
        grid, teacher_grid = output['features'].shape[-2:], targets.projection.shape[-2:]
        terms['structural'] = structural_loss(
            projection.flatten(0, 1), targets.projection.flatten(0, 1).flatten(2),
            grid, teacher_grid, counted_cells(counted, grid).flatten(1))
    return terms
