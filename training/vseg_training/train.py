# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Training of students and teachers: ``fit`` reads from top to bottom."""
from collections.abc import Sequence
import ctypes
from dataclasses import replace
import logging
import os
from pathlib import Path
import sys
from typing import Any
import warnings

import lightning
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
import torch
from torch.utils.data import DataLoader, Dataset

from ros_vseg.labels import load_label_set

from .checkpoint import initialise, load_network
from .data import Augmentation, build_loader, build_source, ClipDataset, ClipSource, SoftLabels
from .data.clips import all_void, not_measured, only_void
from .distill import prepare_terms
from .from_bundle import initialise_from_bundle
from .models import sync_batch_norm
from .models.kinds import Network, refuse_single_values
from .models.options import DepthTask, Model
from .progress import ProgressBar, SpeedReport, WaitTimer
from .recipe import chosen_by, class_ids, Recipe, to_dict
from .recipe_limits import check_limits
from .resume import BestCheckpoint, LastCheckpoint, resume_step, set_aside, WholeCheckpoints
from .task import SegmentationTask
from .terms import needs


BUNDLE_FRAMES = 32  # frames that the batch norms of a bundle's weights are computed from
log = logging.getLogger(__name__)


class _WholeSplit(Dataset):
    """One item that stands for the whole validation split, which is streamed in order."""

    def __init__(self, source: ClipSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return index


def training_sources(recipe: Recipe, cache: Path) -> list[ClipSource]:
    """
    Build the sources of ``data.train``.

    Args:
        recipe: The experiment.
        cache: Folder that keeps rendered streets.

    Raises:
        ValueError: There are none, or one cannot be built.
    """
    if not recipe.data.train:
        raise ValueError('the recipe has no data.train: list at least one source')
    return [build_source(source, recipe, cache) for source in recipe.data.train]


def build_data(recipe: Recipe, cache: Path, start_step: int) -> tuple[DataLoader, Any]:
    """
    Build the data of a run.

    Args:
        recipe: The experiment.
        cache: Folder that keeps rendered streets.
        start_step: First step of the training loader.

    Returns:
        Training loader (its ``dataset`` is a ClipDataset), and validation loader or None.
    """
    data, teacher = recipe.data, recipe.distill.teacher
    _refuse_without_labels(recipe)
    soft_labels = None
    if teacher is not None and _on_disk(teacher):
        soft_labels = SoftLabels(teacher, load_label_set(data.label_set).names)
    sources = training_sources(recipe, cache)
    if recipe.loss.segmentation and only_void(sources):
        raise ValueError(all_void('train'))
    dataset = ClipDataset(
        sources, [s.weight for s in data.train],
        data.clip_lengths, data.frames_per_step,
        Augmentation(data.crop, data.scale, data.brightness, data.contrast, data.saturation),
        recipe.seed, recipe.optim.max_steps, distant=bool(recipe.loss.long_term),
        soft_labels=soft_labels, stills=[s.stills for s in data.train],
        degrade=(data.degrade, data.degrade_other),
        focus=class_ids(data.focus, data.label_set, 'data.focus'),
        flow=_with_flow(recipe), focal=_focal(recipe))
    val = None
    if data.val is not None:
        source = build_source(data.val, recipe, cache)
        source.frames()  # ValueError without a frame
        if chosen_by(recipe) == 'mIoU':
            _refuse_unmeasured(source)
        val = DataLoader(_WholeSplit(source))
    return build_loader(dataset, start_step, data.workers, *processes()), val


def _with_flow(recipe: Recipe) -> bool:
    """Whether clips bring their flow; ValueError where a term needs it and no clip has any."""
    data, of_clips = recipe.data, needs(recipe.terms, 'frames')
    if of_clips and max(data.clip_lengths) < 2:
        raise ValueError(f'terms.{of_clips[0]} compares frames, but data.clip_lengths is '
                         f'{list(data.clip_lengths)}: add a length of 2 or more')
    wanting = needs(recipe.terms, 'flow')
    if wanting and not any(source.stills > 0 and source.weight > 0 for source in data.train):
        raise ValueError(f'terms.{wanting[0]} needs clips with flow, which those made of stills '
                         'have: set stills of a source in data.train above 0')
    return bool(wanting)


def _refuse_without_labels(recipe: Recipe) -> None:
    """Raise ValueError where labels are needed that ``ignore_labels`` hides."""
    data = recipe.data
    if data.val is not None and data.val.ignore_labels:
        raise ValueError('data.val is measured by its labels: leave ignore_labels out of it')
    if data.train and data.train[0].ignore_labels and recipe.loss.class_balance:
        raise ValueError('loss.class_balance counts the classes of the first source in '
                         'data.train, which ignores its labels: list one with labels first')


def _refuse_unmeasured(val: ClipSource) -> None:
    """Raise ValueError where the mIoU would be NaN, of which the first stays the best."""
    if not any(val.has_labels(key) for drive in val.drives for key in drive):
        raise ValueError(not_measured())
    if only_void([val]):
        raise ValueError(all_void('val'))


def _focal(recipe: Recipe) -> float | None:
    """Focal length that depths are for; None: no geometry. ValueError where no source has any."""
    tasks = recipe.tasks
    if not tasks.channels:
        return None
    shaped = [source for source in recipe.data.train if source.weight > 0 and (
        source.kind == 'street' or source.focal and not tasks.normals)]
    if not shaped:
        raise ValueError('tasks needs data with depth or normals: add a source of kind street, '
                         'which has both, to data.train, or give a folder with depth its focal')
    val = recipe.data.val
    if val and not recipe.loss.segmentation and val.kind != 'street' and not val.focal:
        raise ValueError('loss.segmentation is 0, so that best.ckpt is chosen by depth, which '
                         'data.val has not: give it depth and its focal, or a street')
    return (tasks.depth or DepthTask()).focal


def precision(recipe: Recipe) -> Any:
    """Lightning's name of the number format to train in (``optim.precision``)."""
    if recipe.optim.precision != 'auto':
        return recipe.optim.precision
    return 'bf16-mixed' if torch.cuda.is_available() else '32-true'


def _start(network: Network, path: str, classes: Sequence[str], dataset: ClipDataset) -> None:
    """Take the weights of ``model.init``: a checkpoint, or a bundle, which needs some frames."""
    if Path(path).suffix != '.onnx':
        initialise(network, path, classes)
        return
    count = min(BUNDLE_FRAMES, len(dataset))
    images = torch.stack([dataset[number, 1]['images'][0] for number in range(count)])
    initialise_from_bundle(network, Path(path), classes, images)


def _on_disk(teacher: str) -> bool:
    return Path(teacher).is_dir()


def load_teacher(recipe: Recipe) -> Network | None:
    """
    Load the network of ``distill.teacher``; None without one or with soft labels on disk.

    Raises:
        ValueError: It is not a checkpoint of ``vseg-train fit``, or of another label set.
    """
    path = recipe.distill.teacher
    if path is None or _on_disk(path):
        return None
    teacher, its_recipe = load_network(path, adjust=False)
    wanted = load_label_set(recipe.data.label_set).names
    known = load_label_set(its_recipe.data.label_set).names
    if list(wanted) != list(known):
        raise ValueError(f'teacher {path} knows the classes {", ".join(known)}, the recipe '
                         f'{", ".join(wanted)}: distil from a teacher of the same label set')
    own, its = recipe.tasks.depth, its_recipe.tasks.depth
    if own and its and replace(own, weight=1, sharpness=1) != replace(its, weight=1, sharpness=1):
        raise ValueError(f'tasks.depth is {own}, but of the teacher {path} it is {its}: they must '
                         'have the same bins, nearest, farthest and focal')
    return teacher


def _is_teacher(recipe: Recipe) -> bool:
    return isinstance(recipe.model, Model) and recipe.model.short_term == 'msc'


def processes() -> tuple[int, int]:
    """(rank, number of processes) as torchrun set them; (0, 1) without it."""
    if not _by_torchrun():
        return 0, 1
    return int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])


