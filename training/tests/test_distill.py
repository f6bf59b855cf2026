# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""MGCNet's distillation against plain loops, and soft labels on disk against a teacher at work."""
import math

import cv2
import numpy as np
import pytest
import torch

from folders import write_folder
from networks import tiny, tiny_teacher
from vseg_training.data import Augmentation, FolderFrames, SoftLabels
from vseg_training.distill import (
    distillation_terms, monte_carlo, structural_loss, Targets, teacher_maps, teacher_targets,
    uncertainty_loss, uncertainty_map)
from vseg_training.distill.soft_labels import averaged_targets, write_soft_labels
from vseg_training.terms import Maps, PixelWise, Terms, Widths


NAMES = ['a', 'b', 'c', 'd', 'e']


def loop_uncertainty(views):
    """Eq. 12 at one pixel, summed over classes."""
    total = 0
    for column in zip(*views):
        mean = sum(column) / len(column)
        total += sum(v * v for v in column) / len(column) - mean * mean
    return total


def test_uncertainty_map_matches_the_loop():
    torch.manual_seed(0)
    streams = [(3 * torch.randn(2, 3 - tau, 4, 2, 3)).softmax(2) for tau in range(3)]
    got = uncertainty_map(streams)
    for b, t, y, x in np.ndindex(2, 3, 2, 3):
        views = [streams[tau][b, t - tau, :, y, x].tolist() for tau in range(t + 1)]
        assert got[b, t, y, x].item() == pytest.approx(loop_uncertainty(views), abs=1e-6)
    assert got[:, 0].abs().max() == 0  # a single stream knows no uncertainty


def test_uncertainty_stays_below_three_quarters_with_four_streams():
    torch.manual_seed(0)
    for trial in range(50):
        streams = [(100 * torch.randn(1, 4 - tau, 5, 3, 3)).softmax(2) for tau in range(4)]
        got = uncertainty_map(streams)
        assert 0 <= got.min() and got.max() <= 0.75 + 1e-6
    one_hot = [torch.eye(4)[tau].view(1, 1, 4, 1, 1).expand(1, 4 - tau, 4, 1, 1)
               for tau in range(4)]
    assert uncertainty_map(one_hot)[0, 3].item() == pytest.approx(0.75)


def loop_uncertainty_loss(scores, probabilities, uncertainty, counted, class_weights):
    """Eq. 13 with KL(T || S), as a mean weighted by the teacher's classes."""
    total = count = 0
    for b, y, x in np.ndindex(*counted.shape):
        if not counted[b, y, x]:
            continue
        student = scores[b, :, y, x].softmax(0).tolist()
        teacher = probabilities[b, :, y, x].tolist()
        divergence = sum(t * math.log(t / s) for t, s in zip(teacher, student) if t > 0)
        weight = sum(t * w for t, w in zip(teacher, class_weights))
        total += weight * (1 - uncertainty[b, y, x].item()) * divergence
        count += weight
    return total / count


@pytest.mark.parametrize('class_weights', [None, [0.5, 1.0, 2.0, 4.0]])
def test_uncertainty_loss_matches_the_loop(class_weights):
    torch.manual_seed(0)
    scores, probabilities = torch.randn(2, 4, 3, 5), (3 * torch.randn(2, 4, 3, 5)).softmax(1)
    uncertainty, counted = 0.75 * torch.rand(2, 3, 5), torch.rand(2, 3, 5) > 0.3
    got = uncertainty_loss(scores, probabilities, uncertainty, counted,
                           None if class_weights is None else torch.tensor(class_weights))
    expected = loop_uncertainty_loss(
        scores, probabilities, uncertainty, counted, class_weights or [1.0] * 4)
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_uncertainty_loss_is_zero_for_a_perfect_student():
    scores = torch.randn(1, 4, 3, 3)
    counted = torch.ones(1, 3, 3, dtype=torch.bool)
    loss = uncertainty_loss(scores, scores.softmax(1), torch.zeros(1, 3, 3), counted)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_uncertain_pixels_weigh_less():
    torch.manual_seed(0)
    scores, probabilities = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3).softmax(1)
    counted = torch.ones(1, 3, 3, dtype=torch.bool)
    confident, uncertain = (
        uncertainty_loss(scores, probabilities, torch.full((1, 3, 3), u), counted)
        for u in (0.0, 0.5))
    assert uncertain.item() == pytest.approx(confident.item() / 2, rel=1e-5)


