# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Training of context: stills that move, bundles to start from, what stays and what counts."""
import numpy as np
import pytest
from test_train import weights_of, write_recipe
import torch

from folders import write_folder
from networks import tiny
from ros_vseg.bundle import BundleInfo, FORMAT_VERSION, write_bundle
from ros_vseg.labels import load_label_set
from ros_vseg.positions import position_codes as runtime_codes
from vseg_training.data import Augmentation, ClipDataset, FolderFrames, SoftLabels
from vseg_training.data.augment import still_path
from vseg_training.data.soft_labels import Record
from vseg_training.export import to_onnx
from vseg_training.from_bundle import initialise_from_bundle
from vseg_training.models.prototypes import position_codes
from vseg_training.models.student import Student
from vseg_training.recipe import class_ids, from_dict, load_recipe, to_dict
from vseg_training.train import fit


def test_codes_are_those_that_the_runtime_writes_for_other_sizes():
    np.testing.assert_allclose(
        position_codes((25, 33))[0].numpy(), runtime_codes(25, 33), atol=1e-5)


@pytest.mark.parametrize('still', [False, True])
def test_places_tell_where_in_the_camera_image_a_crop_lies(still):
    """On an image that shows its own coordinates the crop shows its places."""
    size, crop = (240, 320), (96, 128)
    y, x = np.mgrid[0:240, 0:320]
    image = np.stack([255 * (x + 0.5) / 320, 255 * (y + 0.5) / 240, 0 * x], -1)
    image = np.rint(image).astype(np.uint8)
    rng = np.random.default_rng(3)
    for _ in range(10):
        paths = still_path(size, 3, rng) if still else None
        draw = Augmentation(crop, (0.7, 1.5), 0.0).draw(size, rng, paths)
        ax, bx, ay, by = draw.places()
        shown = draw.images(np.stack([image] * 3))[-1]
        inside = np.s_[30:60:7, 30:90:7]
        u, v = (np.arange(128) + 0.5) / 128, (np.arange(96) + 0.5) / 96
        place = np.stack(np.broadcast_arrays((ax * u + bx)[None], (ay * v + by)[:, None]), -1)
        if still:  # of the camera image to that of the still
            matrix = np.linalg.inv(paths[-1])
            pixels = place * [320, 240] - 0.5
            moved = pixels @ matrix[:2, :2].T + matrix[:2, 2]
            place = (moved + 0.5) / [320, 240]
        seen = (place > 0.02).all(-1) & (place < 0.98).all(-1)
        error = np.abs(shown[..., :2] / 255 - place).max(-1)
        assert error[inside][seen[inside]].max() < 0.01


def test_a_still_moves_smoothly_and_ends_within_itself():
    for seed in range(20):
        paths = still_path((240, 320), 4, np.random.default_rng(seed))
        corners = np.array([[-0.5, -0.5, 1], [319.5, 239.5, 1]])
        shown = (corners @ np.linalg.inv(paths[-1]).T)[:, :2]
        assert (shown > -1).all() and (shown < [321, 241]).all()
        steps = np.abs(np.diff(paths[:, :2, 2], axis=0))
        assert 0 < steps.max() < 40


def test_a_network_starts_from_a_bundle(tmp_path):
    student = tiny().eval()
    info = BundleInfo(
        name='tiny', label_set=_five_classes(), height=64, width=96, color_order='rgb',
        output_stride=student.output_stride, num_prototypes=4, channels=16, pool_frames=3,
        prototype_dim=student.prototype_dim, trained_on={}, metrics={}, license='',
        format_version=FORMAT_VERSION)
    path = tmp_path / 'tiny.onnx'
    write_bundle(to_onnx(student, (64, 96)), info, path)
    torch.manual_seed(5)
    other = Student(5, channels=16, key_channels=8, num_prototypes=4, head_widths=(16, 8))
    images = torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8)
    initialise_from_bundle(other, path, info.label_set.names, images)
    with torch.no_grad():
        expected, got = student.eval().encode(images), other.eval().encode(images)
        for one, two in zip([*expected[0], expected[1]], [*got[0], got[1]]):
            torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-3)
        stages = [expected[0][i] for i in student._skips]
        torch.testing.assert_close(
            other.head(expected[1], stages), student.head(expected[1], stages),
            rtol=1e-3, atol=1e-3)
    larger = Student(5, channels=32, key_channels=8, num_prototypes=4, head_widths=(16, 8))
    with pytest.raises(ValueError, match='has no weights for reduce.0 of shape'):
        initialise_from_bundle(larger, path, info.label_set.names, images)


