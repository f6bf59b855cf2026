# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Training data: sources of labelled clips."""
from pathlib import Path

from ros_vseg.labels import load_label_set

from .augment import Augmentation
from .cityscapes import Cityscapes
from .clips import class_frequency, Clip, ClipSource, PADDING, VOID
from .folders import CamVid, FolderFrames, read_label_map
from .loader import build_loader, ClipDataset
from .soft_labels import SoftLabels
from .street.clips import StreetClips


__all__ = ['PADDING', 'VOID', 'Augmentation', 'CamVid', 'Cityscapes', 'Clip', 'ClipDataset',
           'ClipSource', 'FolderFrames', 'SoftLabels', 'StreetClips', 'build_loader',
           'build_source', 'class_frequency']


def build_source(source, recipe, cache):
    """
    ClipSource of a ``Source`` of a recipe; rendered streets are kept in the folder cache.

    ValueError for an unknown kind, a missing root, an empty split or an unknown drive.
    """
    built = _build(source, recipe, cache)
    if source.drives:
        built.keep_drives(source.drives)
    return built


def _build(source, recipe, cache):
    if source.kind == 'street':
        return StreetClips(
            range(*source.seeds), recipe.model.context_frames + 1, cache, recipe.data.size,
            source.step)
    if source.kind not in ('camvid', 'cityscapes', 'folder'):
        raise ValueError(
            f'source kind {source.kind!r} is unknown: use camvid, cityscapes, folder or street')
    if not source.root:
        raise ValueError(f'a source of kind {source.kind} needs root, the folder of its data')
    if source.kind == 'camvid':
        return CamVid(source.root, source.split, source.unlabelled)
    if source.kind == 'cityscapes':
        return Cityscapes(source.root, source.split, source.unlabelled)
    # of the root's own images only where it has no split of that name
    part = f'{source.split}/' if (Path(source.root) / source.split / 'images').is_dir() else ''
    names = load_label_set(recipe.data.label_set).names
    table = read_label_map(source.label_map, names) if source.label_map else None
    return FolderFrames(source.root, len(names), table, source.unlabelled,
                        f'{part}images', f'{part}labels')
