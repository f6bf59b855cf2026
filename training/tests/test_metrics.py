# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics against plain loops, and the commands that print and draw them."""
import json

import cv2
import numpy as np
import pytest
import torch

from folders import write_folder
from ros_vseg.backends import base
from ros_vseg.labels import load_label_set
from vseg_training.cli import main
from vseg_training.confusion import confusion_rows, draw_confusion
from vseg_training.data import ClipSource, VOID
from vseg_training.evaluate import evaluate_stream, VideoMetrics
from vseg_training.metrics import (
    ConfusionMatrix, flops, parameters, TemporalConsistency, VideoConsistency)
from vseg_training.metrics.temporal import dis_flow, FLOWS, warp_labels
from vseg_training.models.student import Student
from vseg_training.recipe import load_recipe
from vseg_training.show import legend
from vseg_training.train import fit


SIZE = 9, 12
IMAGE = np.zeros((*SIZE, 3), np.uint8)


def loop_counts(pairs, num_classes):
    counts = np.zeros((num_classes, num_classes), int)
    for first, second in pairs:
        counts[first, second] += 1
    return counts


def loop_iou(counts):
    ious = []
    for each in range(len(counts)):
        union = counts[each].sum() + counts[:, each].sum() - counts[each, each]
        if union:
            ious.append(counts[each, each] / union)
    return np.mean(ious)


def loop_warp(earlier, later, flow):
    """Pairs (earlier, warped later) of the pixels whose flow stays in the frame."""
    height, width = earlier.shape
    for y in range(height):
        for x in range(width):
            to_x, to_y = round(float(x + flow[y, x, 0])), round(float(y + flow[y, x, 1]))
            if 0 <= to_x < width and 0 <= to_y < height:
                yield earlier[y, x], later[to_y, to_x]


def test_temporal_consistency_equals_a_loop(monkeypatch):
    """Random labels and flow, much of it out of the frame; pooled and per sequence."""
    rng = np.random.default_rng(0)
    flows = []

    def random_flow(image, later):
        flows.append(rng.normal(0, 4, (*SIZE, 2)).astype(np.float32))
        return flows[-1]

    monkeypatch.setitem(FLOWS, 'dis', random_flow)
    metric, each = TemporalConsistency(4), []
    for frames in (3, 4):
        metric.begin()
        labels = rng.integers(0, 4, (frames, *SIZE), np.uint8)
        pairs = []
        for earlier, later in zip(labels, labels[1:]):
            metric.update(IMAGE, IMAGE, earlier, later)
            pairs += loop_warp(earlier, later, flows[-1])
        each.append(loop_counts(pairs, 4))
    assert metric.name == 'TC (DIS)'
    np.testing.assert_allclose(metric.per_sequence(), [loop_iou(item) for item in each])
    assert metric.value() == pytest.approx(loop_iou(sum(each)))


def test_legacy_invents_classes_where_nearest_does_not(monkeypatch):
    """A boundary of 0 and 4 moved by half a pixel: the mean id is 2, and the border repeats."""
    labels = np.repeat(np.uint8([[0, 0, 0, 4, 4, 4]]), 4, 0)
    flow = np.zeros((4, 6, 2), np.float32)
    flow[..., 0] = 0.5
    image = np.zeros((4, 6, 3), np.uint8)
    monkeypatch.setitem(FLOWS, 'dis', lambda image, later: flow)
    legacy = TemporalConsistency(5, legacy=True)
    legacy.update(image, image, labels, labels)
    # 0: 2 of 3 pixels hit, 4: all; 2 is invented: never hit
    assert legacy.name == 'TC (DIS, legacy)'
    assert legacy.value() == pytest.approx((2 / 3 + 1 + 0) / 3)
    warped, inside = warp_labels(labels, flow)
    assert set(warped[inside]) == {0, 4}


