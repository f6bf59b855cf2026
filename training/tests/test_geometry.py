# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Depth and normals: of the street, through augmentation, as losses, metrics and tasks."""
import math

import cv2
import numpy as np
import pytest
import torch

from folders import write_folder
from networks import tiny
from ros_vseg import backends
from ros_vseg.bundle import Bundle
from ros_vseg.stream import Stream
from vseg_training.ablate import _seconds_per_step
from vseg_training.checkpoint import initialise, load_network, load_student
from vseg_training.cli import main
from vseg_training.data import FolderFrames
from vseg_training.data.augment import Augmentation
from vseg_training.data.clips import Geometry
from vseg_training.data.street import Street
from vseg_training.data.street.clips import StreetClips
from vseg_training.export import export_bundle
from vseg_training.from_bundle import initialise_from_bundle
from vseg_training.geometry import evaluate_geometry
from vseg_training.losses import KendallWeights, normals_loss, weighted_cross_entropy
from vseg_training.metrics import DepthMetrics, NormalsMetrics
from vseg_training.models.kinds import build
from vseg_training.models.options import DepthTask, KINDS, NormalsTask, Tasks
from vseg_training.models.tasks import bins_of, metres, of_classes, split, widened
from vseg_training.recipe import load_recipe, Recipe, to_dict
from vseg_training.temperature import calibrate
from vseg_training.train import build_data, fit, load_teacher

BOTH = Tasks(depth=DepthTask(bins=6, nearest=2, farthest=60), normals=NormalsTask())
STILL = ('building', 'road', 'sidewalk')
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


@pytest.fixture(scope='module')
def frames():
    """Two neighbouring frames of three streets, with their streets."""
    streets = [Street(seed, (90, 120), motion_blur=False) for seed in (0, 2, 3)]
    return [(street, *(street.frame(index, geometry=True) for index in (20, 21)))
            for street in streets]


def points(street, depth):
    """Camera coordinates [H, W, 3] of every pixel."""
    yy, xx = np.mgrid[0:depth.shape[0], 0:depth.shape[1]]
    rays = np.stack([xx, yy, np.ones_like(xx)], 2) @ np.linalg.inv(street.intrinsics).T
    return rays * depth[..., None]


def known_to_stand_still(frame):
    ids = [('sky', 'building', 'pole', 'road', 'sidewalk').index(name) for name in STILL]
    shape = frame.geometry
    return np.isin(frame.labels, ids) & (shape.depth > 0) & (shape.depth < 200)


def test_depth_and_the_cameras_motion_give_the_flow(frames):
    for street, frame, _ in frames:
        (rotation, position), (later, moved) = (street.pose(n / street.fps) for n in (20, 21))
        world = points(street, frame.geometry.depth) @ rotation + position
        seen = (world - moved) @ later.T @ street.intrinsics.T
        yy, xx = np.mgrid[0:90, 0:120]
        flow = seen[..., :2] / seen[..., 2:] - np.stack([xx, yy], 2)
        still = known_to_stand_still(frame) & frame.flow_valid
        assert still.mean() > 0.2
        assert np.abs(flow - frame.flow)[still].max() < 1e-2


def test_normals_stand_on_the_surfaces(frames):
    for street, frame, _ in frames:
        shape = frame.geometry
        space, normals = points(street, shape.depth.astype(float)), shape.normals
        flat = known_to_stand_still(frame)
        for axis in (0, 1):
            edge = np.diff(space, axis=axis)
            along = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
            # two pixels of one plane: equal normals
            same = (np.abs(np.diff(normals, axis=axis)).max(2) < 1e-6) & flat[along]
            height = np.abs((edge * normals[along]).sum(2)) / np.linalg.norm(edge, axis=2)
            assert same.mean() > 0.2
            assert np.median(height[same]) < 1e-4 and (height[same] < 1e-3).mean() > 0.85
        towards = (space * normals).sum(2)[shape.normals.any(2)]
        assert (towards <= 0).all()
        np.testing.assert_allclose(np.linalg.norm(normals[flat], axis=1), 1, atol=1e-5)


