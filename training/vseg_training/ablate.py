# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A suite of recipes over seeds: trained, measured, and written as a table and a plot."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
import hashlib
import json
import logging
from pathlib import Path
from typing import Any, cast, List

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ros_vseg.files import to_json, write_whole
from ros_vseg.labels import load_label_set

from . import degraded
from .checkpoint import load_network
from .data import build_source
from .data.clips import ClipSource
from .evaluate import report_model
from .models.kinds import Network
from .not_finite import NonFiniteLoss
from .recipe import load_recipe, Recipe, to_dict
from .train import fit
from .yaml_files import load_yaml, overrides_of


log = logging.getLogger(__name__)
SUITES = Path(__file__).parent / 'suites'
COLUMNS = {'mIoU': 'mIoU', 'TC': 'TC', 'VC8': 'VC8', 'VC16': 'VC16',
           'parameters_M': 'parameters (M)', 'ms_per_frame': 'ms/frame',
           'seconds_per_step': 's/step', 'memory_GB': 'peak memory (GB)'}
OF_CLASSES = ('mIoU', 'TC', 'VC8', 'VC16')
# of networks that have these tasks
GEOMETRY = {'rel': 'rel', 'log10': 'log10', 'rms': 'rms (m)', 'delta1': 'delta1',
            'angle': 'normals (deg)'}
DEGRADED = {'degraded': 'degraded', 'emptied': 'degraded, pool emptied'}  # mIoU of these frames


@dataclass
class Row:
    """One line of the table: a recipe that differs from the suite's by ``set``, KEY=VALUE each."""

    name: str = ''
    set: List[str] = field(default_factory=list)  # noqa: A003


@dataclass
class Suite:
    """
    A table: rows that share a recipe, overrides for all of them, and the seeds of each.

    ``degrade``: whether it has the mIoU of degraded frames as well, with the pool and without.
    ``best_first``: whether the rows are sorted by their mIoU.
    """

    title: str = ''
    recipe: str = ''
    set: List[str] = field(default_factory=list)  # noqa: A003
    seeds: List[int] = field(default_factory=lambda: [0])
    degrade: bool = False
    best_first: bool = False
    rows: List[Row] = field(default_factory=list)


