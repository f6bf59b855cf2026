# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Frames from folders: a plain folder of one's own, and CamVid's layout."""
from collections.abc import Iterator, Sequence
from glob import iglob
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ros_vseg.files import natural_key
from ros_vseg.labels import LabelSet

from .clips import ClipSource, Geometry, VOID
from .image_files import read_depth, read_image
from .label_files import (
    check_palette, id_table, is_mask, read_label_file, Table, UNKNOWN)


_IMAGES = ('.png', '.jpg', '.jpeg')
_OTHERS = ('.bmp', '.tif', '.tiff', '.webp', '.gif')  # what else people save labels as


class FolderFrames(ClipSource[Path]):
    """
    Drives as folders: ``images/<drive>/<frame>.jpg|png`` and ``labels/<drive>/<frame>.png``.

    A frame without a label file is unlabelled (all void). Clips end at labelled frames, or with
    ``unlabelled`` at every frame. A drive's frames are in the order of the numbers in their names.

    Args:
        root: Folder of the data.
        num_classes: Ids below it are classes, where there is no table.
        table: Ids on disk to class ids (``id_table``).
        unlabelled: Whether clips may end at frames without labels.
        image_folder: Folder of images, below root.
        label_folder: Folder of labels, below root.
        focal: Of the camera, in pixels; None: there is no depth. Depth lies in the folder depth
            beside that of the labels.
        label_set: Classes that the ids on disk are by themselves: palettes are compared with its
            colours, and masks of 0 and 255 are a problem. None: neither is checked.

    Raises:
        ValueError: There are no images.
    """

    # what ids mean, and what to do about one that is no class
    id_fix = f'{VOID} is void; correct the file, or give the source a label_map'

    def __init__(self, root: str | Path, num_classes: int, table: Table | None = None,
                 unlabelled: bool = False, image_folder: str = 'images',
                 label_folder: str = 'labels', label_set: LabelSet | None = None,
                 focal: float | None = None) -> None:
        self.root, self.image_folder, self.label_folder = Path(root), image_folder, label_folder
        self.table = id_table({i: i for i in range(num_classes)}) if table is None else table
        self.unlabelled, self.ignores_labels = unlabelled, False
        self.label_set, self.focal = label_set, focal
        paths = self._images()
        if not paths:
            raise ValueError(f'no images in {self.root / image_folder}: {self._layout()}')
        self.drives = self._group(paths)

    def _images(self) -> list[Path]:
        """All images, sorted."""
        return _files(self.root / self.image_folder, _IMAGES)

    def _layout(self) -> str:
        """What to do where there are no images."""
        return 'put one folder of .jpg or .png frames per drive there'

    def _group(self, paths: Sequence[Path]) -> list[list[Path]]:
        """Drives of all images."""
        drives: dict[Path, list[Path]] = {}
        for path in paths:
            drives.setdefault(path.parent, []).append(path)
        return list(drives.values())

    def ignore_labels(self) -> None:
        """Take all frames as unlabelled; clips end at each of them."""
        self.unlabelled = self.ignores_labels = True

    def label_path(self, key: Path) -> Path:
        """Path of a frame's label file, whether it exists or not."""
        relative = key.relative_to(self.root / self.image_folder)
        return self.root / self.label_folder / relative.with_suffix('.png')

    def depth_path(self, key: Path) -> Path:
        """Path of a frame's depth file, whether it exists or not."""
        relative = key.relative_to(self.root / self.image_folder).with_suffix('.png')
        return (self.root / self.label_folder).parent / 'depth' / relative

    def has_labels(self, key: Path) -> bool:
        """Whether a frame has a label file."""
        return not self.ignores_labels and self.label_path(key).exists()

    def frames(self) -> list[tuple[int, int]]:
        """Every (drive index, position) at which a training clip may end; ValueError if none."""
        places = super().frames()
        if not places:
            raise ValueError(f'no frame of {self.root / self.image_folder} has a label file in '
                             f'{self.root / self.label_folder}: add labels, or set unlabelled of '
                             'this source to distil from frames without')
        return places

    def problems(self) -> Iterator[str]:
        """See ``ClipSource.problems``: depth, names that cannot be matched, and masks."""
        if self.focal is not None and not any(
                self.depth_path(key).exists() for drive in self.drives for key in drive):
            yield (f'no image of {self.root / self.image_folder} has depth, such as '
                   f'{self.depth_path(self.drives[0][0])}: add it, or leave focal out of this '
                   'source')
        if self.ignores_labels:
            return
        yield from self._names()
        if self.label_set is not None and len(self.label_set.names) > 1:
            yield from self._masks()

    def _names(self) -> Iterator[str]:
        """Tell of two images for one label, and of labels with another ending."""
        first: dict[Path, Path] = {}
        for path in (path for drive in self.drives for path in drive):
            other = first.setdefault(path.with_suffix(''), path)
            if other != path:
                yield (f'{other} and {path} are two images for the label {self.label_path(path)}: '
                       'remove or rename one of them')
        for path, image in self.misnamed_labels():
            yield (f'{path} is not read as the label of {image}: save labels as 8-bit PNGs with '
                   'the ending .png, from where they were made')

    def misnamed_labels(self) -> list[tuple[Path, Path]]:
        """Label files with another ending than .png of images without labels, and the images."""
        bare = {self.label_path(key).with_suffix(''): key for drive in self.drives
                for key in drive if not self.has_labels(key)}
        if not bare:
            return []
        folder = self.root / self.label_folder
        return [(path, bare[path.with_suffix('')]) for path in _files(folder, _IMAGES + _OTHERS)
                if path.with_suffix('') in bare]

    def has_other_use(self, label: Path) -> bool:
        """Whether a label file that no frame leads to is in its place all the same."""
        return False

    def _masks(self) -> Iterator[str]:
        """Drives whose label files hold 0 and 255 alone; one file may do so by chance."""
        labels = [[path for path in map(self.label_path, drive) if path.exists()]
                  for drive in self.drives]
        found = [(paths, is_mask(paths)) for paths in labels if paths]
        all_are = all(mask for _, mask in found)
        for paths, mask in found:
            if mask and (all_are or len(paths) > 1):
                more = ' and the other labels of its drive have' if len(paths) > 1 else ' has'
                yield (f'{paths[0]}{more} no ids but 0 and {VOID}, and {VOID} is void: if they '
                       f'are masks of a class, name it in a label_map of this source (0: ..., '
                       f'{VOID}: ...); if not, put {VOID}: void there')

    def frame_name(self, key: Path) -> str:
        """Name of a frame: its path from the folder of the data on, without the ending."""
        # of '.' and '..' too, which say no name; links keep their own
        folder = os.path.basename(os.path.abspath(self.root))
        return f'{folder}/{key.relative_to(self.root).with_suffix("")}'

    def read_image(self, key: Path) -> npt.NDArray[np.uint8]:
        """Image uint8 [H, W, 3] RGB of one frame; errors as of ``image_files.read_image``."""
        return read_image(key)

    def geometry(self, key: Path) -> Geometry | None:
        """Depth of one frame, without normals; ValueError for a file that is not its depth."""
        if self.focal is None:
            return None
        path = self.depth_path(key)
        if not path.exists():
            return None
        depth, shape = read_depth(path), self.read_image(key).shape[:2]
        if depth.shape != shape:
            raise ValueError(f'{path} is {depth.shape}, but its image is {shape}: depth must be '
                             'registered to the image, pixel by pixel')
        return Geometry(depth, np.zeros((*shape, 3), np.float32), self.focal)

    def table_of(self, path: Path) -> Table:
        """Table of the ids in one label file."""
        return self.table

    def read_labels(self, key: Path) -> npt.NDArray[np.uint8] | None:
        """
        Labels of one frame.

        Returns:
            uint8 [H, W], or None without a label file.

        Raises:
            ValueError: The file is not a PNG of ids (``read_label_file``), has an id that no
                class has, or a palette that contradicts the classes (``check_palette``).
        """
        path = self.label_path(key)
        if self.ignores_labels or not path.exists():
            return None
        ids, palette = read_label_file(path)
        mapped = self.table_of(path)[ids]
        if mapped.min() == UNKNOWN:
            raise ValueError(f'{path} has id {ids[mapped == UNKNOWN][0]}, which no class has: '
                             f'{self.id_fix}')
        labels = mapped.astype(np.uint8)
        if palette is not None and self.label_set is not None:
            check_palette(path, ids, palette, self.label_set)
        return labels

    def read(self, key: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
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
    id_fix = (f'0 to 10 are classes, 11 and {VOID} are void; correct the file, or use kind folder '
              'with a label_map')

    def __init__(self, root: str | Path, split: str, unlabelled: bool = False,
                 label_set: LabelSet | None = None) -> None:
        table = id_table({**{i: i for i in range(11)}, 11: VOID})
        super().__init__(root, 11, table, unlabelled, split, f'{split}annot', label_set)

    def _group(self, paths: Sequence[Path]) -> list[list[Path]]:
        drives: dict[str, list[Path]] = {}
        for path in paths:
            drives.setdefault(path.stem.rpartition('_')[0], []).append(path)
        return list(drives.values())

    def drive_name(self, drive: int) -> str:
        """Name of a drive: its part of the file names."""
        return self.drives[drive][0].stem.rpartition('_')[0]


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Files of some endings anywhere in a folder, in the order of the numbers in their names."""
    # not Path.glob, which does not follow links to drives
    names = [name for name in iglob('**/*', root_dir=folder, recursive=True)
             if name.lower().endswith(endings)]
    return [folder / name for name in sorted(names, key=natural_key)]


def has_images(folder: Path) -> bool:
    """Whether there is any image in a folder, or in one below it."""
    return any(name.lower().endswith(_IMAGES)
               for name in iglob('**/*', root_dir=folder, recursive=True))


def root_of(root: Path, part: str, layout: str) -> str:
    """
    Say what to do where a root lacks a part of its data set.

    Args:
        root: As the recipe has it.
        part: The missing folder or file, relative to the root.
        layout: What a right root holds.
    """
    for pattern in ('*', '*/*'):
        for folder in sorted(root.glob(pattern)):
            if (folder / part).exists():
                return f'set root to {folder}'
    return f'root is the folder that holds {layout}'
