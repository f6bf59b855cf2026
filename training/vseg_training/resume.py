# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that a run resumes from: written whole or not at all, and checked before use."""
import logging
import os
from pathlib import Path
from typing import Any
import zipfile

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
import torch

from .recipe import from_dict, Recipe, to_dict


# keys that change nothing of what is trained
FREE = ('data.workers', 'optim.validate_every', 'optim.checkpoint_every')
log = logging.getLogger(__name__)


class WholeCheckpoints(TorchCheckpointIO):
    """
    Writes a checkpoint to a temporary file beside it and renames that: none is ever half written.

    Lightning's own writer goes through the system's folder for temporary files, which is atomic
    only where that is on the same file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path,
                        storage_options: Any = None) -> None:
        """
        Write one checkpoint.

        Raises:
            ValueError: A weight is not finite.
            OSError: The file cannot be written. Both leave the last whole checkpoint in place.
        """
        path = Path(path)
        _refuse_not_finite(checkpoint, path)
        partial = path.with_suffix('.tmp')
        try:
            with partial.open('wb') as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f'checkpoint {path} could not be written ({_reason(error)}), the one of before is '
                'kept: make room there and run fit again to resume') from error
        finally:
            partial.unlink(missing_ok=True)


class LastCheckpoint(Checkpoint):
    """
    Writes last.ckpt every some steps and at the end.

    Where a validation is due too it comes first, so that a run that is killed meanwhile repeats
    it when it resumes.

    Args:
        path: Of last.ckpt.
        every: In steps.
        validated: After how many steps each validation comes; None: there is none.
    """

    def __init__(self, path: Path, every: int, validated: int | None) -> None:
        self.path, self.every, self.validated = path, every, validated

    def on_train_batch_end(self, trainer: Trainer, *given: Any) -> None:
        """Write it where no validation follows."""
        if not self.validated or trainer.global_step % self.validated:
            self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it, now that best.ckpt is right."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps:
            trainer.save_checkpoint(self.path)


class BestCheckpoint(ModelCheckpoint):
    """
    Writes best.ckpt where a metric is higher than in all validations before.

    A run that resumes asks the best.ckpt of its folder what the metric was: last.ckpt may be older
    than the last validation, and Lightning forgets the metric where the folder was moved.

    Args:
        output: Folder of the run.
        monitor: Name of the metric.
    """

    def __init__(self, output: Path, monitor: str) -> None:
        super().__init__(output, 'best', monitor=monitor, mode='max',
                         enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take nothing from last.ckpt."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the metric of best.ckpt, where the run resumes; ValueError if it is damaged."""
        super().on_train_start(trainer, pl_module)
        path = Path(str(self.dirpath)) / 'best.ckpt'
        if not trainer.global_step or not path.exists():
            return
        try:
            states = read_whole(path)['callbacks'].values()
            score = next(state['best_model_score'] for state in states
                         if state.get('monitor') == self.monitor)
        except Exception as error:
            raise _damaged(path, error, 'remove it, and the best of what follows takes its place'
                           ) from error
        self.best_model_score = self.kth_value = score
        self.best_model_path = self.kth_best_model_path = str(path)
        self.best_k_models = {str(path): score}


def set_aside(path: Path) -> None:
    """Rename a best.ckpt of an earlier run, which the one that starts must not hand out."""
    if path.exists():
        aside = path.with_name(f'{path.stem}-before{path.suffix}')
        log.warning('%s is of an earlier run: it is %s now', path, aside)
        path.replace(aside)


def _refuse_not_finite(checkpoint: dict[str, Any], path: Path) -> None:
    for name in ('current_model_state', 'state_dict'):
        for key, value in checkpoint.get(name, {}).items():
            if not torch.isfinite(value).all():
                raise ValueError(
                    f'{key} is not finite after step {checkpoint["global_step"]}: lower '
                    f'optim.lr or use precision 32-true; {path} of before is kept')


def _damaged(path: Path, error: Exception, fix: str) -> ValueError:
    return ValueError(f'{path} is damaged, or not a checkpoint of vseg-train fit '
                      f'({type(error).__name__}): {fix}, or put a whole copy back')


def _reason(error: BaseException) -> str:
    """First line of what went wrong with the file; torch hides it behind a RuntimeError."""
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    return str(error).splitlines()[0]


def read_whole(path: str | Path) -> dict[str, Any]:
    """
    Read a checkpoint, nothing in it trusted.

    Raises:
        OSError: The file cannot be read.
        Exception: It is damaged, or no checkpoint; of any kind, by torch and zipfile.
    """
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()  # torch compares no checksums: a flipped bit would pass
    if broken:
        raise ValueError(f'the checksum of {broken} is wrong')
    found: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
    return found


def resume_step(path: Path, recipe: Recipe) -> int:
    """
    Read from which step a run's last.ckpt resumes.

    Raises:
        ValueError: The file is damaged, or of a recipe that differs in more than ``FREE``.
    """
    try:
        checkpoint = read_whole(path)
        step: int = checkpoint['global_step']
        old = _flat(to_dict(from_dict(checkpoint['hyper_parameters']['recipe'])))
    except Exception as error:
        raise _damaged(path, error, 'remove it to start anew') from error
    new = _flat(to_dict(recipe))
    for key in old | new:
        before, now = old.get(key), new.get(key)
        if key not in FREE and before != now:
            raise ValueError(
                f'{path} is of a run with {key} {before}, but the recipe has {now}: give '
                'another --output, or remove it to start anew')
    return step


def _flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """Nested dict as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f'{prefix}{key}.')
        else:
            flat[f'{prefix}{key}'] = value
    return flat
