# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""From a recipe's ``terms`` to a sum of terms: every need is checked before the first step."""
from collections.abc import Mapping
import inspect
from typing import Any, NamedTuple

from torch import nn, Tensor

from .methods import METHODS, Options, refuse_value, refuse_without_teacher


GIVEN = ('self', 'widths', 'num_classes')  # arguments that no recipe sets


class Maps(NamedTuple):
    """
    What terms compare of a network.

    Attributes:
        scores: Float [B, L, K, h, w], before the softmax.
        features: X, float [B, L, C, h', w']; None of soft labels on disk.
    """

    scores: Tensor
    features: Tensor | None = None


class Widths(NamedTuple):
    """Channels of a network's ``Maps``."""

    scores: int
    features: int


class Terms(nn.Module):
    """
    Terms by name; their adapters are trained with the student and left out of its export.

    Args:
        options: The recipe's ``terms``: for every name its weight, ``of`` (scores or features),
            and options of the term's module.
        student: Widths of the student.
        teacher: Widths of the teacher; None: there is none at work.
        stored: Whether there are soft labels on disk instead.

    Attributes:
        weights: By name.

    Raises:
        ValueError: A term or an option is unknown or of a wrong value, a weight is missing, or a
            term needs a teacher; the message says what to change.

    Examples:
        >>> terms = Terms({'channel': {'weight': 50, 'of': 'features'}}, Widths(11, 16),
        ...               Widths(11, 24))
        >>> [tuple(parameter.shape) for parameter in terms.parameters()]  # its adapter
        [(24, 16, 1, 1), (24,)]
    """

    def __init__(self, options: Options, student: Widths, teacher: Widths | None = None,
                 stored: bool = False) -> None:
        super().__init__()
        if teacher is None:
            refuse_without_teacher(options, stored)
        self.weights: dict[str, float] = {}
        self.of: dict[str, str] = {}
        self.modules_by_name = nn.ModuleDict()
        for name, values in options.items():
            self._add(name, dict(values), student, teacher)

    def _add(self, name: str, values: dict[str, Any], student: Widths, teacher: Widths | None
             ) -> None:
        method = METHODS[name]
        if 'weight' not in values:
            raise ValueError(f'terms.{name} has no weight: give terms.{name}.weight')
        refuse_value(name, 'weight', values['weight'], 1.0)
        weight, of = values.pop('weight'), values.pop('of', method.of[0])
        if of not in method.of:
            raise ValueError(f'terms.{name}.of is {of!r}: use {" or ".join(method.of)}')
        known = inspect.signature(method.module.__init__).parameters
        free = [option for option in known if option not in (*GIVEN, 'args', 'kwargs')]
        for option in values:
            if option not in free:
                raise ValueError(f'terms.{name}.{option} is unknown: use '
                                 f'{", ".join(["weight", "of", *free])}')
            refuse_value(name, option, values[option], known[option].default)
        if 'num_classes' in known:
            values['num_classes'] = student.scores
        if 'widths' in known and of == 'features' and teacher is not None:
            values['widths'] = (student.features, teacher.features)
        self.weights[name], self.of[name] = float(weight), of
        try:
            self.modules_by_name[name] = method.module(**values)
        except ValueError as error:
            raise ValueError(f'terms.{name}.{error}') from error

    def forward(self, student: Maps, teacher: Maps | None, batch: Mapping[str, Tensor],
                counted: Tensor) -> dict[str, Tensor]:
        """
        Compute all terms of a batch of clips.

        Args:
            student: Its maps.
            teacher: Its maps; None where no term needs them.
            batch: images [B, L, 3, H, W], labels int64 [B, L, H, W], and for temporal terms flow
                float [B, L - 1, 2, H, W] and flow_known bool [B].
            counted: Bool [B, L, H, W], False for padding.

        Returns:
            Scalars by name, without their weights.
        """
        found = {}
        for name, module in self.modules_by_name.items():
            method, own = METHODS[name], getattr(student, self.of[name])
            if 'flow' in method.needs:
                found[name] = _temporal(module, own, batch, counted)
                continue
            assert teacher is not None
            other = getattr(teacher, self.of[name]).flatten(0, 1)
            last = batch['labels'] if 'labels' in method.needs else counted
            found[name] = module(own.flatten(0, 1), other, last.flatten(0, 1))
        return found


def _temporal(module: nn.Module, scores: Tensor, batch: Mapping[str, Tensor], counted: Tensor
              ) -> Tensor:
    """Temporal term of neighbouring frames; clips whose flow is unknown count as padding."""
    if scores.shape[1] < 2:
        return scores.sum() * 0
    known = counted & batch['flow_known'][:, None, None, None]
    images = batch['images']
    loss: Tensor = module(
        scores[:, :-1].flatten(0, 1), scores[:, 1:].flatten(0, 1), images[:, :-1].flatten(0, 1),
        images[:, 1:].flatten(0, 1), batch['flow'].flatten(0, 1), known[:, :-1].flatten(0, 1),
        known[:, 1:].flatten(0, 1))
    return loss