def loop_structural(student, teacher, counted):
    """Eq. 14 with KL(T || S) over space, averaged over prototypes and frames."""
    total = 0
    for b in range(student.shape[0]):
        for n in range(student.shape[1]):
            rows = [[v.item() for v, keep in zip(p[b, n], counted[b]) if keep]
                    for p in (teacher, student)]
            t, s = ([v / sum(row) for v in row] for row in rows)
            total += sum(a * math.log(a / c) for a, c in zip(t, s))
    return total / (student.shape[0] * student.shape[1])


def test_structural_loss_matches_the_loop():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 2, 12).softmax(-1)
    student, teacher = student.transpose(0, 1), teacher.transpose(0, 1)
    counted = torch.ones(2, 12, dtype=torch.bool)
    counted[0, 8:] = False
    got = structural_loss(student, teacher, (3, 4), (3, 4), counted)
    assert got.item() == pytest.approx(loop_structural(student, teacher, counted), rel=1e-4)
    assert structural_loss(teacher, teacher, (3, 4), (3, 4), counted).item() == pytest.approx(
        0, abs=1e-6)


def test_structural_loss_needs_as_many_prototypes():
    with pytest.raises(ValueError, match='8 prototypes and the student 4'):
        structural_loss(torch.rand(1, 4, 6), torch.rand(1, 8, 6), (2, 3), (2, 3),
                        torch.ones(1, 6, dtype=torch.bool))


def clip_of(frames, size=(64, 96)):
    torch.manual_seed(1)
    return torch.randint(0, 256, (1, frames, 3, *size), dtype=torch.uint8)


@pytest.mark.parametrize('options', [
    {'channels': 24, 'key_channels': 4}, {'output_stride': 8, 'head_widths': (8,)},
    {'backbone': 'resnet18'}, {'head_widths': ()}])
def test_teachers_of_other_width_and_stride_work(options):
    student, clip = tiny(dropout=0.0).train(), clip_of(3)
    targets = teacher_targets(tiny_teacher(**options), clip)
    output = student(clip)
    counted = torch.ones(3, 64, 96, dtype=torch.bool)
    counted[:, :, 80:] = False
    with torch.autocast('cpu', torch.bfloat16):
        terms = distillation_terms(output, targets, counted)
    assert set(terms) == {'uncertainty', 'structural'}
    sum(terms.values()).backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    assert student.prototypes.projection.weight.grad.abs().sum() > 0


def test_terms_on_probabilities_see_the_mean_prediction_of_all_streams():
    """As its soft labels on disk do; the mean of the scores is another prediction."""
    teacher, clip = tiny_teacher(dropout=0.0), 255 * torch.rand(1, 3, 3, 64, 96)
    for head in teacher.heads:
        head.classify.weight.data *= 50
    targets, maps = teacher_targets(teacher, clip), teacher_maps(teacher, clip)
    given = maps.of('scores', True).softmax(2)
    torch.testing.assert_close(given, targets.probabilities, atol=1e-4, rtol=1e-3)
    assert (maps.of('scores', False).softmax(2) - targets.probabilities).abs().max() > 0.02
    mean, _ = monte_carlo(teacher, clip, passes=2, rate=0.0)
    torch.testing.assert_close(mean, targets.probabilities, atol=1e-4, rtol=1e-3)
    student = Maps(maps.scores.clone().requires_grad_(), maps.features)
    terms = Terms({'pixel': {'weight': 1}}, Widths(5, 16), Widths(5, 16))
    counted = torch.ones(1, 3, 64, 96, dtype=torch.bool)
    target = targets.probabilities.clamp(min=1e-6).log().flatten(0, 1)
    expected = PixelWise()(maps.scores.flatten(0, 1), target)
    found = terms(student, maps, {}, counted)['pixel']
    assert found.item() == pytest.approx(expected.item(), rel=1e-2)


def test_a_student_as_teacher_has_no_uncertainty():
    targets = teacher_targets(tiny(), clip_of(2))
    assert targets.uncertainty.abs().max() == 0
    torch.testing.assert_close(targets.probabilities.sum(2), torch.ones(1, 2, 16, 24))


