# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a recipe's data before training: every file is read, by the readers of training."""
from collections import defaultdict
from dataclasses import dataclass, field
import logging

import cv2
import numpy as np

from ros_vseg.labels import load_label_set

from . import build_source
from .clips import VOID


log = logging.getLogger(__name__)

MOST = 10  # lines per kind of problem


def _kinds():
    return field(default_factory=lambda: defaultdict(list))


@dataclass
class Report:
    """
    What was found: a line per source in ``summary``, and lists of messages by kind of problem.

    errors stop or spoil a training; warnings may be meant so; notes are good to know.
    """

    summary: list = field(default_factory=list)
    notes: dict = _kinds()
    warnings: dict = _kinds()
    errors: dict = _kinds()

    def lines(self):
        """Everything as lines of text, errors last, at most MOST of a kind."""
        lines = list(self.summary)
        for name in ('note', 'warning', 'error'):
            for messages in getattr(self, f'{name}s').values():
                lines += [f'{name}: {message}' for message in messages[:MOST]]
                if len(messages) > MOST:
                    lines.append(f'{name}: ... and {len(messages) - MOST} more')
        return lines


def check_data(recipe, cache):
    """
    Read every file of ``data.train`` and ``data.val`` as training would, and go on after bad ones.

    cache: folder of rendered streets, which are not checked. Returns a Report. ValueError if the
    recipe's label set cannot be read.
    """
    label_set, report, frames = load_label_set(recipe.data.label_set), Report(), {}
    if not recipe.data.train:
        report.errors['no source'].append('the recipe has no data.train: list at least one source')
    val = [] if recipe.data.val is None else [recipe.data.val]
    for part, specs in (('train', recipe.data.train), ('val', val)):
        walks = [_check_source(part, spec, recipe, cache, report) for spec in specs]
        if walks and all(walks):
            _check_classes(part, sum(walk.counts for walk in walks), label_set, report)
        frames[part] = {key for walk in walks if walk for drive in walk.source.drives
                        for key in drive}
    both = len(frames['train'] & frames['val'])
    if both:
        report.warnings['shared frames'].append(
            f'{both} frames of val are in train too: its mIoU will be too good')
    return report


def _check_source(part, spec, recipe, cache, report):
    """Walk over a source; None where there is nothing to walk over."""
    title = f'{part}: {spec.kind}'
    if spec.kind == 'street':
        report.summary.append(f'{title}: rendered, nothing to check')
        return None
    try:
        walk = _Walk(build_source(spec, recipe, cache), report)
    except (ValueError, OSError) as error:
        report.summary.append(f'{title} {spec.root}: cannot be read')
        report.errors['sources that cannot be read'].append(str(error))
        return None
    walk.run(max(recipe.data.clip_lengths))
    report.summary.append(f'{title} {walk.summary()}')
    return walk


def _check_classes(part, counts, label_set, report):
    """Sum up the pixels by class of train or val, int64 [256], and compare with the label set."""
    names, total = label_set.names, counts[:VOID].sum()
    if not total:
        return
    shares = [f'{name} {100 * count / total:.1f} %' for name, count in zip(names, counts) if count]
    report.summary.append(f'{part} classes: {", ".join(shares)}')
    beyond = np.flatnonzero(counts[len(names):VOID])
    if beyond.size:
        report.errors['other label set'].append(
            f'{part} has class {len(names) + beyond[0]}, but label set {label_set.name} has '
            f'{len(names)} classes: set data.label_set to the one of this data')
    absent = [name for name, count in zip(names, counts) if not count]
    if absent:
        report.warnings[f'classes that never occur in {part}'] += [
            f'class {name} never occurs in {part}' for name in absent]


class _Walk:
    """One pass over a FolderFrames, which notes in a report what is wrong with it."""

    def __init__(self, source, report):
        self.source, self.report = source, report
        self.counts = np.zeros(256, np.int64)
        self.labels, self.sizes = set(), {}

    def run(self, clip_length):
        """Read every frame, then look at the source as a whole; clip_length: in frames."""
        drives, images = self.source.drives, self.source.root / self.source.image_folder
        for number, drive in enumerate(drives, 1):
            self._drive(drive)
            log.info('%s: drive %d of %d, %d frames', images, number, len(drives), len(drive))
        frames, notes = sum(map(len, drives)), self.report.notes
        bare, short = frames - len(self.labels), sum(len(one) < clip_length for one in drives)
        if not self.labels and not self.source.unlabelled:
            self.report.errors['no labels'].append(
                f'no image has a label file in {self.source.root / self.source.label_folder}: add '
                'labels, or set unlabelled of this source to distil from images without')
        elif bare:
            notes['no labels'].append(f'{images}: {bare} of {frames} images have no labels')
        if short:
            notes['short drives'].append(f'{images}: {short} drives are shorter than a clip of '
                                         f'{clip_length}, which repeats their first frame')
        self._stray_labels()

    def summary(self):
        """Return place, counts and sizes in one line."""
        frames = sum(map(len, self.source.drives))
        place = self.source.root / self.source.image_folder
        return (f'{place.parent if place.name == "images" else place}: {frames} frames in '
                f'{len(self.source.drives)} drives, {" and ".join(self.sizes) or "no size"}, '
                f'{len(self.labels)} labelled')

    def _drive(self, drive):
        first, mixed = None, False
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
            size = image.shape[:2]
            self.sizes['{}x{}'.format(*size)] = True  # in the order in which they were met
            if labels is not None and labels.shape != size:
                self._read('labels', key, self.source.read)
            first = first or (key, size)
            if size != first[1] and not mixed:
                mixed = True
                self.report.errors['drives of mixed sizes'].append(
                    f'{first[0]} is {first[1]}, but {key} of the same drive is {size}: put frames '
                    'of one size into a drive')

    def _read(self, what, key, read):
        """What a method of the source reads of a frame; None after an error, which is noted."""
        try:
            # older OpenCV fills what a JPEG lacks without a word
            if what == 'images' and _cut(key.read_bytes()):
                raise ValueError(f'{key} is cut short: copy it again or remove it')
            return read(key)
        except (ValueError, OSError, cv2.error) as error:
            self.report.errors[f'{what} that cannot be used'].append(str(error))
            return None

    def _stray_labels(self):
        """Warn of label files that no image leads to."""
        known = {_frame(path) for path in self.labels}
        for path in sorted((self.source.root / self.source.label_folder).rglob('*')):
            if path.suffix.lower() in ('.png', '.jpg', '.jpeg') and path not in self.labels:
                if '_gtFine_' not in path.name or _frame(path) not in known:
                    self.report.warnings['stray labels'].append(
                        f'{path} belongs to no image: name it as its image, with the ending .png')


def _frame(path):
    """Path up to the number of a frame, which Cityscapes' label files of one frame share."""
    return path.parent / path.name.partition('_gtFine_')[0]


def _cut(content):
    """Whether the content of a PNG or JPEG lacks its end."""
    if content.startswith(b'\x89PNG'):
        return b'IEND' not in content[-64:]
    # a picture's end comes after its last scan; a preview may hold both before
    return content.startswith(b'\xff\xd8') and (
        content.rfind(b'\xff\xd9') < content.rfind(b'\xff\xda'))
