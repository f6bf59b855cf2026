# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What ends a run whose loss is no number any more."""
from collections.abc import Mapping

import torch
from torch import Tensor


class NonFiniteLoss(ValueError):
    """A loss term became NaN or infinite."""


def stop_not_finite(terms: Mapping[str, Tensor], clips: list[str], step: int, processes: int
                    ) -> None:
    """
    Raise NonFiniteLoss; all processes come here at once, as they see the same mean.

    Args:
        terms: Scalars by name, of this process.
        clips: Names of its clips.
        step: Of the run.
        processes: How many train.
    """
    bad_terms = [name for name, value in terms.items() if not torch.isfinite(value)]
    bad_clips = clips if bad_terms else []
    terms_of_all, clips_of_all = [bad_terms], [bad_clips]
    if processes > 1:
        terms_of_all, clips_of_all = _gather(bad_terms, processes), _gather(bad_clips, processes)
    bad, named = _distinct(terms_of_all), ', '.join(_distinct(clips_of_all))
    what = f'loss term {" and ".join(bad)}' if bad else 'the weighted sum of the loss terms'
    place = f'step {step}{", clips " if named else ""}{named}'
    fix = ('lower optim.lr or use precision 32-true' if bad else
           'lower the weights in loss, terms and tasks')  # each term by itself is finite
    raise NonFiniteLoss(
        f'{what} is not finite at {place}: {fix}; the last good checkpoint is kept')


def _gather(names: list[str], processes: int) -> list[list[str]]:
    """Lists of names of all processes."""
    gathered: list[list[str]] = [[] for _ in range(processes)]
    torch.distributed.all_gather_object(gathered, names)
    return gathered


def _distinct(lists: list[list[str]]) -> list[str]:
    """All names of some lists, each once, in their order."""
    return list(dict.fromkeys(name for each in lists for name in each))
