# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Cityscapes' layout, on a small generated tree."""
import cv2
import numpy as np
import pytest

from networks import tiny
from vseg_training.data import build_source, Cityscapes, VOID
from vseg_training.evaluate import evaluate_stream
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
