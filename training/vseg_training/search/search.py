# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Search at a small budget: every sampled module is trained and measured like a row of a suite."""
from collections.abc import Sequence
import json
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ros_vseg.files import write_whole

from .controller import cells_of, Controller, Ppo
from ..ablate import measure
from ..data import open_source
from ..data.same_frames import frames_of
from ..models.auxiliary import basic_cells, Cell
from ..recipe import from_dict, Recipe, to_dict
from ..task import build_network


TERM, SHOWN = 'overparameterised', 5  # rows of the table
log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A module, and how the network did that was trained with it, in percent."""

    cells: list[Cell]
    mean_iou: float
    accuracy: float

    @property
    def reward(self) -> float:
        """Geometric mean of its metrics."""
        return math.sqrt(self.mean_iou * self.accuracy)


def search(recipe: Recipe, output: str | Path, samples: int, batch: int = 4) -> str:
    """
    Search for the cells of ``terms.overparameterised`` (Liu's thesis, Sec. 6.3.4).

    A controller draws modules; each trains a network by the recipe, ``data.train`` being
    meta-train, and is rewarded by the geometric mean of mIoU and pixel accuracy on ``data.val``,
    meta-val; PPO updates the controller after every batch. The best of all is the result. What was
    measured before is read back, so that a search goes on where it was killed, and further with
    more samples. Writes search.json, all candidates in their order, the basic module first.

    Args:
        recipe: Without that term; its seed is the controller's too.
        output: Folder, made if it does not exist.
        samples: How many modules are drawn.
        batch: Modules per update of the controller.

    Returns:
        Markdown: the best, and the override that puts the best into a recipe.

    Raises:
        ValueError: The recipe has the term already or no data.val, shows frames of meta-val in
            training, or the numbers mean nothing.
    """
    output = Path(output)
    _check(recipe, samples, batch, output / 'candidates' / 'cache')
    stages = len(build_network(recipe).backbone.channels)
    torch.manual_seed(recipe.seed)
    controller = Controller(stages, stages)
    ppo, chance = Ppo(controller), torch.Generator().manual_seed(recipe.seed)
    found = [_candidate(recipe, basic_cells(stages), output)]
    while len(found) <= samples:
        walk = controller.sample(batch, chance)
        drawn = [_candidate(recipe, cells_of(tokens), output) for tokens in walk.tokens]
        ppo.learn(walk, torch.tensor([candidate.reward for candidate in drawn]))
        found += drawn
        _write(output / 'search.json', found)
        log.info('%d of %d modules: the last ones %s, the best %.2f', len(found) - 1, samples,
                 ', '.join(f'{candidate.reward:.2f}' for candidate in drawn),
                 max(candidate.reward for candidate in found[1:]))
    return table(found)


def _check(recipe: Recipe, samples: int, batch: int, cache: Path) -> None:
    """Raise ValueError for what would make a search wrong or useless."""
    if batch < 2 or samples < batch or samples % batch:
        raise ValueError(f'{samples} samples in batches of {batch}: give batches of 2 or more, '
                         'and samples for one batch or several')
    if TERM in recipe.terms:
        raise ValueError(f'the recipe has terms.{TERM}, which is searched for: remove it')
    val = recipe.data.val
    if val is None:
        raise ValueError('the recipe has no data.val: name frames to choose a module by')
    learned = {frame for source in recipe.data.train
               for frame in frames_of(open_source(source, recipe, cache))}
    if learned & frames_of(open_source(val, recipe, cache)):
        raise ValueError(f'data.val has frames of data.train ({val.kind} {val.split}): a module '
                         'is chosen by frames that it did not learn from; name drives of its own '
                         'for each')


def _candidate(recipe: Recipe, cells: Sequence[Cell], output: Path) -> Candidate:
    """Train and measure a recipe with a module; its checkpoints are of no further use."""
    tree, chosen = to_dict(recipe), [list(cell) for cell in cells]
    tree['terms'][TERM] = {'weight': 1, 'cells': chosen}
    report: dict[str, Any] = measure(from_dict(tree), output / 'candidates')
    for checkpoint in (output / 'candidates').glob('*/*.ckpt'):
        checkpoint.unlink()
    if 'failed' in report:
        return Candidate(list(cells), 0.0, 0.0)
    return Candidate(list(cells), report['mIoU'], report['accuracy'])


def _write(path: Path, found: Sequence[Candidate]) -> None:
    rows = [{'reward': candidate.reward, **candidate._asdict()} for candidate in found]
    write_whole(path, json.dumps(rows, indent=1).encode())


def table(found: Sequence[Candidate]) -> str:
    """Markdown: the first candidate, which is the basic module, and the best of the others."""
    basic, *drawn = found
    drawn.sort(key=lambda candidate: -candidate.reward)
    lines = ['| module | reward | mIoU | accuracy |', '| --- | ---: | ---: | ---: |']
    for name, candidate in (('basic', basic), *((_text(x), x) for x in drawn[:SHOWN])):
        lines.append(f'| {name} | {candidate.reward:.2f} | {candidate.mean_iou:.2f} | '
                     f'{candidate.accuracy:.2f} |')
    return '\n'.join([*lines, '', f'The best of {len(drawn)}, as it stands in a recipe:', '',
                      f'terms.{TERM}={{weight: 1, cells: {_text(drawn[0])}}}'])


def _text(candidate: Candidate) -> str:
    """Cells as YAML and --set take them."""
    return json.dumps(candidate.cells).replace('"', '')