def test_pixel_form_has_no_projection_to_distil():
    student, clip = tiny(non_local='pixel', context_frames=1), clip_of(2)
    targets, counted = teacher_targets(tiny_teacher(), clip), torch.ones(2, 64, 96).bool()
    assert set(distillation_terms(student(clip), targets, counted, structural=False)) == {
        'uncertainty'}
    with pytest.raises(ValueError, match='distill.structural to 0'):
        distillation_terms(student(clip), targets, counted)


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """Soft labels of a small folder by a teacher without dropout."""
    root = write_folder(tmp_path_factory.mktemp('data'), drives=2, frames=11)
    teacher, source = tiny_teacher(dropout=0.0).eval(), FolderFrames(root, 5)
    folder = tmp_path_factory.mktemp('soft')
    assert write_soft_labels(teacher, NAMES, [source], folder) == 22
    assert write_soft_labels(teacher, NAMES, [source], folder) == 0  # nothing is made twice
    trained = tiny_teacher(dropout=0.5)
    next(trained.parameters()).data += 0.1
    for other, more in ((trained, {}), (teacher, {'flip': True}),
                        (teacher, {'scales': [0.5]})):  # and nothing else is taken for it
        with pytest.raises(ValueError, match='of another teacher, --scales or --flip'):
            write_soft_labels(other, NAMES, [source], folder, **more)
    return teacher, source, folder


def test_soft_labels_are_the_teachers_stream(stored):
    """Chunks of a drive see the frames before them: the labels are those of one long clip."""
    teacher, source, folder = stored
    drive = source.drives[1]
    clip = torch.from_numpy(np.stack([source.read(k)[0] for k in drive]).transpose(0, 3, 1, 2))
    targets = teacher_targets(teacher, clip[None])
    store = SoftLabels(folder, NAMES)
    for t, key in enumerate(drive):
        record = store.read(source, key)
        np.testing.assert_allclose(
            record.probabilities, targets.probabilities[0, t], atol=1 / 255)
        np.testing.assert_allclose(record.uncertainty, targets.uncertainty[0, t], atol=1e-3)
        np.testing.assert_allclose(
            record.projection, targets.projection[0, t], rtol=2e-3, atol=1e-6)


def test_soft_labels_are_warped_as_their_frame(stored):
    """A map that is a coarse copy of the frame stays one after flip, scale and crop."""
    _, source, folder = stored
    store, key = SoftLabels(folder, NAMES), source.drives[0][0]
    image, _ = source.read(key)
    small = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255, size=(16, 24), mode='area')
    record = store.read(source, key)._replace(probabilities=small[0].numpy())
    store.read = lambda *_: record
    for seed in range(5):
        augmentation = Augmentation((48, 64), (0.8, 1.5), 0.0)
        draw = augmentation.draw(image.shape[:2], np.random.default_rng(seed))
        crop = draw.images(image[None])[0]
        got = store.clip(source, [key], image.shape[:2], draw.matrices(1), (48, 64))
        coarse = torch.nn.functional.interpolate(
            torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255,
            size=got['probabilities'].shape[2:], mode='area')[0].numpy()
        inside = np.s_[:, 2:-2, 2:-2]
        error = np.abs(got['probabilities'][0] - coarse)[inside]
        assert error.mean() < 0.05, seed


@pytest.mark.parametrize('move', [8, 9, 10, 11])
def test_soft_labels_at_the_border_of_a_frame_stay_probabilities(stored, move):
    """Cells that are partly outside count as well."""
    _, source, folder = stored
    matrix = np.float32([[[1, 0, move], [0, 1, move]]])
    got = SoftLabels(folder, NAMES).clip(source, source.drives[0][:1], (64, 96), matrix, (64, 96))
    np.testing.assert_allclose(got['probabilities'].sum(1), 1, atol=0.02)


def test_a_drive_of_two_sizes_is_named(tmp_path):
    root = write_folder(tmp_path / 'data', drives=1, frames=2)
    cv2.imwrite(str(root / 'images/drive0/001.png'), np.zeros((32, 48, 3), np.uint8))
    with pytest.raises(ValueError, match='data/images/drive0/000 is .64, 96., but .*001 of the'):
        write_soft_labels(tiny_teacher(), NAMES, [FolderFrames(root, 5)], tmp_path / 'soft')


