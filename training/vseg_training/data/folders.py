# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Frames from folders: CamVid's layout and a plain folder of one's own."""
from pathlib import Path

import cv2
import numpy as np

from .clips import ClipSource, VOID


_IMAGES = ('.png', '.jpg', '.jpeg')


class FolderFrames(ClipSource):
    """
    Drives as folders: ``images/<drive>/<frame>.jpg|png`` and ``labels/<drive>/<frame>.png``.

    A frame without a label file is unlabelled (all void). Labels are 8-bit class ids; ids of
    ``num_classes`` and above, other than 255, are an error. Frames are kept in memory as read
    from disk (compressed), so that an epoch touches the disk once.
    """

    def __init__(self, root, num_classes, image_folder='images', label_folder='labels',
                 disk_void=VOID):
        self.root, self.num_classes, self.disk_void = Path(root), num_classes, disk_void
        self.image_folder, self.label_folder = image_folder, label_folder
        self._files = {}
        paths = sorted(path for path in (self.root / image_folder).glob('**/*')
                       if path.suffix.lower() in _IMAGES)
        if not paths:
            raise ValueError(f'no images in {self.root / image_folder}: '
                             'put one folder of .jpg or .png frames per drive there')
        self.drives = self._group(paths)

    def _group(self, paths):
        drives = {}
        for path in paths:
            drives.setdefault(path.parent, []).append(path)
        return list(drives.values())

    def _label_path(self, path):
        relative = path.relative_to(self.root / self.image_folder)
        return self.root / self.label_folder / relative.with_suffix('.png')

    def _decode(self, path, flag):
        data = self._files.get(path)
        if data is None:
            data = self._files[path] = np.fromfile(path, np.uint8)
        pixels = cv2.imdecode(data, flag)
        if pixels is None:
            raise ValueError(f'{path} is not a readable image: replace or remove it')
        return pixels

    def read(self, key):
        """Image and labels of one frame; ValueError names a file that is unreadable or misfits."""
        image = cv2.cvtColor(self._decode(key, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        path = self._label_path(key)
        if not path.exists():
            return image, np.full(image.shape[:2], VOID, np.uint8)
        labels = self._decode(path, cv2.IMREAD_UNCHANGED)
        if labels.shape != image.shape[:2]:
            raise ValueError(f'{path} is {labels.shape}, but its image is {image.shape[:2]}: '
                             'labels are 8-bit single-channel PNGs of the image size')
        labels = np.where(labels == self.disk_void, np.uint8(VOID), labels)
        if labels[labels != VOID].max(initial=0) >= self.num_classes:
            raise ValueError(f'{path} has class id {labels[labels != VOID].max()}, but the label '
                             f'set ends at {self.num_classes - 1}')
        return image, labels


class CamVid(FolderFrames):
    """
    CamVid in SegNet's layout: ``<split>/<drive>_<number>.jpg|png``, ``<split>annot/``; void is 11.

    Drives are told apart by the part of the file name before the last underscore.
    """

    def __init__(self, root, split):
        super().__init__(root, 11, split, f'{split}annot', disk_void=11)

    def _group(self, paths):
        drives = {}
        for path in paths:
            drives.setdefault(path.stem.rpartition('_')[0], []).append(path)
        return list(drives.values())
