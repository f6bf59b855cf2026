# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Training data: sources of labelled clips."""
from .augment import Augmentation
from .clips import class_frequency, Clip, ClipSource, VOID
from .folders import CamVid, FolderFrames
from .loader import build_loader, ClipDataset
from .street_clips import StreetClips


__all__ = ['VOID', 'Augmentation', 'CamVid', 'Clip', 'ClipDataset', 'ClipSource', 'FolderFrames',
           'StreetClips', 'build_loader', 'build_source', 'class_frequency']


def build_source(source, num_classes, length, cache, size):
    """ClipSource of a recipe's ``Source``; ValueError for an unknown kind or a missing root."""
    if source.kind == 'street':
        return StreetClips(range(*source.seeds), length, cache, size)
    if source.kind not in ('camvid', 'folder'):
        raise ValueError(f'source kind {source.kind!r} is unknown: use camvid, folder or street')
    if not source.root:
        raise ValueError(f'a source of kind {source.kind} needs root, the folder of its data')
    if source.kind == 'camvid':
        return CamVid(source.root, source.split)
    return FolderFrames(source.root, num_classes)
