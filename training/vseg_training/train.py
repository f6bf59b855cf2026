# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Training of students and teachers: read it top to bottom."""
import ctypes
import logging
import os
from pathlib import Path
import sys
import warnings

import lightning
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
import torch

from ros_vseg.labels import load_label_set

from .checkpoint import initialise, load_network
from .data import Augmentation, build_loader, build_source, ClipDataset, SoftLabels
from .from_bundle import initialise_from_bundle
from .models import sync_batch_norm
from .progress import ProgressBar, SpeedReport, WaitTimer
from .recipe import to_dict
from .resume import resume_step, WholeCheckpoints
from .task import class_ids, SegmentationTask


BUNDLE_FRAMES = 32  # frames that a bundle's batch norms are told again from
log = logging.getLogger(__name__)


class _WholeSplit(torch.utils.data.Dataset):
    """One item that stands for the whole validation split, which is streamed in order."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return index


def training_sources(recipe, cache):
    """Build the list of ClipSource of ``data.train``; rendered streets are kept in cache."""
    if not recipe.data.train:
        raise ValueError('the recipe has no data.train: list at least one source')
    return [build_source(source, recipe, cache) for source in recipe.data.train]


def build_data(recipe, cache, start_step):
    """Training loader from a step on, and validation loader or None."""
    data, teacher = recipe.data, recipe.distill.teacher
    soft_labels = None
    if _on_disk(teacher):
        soft_labels = SoftLabels(teacher, load_label_set(data.label_set).names)
    dataset = ClipDataset(
        training_sources(recipe, cache), [s.weight for s in data.train],
        data.clip_lengths, data.frames_per_step,
        Augmentation(data.crop, data.scale, data.brightness, data.contrast, data.saturation),
        recipe.seed, recipe.optim.max_steps, distant=bool(recipe.loss.long_term),
        soft_labels=soft_labels, stills=[s.stills for s in data.train],
        degrade=(data.degrade, data.degrade_other),
        focus=class_ids(data.focus, data.label_set, 'data.focus'))
    val = None
    if data.val is not None:
        source = build_source(data.val, recipe, cache)
        source.frames()  # ValueError without labels to measure by
        val = torch.utils.data.DataLoader(_WholeSplit(source))
    return build_loader(dataset, start_step, data.workers, *processes()), val


def precision(recipe):
    """Lightning's name of the number format to train in (``optim.precision``)."""
    if recipe.optim.precision != 'auto':
        return recipe.optim.precision
    return 'bf16-mixed' if torch.cuda.is_available() else '32-true'


def _start(network, path, dataset):
    """Take the weights of ``model.init``: a checkpoint, or a bundle, which needs some frames."""
    if Path(path).suffix != '.onnx':
        initialise(network, path)
        return
    count = min(BUNDLE_FRAMES, len(dataset))
    images = torch.stack([dataset[number, 1]['images'][0] for number in range(count)])
    initialise_from_bundle(network, path, images)


def _on_disk(teacher):
    return teacher is not None and Path(teacher).is_dir()


def load_teacher(recipe):
    """Fixed network of ``distill.teacher``; None without one or with soft labels on disk."""
    path = recipe.distill.teacher
    if path is None or _on_disk(path):
        return None
    teacher, other = load_network(path, adjust=False)
    mine, names = (load_label_set(r.data.label_set).names for r in (recipe, other))
    if list(mine) != list(names):
        raise ValueError(f'teacher {path} knows the classes {", ".join(names)}, the recipe '
                         f'{", ".join(mine)}: distil from a teacher of the same label set')
    return teacher


def processes():
    """(rank, number of processes) as torchrun set them; (0, 1) without it."""
    if not _by_torchrun():
        return 0, 1
    return int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])


def _by_torchrun():
    return 'TORCHELASTIC_RUN_ID' in os.environ


