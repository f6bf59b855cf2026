# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""From a recipe's ``terms`` to a sum of terms: every need is checked before the first step."""
from collections.abc import Mapping, Sequence
import inspect
from typing import Any, NamedTuple

from torch import nn, Tensor

from .critic import Opponent
from .frames import MultiFrame
from .holistic import Holistic
from .joint import UncertaintyAware
from .methods import (
    Method, method_of, needs, Options, refuse_small, refuse_value, refuse_without_auxiliary,
    refuse_without_depth, refuse_without_teacher)
from .overparameterised import Loss
from ..models.layers import resize_labels


GIVEN = ('self', 'widths', 'num_classes', 'stages', 'of')  # arguments that no recipe sets


class MonteCarlo(NamedTuple):
    """
    Several passes of a teacher with dropout.

    Attributes:
        mean: Of the probabilities, float [B, L, K, h, w].
        variance: Of them, summed over classes, float [B, L, h, w].
    """

    mean: Tensor
    variance: Tensor


class Maps(NamedTuple):
    """
    What terms compare of a network.

    Attributes:
        scores: Float [B, L, K, h, w], before the softmax; of a teacher of several streams their
            mean.
        features: X, float [B, L, C, h', w']; None of soft labels on disk.
        auxiliary: Scores of each auxiliary head, float [B, L, K, h'', w''].
        monte_carlo: Of a teacher, where a term needs it.
        stages: Of a student's backbone, float [B, L, C'', h''', w'''] each, coarsest last.
        depth: Scores of the bins of depth, float [B, L, bins, h, w]; None without that task.
        prediction: Logarithm of the mean of several streams' probabilities (MGCNet Eq. 9), float
            [B, L, K, h, w]; None of one stream, whose scores serve.
    """

    scores: Tensor
    features: Tensor | None = None
    auxiliary: Sequence[Tensor] = ()
    monte_carlo: MonteCarlo | None = None
    stages: Sequence[Tensor] = ()
    depth: Tensor | None = None
    prediction: Tensor | None = None

    def of(self, what: str, as_probabilities: bool) -> Tensor:
        """Scores, features or depth; as_probabilities: for a term that takes their softmax."""
        if what == 'scores' and as_probabilities and self.prediction is not None:
            return self.prediction
        found: Tensor = getattr(self, what)
        return found


class Task(NamedTuple):
    """
    What a network learns from labels, for terms that learn it too.

    Attributes:
        loss: Of maps [B, C, h, w] and truth [B, H, W].
        truth: Int64 [B, L, H, W].

    Examples:
        >>> import torch
        >>> from torch.nn.functional import cross_entropy
        >>> task = Task(cross_entropy, torch.zeros(1, 1, 2, 2, dtype=torch.int64))
        >>> task.loss(torch.zeros(1, 2, 2, 2), task.truth[0])  # log 2
        tensor(0.6931)
    """

    loss: Loss
    truth: Tensor


class Widths(NamedTuple):
    """
    Channels of a network's ``Maps``.

    Attributes:
        scores: Of the scores.
        features: Of the features.
        auxiliary: Whether it has auxiliary heads.
        cells: (h, w) of its scores.
        stages: Of its backbone's stages.
        depth: Bins of depth; 0 without that task.
    """

    scores: int
    features: int
    auxiliary: bool = True
    cells: tuple[int, int] = (64, 64)
    stages: tuple[int, ...] = ()
    depth: int = 0