def _by_torchrun() -> bool:
    return 'TORCHELASTIC_RUN_ID' in os.environ


def _devices(recipe: Recipe) -> dict[str, Any]:
    """Trainer arguments: one device, or under torchrun one per process."""
    if not _by_torchrun():
        return {'devices': 1}
    local, gpus = int(os.environ['LOCAL_WORLD_SIZE']), torch.cuda.device_count()
    if 0 < gpus < local:
        raise ValueError(f'torchrun starts {local} processes on a machine with {gpus} GPU(s): '
                         'lower --nproc-per-node')
    # a clip shorter than the context leaves heads of a teacher unused
    strategy = DDPStrategy(find_unused_parameters=_is_teacher(recipe))
    return {'devices': local, 'num_nodes': processes()[1] // local, 'strategy': strategy,
            'sync_batchnorm': gpus > 0}


def keep_freed_memory() -> None:
    """
    Let glibc keep freed blocks: on a CPU a fifth of a step went into page faults (measured).

    Sets M_MMAP_THRESHOLD and M_TRIM_THRESHOLD; does nothing where the C library is not glibc.
    """
    if sys.platform == 'linux' and hasattr(ctypes.CDLL(None), 'mallopt'):
        for option in (-3, -1):
            ctypes.CDLL(None).mallopt(option, 2 ** 31 - 1)


