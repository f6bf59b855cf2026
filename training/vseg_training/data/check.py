# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a recipe's data before training: every file is read, by the readers of training."""
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
import logging
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.labels import LabelSet, load_label_set

from . import open_source
from .clips import (
    all_void, ClipSource, not_measured, refuse_padding_as_class, two_sizes, VOID)
from .depth_check import DepthCount
from .folders import FolderFrames
from .image_files import is_16_bit
from .same_frames import frames_of
from ..recipe import chosen_by, Recipe, Source


log = logging.getLogger(__name__)

MOST = 10  # lines per kind of problem
Messages = defaultdict[str, list[str]]  # by kind of problem
Read = TypeVar('Read')


def _kinds() -> Any:
    return field(default_factory=lambda: defaultdict(list))


@dataclass
class Report:
    """
    What was found: a line per source in ``summary``, and lists of messages by kind of problem.

    errors stop or spoil a training; warnings may be meant so; notes are good to know.
    """

    summary: list[str] = field(default_factory=list)
    notes: Messages = _kinds()
    warnings: Messages = _kinds()
    errors: Messages = _kinds()

    def lines(self) -> list[str]:
        """Everything as lines of text, errors last, at most MOST of a kind."""
        lines = list(self.summary)
        for title, kinds in (('note', self.notes), ('warning', self.warnings),
                             ('error', self.errors)):
            for messages in kinds.values():
                lines += [f'{title}: {message}' for message in messages[:MOST]]
                if len(messages) > MOST:
                    lines.append(f'{title}: ... and {len(messages) - MOST} more')
        return lines


def check_data(recipe: Recipe, cache: Path) -> Report:
    """
    Read every file of ``data.train`` and ``data.val`` as training would, and go on after bad ones.

    Args:
        recipe: Names the data.
        cache: Folder of rendered streets, which are not checked.

    Raises:
        ValueError: The recipe's label set cannot be read, or has too many classes.
    """
    label_set, report = load_label_set(recipe.data.label_set), Report()
    refuse_padding_as_class(label_set)
    if not recipe.data.train:
        report.errors['no source'].append('the recipe has no data.train: list at least one source')
    val = [] if recipe.data.val is None else [recipe.data.val]
    frames: dict[str, set[Hashable]] = {}
    needed = {'train': bool(recipe.loss.segmentation), 'val': chosen_by(recipe) == 'mIoU'}
    for part, specs in (('train', recipe.data.train), ('val', val)):
        opened, walks = [], []
        for spec in specs:
            source = _open(part, spec, recipe, cache, report)
            opened += [] if source is None else [source]
            if isinstance(source, FolderFrames):
                walks.append(_check_source(part, spec.kind, source, recipe, report))
        if walks and len(walks) == len(specs):
            counts = np.sum([walk.counts for walk in walks], 0)
            _check_classes(part, counts, label_set, report, needed[part])
        frames[part] = {frame for source in opened for frame in frames_of(source)}
    both = len(frames['train'] & frames['val'])
    if both:
        report.warnings['shared frames'].append(
            f'{both} frames of val are in train too: its mIoU will be too good')
    return report


def _open(part: str, spec: Source, recipe: Recipe, cache: Path, report: Report
          ) -> ClipSource[Any] | None:
    """Open a source; None, with an error in the report, where that fails."""
    title = f'{part}: {spec.kind}'
    try:
        source = open_source(spec, recipe, cache)
    except (ValueError, OSError) as error:
        report.summary.append(f'{title} {spec.root}: cannot be read')
        report.errors['sources that cannot be read'].append(str(error))
        return None
    if not isinstance(source, FolderFrames):
        report.summary.append(f'{title}: rendered, nothing to check')
    return source


def _check_source(part: str, kind: str, source: FolderFrames, recipe: Recipe, report: Report
                  ) -> '_Walk':
    """Walk over the files of a source."""
    walk = _Walk(source, report, DepthCount(recipe.tasks.depth))
    # validation shows whole images at the size of the network's input
    walk.run(max(recipe.data.clip_lengths), recipe.data.scale if part == 'train' else None,
             recipe.data.size[0])
    report.summary.append(f'{part}: {kind} {walk.summary()}')
    return walk


def _check_classes(part: str, counts: npt.NDArray[np.int64], label_set: LabelSet, report: Report,
                   needed: bool) -> None:
    """Sum up the pixels by class of train or val, int64 [256]; needed: whether some must count."""
    names, total = label_set.names, counts[:VOID].sum()
    if not total:
        if counts[VOID] and needed:
            report.errors['no classes'].append(all_void(part))
        elif needed and part == 'val':  # without label files there are no counts at all
            report.errors['no labels'] = [not_measured()]
        return
    shares = [f'{name} {100 * count / total:.1f} %' for name, count in zip(names, counts) if count]
    report.summary.append(f'{part} classes: {", ".join(shares)}')
    absent = [name for name, count in zip(names, counts) if not count]
    if absent:
        report.warnings[f'classes that never occur in {part}'] += [
            f'class {name} never occurs in {part}' for name in absent]


