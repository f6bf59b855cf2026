# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Depth and normals as tasks of a network: trained, measured, exported and refused."""
from collections import Counter
import csv
import math

import numpy as np
import pytest
import torch

from folders import depth_folder, write_folder
from networks import tiny
from ros_vseg import backends
from ros_vseg.bundle import Bundle
from ros_vseg.stream import Stream
from vseg_training.ablate import _speed
from vseg_training.checkpoint import initialise, load_network, load_student
from vseg_training.cli import main
from vseg_training.data.street.clips import StreetClips
from vseg_training.evaluate import evaluate_stream
from vseg_training.export import export_bundle
from vseg_training.from_bundle import initialise_from_bundle
from vseg_training.geometry import geometry_metrics
from vseg_training.losses import weighted_cross_entropy
from vseg_training.models.kinds import build
from vseg_training.models.layers import resize, resize_labels
from vseg_training.models.options import DepthTask, KINDS, NormalsTask, Tasks
from vseg_training.models.tasks import (
    bins_of, metres, of_classes, outputs_of, split, widened, with_known)
from vseg_training.recipe import load_recipe, Recipe, Source, to_dict
from vseg_training.task import SegmentationTask
from vseg_training.temperature import calibrate
from vseg_training.train import build_data, fit, load_teacher

BOTH = Tasks(depth=DepthTask(bins=6, nearest=2, farthest=60), normals=NormalsTask())
RECIPE = """
name: shape
model: {{kind: espnet_c}}
tasks: {{depth: {{bins: 12, nearest: 3, farthest: 80, focal: 170}}, normals: {{}}}}
data:
  train: [{{kind: street, seeds: [0, 2]}}]
  val: {{kind: street, seeds: [0, 2]}}
  crop: [96, 128]
  size: [120, 160]
  scale: [1.0, 1.2]
  frames_per_step: 2
  clip_lengths: [1]
  workers: 0
loss: {{long_term: 0}}
optim: {{max_steps: {steps}, warmup_steps: 2, ema: 0.5, lr: 0.004, validate_every: {steps},
        checkpoint_every: 100, precision: 32-true}}
"""


def test_bins_and_metres_are_each_others_inverse():
    task = DepthTask(bins=50, nearest=2, farthest=80)
    depth = torch.tensor([[2.0, 3.7, 15.0, 79.0], [1.0, 300.0, 0.0, 8.0]])
    bins = bins_of(depth, task)
    assert bins[1].tolist()[:3] == [0, 49, -1]
    scores = torch.nn.functional.one_hot(bins.clamp(min=0), 50).permute(2, 0, 1) * 50.0
    back = metres(scores, task)
    inside = (depth >= 2) & (depth <= 80)
    ratio = (back / depth)[inside]
    assert ratio.log().abs().max() < math.log(40) / 50 / 2 + 1e-4  # half a bin


KIND_OPTIONS = {'mgcnet': {'channels': 16, 'key_channels': 8, 'num_prototypes': 4,
                           'head_widths': [16, 8]},
                'pspnet': {'backbone': 'mobilenet_v2', 'channels': 16, 'output_stride': 16},
                'espnet': {}}


def network_of(kind, tasks=BOTH):
    torch.manual_seed(1)
    return build(KINDS[kind](**KIND_OPTIONS[kind], weights=None), 11, tasks=tasks)


@pytest.mark.parametrize('kind', KIND_OPTIONS)
def test_every_kind_gives_further_tasks_and_its_classes_as_before(kind):
    network = network_of(kind).eval()
    clip = 255 * torch.rand(1, 2, 3, 64, 96)
    with torch.no_grad():
        output = network(clip)
        size = output['scores'].shape[-2:]
        assert output['scores'].shape[2] == 11
        assert output['depth'].shape == (1, 2, 6, *size)
        assert output['normals'].shape == (1, 2, 3, *size)
        stream = network.stream()
        for number in range(2):
            image = clip[0, number].permute(1, 2, 0).round().to(torch.uint8).numpy()
            stream.step(image)
            again = network(torch.from_numpy(image).permute(2, 0, 1)[None, None])
            if number == 0:
                for name, part in stream.parts.items():
                    torch.testing.assert_close(part, again[name][0, 0], atol=1e-4, rtol=1e-4)


