# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Cityscapes: snippets of video with one labelled frame each, 19 classes."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .clips import VOID
from .folders import FolderFrames, has_images, root_of
from .image_files import read_16_bit
from .label_files import Table


# labelIds of the 19 classes in the order of their train ids; all other ids are void
_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_SUFFIX = '_leftImg8bit'


class Cityscapes(FolderFrames):
    """
    Cityscapes as it is unpacked: ``leftImg8bit_sequence/<split>`` and ``gtFine/<split>``.

    Frames are ``<city>/<city>_<sequence>_<frame>_leftImg8bit.png``; of each snippet of 30 the 20th
    is labelled, in ``..._gtFine_labelTrainIds.png`` or ``..._gtFine_labelIds.png``. Consecutive
    frames are one drive. Without the sequence package, ``leftImg8bit`` serves: labelled frames
    alone, each its own drive, as consecutive numbers in ``train_extra`` are seconds apart.

    Args:
        root: Folder of the data.
        split: train, val, test, or train_extra, which has coarse labels alone.
        unlabelled: As in ``FolderFrames``.
        annotation: gtFine or gtCoarse.

    Raises:
        ValueError: There are no images, or no folder of labels although labels are needed.
    """

    def __init__(self, root: str | Path, split: str, unlabelled: bool = False,
                 annotation: str = 'gtFine') -> None:
        place, count = Path(root), len(_LABEL_IDS)
        self.annotation, self._split, labels = annotation, split, f'{annotation}/{split}'
        folders = [f'{name}/{split}' for name in ('leftImg8bit_sequence', 'leftImg8bit')]
        images = next((f for f in folders if has_images(place / f)), folders[0])
        self._video = images == folders[0]
        self._label_ids, self._train_ids = np.full((2, 256), VOID, np.int16)
        self._label_ids[list(_LABEL_IDS)] = self._train_ids[:count] = range(count)
        super().__init__(root, count, None, unlabelled, images, labels)
        if not unlabelled and not (place / labels).is_dir():
            fix = root_of(place, labels, f'{labels}, as unpacked')
            if split == 'train_extra' and annotation == 'gtFine':
                fix = 'train_extra has coarse labels alone: use kind cityscapes_coarse'
            raise ValueError(f'{place / labels} is missing: {fix}, or set unlabelled of this '
                             'source to distil from frames without')

    def _layout(self) -> str:
        part = f'leftImg8bit/{self._split}'
        return root_of(self.root, part, f'{part} and {self.annotation}/{self._split}, as unpacked')

    def _group(self, paths: Sequence[Path]) -> list[list[Path]]:
        drives: list[list[Path]] = []
        last: tuple[str, str, int] | None = None
        for path in paths:
            try:
                city, sequence, frame = path.stem.removesuffix(_SUFFIX).rsplit('_', 2)
                place = city, sequence, int(frame)
            except ValueError:
                raise ValueError(f'{path} is not named <city>_<sequence>_<frame>{_SUFFIX}.png as '
                                 'Cityscapes names its frames') from None
            follows = last is not None and place == (*last[:2], last[2] + 1)
            if not (self._video and follows):
                drives.append([])
            drives[-1].append(path)
            last = place
        return drives

    def label_path(self, key: Path) -> Path:
        """Path of a frame's label file, whether it exists or not."""
        stem = f'{key.stem.removesuffix(_SUFFIX)}_{self.annotation}'
        folder = self.root / self.label_folder / key.parent.name
        train_ids = folder / f'{stem}_labelTrainIds.png'
        return train_ids if train_ids.exists() else folder / f'{stem}_labelIds.png'

    def instances(self, key: Path) -> npt.NDArray[np.int32] | None:
        """Instances of one frame, of ``..._instanceIds.png``; None where there is no such file."""
        labels = self.label_path(key)
        path = labels.with_name(f'{labels.stem.rpartition("_")[0]}_instanceIds.png')
        if self.ignores_labels or not path.exists():
            return None
        ids = read_16_bit(path, 'ids of instances').astype(np.int32)
        # below 1000 are classes without instances, and crowds, which have no number
        classes = np.where(ids < 1000, VOID, self._label_ids[np.minimum(ids // 1000, 255)])
        return np.where(classes == VOID, -1, 1000 * classes + ids % 1000).astype(np.int32)

    def has_other_use(self, label: Path) -> bool:
        """Whether an image leads to a file: its colours, instances or other ids."""
        stem, found, _ = label.stem.partition(f'_{self.annotation}_')
        image = self.root / self.image_folder / label.parent.name / f'{stem}{_SUFFIX}.png'
        return bool(found) and image.exists()

    def table_of(self, path: Path) -> Table:
        """Table of the ids in one label file."""
        return self._train_ids if path.stem.endswith('TrainIds') else self._label_ids
