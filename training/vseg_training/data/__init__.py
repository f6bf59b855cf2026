# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Training data: sources of labelled clips."""
from pathlib import Path
from typing import Any

from ros_vseg.labels import load_label_set

from .augment import Augmentation
from .cityscapes import Cityscapes
from .clips import class_frequency, Clip, ClipSource, PADDING, VOID
from .folders import CamVid, FolderFrames
from .label_files import read_label_map
from .loader import build_loader, ClipDataset
from .soft_labels import SoftLabels
from .street.clips import StreetClips
from ..recipe import Recipe, Source


__all__ = ['PADDING', 'VOID', 'Augmentation', 'CamVid', 'Cityscapes', 'Clip', 'ClipDataset',
           'ClipSource', 'FolderFrames', 'SoftLabels', 'StreetClips', 'build_loader',
           'build_source', 'class_frequency', 'open_source']

_CLASSES = {'street': 11, 'camvid': 11, 'cityscapes': 19}  # that the labels of a kind have


def build_source(source: Source, recipe: Recipe, cache: Path) -> ClipSource[Any]:
    """
    Open a source of a recipe and look for mistakes in it as a whole.

    Args:
        source: The source.
        recipe: Its recipe, for the label set and sizes.
        cache: Folder in which rendered streets are kept.

    Raises:
        ValueError: As of ``open_source``, or the first of the source's ``problems``.
    """
    opened = open_source(source, recipe, cache)
    for problem in opened.problems():
        raise ValueError(problem)
    return opened


def open_source(source: Source, recipe: Recipe, cache: Path) -> ClipSource[Any]:
    """
    Open a source of a recipe.

    Arguments are those of ``build_source``.

    Raises:
        ValueError: An unknown kind, a missing root, an empty split, an unknown drive, or a label
            set with fewer classes than the labels have.
    """
    opened = _open(source, recipe, cache)
    if source.drives:
        opened.keep_drives(source.drives)
    return opened


def _open(source: Source, recipe: Recipe, cache: Path) -> ClipSource[Any]:
    if source.kind not in ('camvid', 'cityscapes', 'folder', 'street'):
        raise ValueError(
            f'source kind {source.kind!r} is unknown: use camvid, cityscapes, folder or street')
    if not source.root and source.kind != 'street':
        raise ValueError(f'a source of kind {source.kind} needs root, the folder of its data')
    label_set, root = load_label_set(recipe.data.label_set), source.root or ''
    names, count = label_set.names, _CLASSES.get(source.kind, 0)
    if len(names) < count:
        raise ValueError(
            f'labels of kind {source.kind} have {count} classes, but label set {label_set.name} '
            f'has {len(names)} classes: set data.label_set to the one of this data')
    if source.kind == 'street':
        return StreetClips(
            range(*source.seeds), recipe.model.context_frames + 1, cache, recipe.data.size,
            source.step)
    if source.kind == 'camvid':
        return CamVid(root, source.split, source.unlabelled, label_set)
    if source.kind == 'cityscapes':
        return Cityscapes(root, source.split, source.unlabelled)
    # of the root's own images only where it has no split of that name
    part = f'{source.split}/' if (Path(root) / source.split / 'images').is_dir() else ''
    table = read_label_map(source.label_map, names) if source.label_map else None
    return FolderFrames(root, len(names), table, source.unlabelled, f'{part}images',
                        f'{part}labels', None if source.label_map else label_set)