def test_the_road_is_as_far_below_as_the_camera_is_high(frames):
    for street, frame, _ in frames:
        height = points(street, frame.geometry.depth)[..., 1][frame.labels == 3]
        assert np.median(height) == pytest.approx(street.camera_height, rel=0.03)
        assert frame.geometry.focal == street.intrinsics[0, 0]


def test_sky_is_far_and_has_no_normal(frames):
    for _, frame, _ in frames:
        sky = (frame.labels == 0) & (frame.geometry.depth > 0)
        if sky.any():
            assert np.median(frame.geometry.depth[sky]) > 1000
            assert np.median(np.abs(frame.geometry.normals[sky]).max(1)) == 0


def test_clips_keep_geometry_in_a_cache_of_its_own(tmp_path):
    plain = StreetClips([0], 1, tmp_path, (32, 48))
    assert plain.geometry((0, 0)) is None
    first = StreetClips([0], 1, tmp_path, (32, 48), with_geometry=True)
    again = StreetClips([0], 1, tmp_path, (32, 48), with_geometry=True)
    np.testing.assert_array_equal(plain.read((0, 0))[0], first.read((0, 0))[0])
    truth, read = Street(0, (32, 48)).frame(0, geometry=True).geometry, first.geometry((0, 0))
    np.testing.assert_allclose(read.depth, truth.depth, rtol=1e-3)
    np.testing.assert_allclose(read.normals, truth.normals, atol=1e-3)
    assert read.focal == truth.focal
    np.testing.assert_array_equal(again.geometry((0, 0)).depth, read.depth)


