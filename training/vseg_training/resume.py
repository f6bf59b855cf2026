# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that a run resumes from: written whole or not at all, and checked before use."""
import os
from pathlib import Path
from typing import Any
import zipfile

from lightning.pytorch.plugins.io import TorchCheckpointIO
import torch

from .recipe import from_dict, Recipe, to_dict


# keys that change nothing of what is trained
FREE = ('data.workers', 'optim.validate_every', 'optim.checkpoint_every')


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


def _refuse_not_finite(checkpoint: dict[str, Any], path: Path) -> None:
    for name in ('current_model_state', 'state_dict'):
        for key, value in checkpoint.get(name, {}).items():
            if not torch.isfinite(value).all():
                raise ValueError(
                    f'{key} is not finite after step {checkpoint["global_step"]}: lower '
                    f'optim.lr or use precision 32-true; {path} of before is kept')


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
        raise ValueError(
            f'{path} is damaged, or not a checkpoint of vseg-train fit '
            f'({type(error).__name__}): remove it to start anew, or put a whole copy back'
        ) from error
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
