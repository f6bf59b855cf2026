# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Limits of a recipe's numbers: outside them training fails late, or learns nothing silently."""
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
import math
from typing import Any, NamedTuple


class Limit(NamedTuple):
    """
    What a number may be; never NaN or infinite.

    Attributes:
        least: The smallest value.
        most: The largest value.
        above: Whether ``least`` itself is too small.
        below: Whether ``most`` itself is too large.
        or_zero: Whether 0 is allowed besides, as it turns something off.
    """

    least: float = -1e9
    most: float = 1e9
    above: bool = False
    below: bool = False
    or_zero: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is within the limits."""
        if self.or_zero and value == 0:
            return True
        low = self.least < value if self.above else self.least <= value
        return low and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        """Say the limits in words."""
        if not (self.above or self.below):
            text = f'a number of {self.least:.10g}..{self.most:.10g}'
        else:
            text = (f'a number {"above" if self.above else "of at least"} {self.least:.10g} and '
                    f'{"below" if self.below else "of at most"} {self.most:.10g}')
        return f'0 or {text}' if self.or_zero else text


SHARE, WEIGHT, COUNT = Limit(0, 1), Limit(0, 1e6), Limit(1, 1e9)
PIXELS, WIDTH = Limit(32, 8192), Limit(1, 65536)
FACTOR, METRES = Limit(0, 100, above=True), Limit(0, 1e5, above=True)
_SOURCE = {
    'seeds': Limit(0, 1e9), 'step': Limit(1, 1000), 'stills': SHARE, 'weight': WEIGHT,
    'focal': Limit(0, 1e6, above=True)}
# by key; of a list or a mapping all values have the limit of its key
LIMITS: dict[str, Limit] = {
    'version': COUNT, 'seed': Limit(0, 2 ** 32 - 1),
    # of a backbone or a network; which strides there are depends on its kind
    'model.output_stride': Limit(1, 256), 'model.channels': WIDTH, 'model.key_channels': WIDTH,
    'model.num_prototypes': WIDTH, 'model.context_frames': Limit(0, 1000),
    'model.head_widths': WIDTH, 'model.decoder': WIDTH, 'model.rates': Limit(1, 1000),
    'model.alpha_2': Limit(0, 1000), 'model.alpha_3': Limit(0, 1000), 'model.width': FACTOR,
    'model.dropout': Limit(0, 1, below=True), 'model.attention_scale': Limit(0, 1e6, above=True),
    'model.hide_own': SHARE, 'model.wrong_pool': SHARE,
    'tasks.depth.weight': WEIGHT, 'tasks.depth.bins': Limit(2, 4096),
    'tasks.depth.nearest': METRES, 'tasks.depth.farthest': METRES,
    'tasks.depth.focal': Limit(0, 1e6, above=True),
    'tasks.depth.sharpness': Limit(0, 1e6, above=True), 'tasks.normals.weight': WEIGHT,
    **{f'data.{part}.{key}': limit for part in ('train', 'val') for key, limit in _SOURCE.items()},
    'data.crop': PIXELS, 'data.size': PIXELS, 'data.scale': FACTOR,
    # grey levels, and shares by which colours change: above 1 they would be inverted
    'data.brightness': Limit(0, 255), 'data.contrast': SHARE, 'data.saturation': SHARE,
    'data.degrade': SHARE, 'data.degrade_other': SHARE, 'data.rates': Limit(0, 1e5, above=True),
    'data.frames_per_step': Limit(1, 1e6), 'data.clip_lengths': Limit(1, 1e4),
    'data.workers': Limit(0, 1024),  # 0: the process of training reads the data itself
    'loss.segmentation': WEIGHT, 'loss.auxiliary': WEIGHT, 'loss.diversity': WEIGHT,
    'loss.diversity_threshold': SHARE,  # of a diversity of at most 1
    'loss.long_term': WEIGHT, 'loss.co_training': WEIGHT, 'loss.ohem_threshold': SHARE,
    'loss.ohem_min_kept': SHARE, 'loss.logit_adjustment': SHARE,
    # 1 / ln(c + p) is a weight of every frequency p where c is above 1 alone
    'loss.class_balance': Limit(1, 1000, above=True, or_zero=True),
    'loss.class_gain': Limit(0, 1e6, above=True),  # its logarithm is taken
    'distill.uncertainty': WEIGHT, 'distill.structural': WEIGHT,
    'optim.lr': Limit(0, 100), 'optim.weight_decay': Limit(0, 100),
    'optim.backbone_lr_scale': Limit(0, 1e6), 'optim.warmup_steps': Limit(0, 1e9),
    'optim.max_steps': COUNT, 'optim.power': Limit(0, 100),
    'optim.ema': Limit(0, 1, below=True),  # at 1 the weights would stay those of the start
    'optim.validate_every': COUNT, 'optim.checkpoint_every': COUNT}


def check_limits(recipe: Any) -> None:
    """
    Check all numbers of a recipe; those of ``terms`` are checked where the terms are built.

    Args:
        recipe: A ``recipe.Recipe``.

    Raises:
        ValueError: A number is outside its limits, or numbers do not fit together; the message
            names key, value and what to give.
    """
    for key, shown, value in numbers(recipe):
        limit = LIMITS.get(key, Limit())
        if not (math.isfinite(value) and limit.holds(value)):
            raise ValueError(f'recipe {shown} is {value}: give {limit}')
    _check_data(recipe.data)
    loss = recipe.loss
    if loss.ohem_threshold == 0 and loss.ohem_min_kept == 0:
        raise ValueError('recipe loss.ohem_threshold and loss.ohem_min_kept are both 0, so that '
                         'no pixel counts: give one of them a number above 0')


def numbers(tree: Any, key: str = '', shown: str = '') -> Iterator[tuple[str, str, float]]:
    """
    Walk over the numbers of a recipe, without those of ``terms``.

    Args:
        tree: A dataclass, a list, a mapping, or a value of one.
        key: Where it is, as in LIMITS.
        shown: Where it is, with places in lists.

    Returns:
        Key, the same with places in lists, and number, one after the other.
    """
    if is_dataclass(tree):
        for name in (field.name for field in fields(tree)):
            if key or name != 'terms':
                yield from numbers(getattr(tree, name), f'{key}.{name}'.lstrip('.'),
                                   f'{shown}.{name}'.lstrip('.'))
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from numbers(value, key, f'{shown}.{name}')
    elif isinstance(tree, (list, tuple)):
        for place, value in enumerate(tree):
            yield from numbers(value, key, f'{shown}[{place}]')
    elif isinstance(tree, (int, float)) and not isinstance(tree, bool):
        yield key, shown, tree


def _check_data(data: Any) -> None:
    """Numbers of the data that must fit together; ValueError where they do not."""
    for name in ('scale', 'rates'):
        pair = getattr(data, name)
        if pair is not None and pair[0] > pair[1]:
            raise ValueError(f'recipe data.{name} is {list(pair)}: give the smaller number first')
    places = [(f'data.train[{place}]', source) for place, source in enumerate(data.train)]
    for where, source in [*places, *([('data.val', data.val)] if data.val else [])]:
        if source.seeds[0] >= source.seeds[1]:
            raise ValueError(f'recipe {where}.seeds is {list(source.seeds)}: give the first seed '
                             'and the one after the last, such as [0, 200]')
    if data.train and not any(source.weight for source in data.train):
        raise ValueError('recipe data.train has weight 0 for every source, so that there are no '
                         'clips: give one of them a weight above 0')
    if not data.clip_lengths:
        raise ValueError('recipe data.clip_lengths is []: give at least one length, such as [1]')