def test_frames_of_two_sizes_make_one_batch(stored, tmp_path):
    """Sources whose frames differ in size give maps of one grid for crops of one size."""
    teacher, source, folder = stored
    large = write_folder(tmp_path / 'large', drives=1, frames=1)
    for path in large.glob('*/*/*.png'):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), cv2.resize(image, (144, 96), interpolation=cv2.INTER_NEAREST))
    other = FolderFrames(large, 5)
    write_soft_labels(teacher, NAMES, [other], folder)
    store, grids = SoftLabels(folder, NAMES), []
    for each, size in ((source, (64, 96)), (other, (96, 144))):
        targets = store.clip(each, each.drives[0][:1], size, np.float32([[[1, 0, 0], [0, 1, 0]]]),
                             (48, 64))
        grids.append({name: value.shape for name, value in targets.items()})
    assert grids[0] == grids[1] and grids[0]['probabilities'] == (1, 5, 12, 16)


def test_views_at_test_time_are_averaged():
    teacher, clip = tiny_teacher(dropout=0.0).eval(), clip_of(2)
    plain = teacher_targets(teacher, clip)
    mirrored = teacher_targets(teacher, clip.flip(-1))
    got = averaged_targets(teacher, clip, flip=True)
    torch.testing.assert_close(
        got.probabilities, (plain.probabilities + mirrored.probabilities.flip(-1)) / 2)
    torch.testing.assert_close(got.projection, plain.projection)
    several = averaged_targets(teacher, clip, (1.0, 1.5))
    assert several.probabilities.shape == plain.probabilities.shape
    torch.testing.assert_close(several.probabilities.sum(2), torch.ones(1, 2, 16, 24))


def test_bad_soft_labels_are_named(stored, tmp_path):
    _, source, folder = stored
    with pytest.raises(ValueError, match='classes a, b, c, d, e, not of x'):
        SoftLabels(folder, ['x'])
    with pytest.raises(ValueError, match='holds no soft labels'):
        SoftLabels(tmp_path, NAMES)
    empty, key = SoftLabels.create(tmp_path / 'new', NAMES, [4, 16]), source.drives[0][0]
    with pytest.raises(ValueError, match='no soft labels for .*000'):
        empty.read(source, key)
    empty.path(source, key).parent.mkdir(parents=True)
    empty.path(source, key).write_bytes(b'PK cut')
    with pytest.raises(ValueError, match='is damaged'):
        empty.read(source, key)


@pytest.mark.parametrize('root', ['.', 'drives/..'])
def test_soft_labels_of_a_root_without_a_name_stay_in_their_folder(tmp_path, monkeypatch, root):
    write_folder(tmp_path / 'data', 1, 1)
    (tmp_path / 'data/drives').mkdir()
    monkeypatch.chdir(tmp_path / 'data')
    source = FolderFrames(root, 5)
    store, key = SoftLabels.create(tmp_path / 'soft', NAMES, [4, 16]), source.drives[0][0]
    assert store.path(source, key) == tmp_path / 'soft/data/images/drive0/000.npz'


@pytest.mark.parametrize('name', ['/images/000', 'a/../../000'])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, monkeypatch, name):
    source = FolderFrames(write_folder(tmp_path / 'data', 1, 1), 5)
    monkeypatch.setattr(source, 'frame_name', lambda key: name)
    with pytest.raises(ValueError, match=f'{name} has no place in .*soft: set root'):
        SoftLabels.create(tmp_path / 'soft', NAMES, [4, 16]).path(source, source.drives[0][0])


def test_two_folders_of_one_name_are_refused(tmp_path):
    sources = [FolderFrames(write_folder(tmp_path / part / 'data', 1, 1), 5) for part in 'ab']
    with pytest.raises(ValueError, match='both called data'):
        write_soft_labels(tiny_teacher(), NAMES, sources, tmp_path / 'soft')


def test_targets_fit_the_fields_that_are_stored():
    assert Targets._fields == ('probabilities', 'uncertainty', 'projection')
