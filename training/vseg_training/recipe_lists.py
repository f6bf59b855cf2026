# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Form of a recipe's lists, checked before OmegaConf, whose errors name neither key nor fix."""
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints, Union


_NAMES = {int: 'whole numbers', float: 'numbers', str: 'names'}


def check_lists(tree: Mapping[Any, Any], defaults: Any, where: str) -> None:
    """
    Check the lists of a recipe as its file and overrides give it.

    Args:
        tree: Plain values; interpolations, ``${...}``, are not looked at.
        defaults: Dataclass of the types that the values are to have.
        where: What comes before a key in an error.

    Raises:
        ValueError: A list has the wrong length or values, or something else is in its place; the
            message names the key and what to give.
    """
    hints = get_type_hints(type(defaults))
    for name in (field.name for field in fields(defaults) if field.name in tree):
        value, default, hint = tree[name], getattr(defaults, name), hints[name]
        if get_origin(hint) is Union:  # Optional
            if value is None:
                continue
            hint = get_args(hint)[0]
        place = f'{where}{name}'
        if _has_keys(hint) and isinstance(value, Mapping):
            check_lists(value, default or hint(), f'{place}.')
        elif get_origin(hint) in (list, tuple) and not _is_interpolation(value):
            _check(value, default, hint, place)


def _check(value: Any, default: Any, hint: Any, place: str) -> None:
    """Check what is in the place of a list of a type."""
    kinds = get_args(hint)
    length = len(kinds) if get_origin(hint) is tuple else None
    if _has_keys(kinds[0]):
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise ValueError(f'{place} is {value}: give a list, of keys and values each, such as '
                             '[{kind: street}]')
        for number, item in enumerate(value):
            check_lists(item, kinds[0](), f'{place}[{number}].')
    elif (not isinstance(value, list) or length not in (None, len(value))
            or not all(_fits(item, kinds[0]) for item in value)):
        what = f'{length} {_NAMES[kinds[0]]}' if length else _NAMES[kinds[0]]
        example = f', such as {list(default)}' if default else ''
        raise ValueError(f'{place} is {value}: give a list of {what}{example}')


def _has_keys(hint: Any) -> bool:
    return is_dataclass(hint)


def _fits(item: Any, kind: type) -> bool:
    """Whether OmegaConf makes an item a value of a type."""
    if kind is str or _is_interpolation(item):
        return isinstance(item, (str, int, float))
    if isinstance(item, bool) or not isinstance(item, (str, int, kind)):
        return False
    try:
        kind(item)
    except (ValueError, OverflowError):
        return False
    return True


def _is_interpolation(value: Any) -> bool:
    return isinstance(value, str) and '${' in value
