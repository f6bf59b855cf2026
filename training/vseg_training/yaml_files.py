# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""YAML of recipes and suites: what is not YAML is told in one line."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
import yaml

# a tag such as !!bool on what is none has any of the last ones
_BROKEN = (yaml.YAMLError, OmegaConfBaseException, RecursionError, ValueError, TypeError,
           LookupError, AttributeError, OverflowError)


def load_yaml(path: Path, where: str) -> Any:
    """
    Read a YAML file that maps keys to values.

    Args:
        path: Of the file.
        where: What to call it in an error.

    Returns:
        A DictConfig; an empty one of an empty file.

    Raises:
        ValueError: It is not such a file; the message has the number of the line if there is one.
        OSError: It cannot be opened.
    """
    form = 'give keys, one "key: value" a line'
    try:
        tree = OmegaConf.load(path)
    except _BROKEN as error:
        reason = _reason(error)
        raise ValueError(f'{where} is not readable YAML: {reason}: correct the file') from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f'{where} holds a single value: {form}') from error  # such as 5
    if not isinstance(tree, DictConfig):
        raise ValueError(f'{where} holds a list: {form}')
    return tree


def refuse_repeated(path: Path, where: str) -> None:
    """
    Refuse keys that are given twice where they may be numbers, of which ``load_yaml`` takes one.

    Args:
        path: A file that ``load_yaml`` has read.
        where: What to call it in an error.

    Raises:
        ValueError: A key is given again; the message has it and its line.
    """
    seen: set[str] = set()
    for key, _ in yaml.compose(path.read_text(encoding='utf-8'), yaml.SafeLoader).value:
        text = str(key.value)
        if text in seen:
            raise ValueError(f'{where}: line {key.start_mark.line + 1} gives the key {text} '
                             'again: keep one')
        seen.add(text)


def overrides_of(overrides: Sequence[str], where: str) -> Any:
    """
    Read overrides, KEY=VALUE each.

    Args:
        overrides: Each with YAML as its value.
        where: What they override.

    Returns:
        A DictConfig.

    Raises:
        ValueError: A value is not YAML; the message names the override.
    """
    for override in overrides:
        try:
            OmegaConf.from_dotlist([override])
        except _BROKEN as error:
            reason = _reason(error, in_line=True)
            raise ValueError(f'{where}: the value of {override!r} is not readable YAML: {reason}: '
                             'give KEY=VALUE, with every bracket and quote closed') from error
    return OmegaConf.from_dotlist(list(overrides))


def _reason(error: Exception, in_line: bool = False) -> str:
    """Say in one line what is wrong; in_line: the text is a single line, which needs no number."""
    if isinstance(error, RecursionError):
        return 'it is nested too deeply'
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b'\n', 0, error.start) + 1
        return f'line {line}: it has bytes that are no UTF-8 text'
    mark = getattr(error, 'problem_mark', None)
    problem = getattr(error, 'problem', None) or (str(error).splitlines() or ['nothing'])[0]
    return f'line {mark.line + 1}: {problem}' if mark and not in_line else problem