def load_suite(path: str | Path) -> Suite:
    """Read a suite: a YAML file or the name of a shipped one; ValueError names what is wrong."""
    file = Path(path)
    if not file.is_file():
        file = SUITES / f'{path}.yaml'
    if not file.is_file():
        shipped = ', '.join(sorted(suite.stem for suite in SUITES.glob('*.yaml')))
        raise ValueError(f'suite {path} does not exist: give a YAML file or one of {shipped}')
    tree = load_yaml(file, f'suite {path}')
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Suite), tree)
        suite = cast(Suite, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        where = f', key {error.full_key}' if error.full_key else ''
        raise ValueError(f'suite {path}{where}: {str(error).splitlines()[0]}') from error
    except TypeError as error:  # a list or a word where keys are wanted
        raise ValueError(f'suite {path}: {error}; it has the keys '
                         f'{", ".join(entry.name for entry in fields(Suite))}') from error
    changes = [*suite.set, *(change for row in suite.rows for change in row.set)]
    refuse_seed(changes, f'suite {path}: set')
    names = [row.name for row in suite.rows]
    if not names or not all(names) or len(set(names)) < len(names):
        raise ValueError(f'suite {path}: rows must have names, each its own')
    return suite


def refuse_seed(overrides: Sequence[str], where: str) -> None:
    """Raise ValueError for an override of the seed, in whose place those of the suite come."""
    if 'seed' in overrides_of(overrides, where):
        raise ValueError(f'{where} seed has no effect: a suite lists its seeds, write them '
                         'there (seeds: [0, 1])')


def measure(recipe: Recipe, runs: Path, degrade: bool = False) -> dict[str, Any]:
    """
    Train and measure one recipe; what was done before is read back.

    A run's folder is named by a hash of its recipe and of the files that it starts from, so that
    tables share their common rows. A run whose loss is not finite has ended: its report says so
    and has no figures.

    Args:
        recipe: With a ``data.val``.
        runs: Folder of all runs.
        degrade: Whether the columns of ``DEGRADED`` are wanted.

    Returns:
        As ``report_model``; of a run without an end ``failed`` and mIoU None.
    """
    described = to_dict(recipe)
    folder = runs / _digest(described)
    done = folder / 'report.json'
    report: dict[str, Any] = json.loads(done.read_text())['report'] if done.exists() else {}
    if report and (not degrade or 'degraded' in report or 'failed' in report):
        return report
    try:
        network, _ = load_network(fit(recipe, folder))
    except NonFiniteLoss as error:
        log.warning('%s', error)
        report = {'mIoU': None, 'failed': str(error)}
        _write(done, report, described)
        return report
    assert recipe.data.val is not None  # whoever asks has looked
    source = build_source(recipe.data.val, recipe, runs / 'cache')
    if not report:
        report = report_model(
            network, source, recipe.data.size, load_label_set(recipe.data.label_set))
        report |= _speed(folder)
    if not recipe.loss.segmentation:  # what scores nobody trained are worth
        report |= dict.fromkeys(OF_CLASSES)
    if degrade:
        report.update(_on_degraded(network, source, recipe.data.size))
    _write(done, report, described)
    return report


def _write(path: Path, report: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    text = to_json({'report': report, 'recipe': described}, indent=1)
    write_whole(path, text.encode())


def _digest(described: Mapping[str, Any]) -> str:
    """Hash of a recipe and of what it starts from, which may change behind the same path."""
    found = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for part, key in (('model', 'init'), ('model', 'weights'), ('distill', 'teacher')):
        path = Path(described[part].get(key) or '-')
        if path.is_file():
            found.update(path.read_bytes())
        elif path.is_dir():  # soft labels: many files, whose sizes tell them apart
            files = sorted((str(file), file.stat().st_size) for file in path.rglob('*'))
            found.update(json.dumps(files).encode())
    return found.hexdigest()[:12]


def _speed(folder: Path) -> dict[str, float]:
    """Time of a run's steps and peak memory; empty of a run too short to tell."""
    file = folder / 'speed.json'
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _on_degraded(network: Network, source: ClipSource[Any], size: Sequence[int]
                 ) -> dict[str, float | None]:
    """Return the columns of DEGRADED in percent: seen kinds; None without a pool to empty."""
    cases = {column: f'seen kinds, {pool}' for column, pool in zip(DEGRADED, ('kept', 'emptied'))}
    measured = degraded.report_model(
        network, source, source, size,
        [case for case in degraded.cases() if f'{case.name}, {case.pool}' in cases.values()])
    return {column: measured[case]['bad'] if case in measured else None
            for column, case in cases.items()}


def ablate(name: str, suite: Suite, output: str | Path, overrides: Sequence[str] = ()) -> str:
    """
    Train every row of a suite with every seed, and write ``<name>.md`` and ``<name>.png``.

    Runs that are finished are kept, an unfinished one is resumed.

    Args:
        name: Of the files.
        suite: Rows and seeds.
        output: Folder of runs, tables and plots.
        overrides: KEY=VALUE for all rows.

    Returns:
        The Markdown table: mean, and after +- the standard deviation over seeds.

    Raises:
        ValueError: A recipe is not valid, or has no data.val.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    plan = [(row, seed, load_recipe(suite.recipe, [
        *suite.set, *row.set, *overrides, f'seed={seed}']))
        for row in suite.rows for seed in suite.seeds]
    if any(recipe.data.val is None for _, _, recipe in plan):
        raise ValueError(f'recipe {suite.recipe} has no data.val to measure on')
    reports: dict[str, list[dict[str, Any]]] = {row.name: [] for row in suite.rows}
    for row, seed, recipe in plan:
        log.info('%s: %s, seed %d', name, row.name, seed)
        reports[row.name].append(measure(recipe, output / 'runs', suite.degrade))
    columns = {**COLUMNS, **(DEGRADED if suite.degrade else {})} | {
        key: head for key, head in GEOMETRY.items()
        if any(key in run for runs in reports.values() for run in runs)}
    shown = 'mIoU'
    if not any(recipe.loss.segmentation for _, _, recipe in plan):  # no row learns classes
        shown, columns = 'delta1', {
            key: head for key, head in columns.items() if key not in OF_CLASSES}
    if suite.best_first:
        reports = dict(sorted(reports.items(), key=lambda item: -_mean(item[1], shown)))
    text = table(suite.title, reports, columns)
    (output / f'{name}.md').write_text(text + '\n')
    plot(suite.title, reports, output / f'{name}.png', shown)
    return text


def _mean(runs: Sequence[Mapping[str, Any]], key: str) -> float:
    known = [run[key] for run in runs if run.get(key) is not None]
    return float(np.mean(known)) if known else float('-inf')


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return '-'
    spread = f' ± {np.std(known, ddof=1):.2f}' if len(known) > 1 else ''
    return f'{np.mean(known):.2f}{spread}'


def table(title: str, reports: Mapping[str, Sequence[Mapping[str, Any]]],
          columns: Mapping[str, str] = COLUMNS) -> str:
    """Markdown table of lists of reports (one per seed) by row name; ``columns``: heads by key."""
    seeds = len(next(iter(reports.values())))
    head = [title or 'row', *columns.values()]
    lines = [head, ['---', *['---:'] * len(columns)]]
    for name, runs in reports.items():
        ended = ' (not finite)' if any('failed' in run for run in runs) else ''
        lines.append([name + ended, *(_cell([run.get(key) for run in runs]) for key in columns)])
    body = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    return f'{body}\n\nMean{" ± standard deviation" if seeds > 1 else ""} of {seeds} seed(s).'


def plot(title: str, reports: Mapping[str, Sequence[Mapping[str, Any]]], path: Path,
         shown: str = 'mIoU') -> None:
    """Dot plot of the mIoU or of ``shown`` by row: a dot per seed and a bar at the mean."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(
        figsize=(7, 1.2 + 0.32 * len(reports)), layout='constrained')
    for place, runs in enumerate(reports.values()):
        values = [run[shown] for run in runs if run.get(shown) is not None]
        if not values:
            continue
        axes.plot(values, [place] * len(values), 'o', color='#1f6f8b', alpha=0.7)
        axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color='#c1440e', lw=2)
    axes.set_yticks(range(len(reports)), list(reports))
    axes.invert_yaxis()
    axes.grid(axis='x', alpha=0.3)
    axes.set_xlabel('mIoU (%)' if shown == 'mIoU' else shown)
    axes.set_title(title)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