class _Walk:
    """One pass over a FolderFrames, which notes in a report what is wrong with it."""

    def __init__(self, source: FolderFrames, report: Report, depth: DepthCount) -> None:
        self.source, self.report, self.depth = source, report, depth
        self.counts = np.zeros(256, np.int64)
        self.labels: set[Path] = set()  # files that images lead to
        self.has_depth = False
        self.brightest: int | None = None  # of 16-bit images, after their conversion to 8 bits
        self.sizes: dict[tuple[int, ...], bool] = {}  # in the order in which they were met

    def run(self, clip_length: int, scale: tuple[float, float] | None, height: int) -> None:
        """
        Read every frame, then look at the source as a whole.

        Args:
            clip_length: In frames.
            scale: Least and largest scale of the images; None: they are brought to a height.
            height: In pixels.
        """
        self.scale, self.height = scale, height
        drives, images = self.source.drives, self.source.root / self.source.image_folder
        for number, drive in enumerate(drives, 1):
            self._drive(drive)
            if len(drive) > 1 or number % 100 == 0:  # stills are many
                log.info('%s: drive %d of %d, %d frames', images, number, len(drives), len(drive))
        for problem in self.source.problems():
            self.report.errors['sources with mistakes'].append(problem)
        self._labels(images)
        self._depth(images)
        if self.brightest is not None and self.brightest < 64:  # as of 14 bits and fewer
            self.report.warnings['dark 16-bit images'].append(
                f'{images}: the brightest value of its 16-bit images is {self.brightest} of 255: '
                'if their camera has fewer bits, scale them to the whole range of 16 bits, or '
                'save them with 8 bits')
        short = sum(len(drive) < clip_length for drive in drives)
        if short:
            self.report.notes['short drives'].append(
                f'{images}: {short} drives are shorter than a clip of {clip_length}, which '
                'repeats their first frame')
        self._stray_labels()

    def summary(self) -> str:
        """Return place, counts and sizes in one line."""
        frames = sum(map(len, self.source.drives))
        place = self.source.root / self.source.image_folder
        sizes = ' and '.join(f'{height}x{width}' for height, width in self.sizes) or 'no size'
        if len(self.sizes) > MOST:
            heights, widths = np.transpose(list(self.sizes))
            sizes = (f'{len(self.sizes)} sizes of {min(heights)} to {max(heights)} by '
                     f'{min(widths)} to {max(widths)}')
        return (f'{place.parent if place.name == "images" else place}: {frames} frames in '
                f'{len(self.source.drives)} drives, {sizes}, {len(self.labels)} labelled'
                + (f', {self.depth.summary()}' if self.source.focal is not None else ''))

    def _depth(self, images: Path) -> None:
        """Whether the recipe can use the depth; without files ``problems`` says so."""
        problem = self.depth.problem(str(images)) if self.has_depth else None
        if problem is not None:
            self.report.errors['depth that cannot be used'].append(problem)

    def _labels(self, images: Path) -> None:
        """Whether enough of the frames have labels."""
        try:
            self.source.frames()
        except ValueError as error:
            self.report.errors['no labels'].append(str(error))
            return
        frames = sum(map(len, self.source.drives))
        if len(self.labels) < frames:
            self.report.notes['no labels'].append(
                f'{images}: {frames - len(self.labels)} of {frames} images have no labels')

    def _drive(self, drive: Sequence[Path]) -> None:
        first: tuple[Path, tuple[int, ...]] | None = None
        mixed = False
        for key in drive:
            image = self._read('images', key, self.source.read_image)
            labels, path = None, self.source.label_path(key)
            if path.exists():
                self.labels.add(path)
                labels = self._read('labels', key, self.source.read_labels)
            if labels is not None:
                self.counts += np.bincount(labels.ravel(), minlength=256)
            if image is None:
                continue
            if is_16_bit(key):
                self.brightest = max(self.brightest or 0, int(image.max()))
            size = image.shape[:2]
            if self.source.focal is not None:
                self._count_depth(key, size)
            self.sizes[size] = True
            if labels is not None and labels.shape != size:
                self._read('labels', key, self.source.read)
            first = first or (key, size)
            if size != first[1] and not mixed:
                mixed = True
                self.report.errors['drives of mixed sizes'].append(
                    str(two_sizes(str(first[0]), first[1], str(key), size)))

    def _count_depth(self, key: Path, size: tuple[int, ...]) -> None:
        """Read the depth of a frame; a file that cannot be read is noted and does not count."""
        geometry = self._read('depth images', key, self.source.geometry)
        self.has_depth = self.has_depth or geometry is not None
        own = self.height / size[0]
        self.depth.add(geometry, size, self.scale or (own, own))

    def _read(self, what: str, key: Path, read: Callable[[Path], Read]) -> Read | None:
        """What a method of the source reads of a frame; None after an error, which is noted."""
        try:
            return read(key)
        except (ValueError, OSError, cv2.error) as error:
            self.report.errors[f'{what} that cannot be used'].append(str(error))
            return None

    def _stray_labels(self) -> None:
        """Warn of label files that no image leads to."""
        known = self.labels.union(path for path, _ in self.source.misnamed_labels())
        for path in sorted((self.source.root / self.source.label_folder).rglob('*')):
            if path.suffix.lower() in ('.png', '.jpg', '.jpeg') and path not in known:
                if not self.source.has_other_use(path):
                    self.report.warnings['stray labels'].append(
                        f'{path} belongs to no image: name it as its image, with the ending .png')
