# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a parameters file will give to a node, as rcl reads it: launch arguments refer to it."""
import re
from typing import Any

import yaml

from ros_vseg.nodes.parameters import VSEG_NODE

CAMERAS = next(parameter for parameter in VSEG_NODE if parameter.name == 'cameras')
WILDCARDS = {'**': r'(/\w+)*', '*': r'/\w+'}


def cameras_of(path: str, node: str) -> list[str]:
    """
    Return the cameras that a node will have.

    Args:
        path: of the parameters file; where it is damaged the node says what is wrong.
        node: full name, such as /car/vseg_node.

    Returns:
        the value of the last section that is the node's, or the default where none has one.
    """
    assert isinstance(CAMERAS.default, tuple)
    found = list(CAMERAS.default)
    for pattern, values in _sections('', _read(path)):
        if _means(pattern, node) and CAMERAS.accepts(values.get('cameras')):
            found = values['cameras']
    return found


def _read(path: str) -> Any:
    try:
        with open(path, encoding='utf-8') as file:
            return yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _sections(name: str, tree: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the nodes' names, which may be nested, and parameters, in the file's order."""
    found = []
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key != 'ros__parameters':
            found += _sections(f'{name}/{str(key).lstrip("/")}', value)
        elif isinstance(value, dict):
            found.append((name, value))
    return found


def _means(pattern: str, node: str) -> bool:
    parts = pattern.split('/')[1:]
    return re.fullmatch(''.join(
        WILDCARDS.get(part, '/' + re.escape(part)) for part in parts), node) is not None
