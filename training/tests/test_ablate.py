# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Suites: rows that share runs, tables with mean and spread, and the shipped ones."""
import json

import cv2
import pytest

from folders import write_folder
from vseg_training.ablate import _digest, ablate, load_suite, Row, SUITES, table
from vseg_training.cli import main
from vseg_training.recipe import load_recipe, to_dict
from vseg_training.task import SegmentationTask

RECIPE = """
model: {{weights: null, channels: 16, key_channels: 8, num_prototypes: 4, head_widths: [8, 8]}}
data:
  train: [{{kind: folder, root: {root}}}]
  val: {{kind: folder, root: {root}}}
  crop: [64, 96]
  frames_per_step: 4
  size: [64, 96]
  workers: 0
loss: {{long_term: 0}}
optim: {{max_steps: 2, warmup_steps: 1, validate_every: 2, precision: 32-true}}
"""
SUITE = """
title: Table
recipe: {recipe}
seeds: [0, 1]
rows:
  - {{name: T = 1, set: [model.context_frames=1]}}
  - {{name: T = 3}}
  - {{name: again, set: [model.context_frames=3]}}
"""


@pytest.fixture(scope='module')
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp('suite')
    data = write_folder(folder / 'data', drives=1, frames=4)
    (folder / 'recipe.yaml').write_text(RECIPE.format(root=data))
    path = folder / 'small.yaml'
    path.write_text(SUITE.format(recipe=folder / 'recipe.yaml'))
    return path


@pytest.mark.parametrize('text', [
    'set: [seed=7]\nrows: [{name: one}]', 'rows: [{name: one, set: ["seed=7"]}]'])
def test_a_seed_in_set_would_have_no_effect(tmp_path, text):
    path = tmp_path / 'suite.yaml'
    path.write_text(f'recipe: street_tasks\n{text}')
    with pytest.raises(ValueError, match='suite.yaml: set seed has no effect: a suite lists its'):
        load_suite(path)


def test_a_suite_becomes_a_table_and_a_plot(suite, tmp_path, capsys):
    assert main(['ablate', str(suite), '-o', str(tmp_path)]) == 0
    text = (tmp_path / 'small.md').read_text()
    assert text.strip() in capsys.readouterr().out
    reports = [json.loads(path.read_text())['report']
               for path in tmp_path.glob('runs/*/report.json')]
    assert len(reports) == 4  # two rows are the same recipe: it runs once per seed
    lines = {line.split(' | ')[0].strip('| '): line for line in text.splitlines()}
    assert lines['T = 3'].split(' | ')[1:5] == lines['again'].split(' | ')[1:5]
    assert ' ± ' in lines['T = 1'] and 'of 2 seed(s)' in text
    picture = cv2.imread(str(tmp_path / 'small.png'))
    assert picture.std() > 10
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob('runs/*/*.ckpt')}
    ablate('small', load_suite(suite), tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob('runs/*/*.ckpt')}


def test_a_run_that_is_not_finite_leaves_the_others_their_table(suite, tmp_path, monkeypatch):
    losses = SegmentationTask.losses

    def spoilt(self, output, labels):
        terms = losses(self, output, labels)
        bad = self.recipe.loss.diversity == 7
        return {name: term * float('inf') for name, term in terms.items()} if bad else terms

    monkeypatch.setattr(SegmentationTask, 'losses', spoilt)
    own = load_suite(suite)
    own.seeds, own.rows = [0], [Row('good', []), Row('bad', ['loss.diversity=7'])]
    for _ in range(2):  # it is not tried again
        text = ablate('some', own, tmp_path)
        lines = text.splitlines()
        assert lines[2].startswith('| good | ') and lines[3].startswith('| bad (not finite) | - |')
    assert (tmp_path / 'some.png').exists()


def test_rows_can_be_sorted(suite, tmp_path, monkeypatch):
    figures = {1: 20.0, 2: None, 3: 70.0, 4: 50.0}
    monkeypatch.setattr('vseg_training.ablate.measure', lambda recipe, *more: {
        'mIoU': figures[recipe.model.context_frames]})
    own = load_suite(suite)
    own.seeds, own.best_first = [0], True
    own.rows = [Row(f'T = {number}', [f'model.context_frames={number}']) for number in figures]
    lines = ablate('sorted', own, tmp_path).splitlines()[2:6]
    assert [line.split(' | ')[0] for line in lines] == ['| T = 3', '| T = 4', '| T = 1', '| T = 2']


def test_a_run_is_another_where_it_starts_from_another_file(suite, tmp_path):
    start = tmp_path / 'start.ckpt'
    recipe = to_dict(load_recipe(load_suite(suite).recipe, [f'model.init={start}']))
    seen = {_digest(recipe)}
    for content in (b'one', b'two', b'one'):
        start.write_bytes(content)
        seen.add(_digest(recipe))
    assert len(seen) == 3
    start.unlink()
    start.mkdir()
    (start / 'a.npz').write_bytes(b'soft labels')
    assert _digest(recipe) not in seen


def test_a_suite_can_ask_for_degraded_frames(suite, tmp_path):
    root = write_folder(tmp_path / 'val', drives=1, frames=6)     # every fifth is degraded
    text = suite.read_text().replace(
        'seeds: [0, 1]', f'set: ["data.val={{kind: folder, root: {root}}}"]').replace(
        'T = 1, set: [model.context_frames=1]', 'T = 0, set: [model.context_frames=0]')
    plain, path = tmp_path / 'plain.yaml', tmp_path / 'degraded.yaml'
    plain.write_text(text)
    path.write_text(f'degrade: true\n{text}')
    ablate('plain', load_suite(plain), tmp_path)
    text = ablate('degraded', load_suite(path), tmp_path)     # measures the same runs again
    head, _, t0, t3, *_ = text.splitlines()
    assert head.endswith('| degraded | degraded, pool emptied |')
    values = t3.split(' | ')[-2:]
    assert all(0 <= float(value.rstrip(' |')) <= 100 for value in values)
    assert t0.split(' | ')[-1] == '- |' and t0.split(' | ')[-2] != '-'
    assert len(list(tmp_path.glob('runs/*/report.json'))) == 2


def test_mean_and_spread_by_hand():
    keys = ('TC', 'VC8', 'VC16', 'parameters_M', 'ms_per_frame')
    runs = [{'mIoU': value, **dict.fromkeys(keys)} for value in (60.0, 62.0, 64.0)]
    assert '| 62.00 ± 2.00 | - | - |' in table('t', {'row': runs})
    assert '| 60.00 | - |' in table('t', {'row': runs[:1]})


def test_shipped_suites_name_valid_recipes(monkeypatch):
    monkeypatch.setenv('CAMVID', 'somewhere')
    assert len(list(SUITES.glob('*.yaml'))) >= 6
    for path in SUITES.glob('*.yaml'):
        suite = load_suite(path.stem)
        for row in suite.rows:
            load_recipe(suite.recipe, [*suite.set, *row.set])


@pytest.mark.parametrize('text, message', [
    ('rows: []', 'rows must have names'), ('banana: 1', 'banana'),
    ('rows: [{name: a}, {name: a}]', 'each its own')])
def test_bad_suites_are_named(text, message, tmp_path):
    path = tmp_path / 'bad.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_suite(path)
    with pytest.raises(ValueError, match='table1'):
        load_suite('nothing')