def test_a_static_scene_is_consistent_and_flow_finds_a_shift():
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (24, 40), np.uint8)
    texture = cv2.cvtColor(cv2.resize(coarse, (180, 96), interpolation=cv2.INTER_CUBIC),
                           cv2.COLOR_GRAY2RGB)
    labels = (texture[..., 0] // 64).astype(np.uint8)
    static = TemporalConsistency(4)
    static.update(texture[:, :160], texture[:, :160], labels[:, :160], labels[:, :160])
    assert static.value() == 1
    # the window moves right by 5, so what it shows moves left
    flow = dis_flow(texture[:, :160], texture[:, 5:165])
    np.testing.assert_allclose(np.median(flow, (0, 1)), (-5, 0), atol=0.2)
    moved = TemporalConsistency(4)
    moved.update(texture[:, :160], texture[:, 5:165], labels[:, :160], labels[:, 5:165])
    unwarped = loop_iou(loop_counts(
        zip(labels[:, :160].ravel(), labels[:, 5:165].ravel()), 4))
    assert moved.value() > 0.9 > unwarped


def loop_windows(truth, labels, length):
    shares = []
    for start in range(len(truth) - length + 1):
        hits = total = 0
        for pixel in np.ndindex(truth.shape[1:]):
            column = [frame[pixel] for frame in truth[start:start + length]]
            if VOID in column or len(set(column)) > 1:
                continue
            total += 1
            hits += len({frame[pixel] for frame in labels[start:start + length]}) == 1
        if total:
            shares.append(hits / total)
    return shares


@pytest.mark.parametrize('length', [1, 2, 3, 8])
def test_video_consistency_equals_a_loop(length):
    """Every window of two drives, the last one included; void drops a pixel, not a frame."""
    rng = np.random.default_rng(length)
    metric, shares = VideoConsistency(length), []
    for frames in (6, 10):
        truth = np.cumsum(rng.random((frames, *SIZE)) < 0.1, 0).astype(np.uint8)
        labels = np.cumsum(rng.random((frames, *SIZE)) < 0.1, 0).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.05] = VOID
        metric.begin()
        for pair in zip(truth, labels):
            metric.update(*pair)
        shares += loop_windows(truth, labels, length)
    assert metric.value() == pytest.approx(np.mean(shares))


