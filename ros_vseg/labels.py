# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Label sets: what the ids of a label image mean, and how they are painted."""
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import yaml

from ros_vseg.errors import LabelSetError

FOLDER = Path(__file__).parent / 'label_sets'


@dataclass(frozen=True)
class LabelSet:
    """
    Class names and colours; the id of a class is its place in ``names``.

    colors: RGB triples of 0..255, one per class. void_id: the id of unlabelled pixels.
    sources: per class the names of the bundle's classes that it takes (its own name by default),
    void_sources: the names that become void; both are used by ``remap_table`` alone.
    """

    name: str
    names: tuple
    colors: tuple
    void_id: int = 255
    sources: tuple = ()
    void_sources: tuple = ()

    def __post_init__(self):
        if not self.names or len(set(self.names)) != len(self.names):
            raise LabelSetError(f'label set {self.name}: class names must be given and differ')
        if len(self.names) > 255 or not len(self.names) <= self.void_id <= 255:
            raise LabelSetError(f'label set {self.name}: {len(self.names)} classes and void id '
                                f'{self.void_id} do not fit into 8 bits: use void id 255')

    @cached_property
    def palette(self):
        """Colours by id: uint8 [256, 3] RGB; void and unknown ids are black."""
        table = np.zeros((256, 3), np.uint8)
        table[:len(self.colors)] = self.colors
        return table

    def to_dict(self):
        """Plain dict for JSON or YAML, the inverse of ``from_dict``."""
        return {'name': self.name, 'void_id': self.void_id,
                'classes': [{'id': index, 'name': name, 'color': list(color)}
                            for index, (name, color) in enumerate(zip(self.names, self.colors))]}

    @classmethod
    def from_dict(cls, tree, where='label set'):
        """Read a dict as ``to_dict`` makes it; LabelSetError names what is wrong in it."""
        try:
            classes = sorted(tree['classes'], key=lambda entry: entry['id'])
            names = tuple(str(entry['name']) for entry in classes)
            colors = tuple(tuple(int(value) for value in entry['color']) for entry in classes)
            sources = tuple(entry.get('from', [entry['name']]) for entry in classes)
            ids = [entry['id'] for entry in classes]
            name, void_id = str(tree['name']), int(tree.get('void_id', 255))
            void_sources = tree.get('void_from', [])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LabelSetError(f'{where} is malformed at {error}: it needs name and classes, '
                                'each class with id, name and color [r, g, b]') from error
        if ids != list(range(len(ids))):
            raise LabelSetError(f'{where} has the ids {ids}: number the classes 0, 1, 2, ...')
        if any(len(color) != 3 or not all(0 <= v <= 255 for v in color) for color in colors):
            raise LabelSetError(f'{where}: each color is three numbers of 0..255')
        if not all(isinstance(one, list) for one in (*sources, void_sources)):
            raise LabelSetError(f'{where}: "from" and "void_from" are lists of class names')
        sources = tuple(tuple(map(str, one)) for one in sources)
        return cls(name, names, colors, void_id, sources, tuple(map(str, void_sources)))


def load_label_set(name_or_path):
    """Read a shipped label set by name, or a YAML file; LabelSetError if it is neither."""
    path = FOLDER / f'{name_or_path}.yaml'
    if not path.exists():
        path = Path(name_or_path)
    try:
        with open(path, encoding='utf-8') as file:
            tree = yaml.safe_load(file)
    except OSError:
        shipped = ', '.join(sorted(p.stem for p in FOLDER.glob('*.yaml')))
        raise LabelSetError(f'label set {name_or_path} does not exist: give a YAML file, or one '
                            f'of {shipped}') from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabelSetError(f'label set {path} is not YAML: '
                            f'{str(error).splitlines()[0]}') from error
    return LabelSet.from_dict(tree, f'label set {path}')


def remap_table(source, target):
    """
    Ids of one label set to those of another: uint8 [256], void and unknown ids become void.

    Classes meet by name, or by the target's ``from`` lists. LabelSetError names the source classes
    that no target class takes, or that are taken twice.
    """
    table = np.full(256, target.void_id, np.uint8)
    sources = target.sources or [(name,) for name in target.names]
    taken = Counter([*target.void_sources, *chain.from_iterable(sources)])
    for index, names in enumerate(sources):
        for name in set(names).intersection(source.names):
            table[source.names.index(name)] = index
    twice = [name for name in source.names if taken[name] > 1]
    if twice:
        raise LabelSetError(f'label set {target.name} takes {", ".join(twice)} of {source.name} '
                            'twice: keep each name in one "from" list')
    left = [name for name in source.names if not taken[name]]
    if left:
        raise LabelSetError(
            f'label set {target.name} does not fit {source.name}: no class takes '
            f'{", ".join(left)}; add them to a class\'s "from" list or to "void_from"')
    return table


def colorize(labels, label_set):
    """Label image uint8 [H, W] -> uint8 [H, W, 3] RGB."""
    return cv2.applyColorMap(labels, label_set.palette[:, None])


def overlay(image, labels, label_set, alpha=0.5):
    """
    Camera image with the class colours over it.

    image uint8 [H, W, 3] RGB, labels uint8 [H, W], alpha in 0..1 -> uint8 [H, W, 3] RGB.
    """
    return cv2.addWeighted(image, 1 - alpha, colorize(labels, label_set), alpha, 0)
