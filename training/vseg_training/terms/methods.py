# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The terms that a recipe can name, what they need, and what is refused before the first step."""
from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

from torch import nn

from .attention import AttentionTransfer
from .channel import ChannelWise
from .critic import LEAST_CELLS
from .frames import MultiFrame, PairwiseFrames
from .holistic import Holistic
from .inter_class import InterClassDistance
from .intra_class import IntraClassVariation
from .joint import JointAuxiliary, UncertaintyAware
from .local import LocalSimilarity
from .overparameterised import DeepSupervision, Overparameterised
from .pair import PairWise
from .pixel import PixelWise
from .position import PositionInformation
from .temporal import TemporalConsistencyLoss


class Method(NamedTuple):
    """
    A kind of term: its module, what it can compare (the default first), and what it needs.

    Needs are teacher (one at work), probabilities (a teacher's, at work or on disk), auxiliary
    (the student's auxiliary heads too, unless the option of that name is 0), passes (several of it
    with dropout), images, labels, frames (clips of two or more, as they are), flow, stages (the
    student's own, with the labels and the task's loss).
    A term on stages is not compared with a teacher: its ``of`` says which task it learns.
    Its maps must have at least so many cells in height and in width. ``as_probabilities``: whether
    it takes the softmax of scores over classes.
    """

    module: type[nn.Module]
    of: tuple[str, ...]
    needs: tuple[str, ...] = ('teacher',)
    least_cells: int = 1
    as_probabilities: bool = False


METHODS = {
    'pixel': Method(PixelWise, ('scores', 'depth'), ('probabilities',), as_probabilities=True),
    'channel': Method(ChannelWise, ('scores', 'features', 'depth')),
    'pair': Method(PairWise, ('features', 'scores')),
    'attention': Method(AttentionTransfer, ('features',)),
    'local': Method(LocalSimilarity, ('scores', 'features')),
    'intra_class': Method(IntraClassVariation, ('features', 'scores'), ('teacher', 'labels')),
    'inter_class': Method(InterClassDistance, ('features', 'scores'), ('teacher', 'labels')),
    'holistic': Method(Holistic, ('scores', 'depth'), ('teacher', 'images'), LEAST_CELLS,
                       as_probabilities=True),
    'position': Method(PositionInformation, ('features',)),
    'joint_auxiliary': Method(JointAuxiliary, ('scores',), ('probabilities', 'auxiliary'),
                              as_probabilities=True),
    'uncertainty_aware': Method(UncertaintyAware, ('scores',), ('teacher', 'passes'),
                                as_probabilities=True),
    'pair_frames': Method(PairwiseFrames, ('scores',), ('probabilities', 'frames'),
                          as_probabilities=True),
    'multi_frame': Method(MultiFrame, ('features',), ('teacher', 'frames')),
    'temporal': Method(TemporalConsistencyLoss, ('scores',), ('frames', 'flow'),
                       as_probabilities=True),
    'overparameterised': Method(Overparameterised, ('scores', 'depth'), ('stages',)),
    'deep_supervision': Method(DeepSupervision, ('scores', 'depth'), ('stages',))}
# other parts of the loss, whose names no term may have
LOSSES = ('scores', 'depth', 'normals', 'auxiliary', 'diversity', 'long_term', 'co_training',
          'uncertainty', 'structural')
MAY_BE_0 = ('weight', 'reach', 'scale', 'alpha', 'auxiliary', 'collapse')

Options = Mapping[str, Mapping[str, Any]]


def method_of(name: str, values: Mapping[str, Any]) -> Method:
    """
    Find the method of a term: that of its name, or of its option ``method``.

    Args:
        name: Of the term, a key of the recipe's ``terms``.
        values: Its options.

    Raises:
        ValueError: There is no such method, or the name is taken.
    """
    method = values.get('method', name)
    if not isinstance(method, str) or method not in METHODS:
        place, fix = (f'terms.{name}.method is {method!r}', '') if 'method' in values else (
            f'terms.{name} is unknown', ', or name one of them as its method')
        raise ValueError(f'{place}: use {", ".join(METHODS)}{fix}')
    if name != method and (name in METHODS or name in LOSSES or not name.isidentifier()):
        raise ValueError(f'terms.{name} cannot be the name of a term with method {method}: give '
                         f'it another, such as {method}_2')
    return METHODS[method]


