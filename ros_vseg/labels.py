# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Label sets: what the ids of a label image mean, and how they are painted."""
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Union

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.errors import LabelSetError, shorten
from ros_vseg.label_files import check_tree, read_tree

FOLDER = Path(__file__).parent / 'label_sets'


@dataclass(frozen=True)
class LabelSet:
    """
    Class names and colours; the id of a class is its place in ``names``.

    Args:
        name: of the set.
        names: of the classes, 1 to 255 different ones.
        colors: RGB triples of 0..255, one per class.
        void_id: the id of unlabelled pixels, up to 255.
        sources: per class the names of the bundle's classes that it takes (by default its own);
            used by ``remap_table`` alone.
        void_sources: names of the bundle's classes that become void; likewise.

    Raises:
        LabelSetError: names are missing or twice, or the ids do not fit into 8 bits.

    >>> labels = LabelSet('roads', ('road', 'car'), ((128, 64, 128), (0, 0, 142)))
    >>> labels.names.index('car'), labels.void_id
    (1, 255)
    >>> labels.palette[1].tolist()
    [0, 0, 142]
    >>> LabelSet.from_dict(labels.to_dict()).names == labels.names
    True
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, ...], ...]
    void_id: int = 255
    sources: tuple[tuple[str, ...], ...] = ()
    void_sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the names and the ids."""
        if not self.names or len(set(self.names)) != len(self.names):
            raise LabelSetError(f'label set {self.name}: class names must be given and differ')
        if len(self.names) > 255 or not len(self.names) <= self.void_id <= 255:
            raise LabelSetError(f'label set {self.name}: {len(self.names)} classes and void id '
                                f'{self.void_id} do not fit into 8 bits: use void id 255')

    @cached_property
    def palette(self) -> npt.NDArray[np.uint8]:
        """Colours by id: uint8 [256, 3] RGB; void and unknown ids are black."""
        table = np.zeros((256, 3), np.uint8)
        table[:len(self.colors)] = self.colors
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON or YAML, the inverse of ``from_dict``."""
        return {'name': self.name, 'void_id': self.void_id,
                'classes': [{'id': index, 'name': name, 'color': list(color)}
                            for index, (name, color) in enumerate(zip(self.names, self.colors))]}

    @classmethod
    def from_dict(cls, tree: Any, where: str = 'label set') -> 'LabelSet':
        """
        Read a dict as ``to_dict`` makes it.

        Args:
            tree: the dict; a class may also have ``from``, and the set ``void_from``: see sources
                and void_sources.
            where: what to call it in an error.

        Raises:
            LabelSetError: names what is missing, wrong or unknown; nothing is converted.
        """
        check_tree(tree, where)
        classes = sorted(tree['classes'], key=lambda entry: entry['id'])
        for place, entry in enumerate(classes):
            if entry['id'] != place:
                ids = [entry['id'] for entry in classes]
                raise LabelSetError(f'{where} has the ids {shorten(ids)}, with '
                                    f'{shorten(entry["id"])} in the place of {place}: number the '
                                    'classes 0, 1, 2, ...')
        return cls(
            tree['name'], tuple(entry['name'] for entry in classes),
            tuple(tuple(entry['color']) for entry in classes), tree.get('void_id', 255),
            tuple(tuple(entry.get('from', [entry['name']])) for entry in classes),
            tuple(tree.get('void_from', [])))


def load_label_set(name_or_path: Union[str, Path]) -> LabelSet:
    """
    Read a label set.

    Args:
        name_or_path: name of one that is shipped (camvid, cityscapes, voc, ade20k, nyu40), or path
            of a YAML file.

    Raises:
        LabelSetError: there is none, or it is not a label set.

    >>> camvid = load_label_set('camvid')
    >>> camvid.names[:4]
    ('sky', 'building', 'pole', 'road')
    """
    try:
        path = FOLDER / f'{name_or_path}.yaml'
        if not path.exists():
            path = Path(name_or_path)
        tree = read_tree(path)
    except LabelSetError:
        raise
    except (IsADirectoryError, PermissionError) as error:
        raise LabelSetError(f'label set {path} cannot be read ({error.strerror}): give a YAML '
                            'file') from None
    except (OSError, ValueError):       # ValueError: a path with a zero byte
        shipped = ', '.join(sorted(p.stem for p in FOLDER.glob('*.yaml')))
        raise LabelSetError(f'label set {name_or_path} does not exist: give a YAML file, or one '
                            f'of {shipped}') from None
    return LabelSet.from_dict(tree, f'label set {path}')


def remap_table(source: LabelSet, target: LabelSet) -> npt.NDArray[np.uint8]:
    """
    Return the look-up table from the ids of one label set to those of another.

    Classes meet by name, or by the target's ``sources``.

    Returns:
        uint8 [256]; void and unknown ids become void.

    Raises:
        LabelSetError: names the source classes that no target class takes, or that two take.
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


def colorize(labels: npt.NDArray[np.uint8], label_set: LabelSet) -> npt.NDArray[np.uint8]:
    """Paint a label image uint8 [H, W] in the colours of its classes: uint8 [H, W, 3] RGB."""
    return cv2.applyColorMap(labels, label_set.palette[:, None])


def overlay(image: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], label_set: LabelSet,
            alpha: float = 0.5) -> npt.NDArray[np.uint8]:
    """
    Blend the colours of the classes over the camera's image.

    Args:
        image: uint8 [H, W, 3] RGB.
        labels: its label image, uint8 [H, W].
        label_set: what the labels mean.
        alpha: weight of the colours, 0..1.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    return cv2.addWeighted(image, 1 - alpha, colorize(labels, label_set), alpha, 0)
