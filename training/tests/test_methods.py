# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Terms in recipes: a sum of methods is trained, resumed and exported by the real commands."""
import csv

import cv2
import numpy as np
import onnx
import pytest
import torch

from folders import write_folder
from ros_vseg import backends
from ros_vseg.bundle import Bundle
from ros_vseg.stream import Stream
from vseg_training.ablate import load_suite, SUITES
from vseg_training.checkpoint import load_student
from vseg_training.cli import main
from vseg_training.data.augment import Augmentation, still_flow, still_path
from vseg_training.distill import stored_maps
from vseg_training.recipe import load_recipe, to_dict
from vseg_training.task import SegmentationTask
from vseg_training.terms import ChannelWise, Maps, METHODS, PairWise, PixelWise, Terms, Widths
from vseg_training.train import build_data, fit, load_teacher

RECIPE = """
model: {{weights: null, channels: 32, key_channels: 16, num_prototypes: 8, head_widths: [16, 16],
        dropout: 0.0}}
data:
  train: [{{kind: folder, root: {root}, stills: {stills}}}]
  crop: [64, 96]
  scale: [1.0, 1.2]
  brightness: 0
  clip_lengths: [2]
  frames_per_step: 4
  size: [64, 96]
  workers: 0
loss: {{long_term: 0}}
optim: {{max_steps: 4, warmup_steps: 2, ema: 0.5, lr: 0.003, checkpoint_every: 2,
        precision: 32-true}}
"""
CHANNEL = 'terms.channel={weight: 50, of: features, tau: 1}'
PAIR = 'terms.pair={weight: 10}'
WIDER = 'terms.overparameterised={weight: 1, channels: 7, cells: [[0, 3, sep3, 1x1, concat]]}'
ADAPTER = (24, 32, 1, 1)  # to the teacher's width from the student's
CLASSIFIER = (11, 14, 1, 1)  # of the auxiliary module


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp('methods')
    path = folder / 'recipe.yaml'
    path.write_text(RECIPE.format(root=write_folder(folder / 'blocks', drives=2), stills=0.0))
    return path


@pytest.fixture(scope='module')
def teacher(recipe):
    """Teacher of another width, so that features need an adapter."""
    return fit(load_recipe(recipe, ['model.short_term=msc', 'model.channels=24']),
               recipe.parent / 'teacher')


def plain(teacher):
    """Overrides for a teacher at work without MGCNet's own two terms."""
    return [f'distill.teacher={teacher}', 'distill.uncertainty=0', 'distill.structural=0']


def logged(folder):
    with (folder / 'metrics' / 'metrics.csv').open() as file:
        rows = list(csv.DictReader(file))
    return {name: float(value) for name, value in rows[-1].items() if value}


def test_a_sum_of_terms_is_trained_resumed_and_exported(
        recipe, teacher, tmp_path, monkeypatch):
    overrides = [*plain(teacher), CHANNEL, PAIR, WIDER]
    whole = fit(load_recipe(recipe, overrides), tmp_path / 'whole')
    values = logged(tmp_path / 'whole')
    assert all(values[f'loss/{name}'] > 0 for name in ('channel', 'pair', 'overparameterised'))
    assert 'loss/uncertainty' not in values
    stopped = stop_at_step_2(load_recipe(recipe, overrides), tmp_path / 'broken', monkeypatch)
    assert stopped['global_step'] == 2
    again = fit(load_recipe(recipe, overrides), tmp_path / 'broken')
    assert (tmp_path / 'broken' / 'metrics' / 'metrics-before-2.csv').exists()  # not from anew
    first, second = (torch.load(path, weights_only=True)['state_dict'] for path in (whole, again))
    for key, value in first.items():
        assert torch.equal(second[key], value), key
    found = {value.shape: key for key, value in first.items() if key.startswith('terms.')}
    for shape in (ADAPTER, CLASSIFIER):
        assert not torch.equal(first[found[shape]], stopped['state_dict'][found[shape]])  # trained
    # nothing of it leaves with the student, which runs as it was trained
    bundle = tmp_path / 'student.onnx'
    assert main(['export', str(whole), '-o', str(bundle), '--no-evaluate']) == 0
    shapes = {tuple(tensor.dims) for tensor in onnx.load(bundle).graph.initializer}
    assert not {ADAPTER, CLASSIFIER} & shapes
    image = cv2.imread(str(recipe.parent / 'blocks' / 'images' / 'drive0' / '000.png'))
    labels = Stream(backends.load(Bundle.load(bundle), 'onnxruntime')).step(image, 0).labels
    with torch.no_grad():
        clip = torch.from_numpy(image).permute(2, 0, 1)[None, None].float()
        scores = load_student(whole)[0](clip)['scores'][0]
    expected = torch.nn.functional.interpolate(scores, labels.shape, mode='bilinear').argmax(1)[0]
    assert (labels == expected.numpy()).mean() > 0.999


