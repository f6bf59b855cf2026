# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""MGCNet's whole chain by its commands: teacher, soft labels, distilled student, bundle."""
import csv

import numpy as np
import pytest
import torch

from folders import write_folder
from ros_vseg.bundle import Bundle
from vseg_training.checkpoint import load_network, load_student
from vseg_training.cli import main
from vseg_training.distill import teacher_targets
from vseg_training.models.teacher import Teacher
from vseg_training.recipe import load_recipe
from vseg_training.train import build_data, fit


RECIPE = """
model: {{weights: null, channels: 32, key_channels: 16, num_prototypes: 8, head_widths: [16, 16],
        dropout: 0.0}}
data:
  train: [{{kind: folder, root: {root}}}]
  crop: [64, 96]
  scale: [1.0, 1.2]
  brightness: 0
  clip_lengths: [2, 4]
  frames_per_step: 4
  size: [64, 96]
  workers: 0
loss: {{long_term: 0}}
optim: {{max_steps: 20, warmup_steps: 2, ema: 0.5, lr: 0.003, checkpoint_every: 20,
        precision: 32-true}}
"""


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp('chain')
    data = write_folder(folder / 'blocks', drives=2, frames=6)
    path = folder / 'recipe.yaml'
    path.write_text(RECIPE.format(root=data))
    return path


def train(recipe, output, *overrides):
    return fit(load_recipe(recipe, overrides), output)


def logged(output):
    with (output / 'metrics' / 'metrics.csv').open() as file:
        rows = list(csv.DictReader(file))
    return {name.removeprefix('loss/'): float(value) for name, value in rows[-1].items()
            if name.startswith('loss/') and value}


@pytest.fixture(scope='module')
def teacher(recipe):
    """Teacher with every term of Eq. 11."""
    output = recipe.parent / 'teacher'
    return train(recipe, output, 'model.short_term=msc', 'loss.long_term=0.4')


@pytest.fixture(scope='module')
def soft_labels(teacher, recipe):
    folder = recipe.parent / 'soft'
    assert main(['soft-labels', str(teacher), '-o', str(folder)]) == 0
    return folder


def test_every_term_of_the_teacher_is_logged(teacher):
    terms = logged(teacher.parent)
    assert set(terms) == {'scores', 'auxiliary', 'diversity', 'co_training', 'long_term'}
    assert all(np.isfinite(list(terms.values())))
    network, _ = load_network(teacher)
    assert isinstance(network, Teacher)


@pytest.mark.parametrize('on_disk', [False, True])
def test_a_student_learns_from_a_teacher_and_from_its_soft_labels(
        on_disk, recipe, teacher, soft_labels):
    output = recipe.parent / f'student-{on_disk}'
    source = soft_labels if on_disk else teacher
    checkpoint = train(recipe, output, f'distill.teacher={source}', 'loss.long_term=0.4')
    terms = logged(output)
    assert set(terms) == {
        'scores', 'auxiliary', 'diversity', 'long_term', 'uncertainty', 'structural'}
    student, _ = load_student(checkpoint)
    assert not any('long_term' in key for key in student.state_dict())
    bundle = recipe.parent / 'student.onnx'
    assert main(['export', str(checkpoint), '-o', str(bundle)]) == 0
    assert Bundle.load(bundle).info.num_prototypes == 8
    assert b'File "' not in bundle.read_bytes()     # of the machine that exported it


def test_soft_labels_on_disk_are_what_the_teacher_says_at_work(recipe, teacher, soft_labels):
    """Whole frames, unflipped, with the clip's whole past: both ways give the same targets."""
    options = load_recipe(recipe, [f'distill.teacher={soft_labels}', 'data.scale=[1,1]',
                                   'data.clip_lengths=[4]', 'optim.max_steps=40'])
    dataset = build_data(options, recipe.parent / 'cache', 0)[0].dataset
    network, source = load_network(teacher, adjust=False)[0], dataset.sources[0]
    frames = {source.frame_name(key): (key, place)
              for drive in source.drives for place, key in enumerate(drive)}
    compared = 0
    for number in range(40):
        item = dataset[number, 4]
        key, place = frames[item['name']]
        if place != 3 or not np.array_equal(
                source.read(key)[0], item['images'][-1].permute(1, 2, 0)):
            continue
        expected = teacher_targets(network, item['images'][None])
        for name, value in item['targets'].items():
            torch.testing.assert_close(
                torch.from_numpy(value[-1]), getattr(expected, name)[0, -1], atol=4e-3, rtol=1e-2)
        compared += 1
    assert compared


