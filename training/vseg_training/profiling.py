# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a training step spends its time on: real data against the same steps on noise."""
from collections.abc import Callable, Sequence
from pathlib import Path
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import EMAWeightAveraging
import torch
from torch.utils.data import default_collate

from ros_vseg.labels import load_label_set

from .data import Clip, ClipDataset
from .progress import peak_memory, SpeedReport, WaitTimer, WARM_UP
from .recipe import Recipe, to_dict
from .task import SegmentationTask
from .train import build_data, keep_freed_memory, load_teacher, precision


class _Noise(torch.utils.data.Dataset):
    """Per step of a ClipDataset one batch of noise of the same shape, made beforehand."""

    def __init__(self, dataset: ClipDataset, num_classes: int) -> None:
        self.lengths, self.sources = dataset.lengths, dataset.sources
        self.batches: dict[int, dict[str, Any]] = {}
        for step, length in enumerate(self.lengths):
            if length not in self.batches:
                numbers = range(*dataset.starts[step:step + 2])
                batch = default_collate([dataset[number, int(length)] for number in numbers])
                for name, high in (('images', 256), ('distant', 256), ('labels', num_classes)):
                    if name in batch:
                        batch[name].random_(0, high)
                self.batches[length] = batch

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, step: int) -> dict[str, Any]:
        return self.batches[self.lengths[step]]


def _train(recipe: Recipe, loader: torch.utils.data.DataLoader, num_videos: int) -> SpeedReport:
    """Train a fresh network over a loader and report its speed."""
    lightning.seed_everything(recipe.seed, verbose=False)
    waits = WaitTimer()
    report = SpeedReport(waits)
    trainer = lightning.Trainer(
        max_steps=recipe.optim.max_steps, precision=precision(recipe), devices=1,
        callbacks=[EMAWeightAveraging(decay=recipe.optim.ema), report], profiler=waits,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False)
    trainer.fit(SegmentationTask(
        to_dict(recipe), num_videos, teacher=load_teacher(recipe)), loader)
    return report


def _stages(dataset: ClipDataset, frames: int = 64) -> tuple[float, float]:
    """CPU seconds per frame of decoding, and of augmentation with the rest."""
    decode, counted, loads = 0.0, 0, [source.load for source in dataset.sources]

    def timed(load: Callable[[Sequence[Any]], Clip]) -> Callable[[Sequence[Any]], Clip]:
        def wrapper(keys: Sequence[Any]) -> Clip:
            nonlocal decode
            begin = time.process_time()
            clip = load(keys)
            decode += time.process_time() - begin
            return clip
        return wrapper

    for source, load in zip(dataset.sources, loads):
        setattr(source, 'load', timed(load))
    begin = time.process_time()
    for step, length in enumerate(dataset.lengths):
        if counted < frames:
            for number in range(*dataset.starts[step:step + 2]):
                dataset[number, int(length)]
                counted += length
    whole = time.process_time() - begin
    for source, load in zip(dataset.sources, loads):
        setattr(source, 'load', load)
    return decode / counted, (whole - decode) / counted


def profile(recipe: Recipe, steps: int) -> str:
    """
    Measure training steps, once with the recipe's data and once on noise.

    The batches of noise lie ready, so that they show how fast training can be. Nothing is written
    but the cache of rendered streets.

    Args:
        recipe: Its ``optim.max_steps`` is changed.
        steps: How many to measure, after a warm-up.

    Returns:
        Markdown table and a line of text.
    """
    keep_freed_memory()
    recipe.optim.max_steps = WARM_UP + steps
    loader, _ = build_data(recipe, Path('runs') / 'cache', 0)
    dataset: Any = loader.dataset
    decode, augment = _stages(dataset)
    noise = torch.utils.data.DataLoader(
        _Noise(dataset, len(load_label_set(recipe.data.label_set).names)), batch_size=None)
    reports = [_train(recipe, each, dataset.num_videos) for each in (loader, noise)]
    real, floor = (report.images / report.seconds for report in reports)
    return _table(reports) + (
        f'\n\nTraining runs at {real / floor:.0%} of the speed on noise. A frame costs '
        f'{1000 * decode:.1f} ms of CPU to decode and {1000 * augment:.1f} ms to augment; '
        f'peak memory {peak_memory() / 1e9:.2f} GB.')


def _table(reports: Sequence[SpeedReport]) -> str:
    """Markdown table of the speed on data and on noise."""
    rows = [
        ('seconds per step', *(f'{r.seconds / r.steps:.3f}' for r in reports)),
        ('of it waiting for data', *(f'{r.waits.seconds / r.steps:.4f}' for r in reports)),
        ('share of waiting', *(f'{r.waits.seconds / r.seconds:.1%}' for r in reports)),
        ('images per second', *(f'{r.images / r.seconds:.1f}' for r in reports))]
    lines = ['| | training | noise |', '| --- | ---: | ---: |',
             *(f'| {" | ".join(row)} |' for row in rows)]
    return '\n'.join(lines)
