# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Depth and normals: of the street and of folders, through augmentation, as losses and metrics."""
import math

import cv2
import numpy as np
import pytest
import torch

from folders import depth_folder
from vseg_training.data import FolderFrames
from vseg_training.data.augment import Augmentation
from vseg_training.data.check import check_data
from vseg_training.data.clips import Geometry
from vseg_training.data.street import Street
from vseg_training.data.street.clips import StreetClips
from vseg_training.losses import KendallWeights, normals_loss, weighted_cross_entropy
from vseg_training.metrics import DepthMetrics, NormalsMetrics
from vseg_training.models.options import DepthTask, Tasks
from vseg_training.recipe import Data, Recipe, Source

STILL = ('building', 'road', 'sidewalk')


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


def test_kendalls_weight_of_a_task_without_a_say_stays():
    """Without depth in a batch, or at weight 0, its s would fall without end."""
    weights = KendallWeights(['a', 'b'])
    given = torch.tensor(0.0, requires_grad=True)
    total = weights({'a': torch.tensor(2.0), 'b': given})
    total.backward()
    assert total.item() == 2 and torch.isfinite(given.grad)
    assert weights.log_variances['b'].grad == 0 != weights.log_variances['a'].grad


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


@pytest.fixture
def folder(tmp_path):
    return depth_folder(tmp_path / 'own')


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
    (np.zeros((64, 96), np.uint8), 'is no image of millimetres of depth'),
    (np.zeros((64, 96, 3), np.uint16), 'is no image of millimetres of depth')])
def test_what_is_no_depth_is_refused(broken, reason, folder):
    source = FolderFrames(folder, 11, focal=50.0)
    key = source.drives[0][0]
    cv2.imwrite(str(folder / 'depth' / key.relative_to(folder / 'images')), broken)
    with pytest.raises(ValueError, match=reason):
        source.geometry(key)


def test_check_data_reads_depth_too(folder, tmp_path):
    source = Source(kind='folder', root=str(folder), focal=50.0)
    recipe = Recipe(tasks=Tasks(depth=DepthTask()), data=Data(train=[source]))
    assert not check_data(recipe, tmp_path).errors
    broken = next((folder / 'depth').rglob('*.png'))
    broken.write_bytes(b'no picture')
    found = check_data(recipe, tmp_path).errors
    assert str(broken) in found['depth images that cannot be used'][0]
    for path in (folder / 'depth').rglob('*.png'):
        path.unlink()
    found = check_data(recipe, tmp_path).errors
    assert 'has depth, such as' in found['sources with mistakes'][0]