def needs(options: Options, need: str) -> list[str]:
    """
    Find the terms of a recipe that need something.

    Args:
        options: The recipe's ``terms``.
        need: One of those of ``Method``.

    Raises:
        ValueError: A term is unknown.
    """
    methods = {name: method_of(name, values) for name, values in options.items()}
    return [name for name, method in methods.items() if need in method.needs]


def refuse_without_teacher(options: Options, stored: bool) -> None:
    """
    Check what terms need where no teacher is at work.

    Args:
        options: The recipe's ``terms``.
        stored: Whether there are soft labels on disk instead.

    Raises:
        ValueError: A term needs more.
    """
    checkpoint = 'set distill.teacher to a checkpoint of vseg-train fit'
    for name in needs(options, 'teacher'):
        raise ValueError(f'terms.{name} compares with a teacher at work: {checkpoint} (soft '
                         'labels on disk hold probabilities alone)')
    for name in needs(options, 'probabilities'):
        if not stored:
            raise ValueError(f'terms.{name} needs a teacher: {checkpoint} or to a folder of '
                             'vseg-train soft-labels')
        tau = options[name].get('tau', 1)
        if tau != 1:
            raise ValueError(
                f'terms.{name}.tau is {tau}, but soft labels on disk hold probabilities in 1/255, '
                f'too coarse for any other than 1: use 1, or {checkpoint}')


def refuse_without_auxiliary(options: Options) -> None:
    """Raise ValueError where a term compares auxiliary heads, for a student without."""
    for name in needs(options, 'auxiliary'):
        if options[name].get('auxiliary', 1.0) != 0:
            raise ValueError(f'terms.{name} compares auxiliary heads too, which the network '
                             f'has not: set terms.{name}.auxiliary to 0')


def refuse_without_depth(name: str, student: int, teacher: int | None) -> None:
    """
    Check a term of depth.

    Args:
        name: Of the term.
        student: Bins of the student, 0 without depth.
        teacher: Bins of the teacher at work, 0 without depth or teacher; None: the term compares
            with no teacher.

    Raises:
        ValueError: One of them has no depth, or they differ in their bins.
    """
    if not student:
        raise ValueError(f'terms.{name} is of depth, which the network has not: add tasks.depth')
    if teacher is not None and teacher != student:
        has = f'{teacher} bins' if teacher else 'no depth'
        raise ValueError(f'terms.{name} compares depth in {student} bins, but the teacher has '
                         f'{has}: distil from a checkpoint with the same tasks.depth')


def refuse_frozen(options: Options) -> None:
    """Raise ValueError where a term trains the backbone, for one that keeps its weights."""
    for name in needs(options, 'stages'):
        raise ValueError(f'terms.{name} trains the backbone, which model.frozen_backbone fixes: '
                         f'set that to false, or leave terms.{name} out')


def refuse_small(options: Options, cells: Sequence[int]) -> None:
    """
    Check the size of the maps of scores, (height, width).

    Raises:
        ValueError: They are too small for a term.
    """
    for name, values in options.items():
        least = method_of(name, values).least_cells
        if min(cells) < least:
            raise ValueError(
                f'terms.{name} has a critic for maps of {least} x {least} cells or more, but the '
                f'teacher makes {cells[0]} x {cells[1]} of data.crop: raise data.crop, or take a '
                'teacher with finer scores (model.head_widths of two)')


def refuse_value(name: str, option: str, value: Any, like: Any) -> None:
    """
    Check the value of an option of a term.

    Args:
        name: Of the term.
        option: Its name.
        value: From the recipe.
        like: The option's default; words and lists are for the term's module to check.

    Raises:
        ValueError: It is not a number of the kind of the default.
    """
    if value is None and like is None or isinstance(like, str) and isinstance(value, str):
        return
    if isinstance(like, tuple) and isinstance(value, list):
        return
    whole = not isinstance(like, float)  # None stands for a count that is not limited
    least = 'of 0 or more' if option in MAY_BE_0 else 'above 0'
    right = (isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
             and math.isfinite(value) and (value > 0 or value == 0 and option in MAY_BE_0))
    kind = f'{"whole number" if whole else "number"} {least}'
    if isinstance(like, str):
        right, kind = False, f'word such as {like}'
    if isinstance(like, tuple):
        right, kind = False, 'list'
    if not right:
        raise ValueError(f'terms.{name}.{option} is {value!r}: give a {kind}')
