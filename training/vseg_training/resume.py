# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that a run goes on from: written whole or not at all, and checked before use."""
import os
from pathlib import Path

from lightning.pytorch.plugins.io import TorchCheckpointIO
import torch

from .recipe import from_dict, to_dict


# keys that change nothing of what is trained
FREE = ('data.workers', 'optim.validate_every', 'optim.checkpoint_every')


class WholeCheckpoints(TorchCheckpointIO):
    """
    Writes a checkpoint beside its place and then moves it there, so that no half one is ever read.

    Lightning's own goes through the system's folder for temporary files, which is atomic on one
    file system only. ValueError for weights that are not finite, OSError if the file cannot be
    written; both leave the last whole checkpoint where it is.
    """

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        """Write one checkpoint."""
        path = Path(path)
        for name in ('current_model_state', 'state_dict'):
            for key, value in checkpoint.get(name, {}).items():
                if not torch.isfinite(value).all():
                    raise ValueError(
                        f'{key} is not finite after step {checkpoint["global_step"]}: lower '
                        f'optim.lr or use precision 32-true; {path} of before is kept')
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


def _reason(error):
    # torch raises a RuntimeError of its own on top of what went wrong with the file
    while error.__context__ is not None and not isinstance(error, OSError):
        error = error.__context__
    return str(error).splitlines()[0]


def resume_step(path, recipe):
    """
    Step that a run's last.ckpt goes on from.

    ValueError if the file is damaged, or of a recipe that differs in more than ``FREE``.
    """
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        step = checkpoint['global_step']
        old = _flat(to_dict(from_dict(checkpoint['hyper_parameters']['recipe'])))
    except Exception as error:
        raise ValueError(
            f'{path} is damaged, or no checkpoint of vseg-train fit ({type(error).__name__}): '
            'remove it to start anew, or put a whole copy back') from error
    new = _flat(to_dict(recipe))
    for key in old | new:
        before, now = old.get(key), new.get(key)
        if key not in FREE and before != now:
            raise ValueError(
                f'{path} is of a run with {key} {before}, but the recipe has {now}: give '
                'another --output, or remove it to start anew')
    return step


def _flat(tree, prefix=''):
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {
            f'{prefix}{key}': value}
    return flat
