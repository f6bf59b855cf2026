# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""From sources to batches: every sample is a function of (seed, sample number) alone."""
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class ClipDataset(Dataset):
    """
    Resumable stream of augmented clips from weighted sources.

    Every step draws a clip length from ``lengths`` and holds ``frames`` frames in all, so that
    short clips bring more scenes and long ones more context. All draws are functions of the seed
    and the step, so a resumed run sees exactly what an uninterrupted one would. Each source is
    walked through in a new random order per pass. Items, by (sample number, clip length):
    images uint8 [L, 3, h, w], labels int64 [L, h, w].
    """

    def __init__(self, sources, weights, lengths, frames, augmentation, seed, steps):
        if any(frames % length for length in lengths):
            raise ValueError(f'frames_per_step {frames} must be a multiple of all clip lengths '
                             f'{list(lengths)}')
        self.sources, self.augmentation, self.seed = sources, augmentation, seed
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
        clip = self.sources[which].clip(*frames[order[place]], length)
        clip = self.augmentation(clip, np.random.default_rng([self.seed, number]))
        images = torch.from_numpy(np.ascontiguousarray(clip.images.transpose(0, 3, 1, 2)))
        return images, torch.from_numpy(clip.labels.astype(np.int64))


class _Batches:
    """Batch sampler over the steps of a ClipDataset, from a step on."""

    def __init__(self, dataset, start_step):
        self.dataset, self.start_step = dataset, start_step

    def __iter__(self):
        starts, lengths = self.dataset.starts, self.dataset.lengths
        for step in range(self.start_step, len(lengths)):
            numbers = range(starts[step], starts[step + 1])
            yield [(number, int(lengths[step])) for number in numbers]

    def __len__(self):
        # of the whole run, also when resumed: the trainer counts batches from the first step
        return len(self.dataset.lengths)


def build_loader(dataset, start_step, workers):
    """Loader over the batches from ``start_step`` on."""
    return DataLoader(dataset, batch_sampler=_Batches(dataset, start_step), num_workers=workers)
