# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a run that is resumed, moved or begun anew keeps: best.ckpt, metrics, a frozen backbone."""
import csv

import numpy as np
import pytest
from test_train import write_recipe
import torch

from folders import depth_folder, write_folder
from vseg_training import task as task_module
from vseg_training.backbones import Backbone
from vseg_training.cli import main
from vseg_training.data.check import check_data
from vseg_training.distill.uncertainty import uncertainty_loss
from vseg_training.metrics import ConfusionMatrix
from vseg_training.models.kinds import build, PER_FRAME
from vseg_training.models.layers import conv_bn_relu
from vseg_training.models.options import KINDS
from vseg_training.models.per_frame import Classifier, PerFrame
from vseg_training.recipe import load_recipe, Recipe
from vseg_training.task import SegmentationTask
from vseg_training.train import build_data, fit

RECIPE = """
model: {{kind: espnet_c}}
data:
  train: [{{kind: folder, root: {root}}}]
  val: {{kind: folder, root: {root}}}
  crop: [32, 32]
  clip_lengths: [1]
  frames_per_step: 2
  size: [32, 32]
  workers: 0
loss: {{long_term: 0}}
optim: {{max_steps: 6, warmup_steps: 2, ema: 0.5, validate_every: 2, checkpoint_every: 5,
        precision: 32-true}}
"""
SCORES = {2: 0.5, 4: 0.1, 6: 0.2}  # of the validations at these steps


class Stem(Backbone):
    """One stage."""

    mean, std, channels, strides = (120.0,) * 3, (60.0,) * 3, (8,), (1,)

    def __init__(self):
        super().__init__()
        self.stage = conv_bn_relu(3, 8, 3)

    def forward(self, images):
        return [self.stage(images)]


class Small(PerFrame):
    """Few weights, as each takes its time to write and to read."""

    def __init__(self, num_classes, **options):
        super().__init__(num_classes, Stem(), 8, 1)
        self.head = Classifier(8, num_classes)

    def decode(self, stages, size):
        return stages, self.head(stages[-1])


class Scripted:
    """Stands for the confusion matrix of a validation."""

    def __init__(self, score):
        self.score = score

    def mean_iou(self):
        return self.score


class Killed(Exception):
    """Ends a run as a kill would: nothing is written after it."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that fits a small recipe into a folder, till a step at most."""
    recipe = tmp_path / 'recipe.yaml'
    recipe.write_text(RECIPE.format(root=write_folder(tmp_path / 'data', drives=1, frames=4)))
    seen, begin = {}, SegmentationTask.on_train_batch_start

    def at_step(self, batch, number):
        if self.global_step == seen['end']:
            raise Killed
        begin(self, batch, number)
        seen['step'] = self.global_step + 1
        seen['frozen'] = seen.get('frozen', True) and not self.network.backbone.training

    monkeypatch.setattr(SegmentationTask, 'on_train_batch_start', at_step)
    monkeypatch.setitem(PER_FRAME, 'espnet_c', Small)

    def validate(*given, **options):
        fit_to.validated.append(seen['step'])
        if seen['step'] == seen['validation']:
            raise Killed
        return Scripted(SCORES.get(seen['step'], 0)), None

    monkeypatch.setattr(task_module, 'evaluate_stream', validate)

    def fit_to(folder, end=None, *changes, validation=None):
        seen.update(end=end, validation=validation)
        try:
            return fit(load_recipe(recipe, changes), folder)
        except Killed:
            return None
        finally:
            fit_to.frozen = seen.pop('frozen', None)
    fit_to.validated = []
    return fit_to


def step_of(path):
    return torch.load(path, weights_only=True)['global_step']


@pytest.mark.parametrize('end, every', [(2, 2), (5, 2), (3, 1)])
@pytest.mark.parametrize('moved', [False, True])
def test_best_is_the_best_of_the_whole_run(run, tmp_path, end, every, moved):
    """Killed right after a validation or later, in its folder or in another one."""
    folder = tmp_path / 'run'
    assert run(folder, end, f'optim.checkpoint_every={every}') is None
    if moved:
        folder = folder.rename(tmp_path / 'elsewhere')
    best = run(folder, None, f'optim.checkpoint_every={every}')
    assert (best.name, step_of(best)) == ('best.ckpt', 2)


@pytest.mark.parametrize('step, every, repeated', [
    (2, 2, [2, 4, 6]), (2, 5, [2, 4, 6]), (6, 2, [6]), (6, 5, [6]), (6, 4, [6])])
def test_a_validation_that_was_cut_off_is_made_up_for(run, tmp_path, step, every, repeated):
    """It is done again, and no other is; a run that has ended does nothing."""
    every = f'optim.checkpoint_every={every}'
    assert run(tmp_path / 'run', None, every, validation=step) is None
    run.validated.clear()
    best = run(tmp_path / 'run', None, every)
    assert run.validated == repeated and step_of(best) == 2
    assert run(tmp_path / 'run', None, every) == best and run.validated == repeated


def test_a_damaged_best_is_named(run, tmp_path):
    run(tmp_path / 'run', 5, 'optim.checkpoint_every=2')
    (tmp_path / 'run' / 'best.ckpt').write_bytes(b'no checkpoint')
    with pytest.raises(ValueError, match='best.ckpt is damaged.*: remove it'):
        run(tmp_path / 'run', None, 'optim.checkpoint_every=2')