def stop_at_step_2(settings, folder, monkeypatch):
    """Break a run off after two steps and return the checkpoint that it leaves."""
    class Stop(Exception):
        pass

    stored = SegmentationTask.training_step

    def stop(task, batch, number):
        if task.global_step == 2:
            raise Stop
        return stored(task, batch, number)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(SegmentationTask, 'training_step', stop)
        fit(settings, folder)
    return torch.load(folder / 'last.ckpt', weights_only=True)


def test_terms_of_weight_0_leave_the_student_as_it_is_without_terms(recipe, teacher, tmp_path):
    """Rows of a suite differ by their terms alone: an adapter moves neither start nor dropout."""
    same = [*plain(teacher), 'model.dropout=0.3', 'loss.long_term=0.4']
    without = fit(load_recipe(recipe, same), tmp_path / 'without')
    idle = [CHANNEL.replace('50', '0'), PAIR.replace('10', '0'), WIDER.replace('1', '0', 1)]
    settings = load_recipe(recipe, [*same, *idle])
    with_terms = torch.load(fit(settings, tmp_path / 'with'), weights_only=True)['state_dict']
    for key, value in torch.load(without, weights_only=True)['state_dict'].items():
        assert torch.equal(with_terms[key], value), key


def test_terms_are_the_modules_on_flattened_clips(recipe):
    torch.manual_seed(0)
    terms = Terms({'channel': {'weight': 3, 'tau': 2}, 'pair': {'weight': 10, 'patch': 1}},
                  Widths(5, 8), Widths(5, 6))
    student = Maps(torch.randn(2, 3, 5, 4, 6), torch.randn(2, 3, 8, 4, 6))
    teacher = Maps(torch.randn(2, 3, 5, 8, 12), torch.randn(2, 3, 6, 4, 6))
    counted = torch.rand(2, 3, 16, 24) < 0.8
    found = terms(student, teacher, {}, counted)
    flat = counted.flatten(0, 1)
    expected = ChannelWise(2)(student.scores.flatten(0, 1), teacher.scores.flatten(0, 1), flat)
    torch.testing.assert_close(found['channel'], expected)
    expected = PairWise(1)(student.features.flatten(0, 1), teacher.features.flatten(0, 1), flat)
    torch.testing.assert_close(found['pair'], expected)
    assert terms.weights == {'channel': 3, 'pair': 10}


def test_the_weight_counts_and_no_gradient_reaches_the_teacher(recipe, teacher):
    settings = load_recipe(recipe, [*plain(teacher), CHANNEL])
    task = SegmentationTask(to_dict(settings), teacher=load_teacher(settings))
    loader, _ = build_data(settings, recipe.parent / 'cache', 0)
    batch = next(iter(loader))
    terms = task._context_terms(batch, task.network(batch['images'], batch['places']))
    terms['channel'].backward()
    assert task.terms.modules_by_name['channel'].adapter.weight.grad.abs().sum() > 0
    assert task.network.reduce[0].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in task._teacher[0].parameters())
    assert task._weights()['channel'] == 50


