# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What --data names, as a source of the recipe."""
from dataclasses import replace
import logging
import os

from .recipe import Recipe, Source


log = logging.getLogger('vseg-train')


def named_source(recipe: Recipe, data: str | None) -> Source:
    """
    Find the source that --data names.

    A folder has the ``label_map`` and ``focal`` of the recipe's folder with the same root, else
    those of data.val, else those of the first folder of data.train.

    Args:
        recipe: Its data.val is the source without ``data``.
        data: KIND:FOLDER#SPLIT/DRIVE, of which #SPLIT and /DRIVE may be left out.

    Raises:
        ValueError: Neither is there.
    """
    if not data:
        if recipe.data.val is None:
            raise ValueError(
                'the recipe has no data.val: give --data camvid:FOLDER or folder:FOLDER')
        return recipe.data.val
    kind, _, place = data.partition(':')
    root, _, part = place.partition('#')
    split, _, drive = part.partition('/')
    named = Source(kind=kind, root=root, split=split or 'val', drives=[drive] if drive else [])
    like = _folder_like(recipe, root) if kind == 'folder' else None
    if like is None:
        return named
    if like.label_map:
        log.info('%s: ids are read by %s, as the recipe has it', data, like.label_map)
    return replace(named, label_map=like.label_map, focal=like.focal)


def _folder_like(recipe: Recipe, root: str) -> Source | None:
    """Folder of the recipe that says most likely what the files of another root mean."""
    listed = [recipe.data.val, *recipe.data.train]
    folders = [each for each in listed if each is not None and each.kind == 'folder']
    same = [each for each in folders if _is_at(each, root)]
    return next(iter(same + folders), None)


def _is_at(source: Source, root: str) -> bool:
    return os.path.realpath(source.root or '') == os.path.realpath(root)


def title_of(recipe: Recipe, data: str | None) -> str:
    """
    Name what is measured on ``named_source``: kind, split, and what else tells it from data.val.

    Args:
        recipe: As in ``named_source``.
        data: As in ``named_source``.

    Returns:
        Such as 'camvid val', 'camvid val/0016E5', or 'folder night val' of another folder.
    """
    source, val = named_source(recipe, data), recipe.data.val
    words = [source.kind, source.split]
    if source.kind == 'folder' and (val is None or not _is_at(val, source.root or '')):
        words.insert(1, os.path.basename(os.path.abspath(source.root or '')))
    return '/'.join([' '.join(words), *source.drives])