@pytest.mark.parametrize('seed', range(6))
def test_augmented_depth_is_that_of_the_cameras_image(seed):
    """A pixel of the crop has the depth of where it came from, times focal / (own * scale)."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 50, (40, 60)).astype(np.float32)
    normals = rng.normal(size=(40, 60, 3)).astype(np.float32)
    draw = Augmentation((24, 32), (0.5, 2.0)).draw((40, 60), rng)
    found, turned = draw.geometry([Geometry(depth, normals, 80.0), None], 100.0)
    scale, inverse = draw.matrix[1, 1], np.linalg.inv(draw.matrix[:, :2].astype(float))
    checked = 0
    for y in range(24):
        for x in range(32):
            u, v = inverse @ (np.array([x, y]) - draw.matrix[:, 2])
            near = np.abs([u - np.floor(u) - 0.5, v - np.floor(v) - 0.5]).min()
            if near < 0.05:  # between two pixels either may be taken
                continue
            checked += 1
            column, row = int(np.rint(u)), int(np.rint(v))
            if 0 <= column < 60 and 0 <= row < 40:
                assert found[0, y, x] == pytest.approx(
                    depth[row, column] * 100 / (80 * scale), rel=1e-5)
                expected = normals[row, column] * ((-1 if draw.matrix[0, 0] < 0 else 1), 1, 1)
                np.testing.assert_allclose(turned[0, :, y, x], expected, rtol=1e-6)
            else:
                assert found[0, y, x] == 0 and not turned[0, :, y, x].any()
    assert checked > 100 and not found[1].any() and not turned[1].any()


def loops_of_cross_entropy(scores, bins, sharpness):
    total, count = 0.0, 0
    for b, i, j in np.ndindex(bins.shape):
        if bins[b, i, j] < 0:
            continue
        column = scores[b, :, i, j]
        shares = np.exp(column - column.max())
        shares /= shares.sum()
        near = np.array([math.exp(-sharpness * (bins[b, i, j] - k) ** 2)
                         for k in range(len(column))])
        total -= (near / near.sum() * np.log(shares)).sum()
        count += 1
    return total / count


def test_weighted_cross_entropy_against_loops():
    rng = np.random.default_rng(0)
    scores, bins = rng.normal(0, 2, (2, 7, 3, 4)), rng.integers(-1, 7, (2, 3, 4))
    found = weighted_cross_entropy(torch.from_numpy(scores), torch.from_numpy(bins), 0.3)
    assert found.item() == pytest.approx(loops_of_cross_entropy(scores, bins, 0.3), rel=1e-5)
    sharp = weighted_cross_entropy(torch.from_numpy(scores), torch.from_numpy(bins), 50.0)
    plain = torch.nn.functional.cross_entropy(
        torch.from_numpy(scores), torch.from_numpy(bins), ignore_index=-1)
    assert sharp.item() == pytest.approx(plain.item(), rel=1e-5)


def test_weighted_cross_entropy_learns_nothing_from_what_is_not_known():
    scores = torch.randn(1, 5, 2, 2, requires_grad=True)
    bins = torch.tensor([[[0, -1], [4, -1]]])
    weighted_cross_entropy(scores, bins).backward()
    assert scores.grad[..., 1].abs().max() == 0 and scores.grad[..., 0].abs().min() > 0
    none = weighted_cross_entropy(scores, torch.full_like(bins, -1))
    none.backward()
    assert none.item() == 0 and torch.isfinite(scores.grad).all()


def test_normals_loss_against_loops():
    rng = np.random.default_rng(1)
    given, truth = rng.normal(size=(2, 3, 3, 4)), rng.normal(size=(2, 3, 3, 4))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    truth[0, :, 0] = 0
    values = [1 - given[b, :, i, j] @ truth[b, :, i, j] / np.linalg.norm(given[b, :, i, j])
              for b, i, j in np.ndindex(2, 3, 4) if truth[b, :, i, j].any()]
    found = normals_loss(torch.from_numpy(given), torch.from_numpy(truth))
    assert found.item() == pytest.approx(np.mean(values), rel=1e-5)
    assert normals_loss(torch.from_numpy(given), torch.zeros(2, 3, 3, 4)).item() == 0


@pytest.mark.parametrize('loss', [weighted_cross_entropy, normals_loss])
def test_half_precision_is_finite(loss):
    given = (50 * torch.randn(1, 3, 4, 4)).bfloat16().requires_grad_()
    truth = torch.zeros(1, 3, 4, 4) + torch.tensor([0.0, 1, 0]).view(3, 1, 1)
    if loss is weighted_cross_entropy:
        truth = torch.zeros(1, 4, 4, dtype=torch.long)
    with torch.autocast('cpu', torch.bfloat16):
        value = loss(given, truth)
    value.backward()
    assert value.dtype == torch.float32 and torch.isfinite(given.grad).all()


def test_kendalls_weights_settle_at_the_losses():
    """The minimum over s of exp(-s) L + s / 2 is at s = log 2 L."""
    weights, losses = KendallWeights(['a', 'b']), {'a': torch.tensor(4.0), 'b': torch.tensor(0.25)}
    optimiser = torch.optim.SGD(weights.parameters(), lr=0.3)
    for _ in range(200):
        optimiser.zero_grad()
        weights(losses).backward()
        optimiser.step()
    assert weights.log_variances['a'].item() == pytest.approx(math.log(8), abs=1e-3)
    assert weights.log_variances['b'].item() == pytest.approx(math.log(0.5), abs=1e-3)


def test_metrics_against_loops():
    rng = np.random.default_rng(2)
    truth, depth = rng.uniform(1, 50, (6, 7)), rng.uniform(1, 50, (6, 7))
    truth[0] = 0
    metrics = DepthMetrics()
    for part in (slice(0, 2), slice(2, 6)):  # pooled, however it comes
        metrics.update(truth[part], depth[part])
    pairs = [(t, d) for t, d in zip(truth.ravel(), depth.ravel()) if t > 0]
    expected = {'rel': np.mean([abs(d - t) / t for t, d in pairs]),
                'log10': np.mean([abs(math.log10(d) - math.log10(t)) for t, d in pairs]),
                'rms': math.sqrt(np.mean([(d - t) ** 2 for t, d in pairs]))}
    for power in (1, 2, 3):
        expected[f'delta{power}'] = 100 * np.mean(
            [max(t / d, d / t) < 1.25 ** power for t, d in pairs])
    assert metrics.summary() == pytest.approx(expected)
    assert all(math.isnan(value) for value in DepthMetrics().summary().values())
    angles = NormalsMetrics()
    angles.update(np.array([[1.0, 0, 0], [0, 0, 0]]), np.array([[1.0, 1, 0], [1, 0, 0]]))
    assert angles.summary()['angle'] == pytest.approx(45)


def test_bins_and_metres_are_each_others_inverse():
    task = DepthTask(bins=50, nearest=2, farthest=80)
    depth = torch.tensor([[2.0, 3.7, 15.0, 79.0], [1.0, 300.0, 0.0, 8.0]])
    bins = bins_of(depth, task)
    assert bins[1].tolist()[:3] == [0, 49, -1]
    scores = torch.nn.functional.one_hot(bins.clamp(min=0), 50).permute(2, 0, 1) * 50.0
    back = metres(scores, task)
    inside = (depth >= 2) & (depth <= 80)
    ratio = (back / depth)[inside]
    assert (ratio - 1).abs().max() < 80 / 2 ** (1 / 50) and ratio.log().abs().max() < (
        math.log(40) / 50 / 2 + 1e-4)  # half a bin


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


def test_it_learns_depth_and_normals(recipe, trained):
    network, own = load_network(trained)
    source = StreetClips(range(2), 1, recipe.parent / 'cache', (120, 160), with_geometry=True)
    found = evaluate_geometry(network, source, own.data.size)
    untrained = build(own.model, 11, tasks=own.tasks)
    before = evaluate_geometry(untrained, source, own.data.size)
    assert found['rel'] < 0.6 * before['rel'] and found['delta1'] > before['delta1'] + 10
    assert found['angle'] < 45 < before['angle']
    assert 0 < _seconds_per_step(recipe.parent / 'run') < 60
    assert _seconds_per_step(recipe.parent) is None     # no run


def test_depth_is_measured_for_each_cameras_focal_length(recipe, trained):
    """The same pictures of a camera with twice the focal length: everything is twice as far."""
    network, own = load_network(trained)
    source = StreetClips([0], 1, recipe.parent / 'cache', (120, 160), with_geometry=True)
    near = evaluate_geometry(network, source, own.data.size)
    whole = source.geometry
    source.geometry = lambda key: whole(key)._replace(
        depth=2 * whole(key).depth, focal=2 * whole(key).focal)
    far = evaluate_geometry(network, source, own.data.size)
    assert far['rel'] == pytest.approx(near['rel'], rel=1e-3)
    assert far['rms'] == pytest.approx(2 * near['rms'], rel=1e-3)


def test_commands_report_and_export_depth(trained, tmp_path, capsys):
    assert main(['evaluate', str(trained)]) == 0
    assert '| rel | log10 | rms (m) | delta1 |' in capsys.readouterr().out
    assert main(['export', str(trained), '-o', str(tmp_path / 'b.onnx'), '--calibrate']) == 0
    assert Bundle.load(tmp_path / 'b.onnx').info.depth == (3, 80, 170)


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


@pytest.mark.parametrize('change, reason', [
    ('tasks.depth.bins=1', 'bins is 1: use 2 or more'),
    ('tasks.depth.nearest=90', 'nearest 90.0 and farthest 80.0'),
    ('tasks.depth.focal=0', 'tasks.depth.focal is 0.0'),
    ('tasks.weighting=equal', "'equal' is unknown: use fixed or kendall"),
    ('terms.pixel={weight: 1, of: depth}', 'needs a teacher')])
def test_mistakes_are_named_before_the_first_step(change, reason, recipe, tmp_path, capsys):
    assert main(['fit', '--config', str(recipe), '--output', str(tmp_path / 'run'), '--set',
                 change]) == 2
    error = capsys.readouterr().err
    assert reason in error and 'Traceback' not in error


@pytest.fixture
def folder(tmp_path):
    """A folder of one drive with the street's pictures and their depth in mm."""
    root = write_folder(tmp_path / 'own', drives=1, frames=2)
    for image in (root / 'images').rglob('*.png'):
        path = root / 'depth' / image.relative_to(root / 'images')
        path.parent.mkdir(parents=True, exist_ok=True)
        depth = np.random.default_rng(0).integers(
            0, 60000, cv2.imread(str(image)).shape[:2], np.uint16)
        cv2.imwrite(str(path), depth)
    return root


