# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Cityscapes' layout, on a small generated tree."""
import cv2
import numpy as np
import pytest

from networks import tiny
from ros_vseg.labels import load_label_set
from vseg_training.data import build_source, Cityscapes, VOID
from vseg_training.data.check import check_data
from vseg_training.evaluate import evaluate_stream, report_model, tables
from vseg_training.models.student import Student
from vseg_training.recipe import Data, Recipe, Source


SNIPPETS = [('aachen', 0, 0), ('aachen', 1, 0), ('hamburg', 0, 100), ('hamburg', 0, 400)]


def write_tree(root, split='train', sequence=True, frames=30, size=(16, 32)):
    """Snippets of a few frames; the 20th has labelIds 7 (road) and 26 (car), and 0 (void)."""
    folder = 'leftImg8bit_sequence' if sequence else 'leftImg8bit'
    for city, number, first in SNIPPETS:
        for frame in range(first, first + frames) if sequence else [first + 19]:
            path = root / folder / split / city / (
                f'{city}_{number:06d}_{frame:06d}_leftImg8bit.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((*size, 3), frame % 250, np.uint8))
        labels = np.zeros(size, np.uint8)
        labels[4:10], labels[10:] = 7, 26
        path = root / 'gtFine' / split / city
        path.mkdir(parents=True, exist_ok=True)
        name = f'{city}_{number:06d}_{first + 19:06d}_gtFine_labelIds.png'
        cv2.imwrite(str(path / name), labels)
    return root


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp('cityscapes'))


def test_a_snippet_is_a_drive_and_clips_end_at_its_labelled_frame(tree):
    source = Cityscapes(tree, 'train')
    assert [len(drive) for drive in source.drives] == [30] * 4
    assert source.frames() == [(drive, 19) for drive in range(4)]
    clip = source.load(source.clip_keys(2, 19, 4))
    assert clip.images[:, 0, 0, 0].tolist() == [116, 117, 118, 119]
    assert (clip.labels[:3] == VOID).all()
    labels = clip.labels[3]
    assert (labels[:4] == VOID).all() and (labels[4:10] == 0).all() and (labels[10:] == 13).all()


def test_reports_have_iiou_where_every_labelled_frame_has_instances(tmp_path):
    """Cars of one class and of two sizes, and a crowd of them, which has no number."""
    root, names = write_tree(tmp_path, frames=20), load_label_set('cityscapes').names
    source = Cityscapes(root, 'train')
    ids = np.full((16, 32), 7, np.uint16)
    ids[10:, :4], ids[10:, 4:20], ids[10:, 20:] = 26000, 26001, 26
    for drive in source.drives:
        path = source.label_path(drive[19])
        cv2.imwrite(str(path.with_name(path.name.replace('labelIds', 'instanceIds'))), ids)
    found = source.instances(source.drives[0][19])
    assert found.dtype == np.int32 and source.instances(source.drives[0][18]) is None
    assert (found[:, :4] == np.where(ids[:, :4] == 7, -1, 13000)).all()
    assert (found[10:, 4:20] == 13001).all() and (found[:, 20:] == -1).all()
    student = tiny(lambda _, **options: Student(19, **options))
    report = report_model(student, source, (32, 64), load_label_set('cityscapes'))
    assert set(report['iIoU']) <= {names[number] for number in range(11, 19)}
    assert 'car' in report['iIoU'] and '| iIoU |' in tables({'tiny': report})
    path.with_name(path.name.replace('labelIds', 'instanceIds')).unlink()
    assert 'iIoU' not in report_model(
        student, source, (32, 64), load_label_set('cityscapes'))


def test_every_frame_ends_a_clip_when_unlabelled_ones_may(tree):
    assert len(Cityscapes(tree, 'train', unlabelled=True).frames()) == 120


def test_train_ids_come_first(tree, tmp_path):
    root = write_tree(tmp_path, sequence=False)
    source = Cityscapes(root, 'train')
    assert [len(drive) for drive in source.drives] == [1] * 4
    key = source.drives[0][0]
    path = source.label_path(key)
    ids = np.full((16, 32), 255, np.uint8)
    ids[8:] = 18
    cv2.imwrite(str(path.with_name(path.name.replace('labelIds', 'labelTrainIds'))), ids)
    labels = source.read(key)[1]
    assert (labels[:8] == VOID).all() and (labels[8:] == 18).all()
    assert set(np.unique(source.read(source.drives[1][0])[1])) == {0, 13, VOID}


def test_validation_reads_what_the_labelled_frames_attend_to(tree, monkeypatch):
    """The mIoU of all frames, from the T before each labelled one and itself."""
    student, source = tiny(context_frames=2).eval(), Cityscapes(tree, 'train')
    confusion, seconds = evaluate_stream(student, source)
    assert len(seconds) == 4 * 3
    monkeypatch.setattr(source, 'has_labels', lambda key: True)
    everything, seconds = evaluate_stream(student, source)
    assert len(seconds) == 4 * 30
    np.testing.assert_array_equal(confusion.counts, everything.counts)