class Terms(nn.Module):
    """
    Terms by name; their adapters are trained with the student and left out of its export.

    Args:
        options: The recipe's ``terms``: for every name its weight, ``of`` (scores, features or
            depth, where the term can choose), options of the term's module, and, where a method
            serves more than once and the name is free, ``method``.
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
        if not student.auxiliary:
            refuse_without_auxiliary(options)
        if teacher is not None:
            refuse_small(options, teacher.cells)
        several = needs(options, 'passes')
        if len(several) > 1:
            raise ValueError(f'terms.{several[0]} and terms.{several[1]} both make passes of the '
                             'teacher with dropout: leave one of them out')
        self.weights: dict[str, float] = {}
        self.methods: dict[str, Method] = {}
        self.of: dict[str, str] = {}
        self.modules_by_name = nn.ModuleDict()
        for name, values in options.items():
            self._add(name, dict(values), student, teacher)

    def _add(self, name: str, values: dict[str, Any], student: Widths, teacher: Widths | None
             ) -> None:
        method = method_of(name, values)
        values.pop('method', None)
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
                                 f'{", ".join(["weight", "of", "method", *free])}')
            refuse_value(name, option, values[option], known[option].default)
        if of == 'depth':
            others = None if 'stages' in method.needs else teacher.depth if teacher else 0
            refuse_without_depth(name, student.depth, others)
        if 'num_classes' in known:
            values['num_classes'] = student.depth if of == 'depth' else student.scores
        if 'stages' in known:
            values['stages'] = student.stages
        if 'of' in known:
            values['of'] = of
        if 'widths' in known and of == 'features' and teacher is not None:
            values['widths'] = (student.features, teacher.features)
        self.weights[name], self.of[name], self.methods[name] = float(weight), of, method
        try:
            self.modules_by_name[name] = method.module(**values)
        except ValueError as error:
            raise ValueError(f'terms.{name}.{error}') from error

    def begin_step(self) -> None:
        """What terms do before a step, once the weights are those of the last one."""
        for module in self.modules_by_name.values():
            if isinstance(module, MultiFrame):
                module.begin_step()

    def forward(self, student: Maps, teacher: Maps | None, batch: Mapping[str, Tensor],
                counted: Tensor, tasks: Mapping[str, Task] | None = None) -> dict[str, Tensor]:
        """
        Compute all terms of a batch of clips.

        Args:
            student: Its maps.
            teacher: Its maps; None where no term needs them.
            batch: images [B, L, 3, H, W], labels int64 [B, L, H, W], and for temporal terms flow
                float [B, L - 1, 2, H, W] and flow_known bool [B].
            counted: Bool [B, L, H, W], False for padding.
            tasks: What the network learns, scores and depth, for terms on stages.

        Returns:
            Scalars by name, without their weights.
        """
        found = {}
        for name, module in self.modules_by_name.items():
            method = self.methods[name]
            if 'stages' in method.needs:
                assert tasks is not None
                found[name] = _on_stages(module, student, tasks[self.of[name]], counted)
                continue
            own = student.of(self.of[name], method.as_probabilities)
            if 'flow' in method.needs:
                found[name] = _temporal(module, own, batch, counted)
                continue
            assert teacher is not None
            given = self._given(name, student, teacher, batch, counted)
            if 'frames' not in method.needs:
                own, *given = (_by_frames(maps) for maps in (own, *given))
            found[name] = module(own, *given)
        return found

    def _given(self, name: str, student: Maps, teacher: Maps, batch: Mapping[str, Tensor],
               counted: Tensor) -> list[Any]:
        """What a term's module takes after the student's maps, by clips."""
        wanted = self.methods[name].needs
        other = teacher.of(self.of[name], self.methods[name].as_probabilities)
        if 'passes' in wanted:
            assert teacher.monte_carlo is not None
            return [*teacher.monte_carlo, counted]
        given: list[Any] = [other, batch['labels'] if 'labels' in wanted else counted]
        if 'images' in wanted:
            given.append(batch['images'])
        if 'auxiliary' in wanted:
            given += [student.auxiliary, teacher.auxiliary]
        return given

    @property
    def opponents(self) -> dict[str, Opponent]:
        """Critics by the names of their terms; hidden from ``modules`` and ``parameters``."""
        return {name: module.opponent for name, module in self.modules_by_name.items()
                if isinstance(module, Holistic)}

    def train_opponents(self, student: Maps, teacher: Maps | None, batch: Mapping[str, Tensor],
                        counted: Tensor) -> None:
        """Train all critics by one step; arguments as in ``forward``."""
        for name, module in self.modules_by_name.items():
            if isinstance(module, Holistic):
                assert teacher is not None
                given = self._given(name, student, teacher, batch, counted)
                own = student.of(self.of[name], self.methods[name].as_probabilities)
                module.learn(*(maps.flatten(0, 1) for maps in (own, *given)))

    @property
    def passes(self) -> dict[str, Any]:
        """Arguments of ``distill.monte_carlo``; empty where no term needs passes."""
        for module in self.modules_by_name.values():
            if isinstance(module, UncertaintyAware):
                return {'passes': module.passes, 'rate': module.rate}
        return {}


def _by_frames(maps: Any) -> Any:
    """Maps by clips [B, L, ...], or several of them, as maps by frames [B*L, ...]."""
    if isinstance(maps, Tensor):
        return maps.flatten(0, 1)
    return [each.flatten(0, 1) for each in maps]


def _on_stages(module: nn.Module, student: Maps, task: Task, counted: Tensor) -> Tensor:
    """Term of the student's stages; they are coarse, so that labels as fine as its scores do."""
    fine = resize_labels(task.truth.flatten(0, 1), student.scores.shape[-2:])
    stages = [stage.flatten(0, 1) for stage in student.stages]
    loss: Tensor = module(stages, fine, task.loss, counted.flatten(0, 1))
    return loss


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
