# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Trees of label sets from YAML: nothing in them means something else than it says."""
from pathlib import Path
import re
from typing import Any

import yaml

from ros_vseg.errors import LabelSetError, shorten

LARGEST = 2**20     # bytes of a file; 255 classes take 20 kB
KEYS = {'name': True, 'classes': True, 'void_id': False, 'void_from': False}    # needed or not
KEYS_OF_CLASS = {'id': True, 'name': True, 'color': True, 'from': False}
FORM = 'it needs name and classes, each class with id, name and color [r, g, b]'
INTEGER = 'tag:yaml.org,2002:int'


class _Loader(yaml.SafeLoader):
    """
    Refuses aliases, a few of which stand for gigabytes, and keys that are given twice.

    Numbers are those that people write: 010 is not 8, and 1:30 is not 90; both stay texts.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise LabelSetError(f'line {event.start_mark.line + 1} has an alias (*{event.anchor}):'
                                ' write out what it stands for')
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in [pair[0] for pair in node.value] if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise LabelSetError(f'line {key.start_mark.line + 1} gives the key '
                                        f'{shorten(key.value)} again: keep one')
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != INTEGER]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    INTEGER, re.compile('^(-?[1-9][0-9]*|0|0x[0-9a-fA-F]+)$'), list('-0123456789'))


def read_tree(path: Path) -> Any:
    """
    Read a YAML file of at most 1 MB.

    Args:
        path: of the file.

    Returns:
        What it holds; check_tree says whether that is a label set.

    Raises:
        OSError: it cannot be read.
        LabelSetError: it is not YAML, too large, or has aliases or keys that are given twice.
    """
    with open(path, 'rb') as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise LabelSetError(f'label set {path} has more than 1 MB: give a YAML file of a label '
                            'set')
    try:
        return yaml.load(data.decode('utf-8'), _Loader)
    except LabelSetError as error:
        raise LabelSetError(f'label set {path}: {error}') from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError,
            RecursionError) as error:   # a tag such as !!bool on what is none has any of these
        raise LabelSetError(f'label set {path} is not YAML: {_reason(error)}') from error


def _reason(error: Exception) -> str:
    mark = getattr(error, 'problem_mark', None)
    text = str(getattr(error, 'problem', None) or error)
    text = (text.splitlines() or [type(error).__name__])[0][:80]
    return f'{text}, line {mark.line + 1}' if mark else text


def check_tree(tree: Any, where: str) -> None:
    """
    Refuse what is not a label set, or whose values would have to be converted.

    Args:
        tree: from YAML or JSON.
        where: what to call it in an error.

    Raises:
        LabelSetError: names the place and what belongs there.
    """
    _check_keys(tree, KEYS, where)
    _check_text(tree['name'], f'{where}: name')
    void_id = tree.get('void_id', 255)
    if not _is_byte(void_id):
        raise LabelSetError(f'{where} has void id {shorten(void_id)}: give a whole number of '
                            '0..255, such as 255')
    if not isinstance(tree['classes'], (list, tuple)):
        raise LabelSetError(f'{where} is malformed at classes, which is '
                            f'{shorten(tree["classes"])}: {FORM}')
    for place, entry in enumerate(tree['classes']):
        _check_class(entry, f'{where}: classes[{place}]')
    _check_names(tree.get('void_from', []), f'{where}: void_from')


def _check_class(entry: Any, where: str) -> None:
    _check_keys(entry, KEYS_OF_CLASS, where)
    if type(entry['id']) is not int:    # True is an int, too
        raise LabelSetError(f'{where} has id {shorten(entry["id"])}: give a whole number')
    _check_text(entry['name'], f'{where}: name')
    color = entry['color']
    if not isinstance(color, (list, tuple)) or len(color) != 3 or not all(map(_is_byte, color)):
        raise LabelSetError(f'{where} has color {shorten(color)}: give three whole numbers of '
                            '0..255, such as [128, 64, 128]')
    _check_names(entry.get('from', []), f'{where}: from')


def _check_keys(tree: Any, keys: dict[str, bool], where: str) -> None:
    if not isinstance(tree, dict):
        raise LabelSetError(f'{where} is malformed, as it is {shorten(tree)}: {FORM}')
    for key, needed in keys.items():
        if needed and key not in tree:
            raise LabelSetError(f'{where} is malformed at {key!r}, which is not there: {FORM}')
    for key in tree:
        if key not in keys:
            raise LabelSetError(f'{where} has the unknown key {shorten(key)}: there are only '
                                f'{", ".join(keys)}')


def _check_names(names: Any, where: str) -> None:
    if not isinstance(names, (list, tuple)):
        raise LabelSetError(f'{where} is {shorten(names)}: give a list of class names')
    for place, name in enumerate(names):
        _check_text(name, f'{where}[{place}]')


def _check_text(name: Any, where: str) -> None:
    if not isinstance(name, str):
        raise LabelSetError(f'{where} is {shorten(name)}, which is not text: put it in quotes')
    if not name.strip() or not name.isprintable():
        raise LabelSetError(f'{where} is {shorten(name)}: give a line of text')


def _is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255
