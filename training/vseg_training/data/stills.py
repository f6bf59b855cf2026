# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Labelled pictures without video: Pascal VOC, ADE20K and NYUv2, each as it is unpacked."""
from collections.abc import Iterator, Sequence
from pathlib import Path

from ros_vseg.labels import LabelSet

from .clips import VOID
from .folders import FolderFrames, has_images, root_of
from .label_files import id_table, Table, UNKNOWN


class Stills(FolderFrames):
    """Pictures that have nothing to do with each other: each is a drive of one frame."""

    snippet_frames = 1

    def _group(self, paths: Sequence[Path]) -> list[list[Path]]:
        return [[path] for path in paths]

    def problems(self) -> Iterator[str]:
        """See ``ClipSource.problems``: names that cannot be matched, and missing labels."""
        yield from self._names()
        keys = [key for drive in self.drives for key in drive]
        bare = [] if self.unlabelled else [key for key in keys if not self.has_labels(key)]
        if bare:
            yield (f'{len(bare)} of {len(keys)} images have no label, the first is '
                   f'{self.label_path(bare[0])}: unpack the labels again, or set unlabelled of '
                   'this source to distil from frames without')


class PascalVoc(Stills):
    """
    Pascal VOC (``VOCdevkit/VOC2012``): the images that a list names, 21 classes.

    The list is ``ImageSets/Segmentation/<split>.txt``, with a name a line; images are
    ``JPEGImages/<name>.jpg``, labels ``SegmentationClass/<name>.png``, whose palette indices are
    the ids and 255 is void. A split that ends in aug (trainaug, with labels of the Semantic
    Boundaries Dataset) has its labels in ``SegmentationClassAug``.

    Args:
        root: The folder VOC2012.
        split: Name of the list.
        unlabelled: As in ``FolderFrames``.
        label_set: Classes, with which palettes are compared.

    Raises:
        ValueError: The list is missing, is none of names, or names an image that is missing.
    """

    id_fix = f'0 to 20 are classes, {VOID} is void; unpack the file again'

    def __init__(self, root: str | Path, split: str, unlabelled: bool = False,
                 label_set: LabelSet | None = None) -> None:
        self._list = Path(root) / f'ImageSets/Segmentation/{split}.txt'
        labels = 'SegmentationClassAug' if split.endswith('aug') else 'SegmentationClass'
        super().__init__(root, 21, None, unlabelled, 'JPEGImages', labels, label_set)

    def _layout(self) -> str:
        return f'{self._list} is empty: unpack it again'

    def _images(self) -> list[Path]:
        """Images that the list names, in its order."""
        if not self._list.is_file():
            lists = sorted(path.stem for path in self._list.parent.glob('*.txt'))
            fix = f'use {", ".join(lists)}' if lists else root_of(
                self.root, 'ImageSets/Segmentation',
                'JPEGImages, SegmentationClass and ImageSets, such as VOCdevkit/VOC2012')
            raise ValueError(f'there is no list {self._list}: {fix}')
        paths = []
        for name in self._list.read_text(errors='replace').split('\n'):
            if not name.strip():
                continue
            path = self.root / self.image_folder / f'{name.strip()}.jpg'
            if len(name.split()) > 1 or '/' in name:
                raise ValueError(f'{self._list} has the line {name.strip()!r}: a line is the name '
                                 'of one image alone, such as 2007_000032')
            if not path.is_file():
                raise ValueError(f'{self._list} names {path}, which is missing: unpack the '
                                 'images again')
            paths.append(path)
        return list(dict.fromkeys(paths))

    def has_other_use(self, label: Path) -> bool:
        """Whether a label file belongs to an image of another list."""
        return (self.root / self.image_folder / f'{label.stem}.jpg').exists()


class ShiftedStills(Stills):
    """Pictures in one folder a split, with labels in which 0 is void and class k is k + 1."""

    def __init__(self, root: str | Path, num_classes: int, unlabelled: bool, image_folder: str,
                 label_folder: str) -> None:
        self.id_fix = (f'0 is void, 1 to {num_classes} are the classes; unpack the labels again, '
                       'or use kind folder if they are shifted already')
        super().__init__(
            root, num_classes, _shifted(num_classes), unlabelled, image_folder, label_folder)


class Ade20k(ShiftedStills):
    """
    ADE20K of the scene parsing challenge (``ADEChallengeData2016``), 150 classes.

    Images are ``images/training|validation/<name>.jpg``, labels ``annotations/...png``.

    Args:
        root: The folder ADEChallengeData2016.
        split: train or val.
        unlabelled: As in ``FolderFrames``.

    Raises:
        ValueError: An unknown split, or there are no images.
    """

    _FOLDERS = {'train': 'training', 'val': 'validation'}

    def __init__(self, root: str | Path, split: str, unlabelled: bool = False) -> None:
        if split not in self._FOLDERS:
            raise ValueError(f'ADE20K has no split {split!r}: use train or val')
        folder = self._FOLDERS[split]
        super().__init__(root, 150, unlabelled, f'images/{folder}', f'annotations/{folder}')

    def _layout(self) -> str:
        return root_of(self.root, self.image_folder, f'{self.image_folder} and '
                       f'{self.label_folder}, the ADEChallengeData2016 of the scene parsing '
                       'challenge')


class NyuV2(ShiftedStills):
    """
    NYUv2 as PNGs, 40 classes: ``<split>/rgb/<number>.png``, ``<split>/semantic_40/<number>.png``.

    ``nicr_sa_prepare_dataset nyuv2`` (nicr-scene-analysis-datasets) writes this from the .mat file
    of the data set; ``labels_40`` is read as well, as ESANet's script writes it.

    Args:
        root: Folder of the data.
        split: train (795 images) or test (654).
        unlabelled: As in ``FolderFrames``.

    Raises:
        ValueError: An unknown split, or there are no images.
    """

    def __init__(self, root: str | Path, split: str, unlabelled: bool = False) -> None:
        if split not in ('train', 'test'):
            raise ValueError(f'NYUv2 has no split {split!r}: use train or test')
        older = f'{split}/labels_40'
        labels = older if has_images(Path(root) / older) else f'{split}/semantic_40'
        super().__init__(root, 40, unlabelled, f'{split}/rgb', labels)

    def _layout(self) -> str:
        return root_of(self.root, self.image_folder, f'{self.image_folder} and '
                       f'{self.label_folder}, as nicr_sa_prepare_dataset nyuv2 writes them')


def _shifted(num_classes: int) -> Table:
    """Table of ids in which 0 is void; 255 never occurs, unless they were shifted before."""
    table = id_table({0: VOID, **{label + 1: label for label in range(num_classes)}})
    table[VOID] = UNKNOWN
    return table