def test_own_depth_is_read_in_metres(folder):
    source = FolderFrames(folder, 11, focal=50.0)
    key = source.drives[0][0]
    path = folder / 'depth' / key.relative_to(folder / 'images')
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    shape = source.geometry(key)
    np.testing.assert_allclose(shape.depth, stored / 1000, rtol=1e-6)
    assert shape.focal == 50 and not shape.normals.any()
    assert FolderFrames(folder, 11).geometry(key) is None
    path.unlink()
    assert source.geometry(key) is None  # not every frame has depth


@pytest.mark.parametrize('broken, reason', [
    (np.zeros((4, 4), np.uint16), 'registered to the image'),
    (np.zeros((64, 96), np.uint8), 'is no depth image'),
    (np.zeros((64, 96, 3), np.uint16), 'is no depth image')])
def test_what_is_no_depth_is_refused(broken, reason, folder):
    source = FolderFrames(folder, 11, focal=50.0)
    key = source.drives[0][0]
    cv2.imwrite(str(folder / 'depth' / key.relative_to(folder / 'images')), broken)
    with pytest.raises(ValueError, match=reason):
        source.geometry(key)


def test_a_folder_with_depth_trains(folder, tmp_path):
    path = tmp_path / 'recipe.yaml'
    path.write_text(RECIPE.format(steps=1))
    changes = [f'data.train=[{{kind: folder, root: {folder}, focal: 50}}]', 'data.val=null',
               'tasks.normals=null', 'optim.checkpoint_every=1']
    fit(load_recipe(path, changes), tmp_path / 'run')
    text = (tmp_path / 'run' / 'metrics' / 'metrics.csv').read_text().splitlines()
    names, values = text[0].split(','), text[-1].split(',')
    assert float(dict(zip(names, values))['loss/depth']) > 0.1
    with pytest.raises(ValueError, match='in pixels above 0'):
        fit(load_recipe(path, [change.replace('50', '-1') for change in changes]), tmp_path / 'b')


