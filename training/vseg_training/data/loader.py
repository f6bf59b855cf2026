# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""From sources to batches: every sample is a function of (seed, sample number) alone."""
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from .augment import Augmentation, Draw, Matrices, still_flow, still_path
from .clips import Clip, ClipSource, PADDING, Pixels
from .degrade import degrade, SEEN
from .soft_labels import SoftLabels

Item = dict[str, Any]
Sample = tuple[int, int]  # number in the run, clip length

INTERVAL = 5  # frames between distant frames (MGCNet, R)


class DataError(ValueError):
    """A mistake in the data; loaders wrap it into their worker's traceback, its own line stays."""

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition('DataError: ')[2].strip())


class ClipDataset(Dataset[Item]):
    """
    Resumable stream of augmented clips from weighted sources.

    Every step draws a clip length and holds the same number of frames in all, so that short clips
    bring more scenes and long ones more context. All draws are functions of the seed and the step,
    so a resumed run sees exactly what an uninterrupted one would. Each source is walked through in
    a new random order per pass.

    An item, by (sample number, clip length), is a dict: images uint8 [L, 3, h, w], labels int64
    [L, h, w], places float32 [4] (``position_codes``), video (int, the snippet's number among all
    sources), name (of the last frame), and if asked for distant (images like the clip's) with
    distant_counted (bool [L, h, w], False for padding), targets (a dict, see
    ``SoftLabels.clip``), flow float32 [L - 1, 2, h, w] with flow_known (bool), and depth float32
    [L, h, w] and normals float32 [L, 3, h, w] (``Draw.geometry``).
    DataError for files that cannot be used.

    Args:
        sources: Of the clips.
        weights: How often each source is drawn, in relation to the others.
        lengths: Of clips, in frames.
        frames: Of a step.
        augmentation: Of every clip.
        seed: Decides all draws.
        steps: Of the whole run.
        distant: Whether clips bring as many distant frames as they have, ``INTERVAL`` apart.
        soft_labels: Has those of every frame.
        stills: For each source the share of its clips that are made of their last frame alone
            (``still_path``); none by default.
        degrade: How often the last frame of a clip of two frames or more is degraded, and how
            often any other frame is.
        focus: Class ids; half of the clips take the one of three crops that shows most of them.
        flow: Whether clips bring their exact flow (``still_flow``); it is known of those that are
            made of stills.
        focal: Of the camera that depths are for, in pixels of the crop; None: no geometry.

    Raises:
        ValueError: frames is not a multiple of every length, or a source has no frames to end at.
    """

    def __init__(self, sources: Sequence[ClipSource[Any]], weights: Sequence[float],
                 lengths: Sequence[int], frames: int, augmentation: Augmentation, seed: int,
                 steps: int, distant: bool = False, soft_labels: SoftLabels | None = None,
                 stills: Sequence[float] | None = None,
                 degrade: tuple[float, float] = (0.0, 0.0), focus: Sequence[int] = (),
                 flow: bool = False, focal: float | None = None) -> None:
        if any(frames % length for length in lengths):
            raise ValueError(f'frames_per_step {frames} must be a multiple of all clip lengths '
                             f'{list(lengths)}')
        self.sources, self.augmentation, self.seed = sources, augmentation, seed
        self.distant, self.soft_labels = distant, soft_labels
        self.stills = stills or [0.0] * len(sources)
        self.degrade, self.focus, self.flow = degrade, list(focus), flow
        self.focal = focal
        self.snippets = [source.snippets() for source in sources]
        # number of a source's first video among those of all, and the number of all
        self.first_video = np.cumsum([0, *(numbers[-1] for numbers in self.snippets)])
        self.frames = [source.frames() for source in sources]
        rng = np.random.default_rng(seed)
        self.lengths = rng.choice(lengths, steps)
        self.starts = np.concatenate([[0], np.cumsum(frames // self.lengths)])
        # which source a sample takes, and how many samples that source gave before
        self.choice = rng.choice(len(sources), self.starts[-1],
                                 p=np.asarray(weights, float) / np.sum(weights))
        self.rank = np.zeros(len(self.choice), np.int64)
        for index in range(len(sources)):
            drawn = self.choice == index
            self.rank[drawn] = np.arange(drawn.sum())

    def __len__(self) -> int:
        return len(self.choice)

    def __getitem__(self, sample: Sample) -> Item:
        number, length = sample
        which = self.choice[number]
        frames = self.frames[which]
        turn, place = divmod(int(self.rank[number]), len(frames))
        order = np.random.default_rng([self.seed, which, turn]).permutation(len(frames))
        drive, position = frames[order[place]]
        try:
            return self._item(which, drive, position, length, number)
        except (ValueError, OSError) as error:
            raise DataError(str(error)) from error

    def _item(self, which: int, drive: int, position: int, length: int, number: int) -> Item:
        """Sample ``number``: the clip of a source that ends at a frame of a drive."""
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
            straight = replace(draw, paths=None)
            item['distant'] = _tensor(straight.images(far))
            item['distant_counted'] = torch.from_numpy(
                straight.labels(np.zeros(far.shape[:3], np.uint8)) != PADDING)
        if self.flow:
            item['flow'] = torch.from_numpy(still_flow(draw.matrices(length), draw.crop))
            item['flow_known'] = still
        if self.focal:
            shapes = draw.geometry([source.geometry(key) for key in keys], self.focal)
            item['depth'], item['normals'] = map(torch.from_numpy, shapes)
        if self.soft_labels:
            item['targets'] = self.soft_labels.clip(
                source, keys, size, draw.matrices(length), draw.crop)
        return item

    def _draw(self, clip: Clip, size: tuple[int, ...], paths: Matrices | None,
              rng: np.random.Generator) -> Draw:
        """One draw of the augmentation, or of three the one that shows most of ``focus``."""
        draw = self.augmentation.draw(size, rng, paths)
        if not self.focus or rng.random() < 0.5:
            return draw
        draws = [draw]
        for _ in range(2):
            draws.append(self.augmentation.draw(size, rng, paths))
        shown = []
        for draw in draws:
            newest = draw.labels(clip.labels)[-1]
            shown.append(np.isin(newest, self.focus).sum())
        return draws[int(np.argmax(shown))]

    def _degraded(self, images: Pixels, rng: np.random.Generator) -> Pixels:
        """Images of a clip, some of them degraded in place."""
        last, other = self.degrade
        for index in range(len(images)):
            newest = index == len(images) - 1 and len(images) > 1
            chance = last if newest else other
            if rng.random() < chance:
                images[index] = degrade(images[index], rng, SEEN[rng.integers(len(SEEN))])
        return images

    @property
    def num_videos(self) -> int:
        """Snippets of all sources (MGCNet Sec. III-C)."""
        return int(self.first_video[-1])


def _tensor(images: Pixels) -> torch.Tensor:
    """Images [L, H, W, 3] as [L, 3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


class _Batches(Sampler[list[Sample]]):
    """Batch sampler over the steps of a ClipDataset, from a step on: a process's share of each."""

    def __init__(self, dataset: ClipDataset, start_step: int, rank: int, world: int) -> None:
        self.dataset, self.start_step = dataset, start_step
        self.rank, self.world = rank, world
        for length, clips in zip(dataset.lengths, np.diff(dataset.starts)):
            if clips % world:
                raise ValueError(
                    f'a step of {clips * length} frames has {clips} clips of {length}, which '
                    f'{world} processes cannot share evenly: change frames_per_step, clip_lengths '
                    'or the number of processes')

    def __iter__(self) -> Iterator[list[Sample]]:
        starts, lengths = self.dataset.starts, self.dataset.lengths
        for step in range(self.start_step, len(lengths)):
            length = int(lengths[step])
            numbers = range(starts[step] + self.rank, starts[step + 1], self.world)
            yield [(number, length) for number in numbers]

    def __len__(self) -> int:
        # of the whole run, also when resumed: the trainer counts batches from the first step
        return len(self.dataset.lengths)


def build_loader(dataset: ClipDataset, start_step: int, workers: int, rank: int = 0,
                 world: int = 1) -> DataLoader[Item]:
    """
    Loader over the batches from ``start_step`` on, for process ``rank`` of ``world``.

    Raises:
        ValueError: The processes cannot share the clips of every step evenly.
    """
    batches = _Batches(dataset, start_step, rank, world)
    return DataLoader(dataset, batch_sampler=batches, num_workers=workers,
                      pin_memory=torch.cuda.is_available())
