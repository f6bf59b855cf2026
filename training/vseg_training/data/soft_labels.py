# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Soft labels on disk: a teacher's targets per frame, warped as the frame is augmented."""
import json
import os
from pathlib import Path
from typing import NamedTuple, Optional

import cv2
import numpy as np


FORMAT = 1
INDEX = 'index.json'


class Record(NamedTuple):
    """
    Targets of one frame, float32 arrays.

    probabilities [K, h, w], uncertainty [h, w], projection [N, h', w'] or None.
    """

    probabilities: np.ndarray
    uncertainty: np.ndarray
    projection: Optional[np.ndarray]


class SoftLabels:
    """
    A folder of soft labels: ``index.json`` with classes and strides, and one .npz per frame.

    ``strides``: pixels of a frame per cell of the scores and of the projection. classes: names of
    the label set that is trained. ValueError if the folder is no such folder or its teacher knows
    other classes.
    """

    def __init__(self, folder, classes):
        self.folder = Path(folder)
        try:
            index = json.loads((self.folder / INDEX).read_text())
            version, names = index['format'], list(index['classes'])
            self.strides = [float(stride) for stride in index['strides']]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f'{folder} holds no soft labels ({type(error).__name__}): make them '
                             'by vseg-train soft-labels') from error
        if version != FORMAT:
            raise ValueError(f'{folder} has soft labels of format {version}, not {FORMAT}: make '
                             'them anew by vseg-train soft-labels')
        if names != list(classes):
            raise ValueError(f'the soft labels in {folder} are of the classes {", ".join(names)}, '
                             f'not of {", ".join(classes)}: distil from a teacher of the same '
                             'label set')

    @classmethod
    def create(cls, folder, classes, strides):
        """Open a folder to write into, new or begun earlier."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / INDEX).exists():
            _write_whole(folder / INDEX, lambda file: file.write(json.dumps(
                {'format': FORMAT, 'classes': list(classes), 'strides': strides}).encode()))
        return cls(folder, classes)

    def path(self, source, key):
        """File of a frame."""
        return self.folder / f'{source.frame_name(key)}.npz'

    def write(self, source, key, record):
        """Write one frame, compactly: probabilities in 1/255, the projection times its area."""
        arrays = {'probabilities': np.rint(255 * record.probabilities).astype(np.uint8),
                  'uncertainty': record.uncertainty.astype(np.float16)}
        if record.projection is not None:
            area = int(np.prod(record.projection.shape[1:]))
            arrays['projection'] = (record.projection * area).astype(np.float16)
        path = self.path(source, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, lambda file: np.savez(file, **arrays))

    def read(self, source, key):
        """Record of one frame; ValueError names a frame without soft labels."""
        path = self.path(source, key)
        try:
            with np.load(path, allow_pickle=False) as file:
                probabilities = file['probabilities'].astype(np.float32) / 255
                uncertainty = file['uncertainty'].astype(np.float32)
                projection = file.get('projection')
        except FileNotFoundError:
            raise ValueError(f'no soft labels for {source.frame_name(key)} in {self.folder}: run '
                             'vseg-train soft-labels on this recipe') from None
        except Exception as error:
            raise ValueError(f'{path} is damaged: remove it and run vseg-train soft-labels '
                             'again') from error
        if projection is not None:
            projection = projection.astype(np.float32) / int(np.prod(projection.shape[1:]))
        return Record(probabilities, uncertainty, projection)

    def clip(self, source, keys, frame, matrices, crop):
        """
        Targets of an augmented clip.

        frame: (height, width) of the source's frames; matrices [L, 2, 3]: frame to crop; crop:
        (height, width). Returns a dict of float32 arrays [L, ...] by the fields of ``Record``, on
        grids of the teacher's strides, whatever the size of the frames was; 0 outside the frame.
        """
        records = [self.read(source, key) for key in keys]
        fine, coarse = (np.maximum(1, np.rint(np.divide(crop, stride))).astype(int)
                        for stride in self.strides)
        fields = {}
        for name, maps, grid in zip(Record._fields, zip(*records), (fine, fine, coarse)):
            if maps[0] is not None:
                fields[name] = np.stack([_warp(m, frame, matrix, crop, grid)
                                         for m, matrix in zip(maps, matrices)])
        return fields


def _warp(maps, frame, matrix, crop, target):
    """Warp maps float32 [..., h, w] to a target grid as their frame is warped to the crop."""
    grid = np.array(maps.shape[-2:])
    # pixel centres: frame = (map + 0.5) * step - 0.5, and likewise for the crop
    step, step_out = (np.divide(a, b)[::-1] for a, b in ((frame, grid), (crop, target)))
    linear = matrix[:, :2] * step / step_out[:, None]
    offset = matrix[:, :2] @ (0.5 * step - 0.5) + matrix[:, 2]
    offset = (offset + 0.5) / step_out - 0.5
    warp = np.column_stack([linear, offset]).astype(np.float32)
    size = (int(target[1]), int(target[0]))
    flat = [cv2.warpAffine(m, warp, size, flags=cv2.INTER_LINEAR)
            for m in maps.reshape(-1, *grid)]
    return np.stack(flat).reshape(*maps.shape[:-2], *target)


def _write_whole(path, write):
    partial = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        with partial.open('wb') as file:
            write(file)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
