# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest

from vseg_training.data import build_source
from vseg_training.data.street import Street
from vseg_training.data.street.clips import StreetClips
from vseg_training.models.options import ESPNetOptions
from vseg_training.recipe import Data, Recipe, Source


CLASSES = set(range(11))


def targets(frame):
    """Where each pixel goes: float x, y and the nearest pixel inside the image."""
    height, width = frame.labels.shape
    yy, xx = np.mgrid[0:height, 0:width]
    x, y = xx + frame.flow[..., 0], yy + frame.flow[..., 1]
    return (x, y, np.clip(np.rint(x), 0, width - 1).astype(int),
            np.clip(np.rint(y), 0, height - 1).astype(int))


@pytest.fixture(scope='module')
def pairs():
    """Two neighbouring frames with motion, of three streets without blur."""
    return [Street(seed, motion_blur=False).clip(20, 2) for seed in (0, 1, 3)]


def test_same_seed_and_index_give_the_same_bytes():
    walked = Street(5, (90, 120))
    for index in (0, 1, 70):
        last = walked.frame(index)
    direct = Street(5, (90, 120)).frame(70)
    for name in ('image', 'labels', 'flow', 'flow_valid'):
        assert np.array_equal(getattr(last, name), getattr(direct, name)), name


def test_flow_is_left_out_where_it_is_not_asked_for():
    street = Street(5, (90, 120))
    lazy, full = street.frame(3, flow=False), street.frame(3)
    assert lazy.flow is None and lazy.flow_valid is None
    assert np.array_equal(lazy.image, full.image)


def test_seeds_give_different_streets():
    first, second = (Street(seed, (90, 120)).frame(0, flow=False) for seed in (1, 2))
    assert (first.labels != second.labels).mean() > 0.1
    assert np.abs(first.image.astype(int) - second.image).mean() > 10


@pytest.mark.parametrize('size', [(16, 16), (91, 133), (240, 96), (720, 960)])
def test_sizes(size):
    frame = Street(4, size).frame(10)
    assert frame.image.shape == (*size, 3) and frame.image.dtype == np.uint8
    assert frame.labels.shape == size and frame.labels.dtype == np.uint8
    assert frame.flow.shape == (*size, 2) and frame.flow.dtype == np.float32
    assert frame.flow_valid.shape == size and frame.flow_valid.dtype == bool
    assert np.isfinite(frame.flow).all()
    assert set(np.unique(frame.labels)) <= CLASSES | {255}
    assert (frame.labels == 255).mean() < 0.12 and frame.image.std() > 15


def test_too_small_a_size_is_named():
    with pytest.raises(ValueError, match=r'\(8, 480\).*16'):
        Street(0, (8, 480))


def test_the_same_scene_at_another_size():
    small = Street(3, (180, 240)).frame(30, flow=False).labels
    large = Street(3, (360, 480)).frame(30, flow=False).labels[::2, ::2]
    assert (small == large).mean() > 0.95


def test_every_class_appears_and_the_layout_is_a_street():
    count, top, bottom = np.zeros(256), np.zeros(256), np.zeros(256)
    for seed in range(6):
        street = Street(seed, (180, 240))
        for index in (0, 90):
            labels = street.frame(index, flow=False).labels
            count += np.bincount(labels.ravel(), minlength=256)
            top += np.bincount(labels[:45].ravel(), minlength=256)
            bottom += np.bincount(labels[140:165].ravel(), minlength=256)
    assert set(np.flatnonzero(count)) - {255} == CLASSES
    assert (count[:11] / count.sum() > 0.0005).all()
    assert top[[3, 4]].sum() == 0 and bottom[0] == 0
    assert bottom.argmax() == 3 and top[0] > 0.2 * top.sum()


def test_labels_follow_the_motion(pairs):
    for now, after in pairs:
        _, _, x, y = targets(now)
        valid = now.flow_valid
        assert valid.mean() > 0.6
        assert (after.labels[y, x] == now.labels)[valid].mean() > 0.98
        for label in (1, 3, 5):
            here = valid & (now.labels == label)
            assert (after.labels[y, x] == label)[here].mean() > 0.98, label