def test_a_run_that_starts_anew_does_not_hand_out_the_best_of_before(run, tmp_path):
    folder = tmp_path / 'run'
    run(folder)
    before = (folder / 'best.ckpt').read_bytes()
    (folder / 'last.ckpt').unlink()
    assert run(folder, None, 'seed=1', 'data.val=null').name == 'last.ckpt'
    assert (folder / 'best-before.ckpt').read_bytes() == before
    assert not (folder / 'best.ckpt').exists()


def test_metrics_of_every_part_are_kept(run, tmp_path):
    folder, steps = tmp_path / 'run', {}
    for end in (5, 5, None):  # resumed at step 4, twice
        run(folder, end, 'optim.checkpoint_every=4', 'optim.validate_every=1')
    for path in (folder / 'metrics').glob('*.csv'):
        with path.open() as file:
            steps[path.stem] = [int(row['step']) for row in csv.DictReader(file)
                                if row['val/mIoU']]
    assert steps == {'metrics-before-4': [0, 1, 2, 3, 4], 'metrics-before-4-2': [4],
                     'metrics': [4, 5]}


def test_a_frozen_backbone_stays_frozen_when_resumed(run, tmp_path):
    changes = ['model.frozen_backbone=true', 'optim.checkpoint_every=2', 'data.val=null']
    run(tmp_path / 'run', 3, *changes)
    run(tmp_path / 'run', None, *changes)
    assert run.frozen
    run(tmp_path / 'whole', None, *changes)
    one, other = (torch.load(tmp_path / name / 'last.ckpt', weights_only=True)['state_dict']
                  for name in ('run', 'whole'))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_val_without_labels_is_refused(run, tmp_path):
    bare = write_folder(tmp_path / 'bare', drives=1, frames=2)
    for path in (bare / 'labels').rglob('*.png'):
        path.unlink()
    val = f'data.val={{kind: folder, root: {bare}, unlabelled: true}}'
    for weight in (1, 0):  # a network that learns from a teacher alone is measured by labels too
        with pytest.raises(ValueError, match='no frame of data.val has labels'):
            run(tmp_path / 'run', None, val, f'loss.segmentation={weight}')


def test_a_val_of_depth_alone_needs_no_labels(tmp_path):
    data = depth_folder(tmp_path / 'data')
    for path in (data / 'labels').rglob('*.png'):
        path.unlink()
    source = f'{{kind: folder, root: {data}, unlabelled: true, focal: 100}}'
    recipe = load_recipe(write_recipe(tmp_path, data, 1), [
        f'data.train=[{source}]', f'data.val={source}', 'loss.segmentation=0',
        'tasks={depth: {bins: 8, farthest: 60}}'])
    assert build_data(recipe, tmp_path, 0)[1] is not None
    assert not check_data(recipe, tmp_path).errors


def test_accuracy_of_nothing_is_none():
    assert np.isnan(ConfusionMatrix(3).accuracy())


@pytest.mark.parametrize('classes, fits', [(254, True), (255, False)])
def test_the_id_of_padding_is_no_class(tmp_path, classes, fits):
    path = tmp_path / 'many.yaml'
    rows = [f'  - {{id: {i}, name: c{i}, color: [{i}, 0, 0]}}' for i in range(classes)]
    path.write_text('name: many\nvoid_id: 255\nclasses:\n' + '\n'.join(rows) + '\n')
    recipe = Recipe(model=KINDS['espnet_c']())
    recipe.data.label_set = str(path)
    if fits:
        assert task_module.build_network(recipe).num_classes == 254
        check_data(recipe, tmp_path)
        return
    for refuses in (task_module.build_network, lambda given: check_data(given, tmp_path)):
        with pytest.raises(ValueError, match='has 255 classes: at most 254 can be trained'):
            refuses(recipe)


@pytest.mark.parametrize('classes', [1, 2, 4, 5, 11])
def test_espnet_is_for_any_number_of_classes(classes):
    assert build(KINDS['espnet'](), classes)(torch.zeros(1, 1, 3, 32, 32))['scores'].shape[2] == \
        classes


def test_l_uct_counts_in_any_precision():
    given = [torch.rand(2, 3, 4, 4) for _ in range(2)]
    certainty, counted = torch.rand(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    losses = [uncertainty_loss(*given, certainty, counted, torch.ones(3, dtype=kind))
              for kind in (torch.float32, torch.float64, torch.bfloat16)]
    assert losses[0] == losses[1] == losses[2]


def test_suites_whose_tables_would_be_one_and_seeds_are_refused(tmp_path, capsys):
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / 't.yaml').write_text('recipe: street_tasks\nrows: [{name: one}]\n')
    paths = [str(tmp_path / name / 't.yaml') for name in 'ab']
    assert main(['ablate', *paths]) == 2
    assert 'two of the suites have one name' in capsys.readouterr().err
    assert main(['ablate', paths[0], '--set', 'seed=7']) == 2
    assert '--set seed has no effect' in capsys.readouterr().err