def test_reports_have_category_iou(tree):
    """Labels are road and car alone: of the seven categories others occur where predicted."""
    student = tiny(lambda _, **options: Student(19, **options))
    report = report_model(
        student, Cityscapes(tree, 'train'), (32, 64), load_label_set('cityscapes'))
    assert {'flat', 'vehicle'} <= set(report['category_IoU'])
    ious = list(report['category_IoU'].values())
    assert report['category_mIoU'] == pytest.approx(np.mean(ious), abs=0.01)
    assert 'iIoU' not in report
    # the classes that occur are two: mAcc is the mean of their rows' hits
    rows = report['confusion']['percent']
    assert report['mAcc'] == pytest.approx((rows[0][0] + rows[13][13]) / 2, abs=0.02)


def test_an_empty_folder_of_sequences_hides_no_frames(tmp_path):
    root = write_tree(tmp_path, sequence=False)
    (root / 'leftImg8bit_sequence/train/aachen').mkdir(parents=True)
    assert len(Cityscapes(root, 'train').frames()) == 4


def test_recipes_read_it(tree, tmp_path):
    recipe = Recipe(data=Data(label_set='cityscapes'))
    source = build_source(Source('cityscapes', str(tree)), recipe, tmp_path)
    assert len(source.frames()) == 4
    with pytest.raises(ValueError, match='no images in .*leftImg8bit_sequence/val'):
        build_source(Source('cityscapes', str(tree), 'val'), recipe, tmp_path)


def test_files_of_another_name_are_named(tmp_path):
    root = write_tree(tmp_path, sequence=False)
    cv2.imwrite(str(root / 'leftImg8bit/train/aachen/holiday.png'), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match='holiday.png is not named <city>'):
        Cityscapes(root, 'train')


def write_extra(root, numbers=(0, 1, 2)):
    """train_extra: consecutive numbers of one city, seconds apart, with coarse labels alone."""
    for number in numbers:
        name = f'troisdorf/troisdorf_000000_{number:06d}'
        for path, pixels in (
                (root / f'leftImg8bit/train_extra/{name}_leftImg8bit.png',
                 np.full((16, 32, 3), number, np.uint8)),
                (root / f'gtCoarse/train_extra/{name}_gtCoarse_labelIds.png',
                 np.full((16, 32), (0, 7, 26)[number], np.uint8)),
                (root / f'gtCoarse/train_extra/{name}_gtCoarse_color.png',
                 np.zeros((16, 32, 3), np.uint8))):
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)
    return root


def recipe_of(root, kind, split, **more):
    source = Source(kind, str(root), split, **more)
    return Recipe(data=Data(label_set='cityscapes', train=[source]))


def refusal(root, kind, split, **more):
    """Message of a training, which check-data has too."""
    recipe = recipe_of(root, kind, split, **more)
    with pytest.raises(ValueError) as raised:
        build_source(recipe.data.train[0], recipe, root)
    errors = check_data(recipe, root).errors['sources that cannot be read']
    assert errors == [str(raised.value)] and '\n' not in errors[0]
    return errors[0]


def test_coarse_labels_of_train_extra_are_read_and_no_frames_joined(tmp_path):
    root = write_extra(tmp_path)
    recipe = recipe_of(root, 'cityscapes_coarse', 'train_extra')
    source = build_source(recipe.data.train[0], recipe, tmp_path)
    assert [len(drive) for drive in source.drives] == [1, 1, 1]
    assert source.frames() == [(0, 0), (1, 0), (2, 0)]
    classes = [np.unique(source.read(drive[0])[1]).tolist() for drive in source.drives]
    assert classes == [[VOID], [0], [13]]
    found = check_data(recipe, tmp_path)
    assert not found.errors and 'stray labels' not in found.warnings
    (root / 'gtCoarse/train_extra/troisdorf/troisdorf_000009_000000_gtCoarse_color.png'
     ).write_bytes(b'')
    assert len(check_data(recipe, tmp_path).warnings['stray labels']) == 1


def test_coarse_and_fine_labels_of_one_split_stand_side_by_side(tmp_path):
    root = write_tree(tmp_path, frames=21)
    for path in list((root / 'gtFine').rglob('*_labelIds.png')):
        other = root / 'gtCoarse' / path.relative_to(root / 'gtFine')
        other.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(other.with_name(other.name.replace('gtFine', 'gtCoarse'))),
                    np.full((16, 32), 23, np.uint8))
    for kind, classes in (('cityscapes', {0, 13, VOID}), ('cityscapes_coarse', {10})):
        recipe = recipe_of(root, kind, 'train')
        source = build_source(recipe.data.train[0], recipe, tmp_path)
        assert source.frames() == [(drive, 19) for drive in range(4)]
        assert set(np.unique(source.read(source.drives[0][19])[1])) == classes
        assert 'stray labels' not in check_data(recipe, tmp_path).warnings


def test_wrong_trees_are_refused_with_the_fix(tmp_path):
    root = write_extra(tmp_path / 'data')
    assert 'train_extra has coarse labels alone: use kind cityscapes_coarse' in refusal(
        root, 'cityscapes', 'train_extra')
    assert f'train_extra: set root to {root}' in refusal(
        tmp_path, 'cityscapes_coarse', 'train_extra')
    assert 'root is the folder that holds leftImg8bit/val and gtCoarse/val' in refusal(
        root, 'cityscapes_coarse', 'val')
    (root / 'gtCoarse').rename(root / 'coarse')
    assert 'gtCoarse/train_extra is missing: root is the folder that holds' in refusal(
        root, 'cityscapes_coarse', 'train_extra')
    recipe = recipe_of(root, 'cityscapes', 'train_extra', unlabelled=True)
    assert len(build_source(recipe.data.train[0], recipe, root).frames()) == 3