def test_images_follow_the_motion(pairs):
    for now, after in pairs:
        x, y, _, _ = targets(now)
        warped = cv2.remap(after.image, x.astype(np.float32), y.astype(np.float32),
                           cv2.INTER_LINEAR)
        valid = now.flow_valid & (now.labels != 0)
        moved = np.abs(warped.astype(int) - now.image).mean(2)[valid].mean()
        still = np.abs(after.image.astype(int) - now.image).mean(2)[valid].mean()
        assert moved < 6 and moved < 0.5 * still


def test_motion_that_is_half_a_pixel_off_fits_worse(pairs):
    now, after = pairs[0]
    x, y, _, _ = targets(now)
    valid = now.flow_valid & (now.labels == 1)
    errors = []
    for off in (0, 0.5):
        warped = cv2.remap(after.image, (x + off).astype(np.float32), y.astype(np.float32),
                           cv2.INTER_LINEAR)
        errors.append(np.abs(warped.astype(int) - now.image).mean(2)[valid].mean())
    assert errors[0] < 0.9 * errors[1]


def test_the_road_comes_towards_the_camera_and_things_move_apart(pairs):
    now, _ = pairs[0]
    road = (now.labels == 3) & (np.arange(360)[:, None] > 300)
    assert (now.flow[..., 1][road] > 0.5).all()
    assert np.median(now.flow[:, :120, 0][now.labels[:, :120] == 1]) < 0


def test_what_leaves_or_is_hidden_is_invalid(pairs):
    for now, _ in pairs:
        x, y, _, _ = targets(now)
        height, width = now.labels.shape
        outside = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
        outside &= now.labels != 255
        assert outside.any() and not now.flow_valid[outside].any()
        # Of the pixels that arrive at the same place, a nearer one hides the farther: what is
        # valid arrives nearly alone (magnified surfaces spread, they do not pile up).
        arrive = np.zeros((height, width), int)
        inside = now.flow_valid & ~outside
        np.add.at(arrive, (np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)), 1)
        assert (arrive > 3).mean() < 0.001
        assert (~now.flow_valid & ~outside).mean() > 0.005


def test_traffic_moves_by_itself():
    """A car's motion differs from that of the road it stands on."""
    found = 0
    for seed in range(3):
        frame = Street(seed, (180, 240)).frame(30)
        for row in range(80, 160, 4):
            cars = frame.flow_valid[row] & (frame.labels[row] == 8)
            road = frame.flow_valid[row] & (frame.labels[row] == 3)
            if cars.sum() > 8 and road.sum() > 8:
                gap = np.median(frame.flow[row, cars, 1]) - np.median(frame.flow[row, road, 1])
                found += abs(gap) > 0.5
    assert found > 5


def test_blur_smears_what_moves():
    sharp = Street(3, motion_blur=False).frame(40, flow=False)
    blurred = Street(3).frame(40, flow=False)
    assert np.array_equal(sharp.labels, blurred.labels)
    detail = [cv2.Laplacian(f.image, cv2.CV_32F)[200:, :].std() for f in (sharp, blurred)]
    assert detail[1] < 0.95 * detail[0]


def test_a_clip_is_its_frames():
    street = Street(2, (90, 120))
    clip = street.clip(4, 3, step=2)
    assert np.array_equal(clip[2].image, street.frame(8).image)
    assert (clip[0].image != clip[1].image).mean() > 0.1


def test_frames_have_the_same_name_only_where_they_show_the_same(tmp_path):
    sources = [StreetClips([1], length, tmp_path, size, step) for length, size, step in (
        (2, (48, 64), 1), (4, (48, 64), 1), (2, (48, 64), 3), (2, (64, 48), 1))]
    names = [source.frame_name((1, 1)) for source in sources]
    assert names[0] == names[1] and len(set(names)) == 3


@pytest.mark.parametrize('lengths, frames', [([4], 4), ([1, 2], 2), ([1], 1)])
def test_clips_of_a_network_without_context_move(tmp_path, lengths, frames):
    recipe = Recipe(model=ESPNetOptions(), data=Data(clip_lengths=lengths, size=(48, 64)))
    source = build_source(Source('street', seeds=(0, 1)), recipe, tmp_path)
    images = source.load(source.clip_keys(0, frames - 1, frames)).images
    assert [len(drive) for drive in source.drives] == [frames]
    assert (images[1:] != images[:-1]).any((1, 2, 3)).all()