def test_split_takes_each_channel_once():
    scores = torch.arange(20.0).view(20, 1, 1)
    parts = split(scores, 11, BOTH)
    assert [parts[name].flatten().tolist() for name in ('scores', 'depth', 'normals')] == [
        list(range(11)), list(range(11, 17)), list(range(17, 20))]
    assert list(split(scores[:11], 11, Tasks())) == ['scores']


@pytest.mark.parametrize('layer', [torch.nn.Conv2d(3, 5, 1), torch.nn.ConvTranspose2d(3, 5, 2, 2)])
def test_a_widened_layer_is_of_its_kind_and_knows_its_classes(layer):
    wide, x = widened(layer, 2), torch.randn(1, 3, 4, 4)
    assert wide(x).shape[1] == 7 and wide(x).shape[2:] == layer(x).shape[2:]
    before = wide(x).detach()
    for part in of_classes(wide, 5):
        part.mul_(2)
    torch.testing.assert_close(wide(x)[:, :5], 2 * before[:, :5])
    torch.testing.assert_close(wide(x)[:, 5:], before[:, 5:])


@pytest.mark.parametrize('kind, context', [('mgcnet', 2), ('espnet', 0)])
def test_the_runtime_gives_torchs_depth(kind, context, tmp_path):
    network = tiny(context_frames=context) if kind == 'mgcnet' else network_of(kind)
    if kind == 'mgcnet':
        network.tasks = BOTH
        network.head.classify = widened(network.head.classify, BOTH.channels + 6)
        network.num_classes = 11
    info = export_bundle(network.eval(), Recipe(), tmp_path / 'b.onnx', (64, 96))
    assert info.depth == (2, 60, 555) and info.has_confidence == bool(context)
    stream, reference = Stream(backends.load(Bundle.load(tmp_path / 'b.onnx'), 'onnxruntime')), (
        network.stream())
    rng = np.random.default_rng(0)
    for number in range(4):
        image = np.kron(rng.integers(0, 256, (8, 12, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        found = stream.step(image, number * 10**8)
        reference.step(image)
        expected = metres(reference.parts['depth'], BOTH.depth).numpy()
        np.testing.assert_allclose(found.depth, expected, rtol=2e-3)
    assert found.depth.std() > 1e-3


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp('geometry') / 'recipe.yaml'
    path.write_text(RECIPE.format(steps=40))
    return path


@pytest.fixture(scope='module')
def trained(recipe):
    return fit(load_recipe(recipe), recipe.parent / 'run')


def errors_of(network, source, size):
    """Errors of depth and normals on a source."""
    geometry = geometry_metrics(network.tasks, size[0])
    evaluate_stream(network, source, size, geometry=geometry)
    return geometry.summary()


def test_it_learns_depth_and_normals(recipe, trained):
    network, own = load_network(trained)
    source = StreetClips(range(2), 1, recipe.parent / 'cache', (120, 160), with_geometry=True)
    found = errors_of(network, source, own.data.size)
    untrained = build(own.model, 11, tasks=own.tasks)
    before = errors_of(untrained, source, own.data.size)
    assert found['rel'] < 0.6 * before['rel'] and found['delta1'] > before['delta1'] + 10
    assert found['angle'] < 45 < before['angle']
    speed = _speed(recipe.parent / 'run')
    assert 0 < speed['seconds_per_step'] < 60
    assert ('memory_GB' in speed) == torch.cuda.is_available()
    assert _speed(recipe.parent) == {}     # no run


def test_depth_is_measured_for_each_cameras_focal_length(recipe, trained):
    """The same pictures of a camera with twice the focal length: everything is twice as far."""
    network, own = load_network(trained)
    source = StreetClips([0], 1, recipe.parent / 'cache', (120, 160), with_geometry=True)
    near = errors_of(network, source, own.data.size)
    whole = source.geometry
    source.geometry = lambda key: whole(key)._replace(
        depth=2 * whole(key).depth, focal=2 * whole(key).focal)
    far = errors_of(network, source, own.data.size)
    assert far['rel'] == pytest.approx(near['rel'], rel=1e-3)
    assert far['rms'] == pytest.approx(2 * near['rms'], rel=1e-3)


def test_commands_report_and_export_depth(recipe, trained, tmp_path, capsys, monkeypatch):
    path = tmp_path / 'b.onnx'
    assert main(['export', str(trained), '-o', str(path), '--calibrate']) == 0
    assert Bundle.load(path).info.depth == (3, 80, 170)
    capsys.readouterr()
    seen, read = Counter(), StreetClips.read
    monkeypatch.setattr(
        StreetClips, 'read', lambda self, key: (seen.update([key]), read(self, key))[1])
    assert main(['evaluate', str(trained), str(path), '--config', str(recipe),
                 '--backend', 'onnxruntime']) == 0
    assert set(seen.values()) == {2}  # each of the two streams every frame once
    head, _, network, bundle = capsys.readouterr().out.splitlines()[:4]
    names = [name.strip() for name in head.split('|')]
    for name in ('rel', 'log10', 'rms (m)', 'delta1', 'delta3'):
        place = names.index(name)
        assert network.split('|')[place] == bundle.split('|')[place] != ' - '


def test_neither_temperature_nor_logit_adjustment_touches_depth(trained, tmp_path):
    network, own = load_student(trained)
    source = StreetClips([0], 1, tmp_path, (120, 160))
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    stream = network.stream()
    scores, depth = stream.step(image), stream.parts['depth']
    temperature = calibrate(network, source, own.data.size)
    torch.testing.assert_close(stream.step(image), scores / temperature, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(stream.parts['depth'], depth)


@pytest.mark.parametrize('term', ['pixel', 'channel', 'holistic'])
def test_a_term_compares_depth(term, recipe, trained, tmp_path):
    changes = [f'terms.{term}={{weight: 1, of: depth}}', f'distill.teacher={trained}',
               'distill.structural=0', 'distill.uncertainty=0', 'optim.max_steps=2',
               'optim.validate_every=2', 'optim.checkpoint_every=1', 'loss.segmentation=0']
    if term == 'holistic':  # its critic needs maps of 32 x 32 cells
        changes.append('data.crop=[256,256]')
    assert fit(load_recipe(recipe, changes), tmp_path / 'run').name == 'best.ckpt'
    text = (tmp_path / 'run' / 'metrics' / 'metrics.csv').read_text()
    assert f'loss/{term}' in text and 'val/delta1' in text


def test_one_method_serves_two_tasks(recipe, trained, tmp_path):
    """Under a name of its own: of classes and of depth, each of its own weight."""
    loaded = load_recipe(recipe, [
        'terms.pixel={weight: 2}', 'terms.depth_pixel={weight: 1, of: depth, method: pixel}',
        f'distill.teacher={trained}', 'distill.uncertainty=0', 'distill.structural=0',
        'optim.max_steps=2', 'optim.validate_every=2', 'optim.checkpoint_every=1'])
    fit(loaded, tmp_path / 'run')
    with (tmp_path / 'run' / 'metrics' / 'metrics.csv').open() as file:
        row = next(row for row in csv.DictReader(file) if row['loss/pixel'])
    both = [float(row[f'loss/{name}']) for name in ('pixel', 'depth_pixel')]
    assert min(both) > 0 and both[0] != both[1]


@pytest.mark.parametrize('term', ['overparameterised', 'deep_supervision'])
def test_terms_on_stages_learn_depth_too(term, recipe):
    """The thesis' AT_2 and DS_2: the loss is of depth, the backbone learns, the head does not."""
    options = [f'terms.of_classes={{weight: 1, method: {term}}}',
               f'terms.of_depth={{weight: 1, method: {term}, of: depth}}']
    torch.manual_seed(0)
    task = SegmentationTask(to_dict(load_recipe(recipe, options)))
    depth = task.recipe.tasks.depth
    clip, labels = 255 * torch.rand(2, 1, 3, 64, 96), torch.randint(0, 11, (2, 1, 64, 96))
    batch = {'images': clip, 'labels': labels, 'depth': 1 + 20 * torch.rand(2, 1, 64, 96)}
    batch['depth'][:, :, :8] = 0  # not known
    output = task.network(clip)
    terms = task._context_terms(batch, output)
    module = task.terms.modules_by_name['of_depth']
    stages, sides = [stage[:, 0] for stage in output['stages']], output['scores'].shape[-2:]
    maps = ([module.classify(module.module(stages))] if term == 'overparameterised' else
            [classify(stage) for classify, stage in zip(module.classify, stages)])
    bins = resize_labels(bins_of(batch['depth'][:, 0], depth), sides)
    expected = sum(weighted_cross_entropy(resize(each, sides), bins, depth.sharpness)
                   for each in maps)
    torch.testing.assert_close(terms['of_depth'], expected)
    assert terms['of_classes'] != terms['of_depth']
    terms['of_depth'].backward()
    assert all((parameter.grad is not None) == name.startswith('backbone.')
               for name, parameter in task.network.named_parameters() if 'stage' in name)


@pytest.mark.parametrize('change, reason', [
    ('tasks.depth.bins=1', 'tasks.depth.bins is 1: give a number of 2..'),
    ('tasks.depth.nearest=90', 'nearest 90.0 and farthest 80.0'),
    ('tasks.depth.focal=0', 'tasks.depth.focal is 0.0'),
    ('tasks.weighting=equal', "'equal' is unknown: use fixed or kendall"),
    ('tasks={depth: null, normals: null, weighting: kendall}', 'weights several tasks'),
    ('data.val.ignore_labels=true', 'leave ignore_labels out of it'),
    ('terms.pixel={weight: 1, of: depth}', 'needs a teacher'),
    ('terms.depth={weight: 1, method: pixel}', 'cannot be the name of a term'),
    ('terms.pair={weight: 1, method: pixel}', 'terms.pair cannot be the name'),
    ('terms.other={weight: 1, method: pixl}', "terms.other.method is 'pixl': use pixel"),
    ('terms.other={weight: 1}', 'or name one of them as its method'),
    ('terms.deep_supervision={weight: 1, of: normals}', "of is 'normals': use scores or depth")])
def test_mistakes_are_named_before_the_first_step(change, reason, recipe, tmp_path, capsys):
    assert main(['fit', '--config', str(recipe), '--output', str(tmp_path / 'run'), '--set',
                 change]) == 2
    error = capsys.readouterr().err
    assert reason in error and 'Traceback' not in error


def test_a_folder_with_depth_trains(tmp_path):
    folder = depth_folder(tmp_path / 'own')
    path = tmp_path / 'recipe.yaml'
    path.write_text(RECIPE.format(steps=1))
    changes = [f'data.train=[{{kind: folder, root: {folder}, focal: 50}}]', 'data.val=null',
               'tasks.normals=null', 'optim.checkpoint_every=1']
    fit(load_recipe(path, changes), tmp_path / 'run')
    text = (tmp_path / 'run' / 'metrics' / 'metrics.csv').read_text().splitlines()
    names, values = text[0].split(','), text[-1].split(',')
    assert float(dict(zip(names, values))['loss/depth']) > 0.1
    changes[1] = f'data.val={{kind: folder, root: {folder}}}'
    with pytest.raises(ValueError, match='best.ckpt is chosen by depth, which data.val has not'):
        fit(load_recipe(path, [*changes, 'loss.segmentation=0']), tmp_path / 'b')
    with pytest.raises(ValueError, match=r'data.train\[0\].focal is -1.0: give a number above 0'):
        fit(load_recipe(path, [change.replace('50', '-1') for change in changes]), tmp_path / 'b')


def five_classes(folder, names):
    """Recipe of five classes."""
    own = Recipe(model=KINDS['mgcnet'](weights=None, **KIND_OPTIONS['mgcnet']))
    own.data.label_set = str(folder / 'five.yaml')
    rows = [f'- {{id: {number}, name: {name}, color: [{number}, 0, 0]}}'
            for number, name in enumerate(names)]
    (folder / 'five.yaml').write_text('\n'.join(['name: five', 'classes:', *rows]))
    return own


@pytest.mark.parametrize('start', ['bundle', 'checkpoint'])
@pytest.mark.parametrize('names', ['abcde', 'xeyaz'])
def test_a_network_starts_with_the_classes_that_are_known(start, names, tmp_path):
    """Also in another order, and beside further tasks, which start anew."""
    old, own = tiny(context_frames=0), five_classes(tmp_path, 'abcde')
    new = build(KINDS['mgcnet'](weights=None, context_frames=0, **KIND_OPTIONS['mgcnet']), 5,
                tasks=BOTH)
    before = {key: value.clone() for key, value in new.state_dict().items()}
    if start == 'bundle':
        export_bundle(old.eval(), own, tmp_path / 'b.onnx', (64, 96))
        initialise_from_bundle(new, tmp_path / 'b.onnx', names, torch.randint(
            0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    else:
        torch.save({'hyper_parameters': {'recipe': to_dict(own)}, 'state_dict': {
            'class_weights': torch.ones(5), **{
                f'network.{key}': value for key, value in old.state_dict().items()}}},
            tmp_path / 'old.ckpt')
        initialise(new, tmp_path / 'old.ckpt', names)
        same = names == 'abcde'
        assert torch.equal(new.auxiliary[-1].weight, old.auxiliary[-1].weight) == same
    for key in ('head.classify.weight', 'head.classify.bias'):
        row, known = new.state_dict()[key], old.state_dict()[key]
        for number, name in enumerate(names):
            expected = known['abcde'.index(name)] if name in 'abcde' else before[key][number]
            torch.testing.assert_close(row[number], expected)
        torch.testing.assert_close(row[5:], before[key][5:])


def test_bins_and_normals_start_from_their_like_alone():
    """Bins of another camera, and normals where bins were, are other channels."""
    depth, closer = DepthTask(bins=3), DepthTask(bins=3, farthest=50)
    known = outputs_of('ab', Tasks(depth=depth, normals=NormalsTask()))
    value = torch.arange(8.0)[:, None]
    for tasks, expected in (
            (Tasks(normals=NormalsTask()), [0, 1, 5, 6, 7]), (Tasks(depth=depth), [0, 1, 2, 3, 4]),
            (Tasks(depth=closer), [0, 1, -1, -1, -1]), (Tasks(), [0, 1])):
        wanted = outputs_of('ab', tasks)
        own = -torch.ones(len(wanted), 1)
        assert with_known(own, wanted, value, known).flatten().tolist() == expected
        transposed = with_known(own.T, wanted, value.T, known, 1)
        assert transposed.flatten().tolist() == expected
    assert with_known(-torch.ones(2, 4), 'ab', value, known) is None


def test_no_layer_learns_classes_without_segmentation():
    own = Recipe(model=KINDS['mgcnet'](weights=None, **KIND_OPTIONS['mgcnet']), tasks=BOTH)
    assert SegmentationTask(to_dict(own), 0)._weights()['auxiliary'] == 0.4
    own.loss.segmentation = 0.0
    weights = SegmentationTask(to_dict(own), 0)._weights()
    assert (weights['scores'], weights['auxiliary'], weights['depth']) == (0, 0, 1)


def test_classes_are_not_balanced_by_labels_that_are_ignored(tmp_path):
    own = Recipe()
    own.loss.class_balance = 1.05
    own.data.train = [Source(kind='folder', root=str(tmp_path), ignore_labels=True)]
    with pytest.raises(ValueError, match='list one with labels first'):
        build_data(own, tmp_path, 0)


def test_data_without_depth_is_refused(tmp_path):
    folder = write_folder(tmp_path / 'blocks')
    path = tmp_path / 'recipe.yaml'
    path.write_text(RECIPE.format(steps=2))
    own = load_recipe(path, [f'data.train=[{{kind: folder, root: {folder}}}]'])
    with pytest.raises(ValueError, match='add a source of kind street'):
        build_data(own, tmp_path, 0)


def test_a_teacher_with_other_bins_is_refused(recipe, trained):
    own = load_recipe(recipe, [f'distill.teacher={trained}', 'tasks.depth.farthest=50'])
    with pytest.raises(ValueError, match='must have the same bins'):
        load_teacher(own)


def test_a_teacher_of_several_streams_has_no_further_tasks():
    options = KINDS['mgcnet'](short_term='msc', weights=None)
    with pytest.raises(ValueError, match='set model.short_term to ssc'):
        build(options, 11, tasks=BOTH)


def test_kendalls_weights_are_trained_and_resumed(recipe, tmp_path):
    changes = ['tasks.weighting=kendall', 'optim.max_steps=3', 'optim.checkpoint_every=2',
               'optim.validate_every=3']
    fit(load_recipe(recipe, changes), tmp_path / 'run')
    state = torch.load(tmp_path / 'run' / 'last.ckpt', weights_only=True)['state_dict']
    learned = {key: value for key, value in state.items() if 'log_variances' in key}
    assert sorted(key.rpartition('.')[2] for key in learned) == ['depth', 'normals', 'scores']
    assert all(value != 0 for value in learned.values())