def test_frames_without_labels_are_distilled(recipe, soft_labels, tmp_path):
    """With every label file gone, the distillation terms alone still teach."""
    data = write_folder(tmp_path / 'blocks', drives=2, frames=6)
    for path in data.glob('labels/*/*.png'):
        path.unlink()
    source = f'{{kind: folder, root: {data}, unlabelled: true}}'
    train(recipe, tmp_path / 'out', f'data.train=[{source}]', f'distill.teacher={soft_labels}')
    terms = logged(tmp_path / 'out')
    assert terms['scores'] == 0 and 0 < terms['uncertainty'] < 1


def test_a_teacher_starts_from_a_student_and_a_student_from_a_checkpoint(recipe, tmp_path):
    student = train(recipe, tmp_path / 'student', 'optim.max_steps=1', 'optim.checkpoint_every=1')
    begun = train(recipe, tmp_path / 'teacher', 'model.short_term=msc', f'model.init={student}',
                  'optim.max_steps=1', 'optim.lr=0.0', 'optim.checkpoint_every=1')
    before, after = load_network(student)[0], load_network(begun)[0]
    for head in after.heads:
        assert torch.equal(head.classify.weight, before.head.classify.weight)
    assert torch.equal(after.prototypes.projection.weight, before.prototypes.projection.weight)
    again = train(recipe, tmp_path / 'again', f'model.init={begun}', 'optim.max_steps=1',
                  'optim.lr=0.0', 'optim.checkpoint_every=1')
    assert torch.equal(load_network(again)[0].head.classify.weight, before.head.classify.weight)


def test_queries_and_keys_of_another_attention_scale_start_anew(recipe, teacher, tmp_path):
    begun = train(recipe, tmp_path / 'student', f'model.init={teacher}', 'optim.lr=0.0',
                  'model.attention_scale=0.5', 'optim.max_steps=1')
    before, after = load_network(teacher)[0].attention, load_network(begun)[0].attention
    assert torch.equal(after.g.weight, before.g.weight)
    assert not torch.equal(after.theta.weight, before.theta.weight)
    assert not torch.equal(after.phi.weight, before.phi.weight)


def test_a_teacher_is_no_bundle(teacher, tmp_path, capsys):
    assert main(['export', str(teacher), '-o', str(tmp_path / 'teacher.onnx')]) == 2
    assert 'holds a teacher' in capsys.readouterr().err
    assert not (tmp_path / 'teacher.onnx').exists()


def test_an_untrained_student_is_exported_from_its_recipe_and_says_so(recipe, tmp_path, capsys):
    bundle = tmp_path / 'untrained.onnx'
    assert main(['export', str(recipe), '--untrained', '-o', str(bundle), '--size', '64x96']) == 0
    info = Bundle.load(bundle).info
    assert info.name.endswith('_untrained') and (info.height, info.width) == (64, 96)
    assert not info.metrics
    assert main(['export', 'camvid_lite9', '--untrained', '-o', str(bundle)]) == 2
    assert 'recipe camvid_lite9 does not exist' in capsys.readouterr().err


def test_a_teacher_is_evaluated_as_a_stream(teacher, recipe, capsys):
    data = recipe.parent / 'blocks'
    assert main(['evaluate', str(teacher), '--data', f'folder:{data}']) == 0
    assert 'mIoU' in capsys.readouterr().out


def test_soft_labels_of_another_label_set_are_refused(recipe, soft_labels, tmp_path):
    with pytest.raises(ValueError, match='same label set'):
        train(recipe, tmp_path / 'out', f'distill.teacher={soft_labels}',
              'data.label_set=cityscapes')