def fit(recipe: Recipe, output: str | Path) -> Path:
    """
    Train a recipe into a folder; run it again to resume after a kill.

    Under torchrun the processes share every step's clips, and the folder. Writes last.ckpt,
    best.ckpt (highest val mIoU, or delta1 of depth where segmentation has no weight) and the
    metrics as CSV.

    Args:
        recipe: The experiment.
        output: Folder, made if it does not exist.

    Returns:
        Path of the checkpoint to use: best.ckpt, or without validation last.ckpt.

    Raises:
        ValueError: A number of the recipe is outside its limits, a loss is not finite, or
            last.ckpt is damaged or of another recipe.
        OSError: A checkpoint cannot be written.
    """
    check_limits(recipe)  # a recipe need not come from a file
    keep_freed_memory()
    lightning.seed_everything(recipe.seed, verbose=False)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    last, best = output / 'last.ckpt', output / 'best.ckpt'
    start = _resume(last, recipe) if last.exists() else 0
    loader, val = build_data(recipe, output.parent / 'cache', start)
    dataset: Any = loader.dataset
    trainer = _trainer(recipe, output, validated=val is not None)
    teacher = load_teacher(recipe)
    task = SegmentationTask(to_dict(recipe), dataset.num_videos, pretrained=not start,
                            teacher=teacher)
    if recipe.data.frames_per_step == 1:
        refuse_single_values(task.network, recipe.data.crop)
    if recipe.model.init and not start:
        classes = load_label_set(recipe.data.label_set).names
        _start(task.network, recipe.model.init, classes, dataset)
    if not start:
        if processes()[0] == 0:
            set_aside(best)
        # a checkpoint has what they learned
        prepare_terms(task.terms, teacher, dataset, trainer.strategy.root_device)
    if trainer.world_size > 1 and trainer.strategy.root_device.type == 'cpu':
        sync_batch_norm.convert(task)
    trainer.fit(task, loader, val, ckpt_path=last if start else None, weights_only=True)
    return best if best.exists() else last


def _resume(last: Path, recipe: Recipe) -> int:
    """Step that a run resumes at; the metrics logged so far are moved aside."""
    start = resume_step(last, recipe)
    log.info('resuming %s at step %d', last, start)
    # the loader is resumable: it starts at that step
    warnings.filterwarnings('ignore', '.*your dataloader is not resumable.*')
    metrics = last.parent / 'metrics' / 'metrics.csv'
    if metrics.exists() and processes()[0] == 0:  # the logger would delete it
        moved, again = metrics.with_name(f'metrics-before-{start}.csv'), 2
        while moved.exists():
            moved, again = metrics.with_name(f'metrics-before-{start}-{again}.csv'), again + 1
        metrics.rename(moved)
    return start


def _trainer(recipe: Recipe, output: Path, validated: bool) -> lightning.Trainer:
    """Build Lightning's trainer of a run that writes into a folder."""
    options, waits = recipe.optim, WaitTimer()
    callbacks = [ProgressBar(), EMAWeightAveraging(decay=options.ema),
                 SpeedReport(waits, output / 'speed.json'),
                 *_checkpoints(recipe, output, validated)]
    return lightning.Trainer(
        max_steps=options.max_steps, max_epochs=-1, precision=precision(recipe),
        callbacks=callbacks, logger=CSVLogger(output, 'metrics', version=''),
        plugins=[WholeCheckpoints()], profiler=waits, **_devices(recipe),
        val_check_interval=options.validate_every if validated else None,
        check_val_every_n_epoch=None, num_sanity_val_steps=0,
        log_every_n_steps=min(20, options.checkpoint_every),
        limit_val_batches=1 if validated else 0, use_distributed_sampler=False,
        benchmark=True)  # cuDNN tries its algorithms: all steps have one shape


def _checkpoints(recipe: Recipe, output: Path, validated: bool) -> list[Callback]:
    """Callbacks that write best.ckpt and, after it, last.ckpt."""
    options = recipe.optim
    last = LastCheckpoint(output / 'last.ckpt', options.checkpoint_every,
                          options.validate_every if validated else None)
    return [BestCheckpoint(output, f'val/{chosen_by(recipe)}'), last] if validated else [last]