def _five_classes():
    names = load_label_set('camvid').to_dict()
    names['classes'] = names['classes'][:5]
    return type(load_label_set('camvid')).from_dict(names, 'five')


@pytest.mark.parametrize('stills', [0.0, 1.0])
def test_soft_labels_move_as_their_frames_do(tmp_path, stills):
    """Also where distant frames are asked for, which do not move as stills do."""
    source = FolderFrames(write_folder(tmp_path / 'data', drives=1, frames=2), 5)
    store = SoftLabels.create(tmp_path / 'soft', 'abcde', [1, 4])
    for key in source.drives[0]:
        image = source.read_image(key).transpose(2, 0, 1).astype(np.float32) / 255
        store.write(source, key, Record(image, image[0], None))
    data = ClipDataset([source], [1.0], [4], 4, Augmentation((48, 64), (0.9, 1.2), 0.0), 0, 6,
                       distant=True, soft_labels=store, stills=[stills])
    for number in range(6):
        item = data[number, 4]
        images = item['images'].numpy() / 255
        inside = np.s_[:, :, 6:-6, 6:-6]
        error = np.abs(item['targets']['probabilities'] - images)
        assert error[inside].mean() < 0.03
        assert item['distant'].shape == item['images'].shape


def run(folder, *overrides):
    """Fit two steps of a small recipe; return its checkpoint's path."""
    recipe = write_recipe(folder, folder / 'data', 2)
    return fit(load_recipe(recipe, ['optim.precision=32-true', *overrides]), folder / 'out')


def test_a_frozen_backbone_stays_as_it_was(tmp_path):
    """Its weights and its batch norms' statistics, through validation too."""
    write_folder(tmp_path / 'data', drives=2, frames=4)
    run(tmp_path, 'optim.validate_every=1')
    first = tmp_path / 'first.ckpt'
    (tmp_path / 'out/last.ckpt').rename(first)
    for path in (tmp_path / 'out').glob('*.ckpt'):
        path.unlink()
    start = [f'model.init={first}', 'optim.validate_every=1']
    after = weights_of(run(tmp_path, 'model.frozen_backbone=true', *start))
    before = weights_of(first)
    same = {key: torch.equal(before[key], after[key]) for key in before if 'network.' in key}
    assert all(value for key, value in same.items() if '.backbone.' in key)
    assert not all(value for key, value in same.items() if '.head.' in key)


def test_class_gain_counts_with_and_without_balance_and_may_not_change(tmp_path):
    write_folder(tmp_path / 'data', drives=2, frames=4)
    gain = 'loss.class_gain.car=3'
    path = run(tmp_path, 'loss.class_balance=0', gain)
    found = weights_of(path)['class_weights']
    car = list(load_label_set('camvid').names).index('car')
    others = torch.cat([found[:car], found[car + 1:]])
    torch.testing.assert_close(found[car] / others, torch.full_like(others, 3))
    with pytest.raises(ValueError, match='class_gain.car 3.0, but the recipe has None'):
        run(tmp_path, 'loss.class_balance=0')
    with pytest.raises(ValueError, match="loss.class_gain names the class 'lorry'"):
        class_ids(['lorry'], 'camvid', 'loss.class_gain')


def test_a_stored_recipe_keeps_the_meaning_of_what_it_leaves_out():
    recipe = load_recipe('camvid_lite0', ['data.train=[]', 'data.val=null'])
    assert (recipe.model.attention, recipe.model.positions) == ('cosine', True)
    tree = to_dict(recipe)
    assert from_dict(tree) == recipe
    for key in ('attention', 'positions', 'hide_own', 'wrong_pool'):
        del tree['model'][key]
    del tree['version'], tree['loss']['video_id']
    old = from_dict(tree)
    assert (old.model.attention, old.model.positions, old.model.hide_own) == ('literal', False, 0)
    assert old.loss.video_id == 'softmax'
    with pytest.raises(ValueError, match='version 99.*update it'):
        from_dict({**tree, 'version': 99})