def test_video_consistency_bounds():
    """A constant prediction is consistent even if wrong; void everywhere is no window."""
    truth, flicker = np.ones(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    steady, unsteady, void = (VideoConsistency(2) for _ in range(3))
    for number in range(4):
        steady.update(truth, truth + 1)
        unsteady.update(truth, flicker + number % 2)
        void.update(np.full(SIZE, VOID, np.uint8), truth)
    assert steady.value() == 1
    assert unsteady.value() == 0
    assert np.isnan(void.value())


def test_frames_of_a_drive_share_a_size():
    metric = VideoConsistency(2)
    metric.update(IMAGE[..., 0], IMAGE[..., 0])
    with pytest.raises(ValueError, match='differ in size'):
        metric.update(IMAGE[1:, :, 0], IMAGE[1:, :, 0])
    with pytest.raises(ValueError, match='differ in size'):
        TemporalConsistency(2).update(IMAGE, IMAGE[1:], IMAGE[..., 0], IMAGE[1:, :, 0])
    with pytest.raises(ValueError, match='unknown'):
        TemporalConsistency(2, 'raft')


class Drives(ClipSource):
    """Drives of 8 frames that are constant but differ from each other; only some are labelled."""

    drives = [[(drive, frame) for frame in range(8)] for drive in range(3)]

    def read(self, key):
        labels = np.full((64, 64), key[0], np.uint8)
        image = np.full((64, 64, 3), 80 * key[0], np.uint8)
        return image, labels if key[0] < 2 else np.full_like(labels, VOID)

    def frame_name(self, key):
        return f'{key[0]}/{key[1]}'


def test_frames_of_a_drive_that_differ_in_size_are_named():
    video, labels = VideoMetrics(2), np.zeros((48, 32), np.uint8)
    for start, size in ((True, 48), (True, 32), (False, 32)):  # each drive has its own
        if start:
            video.begin()
        video.update(np.zeros((size, 32, 3), np.uint8), labels[:size], labels[:size], 'a/1')
    with pytest.raises(ValueError, match='a/1 is .32, 32., but a/2 of the same drive is .48, 32'):
        video.update(np.zeros((48, 32, 3), np.uint8), labels, labels, 'a/2')


def test_pairs_and_windows_do_not_join_drives():
    class Copy:
        """A model whose prediction is the image: another constant in every drive."""

        num_classes, context_frames, training = 4, 0, False

        def eval(self):  # noqa: A003
            return self

        train = stream = lambda self, *_: self

        def step(self, image):
            return torch.nn.functional.one_hot(
                torch.as_tensor(image[..., 0].astype(int)) // 80, 4).permute(2, 0, 1)

    video = VideoMetrics(4)
    confusion, seconds = evaluate_stream(Copy(), Drives(), video=video)
    report = video.summary()
    assert confusion.accuracy() == 1
    assert confusion.counts.sum() == 2 * 8 * 64 * 64  # void frames do not count here,
    assert report['TC_per_drive'] == [100, 100, 100]  # but they do here
    assert report['TC'] == report['VC8'] == 100
    assert np.isnan(report['VC16'])
    assert len(seconds) == 24


def test_costs_are_those_of_a_network_counted_by_hand():
    """Parameters without the auxiliary head; a 1x1 convolution of 16x16 pixels, twice its MACs."""
    student = Student(4, channels=16, key_channels=8, num_prototypes=4, head_widths=(8, 8))
    auxiliary = sum(each.numel() for each in student.auxiliary.parameters())
    assert parameters(student) == sum(each.numel() for each in student.parameters()) - auxiliary
    convolution = torch.nn.Conv2d(3, 5, 1)
    seen = []

    def step(image):
        seen.append(image.shape)
        return convolution(torch.as_tensor(image).permute(2, 0, 1).float())

    assert flops(step, (16, 16), 3) == 2 * 16 * 16 * 3 * 5
    assert seen == [(16, 16, 3)] * 4


RECIPE = """
name: tiny
model: {{backbone: efficientnet_lite0, weights: null, output_stride: 16, channels: 16,
        key_channels: 8, num_prototypes: 4, head_widths: [8, 8], dropout: 0.0}}
data:
  train: [{{kind: folder, root: {root}}}]
  val: {{kind: folder, root: {root}}}
  crop: [64, 96]
  frames_per_step: 4
  size: [64, 96]
  workers: 0
optim: {{max_steps: 1, validate_every: 10000, checkpoint_every: 1, precision: 32-true}}
"""


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """Recipe, checkpoint and bundle of one training step, and the folder of its data."""
    folder = tmp_path_factory.mktemp('tiny')
    root = write_folder(folder / 'data', drives=2, frames=9)
    recipe = folder / 'tiny.yaml'
    recipe.write_text(RECIPE.format(root=root))
    checkpoint, bundle = fit(load_recipe(recipe), folder / 'run'), folder / 'tiny.onnx'
    assert main(['export', str(checkpoint), '-o', str(bundle), '--no-evaluate']) == 0
    return recipe, checkpoint, bundle, root


def test_evaluate_prints_a_row_per_model(tiny, capsys):
    recipe, checkpoint, bundle, _ = tiny
    arguments = ['evaluate', str(checkpoint), str(bundle), '--config', str(recipe),
                 '--backend', 'onnxruntime']
    assert main(arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('|')]
    assert 'TC (DIS)' in lines[0]
    assert lines[2].startswith(f'| {checkpoint} |') and lines[3].startswith(f'| {bundle} |')
    assert len({line.count('|') for line in lines[:4]}) == 1
    assert any(line.startswith('| sky |') for line in lines[4:])


def test_evaluate_json_agrees_for_checkpoint_and_bundle(tiny, capsys):
    recipe, checkpoint, bundle, root = tiny
    arguments = ['evaluate', str(checkpoint), str(bundle), '--config', str(recipe), '--json',
                 '--backend', 'onnxruntime', '--data', f'folder:{root}']
    assert main(arguments) == 0
    ours, theirs = json.loads(capsys.readouterr().out)
    for key in ('mIoU', 'accuracy', 'mAcc', 'TC', 'VC8'):
        assert ours[key] == pytest.approx(theirs[key], abs=0.1), key
    assert ours['TC_name'] == 'TC (DIS)'
    assert len(ours['TC_per_drive']) == 2
    assert ours['VC16'] is None  # the drives have 9 frames
    assert ours['GFLOPs'] > 0 and theirs['GFLOPs'] is None
    # the bundle has its batch norms folded into the convolutions
    assert 0.95 * ours['parameters_M'] < theirs['parameters_M'] <= ours['parameters_M']
    assert 0 < ours['ms_per_frame'] <= ours['max_latency_ms']


def test_evaluate_stabilizes_bundles(tiny, monkeypatch):
    recipe, _, bundle, root = tiny
    stabilized = []

    class Spy(base.Stabilizer):
        def __call__(self, scores, image):
            stabilized.append(image.shape)
            return super().__call__(scores, image)

    monkeypatch.setattr(base, 'Stabilizer', Spy)
    arguments = ['evaluate', str(bundle), '--config', str(recipe), '--backend', 'onnxruntime',
                 '--data', f'folder:{root}']
    assert main(arguments) == 0 and not stabilized
    assert main([*arguments, '--stabilize']) == 0
    assert stabilized == [(64, 96, 3)] * (2 * (1 + 9))      # a frame of warm-up, nine of a drive


def test_evaluate_stabilizes_no_checkpoint(tiny, capsys):
    recipe, checkpoint, bundle, _ = tiny
    assert main(['evaluate', str(bundle), str(checkpoint), '--config', str(recipe),
                 '--stabilize']) == 2
    assert f'--stabilize is for bundles, and {checkpoint} is not' in capsys.readouterr().err


def test_evaluate_refuses_the_data_of_other_classes(tiny, capsys, tmp_path):
    recipe, _, bundle, _ = tiny
    labels = tmp_path / 'two.yaml'
    labels.write_text('name: two\nclasses: [{id: 0, name: a, color: [0, 0, 0]}, '
                      '{id: 1, name: b, color: [9, 9, 9]}]\n')
    other = tmp_path / 'other.yaml'
    other.write_text(recipe.read_text().replace('data:', f'data:\n  label_set: {labels}'))
    assert main(['evaluate', str(bundle), '--config', str(other)]) == 2
    assert 'has the classes of camvid' in capsys.readouterr().err


def test_a_legend_has_columns_of_equal_width_and_no_void():
    label_set = load_label_set('camvid')
    picture = legend([7, 3, 255, 0, 10, 3], label_set, 330)
    places = {}
    for index in (0, 3, 7, 10):
        rows, columns = np.nonzero((picture == label_set.colors[index]).all(2))
        places[index] = int(rows.min()), int(columns.min())
    column = places[3][1] - places[0][1]
    assert places == {0: (0, 12), 3: (0, 12 + column), 7: (28, 12), 10: (28, 12 + column)}
    assert legend([255], label_set, 330).shape == (12, 330, 3)


def test_a_confusion_matrix_is_in_percent_of_the_true_class():
    confusion = ConfusionMatrix(3)
    confusion.update(np.uint8([[0, 0, 0, 0, 2, 2, 255]]), np.uint8([[0, 0, 0, 1, 2, 0, 1]]))
    assert confusion_rows(confusion, ['a', 'b', 'c']) == {
        'true': ['a', 'b', 'c'], 'predicted': ['a', 'b', 'c'],
        'percent': [[75, 25, 0], None, [50, 0, 50]]}
    confusion.update(np.uint8([[1, 1]]), np.uint8([[255, 1]]))
    rows = confusion_rows(confusion, ['a', 'b', 'c'])
    assert rows['predicted'] == ['a', 'b', 'c', 'void'] and rows['percent'][1] == [0, 50, 0, 50]


def test_evaluate_draws_a_confusion_matrix(tiny, capsys, tmp_path):
    recipe, checkpoint, bundle, _ = tiny
    path = tmp_path / 'confusion.png'
    assert main(['evaluate', str(checkpoint), '--confusion', str(path), '--json']) == 0
    (report,) = json.loads(capsys.readouterr().out)
    percent = report['confusion']['percent']
    assert report['confusion']['true'][0] == 'sky' and len(percent) == 11
    assert [sum(row) for row in percent[:4]] == pytest.approx([100] * 4, abs=0.1)
    assert percent[4:] == [None] * 7
    assert cv2.imread(str(path)).std() > 10
    assert main(['evaluate', str(checkpoint), str(bundle), '--config', str(recipe),
                 '--confusion', str(path)]) == 2
    assert '--confusion draws one model' in capsys.readouterr().err


def test_a_drawn_confusion_is_darker_the_more(tmp_path):
    path = tmp_path / 'confusion.png'
    rows = {'true': ['a', 'b'], 'predicted': ['a', 'b'], 'percent': [[0, 100], None]}
    draw_confusion(rows, 'model', path)
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    # of the one row that has values the right half is dark
    dark = (grey < 100).sum(0)
    assert np.average(np.arange(len(dark)), weights=dark) > 0.6 * len(dark)


def test_show_draws_rows_of_frames(tiny, tmp_path):
    _, checkpoint, _, _ = tiny
    path = tmp_path / 'maps.png'
    assert main(['show', str(checkpoint), '-o', str(path), '--frames', '3',
                 '--prototypes', '2']) == 0
    picture = cv2.imread(str(path))
    cell = round(320 * 64 / 96)
    grid = 36 + 3 * (cell + 12)
    assert picture.shape == (grid + 28 + 12, 12 + 5 * (320 + 12), 3)  # a line of four classes
    assert (picture[:, :12] == 250).all() and (picture[:, -12:] == 250).all()
    swatches = picture[grid + 9, :, ::-1]
    for color in load_label_set('camvid').colors[:4]:
        assert (swatches == color).all(1).sum() >= 18   # the names' edges have a grey too
    assert main(['show', str(checkpoint), '-o', str(path), '--prototypes', '5']) == 2
