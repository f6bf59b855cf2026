# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""From sources to batches: every sample is a function of (seed, sample number) alone."""
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .augment import still_path
from .degrade import degrade, SEEN

INTERVAL = 5  # frames between distant frames (MGCNet, R)


class DataError(ValueError):
    """A mistake in the data; loaders wrap it into their worker's traceback, its own line stays."""

    def __init__(self, message):
        super().__init__(message.rpartition('DataError: ')[2].strip())


class ClipDataset(Dataset):
    """
    Resumable stream of augmented clips from weighted sources.

    Every step draws a clip length from ``lengths`` and holds ``frames`` frames in all, so that
    short clips bring more scenes and long ones more context. All draws are functions of the seed
    and the step, so a resumed run sees exactly what an uninterrupted one would. Each source is
    walked through in a new random order per pass. distant: whether clips bring as many distant
    frames as they have, ``INTERVAL`` apart; soft_labels: a SoftLabels that has every frame's.

    An item, by (sample number, clip length), is a dict: images uint8 [L, 3, h, w], labels int64
    [L, h, w], places float32 [4] (``position_codes``), video (int, the snippet's number among all
    sources), name (of the last frame), and if asked for distant (images like the clip's) and
    targets (a dict, see ``SoftLabels.clip``). DataError for files that cannot be used.

    stills: for each source the share of its clips that are made of their last frame alone
    (``still_path``). degrade: how often the last frame of a clip of two frames or more is
    degraded, and how often any other frame is. focus: class ids; half of the clips take the one
    of three crops that shows most of them.
    """

    def __init__(self, sources, weights, lengths, frames, augmentation, seed, steps,
                 distant=False, soft_labels=None, stills=None, degrade=(0.0, 0.0), focus=()):
        if any(frames % length for length in lengths):
            raise ValueError(f'frames_per_step {frames} must be a multiple of all clip lengths '
                             f'{list(lengths)}')
        self.sources, self.augmentation, self.seed = sources, augmentation, seed
        self.distant, self.soft_labels = distant, soft_labels
        self.stills = stills or [0.0] * len(sources)
        self.degrade, self.focus = degrade, list(focus)
        self.snippets = [source.snippets() for source in sources]
        self.first_video = np.cumsum([0] + [numbers[-1] for numbers in self.snippets])
        self.frames = [source.frames() for source in sources]
        rng = np.random.default_rng(seed)
        self.lengths = rng.choice(lengths, steps)
        self.starts = np.concatenate([[0], np.cumsum(frames // self.lengths)])
        # which source a sample takes, and how many samples that source gave before
        self.choice = rng.choice(len(sources), self.starts[-1],
                                 p=np.asarray(weights, float) / np.sum(weights))
        self.rank = np.zeros(len(self.choice), np.int64)
        for index in range(len(sources)):
            mine = self.choice == index
            self.rank[mine] = np.arange(mine.sum())

    def __len__(self):
        return len(self.choice)

    def __getitem__(self, item):
        number, length = item
        which = self.choice[number]
        frames = self.frames[which]
        turn, place = divmod(int(self.rank[number]), len(frames))
        order = np.random.default_rng([self.seed, which, turn]).permutation(len(frames))
        drive, position = frames[order[place]]
        try:
            return self._item(which, drive, position, length, number)
        except (ValueError, OSError) as error:
            raise DataError(str(error)) from error

    def _item(self, which, drive, position, length, number):
        source = self.sources[which]
        rng = np.random.default_rng([self.seed, number])
        still = length > 1 and rng.random() < self.stills[which]
        keys = source.clip_keys(drive, position, length)
        keys = keys[-1:] * length if still else keys
        clip = source.load(keys)
        size = clip.images.shape[1:3]
        paths = still_path(size, length, rng) if still else None
        draw = self._draw(clip, size, paths, rng)
        images = draw.images(clip.images)
        snippet = self.snippets[which][drive] + position // source.snippet_frames
        item = {'images': _tensor(self._degraded(images, rng)),
                'labels': torch.from_numpy(draw.labels(clip.labels).astype(np.int64)),
                'places': torch.from_numpy(draw.places()),
                'video': int(self.first_video[which]) + snippet,
                'name': source.frame_name(keys[-1])}
        if self.distant:
            far = source.load_images(source.distant_keys(drive, position, length, INTERVAL))
            item['distant'] = _tensor(replace(draw, paths=None).images(far))
        if self.soft_labels:
            item['targets'] = self.soft_labels.clip(
                source, keys, size, draw.matrices(length), draw.crop)
        return item

    def _draw(self, clip, size, paths, rng):
        """One draw of the augmentation, or of three the one that shows most of ``focus``."""
        draw = self.augmentation.draw(size, rng, paths)
        if not self.focus or rng.random() < 0.5:
            return draw
        draws = [draw, *(self.augmentation.draw(size, rng, paths) for _ in range(2))]
        shown = [np.isin(each.labels(clip.labels)[-1], self.focus).sum() for each in draws]
        return draws[int(np.argmax(shown))]

    def _degraded(self, images, rng):
        last, other = self.degrade
        for index in range(len(images)):
            newest = index == len(images) - 1 and len(images) > 1
            if rng.random() < (last if newest else other):
                images[index] = degrade(images[index], rng, SEEN[rng.integers(len(SEEN))])
        return images

    @property
    def num_videos(self):
        """Snippets of all sources (MGCNet Sec. III-C)."""
        return int(self.first_video[-1])


def _tensor(images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


class _Batches:
    """Batch sampler over the steps of a ClipDataset, from a step on: a process's share of each."""

    def __init__(self, dataset, start_step, rank, world):
        self.dataset, self.start_step = dataset, start_step
        self.rank, self.world = rank, world
        for length, clips in zip(dataset.lengths, np.diff(dataset.starts)):
            if clips % world:
                raise ValueError(
                    f'a step of {clips * length} frames has {clips} clips of {length}, which '
                    f'{world} processes cannot share evenly: change frames_per_step, clip_lengths '
                    'or the number of processes')

    def __iter__(self):
        starts, lengths = self.dataset.starts, self.dataset.lengths
        for step in range(self.start_step, len(lengths)):
            numbers = range(starts[step], starts[step + 1])[self.rank::self.world]
            yield [(number, int(lengths[step])) for number in numbers]

    def __len__(self):
        # of the whole run, also when resumed: the trainer counts batches from the first step
        return len(self.dataset.lengths)


def build_loader(dataset, start_step, workers, rank=0, world=1):
    """
    Loader over the batches from ``start_step`` on, for process ``rank`` of ``world``.

    ValueError if the processes cannot share the clips of every step evenly.
    """
    batches = _Batches(dataset, start_step, rank, world)
    return DataLoader(dataset, batch_sampler=batches, num_workers=workers)