@pytest.mark.parametrize('override, message', [
    ('terms.banana={weight: 1}', 'terms.banana is unknown: use pixel, channel'),
    ('terms.pixel={tau: 2}', 'terms.pixel has no weight'),
    ('terms.pixel={weight: 1, of: features}', "terms.pixel.of is 'features': use scores"),
    ('terms.pixel={weight: 1, tua: 2}', 'terms.pixel.tua is unknown: use weight, of, method, tau'),
    ('terms.pixel={weight: much}', "terms.pixel.weight is 'much': give a number of 0 or more"),
    ('terms.channel={weight: 1, form: l1}', "terms.channel.form is 'l1': use kl, swapped"),
    ('terms.channel={weight: 1, form: 2}', 'terms.channel.form is 2: give a word such as kl'),
    ('terms.pixel={weight: 1, tau: 0}', 'terms.pixel.tau is 0: give a number above 0'),
    ('terms.pixel={weight: 1, tau: .nan}', 'terms.pixel.tau is nan: give a number above 0'),
    ('terms.pair={weight: 1, patch: 1.5}', 'terms.pair.patch is 1.5: give a whole number above 0'),
    ('terms.pair={weight: 1, reach: true}', 'terms.pair.reach is True: give a whole number of 0'),
    ('terms.temporal={weight: 1}', 'terms.temporal needs clips with flow.*set stills'),
    ('terms.overparameterised={weight: 1, adapter: 5x5}',
     "terms.overparameterised.adapter is '5x5': use 1x1, 3x3"),
    ('terms.overparameterised={weight: 1, cells: [[0, 4, 1x1, 1x1, sum]]}',
     'terms.overparameterised.cells has .* at place 0: give .input'),
    ('terms.overparameterised={weight: 1, cells: 3}', 'cells is 3: give a list'),
    ('terms.deep_supervision={weight: 0.1};model.frozen_backbone=true',
     'terms.deep_supervision trains the backbone, which model.frozen_backbone fixes'),
    ('terms.temporal={weight: 1};data.clip_lengths=[1]',
     'terms.temporal compares frames, but data.clip_lengths is .1.: add a length'),
    ('terms.pair_frames={weight: 1};data.clip_lengths=[1]',
     'terms.pair_frames compares frames, but data.clip_lengths is .1.: add a length')])
def test_mistakes_in_terms_are_named_before_the_first_step(recipe, teacher, tmp_path, override,
                                                           message):
    with pytest.raises(ValueError, match=message):
        fit(load_recipe(recipe, [*plain(teacher), *override.split(';')]), tmp_path / 'out')
    assert not list((tmp_path / 'out').glob('*.ckpt'))


def test_a_term_without_a_teacher_at_work_is_refused(recipe, teacher, tmp_path):
    with pytest.raises(ValueError, match='terms.pair compares with a teacher at work: set'):
        fit(load_recipe(recipe, [PAIR]), tmp_path / 'none')
    soft = tmp_path / 'soft'
    assert main(['soft-labels', str(teacher), '-o', str(soft), '--config', str(recipe)]) == 0
    with pytest.raises(ValueError, match='soft labels on disk hold probabilities alone'):
        fit(load_recipe(recipe, [f'distill.teacher={soft}', PAIR]), tmp_path / 'disk')
    pixel = 'terms.pixel={weight: 1, tau: 4}'
    with pytest.raises(ValueError, match='terms.pixel.tau is 4, but soft labels on disk'):
        fit(load_recipe(recipe, [f'distill.teacher={soft}', pixel]), tmp_path / 'disk')
    with pytest.raises(ValueError, match='terms.pixel needs a teacher: set distill.teacher'):
        fit(load_recipe(recipe, [pixel]), tmp_path / 'none')


def test_a_teacher_works_for_those_terms_alone_that_ask_for_it(recipe, teacher, monkeypatch):
    """So that a row without distillation takes the time that it takes."""
    settings = load_recipe(recipe, [*plain(teacher), WIDER])
    task = SegmentationTask(to_dict(settings), teacher=load_teacher(settings))
    loader, _ = build_data(settings, recipe.parent / 'cache', 0)
    batch = next(iter(loader))
    monkeypatch.setattr(task._teacher[0], 'forward', None)
    found = task._context_terms(batch, task.network(batch['images'], batch['places']))
    assert found['overparameterised'] > 0