@pytest.mark.parametrize('start', ['bundle', 'checkpoint'])
def test_further_tasks_start_beside_classes_that_are_known(start, tmp_path):
    old = tiny(context_frames=0)
    new = build(KINDS['mgcnet'](weights=None, context_frames=0, **KIND_OPTIONS['mgcnet']), 5,
                tasks=BOTH)
    before = new.head.classify.weight.detach().clone()
    if start == 'bundle':
        own = Recipe()
        own.data.label_set = str(tmp_path / 'five.yaml')
        rows = [f'- {{id: {n}, name: c{n}, color: [{n}, 0, 0]}}' for n in range(5)]
        (tmp_path / 'five.yaml').write_text('\n'.join(['name: five', 'classes:', *rows]))
        export_bundle(old.eval(), own, tmp_path / 'b.onnx', (64, 96))
        initialise_from_bundle(new, tmp_path / 'b.onnx', torch.randint(
            0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    else:
        own = to_dict(Recipe(model=KINDS['mgcnet'](weights=None, **KIND_OPTIONS['mgcnet'])))
        torch.save({'hyper_parameters': {'recipe': own}, 'state_dict': {
            'class_weights': torch.ones(5), **{
                f'network.{key}': value for key, value in old.state_dict().items()}}},
            tmp_path / 'old.ckpt')
        initialise(new, tmp_path / 'old.ckpt')
    torch.testing.assert_close(new.head.classify.weight[:5], old.head.classify.weight)
    torch.testing.assert_close(new.head.classify.weight[5:], before[5:])


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
