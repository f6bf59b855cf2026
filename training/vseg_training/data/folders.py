# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Frames from folders: a plain folder of one's own, and CamVid's layout."""
from glob import iglob
from pathlib import Path
import re

import cv2
import numpy as np
from PIL import Image
import yaml

from .clips import ClipSource, VOID


_IMAGES = ('.png', '.jpg', '.jpeg')
UNKNOWN = -1  # in a table of ids: an id that must not occur


def id_table(ids):
    """Table int16 [256] from ids on disk to class ids, from a dict; void stays, others fail."""
    table = np.full(256, UNKNOWN, np.int16)
    table[VOID] = VOID
    for disk, label in ids.items():
        table[disk] = label
    return table


def read_label_map(path, names):
    """
    Table of ids from a YAML file that maps ids on disk to the label set's class names, or to void.

    names: the label set's class names. ValueError names what does not fit.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f'label map {path} cannot be read: {error}') from error
    places = {name: index for index, name in enumerate(names)} | {'void': VOID}
    if not isinstance(entries, dict):
        raise ValueError(f'label map {path} must map ids to class names, one "id: name" a line')
    for disk, name in entries.items():
        if not isinstance(disk, int) or not 0 <= disk <= 255:
            raise ValueError(f'label map {path}: {disk!r} is no id: use 0 to 255')
        if name not in places:
            raise ValueError(f'label map {path}: class {name!r} is not in the label set: use '
                             f'{", ".join(places)}')
    return id_table({disk: places[name] for disk, name in entries.items()})


def _by_number(name):
    """Sort key of a path: 2.png comes before 10.png."""
    return [int(part) if part.isdecimal() else part for part in re.split('([0-9]+)', name)]


def _palette_indices(path, pixels):
    """Indices of a PNG with a palette, which OpenCV paints; the pixels of any other."""
    with Image.open(path) as image:
        return np.asarray(image) if image.mode == 'P' else pixels


class FolderFrames(ClipSource):
    """
    Drives as folders: ``images/<drive>/<frame>.jpg|png`` and ``labels/<drive>/<frame>.png``.

    A frame without a label file is unlabelled (all void). Labels are 8-bit ids, read through
    ``table`` (``id_table``; by default ids below ``num_classes`` are themselves). Clips end at
    labelled frames, or with ``unlabelled`` at every frame. A drive's frames are in the order of
    the numbers in their names. ValueError if there are no images.
    """

    def __init__(self, root, num_classes, table=None, unlabelled=False,
                 image_folder='images', label_folder='labels'):
        self.root, self.image_folder, self.label_folder = Path(root), image_folder, label_folder
        self.table = id_table({i: i for i in range(num_classes)}) if table is None else table
        self.unlabelled = unlabelled
        # not Path.glob, which does not follow links to drives
        names = iglob('**/*', root_dir=self.root / image_folder, recursive=True)
        paths = [self.root / image_folder / name for name in sorted(names, key=_by_number)
                 if name.lower().endswith(_IMAGES)]
        if not paths:
            raise ValueError(f'no images in {self.root / image_folder}: '
                             'put one folder of .jpg or .png frames per drive there')
        self.drives = self._group(paths)

    def _group(self, paths):
        drives = {}
        for path in paths:
            drives.setdefault(path.parent, []).append(path)
        return list(drives.values())

    def label_path(self, key):
        """Path of a frame's label file, whether it exists or not."""
        relative = key.relative_to(self.root / self.image_folder)
        return self.root / self.label_folder / relative.with_suffix('.png')

    def has_labels(self, key):
        """Whether a frame has a label file."""
        return self.label_path(key).exists()

    def frames(self):
        """Every (drive index, position) at which a training clip may end; ValueError if none."""
        places = super().frames()
        if not places:
            raise ValueError(f'no frame of {self.root / self.image_folder} has a label file in '
                             f'{self.root / self.label_folder}: add labels, or set unlabelled of '
                             'this source to distil from frames without')
        return places

    @staticmethod
    def _decode(path, flag):
        data = np.fromfile(path, np.uint8)
        pixels = cv2.imdecode(data, flag) if data.size else None
        if pixels is None:
            raise ValueError(f'{path} is not a readable image: replace or remove it')
        return pixels

    def frame_name(self, key):
        """Name of a frame: its path from the folder of the data on, without the ending."""
        return f'{self.root.name}/{key.relative_to(self.root).with_suffix("")}'

    def read_image(self, key):
        """Image uint8 [H, W, 3] RGB of one frame; ValueError names an unreadable file."""
        return cv2.cvtColor(self._decode(key, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def table_of(self, path):
        """Table of the ids in one label file."""
        return self.table

    def read_labels(self, key):
        """
        Labels uint8 [H, W] of one frame, None without a label file.

        A PNG with a palette counts by its indices. ValueError names a file that is unreadable, in
        colour, or has an id that no class has.
        """
        path = self.label_path(key)
        if not path.exists():
            return None
        labels = self._decode(path, cv2.IMREAD_UNCHANGED)
        if labels.ndim == 3:
            labels = _palette_indices(path, labels)
        if labels.ndim != 2 or labels.dtype != np.uint8:
            kind = f'{labels.dtype} of shape {labels.shape}'
            raise ValueError(f'{path} is {kind}: labels must be 8-bit single-channel PNGs of '
                             'class ids, not of colours')
        table = self.table_of(path)
        mapped = table[labels]
        if mapped.min() == UNKNOWN:
            raise ValueError(f'{path} has id {labels[mapped == UNKNOWN][0]}, which no class has '
                             f'({VOID} is void): mend the file, or give the source a label_map')
        return mapped.astype(np.uint8)

    def read(self, key):
        """Image and labels of one frame; ValueError names a file that is unreadable or misfits."""
        image, labels = self.read_image(key), self.read_labels(key)
        if labels is None:
            labels = np.full(image.shape[:2], VOID, np.uint8)
        if labels.shape != image.shape[:2]:
            raise ValueError(
                f'{self.label_path(key)} is {labels.shape}, but its image is {image.shape[:2]}: '
                'labels are 8-bit single-channel PNGs of the image size')
        return image, labels


class CamVid(FolderFrames):
    """
    CamVid in SegNet's layout: ``<split>/<drive>_<number>.jpg|png``, ``<split>annot/``; void is 11.

    Drives are told apart by the part of the file name before the last underscore. ``train`` has
    a frame a second: each stands for a snippet of its own.
    """

    snippet_frames = 1

    def __init__(self, root, split, unlabelled=False):
        table = id_table({**{i: i for i in range(11)}, 11: VOID})
        super().__init__(root, 11, table, unlabelled, split, f'{split}annot')

    def _group(self, paths):
        drives = {}
        for path in paths:
            drives.setdefault(path.stem.rpartition('_')[0], []).append(path)
        return list(drives.values())

    def drive_name(self, drive):
        """Name of a drive: its part of the file names."""
        return self.drives[drive][0].stem.rpartition('_')[0]