def _devices(recipe):
    """Trainer arguments: one device, or under torchrun one per process."""
    if not _by_torchrun():
        return {'devices': 1}
    local, gpus = int(os.environ['LOCAL_WORLD_SIZE']), torch.cuda.device_count()
    if 0 < gpus < local:
        raise ValueError(f'torchrun starts {local} processes on a machine with {gpus} GPU(s): '
                         'lower --nproc-per-node')
    # a clip shorter than the context leaves heads of a teacher unused
    strategy = DDPStrategy(find_unused_parameters=recipe.model.short_term == 'msc')
    return {'devices': local, 'num_nodes': processes()[1] // local, 'strategy': strategy,
            'sync_batchnorm': gpus > 0}


def keep_freed_memory():
    """
    Let glibc keep freed blocks: on a CPU a fifth of a step went into page faults (measured).

    Sets M_MMAP_THRESHOLD and M_TRIM_THRESHOLD; does nothing where the C library is not glibc.
    """
    if sys.platform == 'linux' and hasattr(ctypes.CDLL(None), 'mallopt'):
        for option in (-3, -1):
            ctypes.CDLL(None).mallopt(option, 2 ** 31 - 1)


def fit(recipe, output):
    """
    Train a recipe into a folder; run it again to resume after a kill.

    Under torchrun the processes share every step's clips, and the folder. Writes last.ckpt,
    best.ckpt (highest val mIoU) and the metrics as CSV. Returns the path of the checkpoint to use.
    ValueError for a loss that is not finite, or a last.ckpt that is damaged or of another recipe;
    OSError for a checkpoint that cannot be written.
    """
    keep_freed_memory()
    lightning.seed_everything(recipe.seed, verbose=False)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    last = output / 'last.ckpt'
    start = 0
    if last.exists():
        start = resume_step(last, recipe)
        log.info('resuming %s at step %d', last, start)
        # the loader is resumable: it starts at that step
        warnings.filterwarnings('ignore', '.*your dataloader is not resumable.*')
        metrics = output / 'metrics' / 'metrics.csv'
        if metrics.exists() and processes()[0] == 0:  # the logger would delete it
            metrics.rename(metrics.with_name(f'metrics-before-{start}.csv'))
    loader, val = build_data(recipe, output.parent / 'cache', start)
    options, waits = recipe.optim, WaitTimer()
    callbacks = [
        ProgressBar(), EMAWeightAveraging(decay=options.ema), SpeedReport(waits),
        ModelCheckpoint(output, 'last', every_n_train_steps=options.checkpoint_every,
                        enable_version_counter=False, save_on_train_epoch_end=False)]
    if options.max_steps % options.checkpoint_every:
        callbacks.append(ModelCheckpoint(  # the end, which is no multiple
            output, 'last', every_n_train_steps=options.max_steps, enable_version_counter=False,
            save_on_train_epoch_end=False))
    if val is not None:
        callbacks.append(ModelCheckpoint(
            output, 'best', monitor='val/mIoU', mode='max', enable_version_counter=False))
    trainer = lightning.Trainer(
        max_steps=options.max_steps, max_epochs=-1, precision=precision(recipe),
        callbacks=callbacks, logger=CSVLogger(output, 'metrics', version=''),
        plugins=[WholeCheckpoints()], profiler=waits, **_devices(recipe),
        val_check_interval=options.validate_every if val is not None else None,
        check_val_every_n_epoch=None, num_sanity_val_steps=0,
        log_every_n_steps=min(20, options.checkpoint_every),
        limit_val_batches=1 if val is not None else 0, use_distributed_sampler=False)
    task = SegmentationTask(to_dict(recipe), loader.dataset.num_videos,
                            pretrained=not start, teacher=load_teacher(recipe))
    if recipe.model.init and not start:
        _start(task.network, recipe.model.init, loader.dataset)
    if trainer.world_size > 1 and trainer.strategy.root_device.type == 'cpu':
        sync_batch_norm.convert(task)
    trainer.fit(task, loader, val, ckpt_path=last if start else None, weights_only=True)
    best = output / 'best.ckpt'
    return best if best.exists() else last
