# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Training and measuring of context: stills that move, confidence, bundles to start from."""
import numpy as np
import pytest
import torch

from networks import tiny
from ros_vseg.bundle import BundleInfo, FORMAT_VERSION, write_bundle
from ros_vseg.labels import load_label_set
from ros_vseg.positions import position_codes as runtime_codes
from vseg_training.data.augment import Augmentation, still_path
from vseg_training.data.clips import ClipSource
from vseg_training.degraded import Case, cases, report
from vseg_training.export import to_onnx
from vseg_training.from_bundle import initialise_from_bundle
from vseg_training.metrics import ConfidenceMetrics
from vseg_training.models.prototypes import position_codes
from vseg_training.models.student import Student
from vseg_training.recipe import from_dict, load_recipe, to_dict
from vseg_training.temperature import best_temperature, calibrate


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
    initialise_from_bundle(other, path, images)
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
        initialise_from_bundle(larger, path, images)


def _five_classes():
    names = load_label_set('camvid').to_dict()
    names['classes'] = names['classes'][:5]
    return type(load_label_set('camvid')).from_dict(names, 'five')


def test_temperature_is_the_one_that_scores_were_sharpened_by():
    rng = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(20000, 4, generator=rng)
    labels = torch.multinomial(scores.softmax(1), 1, generator=rng)[:, 0]
    assert best_temperature(3 * scores, labels) == pytest.approx(3, rel=0.05)
    with pytest.raises(ValueError, match='no labelled pixel'):
        best_temperature(scores[:0], labels[:0])


class _Frames(ClipSource):
    """A drive of frames with labels: blocks of colour."""

    def __init__(self, count=12):
        self.drives = [list(range(count))]

    def read(self, key):
        labels = np.repeat(np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4) % 5, 16, 0),
                           16, 1)
        return np.stack([40 * labels + key] * 3, -1), labels

    def frame_name(self, key):
        return f'frames/{key}'


def test_calibration_keeps_the_labels_and_scales_the_scores():
    student, source = tiny().eval(), _Frames(4)
    image = source.read(0)[0]
    before = student.stream().step(image)
    temperature = calibrate(student, source, (48, 64))
    after = student.stream().step(image)
    assert abs(temperature - 1) > 1e-3
    torch.testing.assert_close(after * temperature, before, rtol=1e-3, atol=1e-3)


def test_confidence_metrics_against_plain_loops():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (20, 30)).astype(np.uint8)
    truth[:2] = 255
    labels = np.where(rng.random(truth.shape) < 0.7, truth, 3).astype(np.uint8)
    confidence = np.round(rng.random(truth.shape), 2)
    metrics = ConfidenceMetrics()
    metrics.update(truth[:9], labels[:9], confidence[:9], 4)
    metrics.update(truth[9:], labels[9:], confidence[9:], 4)
    known = truth < 4
    right, sure = (truth == labels)[known], confidence[known]
    error = 0.0
    for group in range(15):
        chosen = np.minimum((sure * 15 + 1e-9).astype(int), 14) == group
        if chosen.any():
            error += chosen.sum() * abs(sure[chosen].mean() - right[chosen].mean())
    assert metrics.calibration_error() == pytest.approx(error / known.sum(), abs=0.02)
    pairs = [(w < r) + (w == r) / 2 for w in sure[~right] for r in sure[right]]
    assert metrics.auroc() == pytest.approx(np.mean(pairs), abs=1e-3)
    assert np.isnan(ConfidenceMetrics().auroc())


class _Recorder:
    """A stream that notes what it is shown, and says class 0 everywhere."""

    def __init__(self):
        self.shown, self.reset_at = [], []

    def step(self, image):
        self.shown.append(int(image[0, 0, 0]))
        return np.stack([np.ones((3, 4), np.float32), *np.zeros((4, 3, 4), np.float32)])

    def reset(self):
        self.reset_at.append(len(self.shown))


def test_cases_show_the_pool_that_they_say():
    source, other = _Frames(), [np.full((48, 64, 3), 200, np.uint8)] * 2
    streams = {}
    for pool in ('kept', 'emptied', 'other', 'earlier'):
        streams[pool] = _Recorder()
        report(streams[pool], source, (48, 64), 2, 5, other, [Case('clean', pool)])
    assert streams['kept'].shown == list(range(12)) and streams['kept'].reset_at == [0]
    assert streams['emptied'].reset_at == [0, *range(12)]
    assert streams['other'].shown == sum(([200, 200, key] for key in range(12)), [])
    assert streams['earlier'].shown[:3] == [11, 11, 0]  # a short drive: its end


def test_report_counts_degraded_frames_apart():
    names = [f'{case.name}, {case.pool}' for case in cases()]
    assert len(set(names)) == len(names) and 'held-out kinds, emptied' in names
    seen = next(case for case in cases() if case.name == 'seen kinds')
    values, = report(_Recorder(), _Frames(), (48, 64), 2, 5, [], [seen]).values()
    clean, = report(_Recorder(), _Frames(), (48, 64), 2, 5, [], [Case('clean')]).values()
    assert values['bad'] == pytest.approx(values['mIoU']) and np.isnan(clean['bad'])


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