def test_pixel_wise_terms_learn_from_soft_labels_on_disk(recipe, teacher, tmp_path):
    soft = tmp_path / 'soft'
    assert main(['soft-labels', str(teacher), '-o', str(soft), '--config', str(recipe)]) == 0
    fit(load_recipe(recipe, [*plain(soft), 'terms.pixel={weight: 1}']), tmp_path / 'out')
    assert logged(tmp_path / 'out')['loss/pixel'] > 0


def test_stored_probabilities_serve_as_scores():
    """Also where a class is so unlikely that 0 is stored of it."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 1, 3, 5, 4, 6)
    teacher[:, :, 0] -= 30
    stored = (255 * teacher.softmax(2)).round() / 255
    assert (stored == 0).any()
    losses = [PixelWise()(student.flatten(0, 1), scores.flatten(0, 1))
              for scores in (teacher, stored_maps(stored).scores)]
    assert losses[1] == pytest.approx(losses[0].item(), rel=0.02)


def test_flow_of_stills_moves_a_frame_onto_the_next():
    rng = np.random.default_rng(3)
    still = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (128, 96),
                       interpolation=cv2.INTER_CUBIC)
    draw = Augmentation((64, 96), (0.9, 1.1), 0).draw(
        still.shape[:2], rng, still_path(still.shape[:2], 3, rng))
    images = draw.images(np.stack([still] * 3))
    flow = still_flow(draw.matrices(3), draw.crop)
    assert flow.shape == (2, 2, 64, 96) and np.abs(flow).max() > 1
    rows, columns = np.mgrid[:64, :96].astype(np.float32)
    for now, later, (across, down) in zip(images, images[1:], flow):
        warped = cv2.remap(later, columns + across, rows + down, cv2.INTER_LINEAR)
        inside = (slice(16, 48), slice(16, 80))
        moved = np.abs(warped[inside].astype(int) - now[inside])
        assert moved.mean() < 2 < np.abs(later[inside].astype(int) - now[inside]).mean() / 3


def test_the_temporal_term_learns_from_clips_made_of_stills(recipe, tmp_path):
    path = tmp_path / 'recipe.yaml'
    path.write_text(RECIPE.format(root=recipe.parent / 'blocks', stills=0.5))
    fit(load_recipe(path, ['terms.temporal={weight: 1}', 'optim.max_steps=2']), tmp_path / 'out')
    assert logged(tmp_path / 'out')['loss/temporal'] > 0


def test_clips_without_flow_give_no_temporal_loss():
    """One clip of two is a still: the other's scores change nothing and get no gradient."""
    torch.manual_seed(0)
    terms = Terms({'temporal': {'weight': 1}}, Widths(5, 8))
    scores = torch.randn(2, 3, 5, 8, 12, requires_grad=True)
    batch = {'images': 255 * torch.ones(2, 3, 3, 16, 24), 'flow': torch.zeros(2, 2, 2, 16, 24),
             'flow_known': torch.tensor([True, False])}
    counted = torch.ones(2, 3, 16, 24, dtype=torch.bool)
    loss = terms(Maps(scores), None, batch, counted)['temporal']
    loss.backward()
    assert scores.grad[0].abs().sum() > 0 and scores.grad[1].abs().sum() == 0
    alone = {key: value[:1] for key, value in batch.items()}
    torch.testing.assert_close(terms(Maps(scores[:1]), None, alone, counted[:1])['temporal'], loss)


def test_the_suites_have_every_method(monkeypatch):
    monkeypatch.setenv('CAMVID', 'somewhere')
    used = set()
    for path in SUITES.glob('*.yaml'):
        suite = load_suite(path)
        for row in suite.rows:
            settings = load_recipe(suite.recipe, [*suite.set, *row.set])
            used |= {values.get('method', name) for name, values in settings.terms.items()}
            widths = Widths(11, 128, stages=(16, 24), depth=40)
            Terms(settings.terms, widths, widths)
    assert used == set(METHODS)
