# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Soft labels on disk: a teacher's targets per frame, warped as the frame is augmented."""
from collections.abc import Mapping, Sequence
from io import BytesIO
import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.files import write_whole

from .clips import ClipSource, Key


FORMAT = 1
INDEX = 'index.json'
Maps = npt.NDArray[np.float32]


class Record(NamedTuple):
    """
    Targets of one frame.

    Attributes:
        probabilities: Float32 [K, h, w] in 0..1.
        uncertainty: Float32 [h, w].
        projection: Float32 [N, h', w']; None of a teacher without prototypes.
    """

    probabilities: Maps
    uncertainty: Maps
    projection: Maps | None


class SoftLabels:
    """
    A folder of soft labels: ``index.json`` with classes and strides, and one .npz per frame.

    Args:
        folder: With the files.
        classes: Names of the label set that is trained.

    Attributes:
        strides: Pixels of a frame per cell of the scores and of the projection.

    Raises:
        ValueError: The folder holds no soft labels, or its teacher knows other classes.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str]) -> None:
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
    def create(cls, folder: str | Path, classes: Sequence[str], strides: Sequence[float],
               made_by: Mapping[str, Any] = {}) -> 'SoftLabels':
        """
        Open a folder to write into, new or begun earlier.

        Args:
            folder: With the files, or to be made.
            classes: Of the teacher.
            strides: Of its scores and of its projection.
            made_by: What the labels follow from: the teacher's weights and its views.

        Raises:
            ValueError: As the class, or the folder has the labels of another teacher.
        """
        folder, wanted = Path(folder), json.loads(json.dumps(made_by))
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / INDEX).exists():
            index = {'format': FORMAT, 'classes': list(classes), 'strides': strides,
                     'made_by': wanted}
            write_whole(folder / INDEX, json.dumps(index).encode())
        found = cls(folder, classes)
        there = json.loads((folder / INDEX).read_text()).get('made_by')
        if there != wanted:
            raise ValueError(f'{folder} has soft labels of another teacher, --scales or --flip: '
                             'give another --output, or remove it to make them anew')
        return found

    def path(self, source: ClipSource[Key], key: Key) -> Path:
        """File of a frame; ValueError for a name that leads out of the folder."""
        name = source.frame_name(key)
        if Path(name).is_absolute() or '..' in Path(name).parts:
            raise ValueError(f'the frame {name} has no place in {self.folder}: set root of its '
                             'source to a folder with a name')
        return self.folder / f'{name}.npz'

    def write(self, source: ClipSource[Key], key: Key, record: Record) -> None:
        """Write one frame, compactly: probabilities in 1/255, the projection times its area."""
        arrays: dict[str, npt.NDArray[Any]] = {
            'probabilities': np.rint(255 * record.probabilities).astype(np.uint8),
            'uncertainty': record.uncertainty.astype(np.float16)}
        if record.projection is not None:
            area = int(np.prod(record.projection.shape[1:]))
            arrays['projection'] = (record.projection * area).astype(np.float16)
        content = BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]  # taken for its option
        write_whole(self.path(source, key), content.getbuffer())

    def read(self, source: ClipSource[Key], key: Key) -> Record:
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

    def clip(self, source: ClipSource[Key], keys: Sequence[Key], frame: Sequence[int],
             matrices: Maps, crop: Sequence[int]) -> dict[str, Maps]:
        """
        Targets of an augmented clip.

        Args:
            source: Of the frames.
            keys: Of the clip's L frames.
            frame: (height, width) of the source's frames.
            matrices: Float32 [L, 2, 3], from pixels of each frame to those of the crop.
            crop: (height, width).

        Returns:
            Float32 arrays [L, ...] by the fields of ``Record``, on grids of the teacher's strides,
            whatever the size of the frames was; outside the frame what its border has.
        """
        records = [self.read(source, key) for key in keys]
        fine, coarse = (np.maximum(1, np.rint(np.divide(crop, stride))).astype(int)
                        for stride in self.strides)
        fields = {}
        for name, grid in (('probabilities', fine), ('uncertainty', fine), ('projection', coarse)):
            maps = [getattr(record, name) for record in records]
            if maps[0] is not None:
                fields[name] = np.stack([_warp(planes, frame, matrix, crop, grid)
                                         for planes, matrix in zip(maps, matrices)])
        return fields


def _warp(maps: Maps, frame: Sequence[int], matrix: Maps, crop: Sequence[int],
          target: npt.NDArray[np.intp]) -> Maps:
    """Warp maps float32 [..., h, w] to a target grid as their frame is warped to the crop."""
    grid = np.array(maps.shape[-2:])
    # pixel centres: frame = (map + 0.5) * step - 0.5, and likewise for the crop
    step = np.divide(frame, grid)[::-1]
    step_out = np.divide(crop, target)[::-1]
    linear = matrix[:, :2] * step / step_out[:, None]
    offset = matrix[:, :2] @ (0.5 * step - 0.5) + matrix[:, 2]
    offset = (offset + 0.5) / step_out - 0.5
    warp = np.column_stack([linear, offset]).astype(np.float32)
    size = (int(target[1]), int(target[0]))
    # cells half outside count as well: mixed with 0, their probabilities would not sum to 1
    flat = [cv2.warpAffine(plane, warp, size, flags=cv2.INTER_LINEAR,
                           borderMode=cv2.BORDER_REPLICATE)
            for plane in maps.reshape(-1, *grid)]
    return np.stack(flat).reshape(*maps.shape[:-2], *target)
