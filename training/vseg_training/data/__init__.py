# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Training data: sources of labelled clips."""
import math
from pathlib import Path
from typing import Any

from ros_vseg.labels import LabelSet, load_label_set

from .augment import Augmentation
from .cityscapes import Cityscapes
from .clips import class_frequency, Clip, ClipSource, PADDING, VOID
from .folders import CamVid, FolderFrames
from .label_files import read_label_map
from .loader import build_loader, ClipDataset
from .soft_labels import SoftLabels
from .stills import Ade20k, NyuV2, PascalVoc
from .street.clips import StreetClips
from ..recipe import Recipe, Source


__all__ = ['PADDING', 'VOID', 'Ade20k', 'Augmentation', 'CamVid', 'Cityscapes', 'Clip',
           'ClipDataset', 'ClipSource', 'FolderFrames', 'NyuV2', 'PascalVoc', 'SoftLabels',
           'StreetClips', 'build_loader', 'build_source', 'class_frequency', 'open_source']

# label set whose ids the labels of a kind have; those of folder are the user's
LABEL_SETS = {'street': 'camvid', 'camvid': 'camvid', 'cityscapes': 'cityscapes',
              'cityscapes_coarse': 'cityscapes', 'voc': 'voc', 'ade20k': 'ade20k',
              'nyuv2': 'nyu40'}


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
    if source.ignore_labels:
        if not isinstance(opened, FolderFrames):
            raise ValueError(f'ignore_labels is for files: leave it out of the source of kind '
                             f'{source.kind}')
        opened.ignore_labels()
    if source.drives:
        opened.keep_drives(source.drives)
    return opened


def _open(source: Source, recipe: Recipe, cache: Path) -> ClipSource[Any]:
    kind, split, unlabelled = source.kind, source.split, source.unlabelled
    if kind not in (*LABEL_SETS, 'folder'):
        raise ValueError(f'source kind {kind!r} is unknown: use '
                         f'{", ".join(sorted(LABEL_SETS))} or folder')
    if not source.root and kind != 'street':
        raise ValueError(f'a source of kind {kind} needs root, the folder of its data')
    if source.label_map and kind != 'folder':
        raise ValueError(f'a source of kind {kind} takes no label_map, as its ids are known: '
                         'remove it, or use kind folder')
    if source.focal is not None and (kind != 'folder' or not 0 < source.focal < math.inf):
        raise ValueError(f'focal {source.focal} of a source of kind {kind}: it is for a folder '
                         'with depth, in pixels above 0')
    label_set, root = load_label_set(recipe.data.label_set), source.root or ''
    if kind in LABEL_SETS:
        _check_label_set(kind, label_set)
    if kind == 'street':
        # of training clips too: networks without context learn from pairs of frames as well
        length = max(recipe.model.context_frames + 1, *recipe.data.clip_lengths)
        return StreetClips(range(*source.seeds), length, cache, recipe.data.size, source.step,
                           with_geometry=recipe.tasks.channels > 0)
    if kind == 'camvid':
        return CamVid(root, split, unlabelled, label_set)
    if kind.startswith('cityscapes'):
        annotation = 'gtCoarse' if kind.endswith('_coarse') else 'gtFine'
        return Cityscapes(root, split, unlabelled, annotation)
    if kind == 'voc':
        return PascalVoc(root, split, unlabelled, label_set)
    if kind != 'folder':
        return {'ade20k': Ade20k, 'nyuv2': NyuV2}[kind](root, split, unlabelled)
    # of the root's own images only where it has no split of that name
    part = f'{split}/' if (Path(root) / split / 'images').is_dir() else ''
    table = read_label_map(source.label_map, label_set.names) if source.label_map else None
    return FolderFrames(root, len(label_set.names), table, unlabelled, f'{part}images',
                        f'{part}labels', None if source.label_map else label_set, source.focal)


def _check_label_set(kind: str, label_set: LabelSet) -> None:
    """Refuse a label set that is too small for a kind, or the shipped one of another kind."""
    expected = LABEL_SETS[kind]
    count = len(load_label_set(expected).names)
    if len(label_set.names) < count:
        raise ValueError(
            f'labels of kind {kind} have {count} classes, but label set {label_set.name} has '
            f'{len(label_set.names)} classes: set data.label_set to {expected} or to one of '
            'your own with these ids')
    if label_set.name in LABEL_SETS.values() and label_set.name != expected:
        raise ValueError(f'labels of kind {kind} are not those of label set {label_set.name}: '
                         f'set data.label_set to {expected}')
