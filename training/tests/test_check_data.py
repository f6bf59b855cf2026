# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""check-data names every mistake in one go, and finds none in good data."""
import re

import cv2
import numpy as np
import pytest

from folders import write_folder
from vseg_training.cli import main
from vseg_training.data import FolderFrames
from vseg_training.data.check import check_data, MOST
from vseg_training.recipe import Data, Recipe, Source


def recipe_of(root, **train):
    return Recipe(data=Data(train=[Source('folder', str(root), **train)]))


@pytest.fixture
def data(tmp_path):
    return write_folder(tmp_path / 'data')


def write_labels(root, name, labels):
    cv2.imwrite(str(root / 'labels' / name), labels)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def enlarge(root):
    for part in ('images', 'labels'):
        cv2.imwrite(str(root / part / 'drive1/002.png'), np.zeros((32, 96), np.uint8))


def jpeg(root):
    path = root / 'images/drive0/001.png'
    cv2.imwrite(str(path.with_suffix('.jpg')), cv2.imread(str(path)))
    path.unlink()
    cut(path.with_suffix('.jpg'))


def test_good_data_is_one_line_a_source(data, tmp_path):
    found = check_data(recipe_of(data), tmp_path)
    assert found.summary[0] == f'train: folder {data}: 8 frames in 2 drives, 64x96, 8 labelled'
    assert found.summary[1].startswith('train classes: sky 2')
    assert not found.errors and not found.notes
    assert list(found.warnings) == ['classes that never occur in train']  # 7 of CamVid's 11


@pytest.mark.parametrize('spoil, message', [
    (enlarge, 'drive1/000.png is .64, 96., but .*drive1/002.png of the same drive is .32, 96.'),
    (lambda root: write_labels(root, 'drive0/001.png', np.zeros((8, 8), np.uint8)),
     'labels/drive0/001.png is .8, 8., but its image is .64, 96.'),
    (lambda root: write_labels(root, 'drive0/001.png', np.zeros((64, 96, 3), np.uint8)),
     'labels/drive0/001.png .*8-bit single-channel'),
    (lambda root: write_labels(root, 'drive0/001.png', np.full((64, 96), 40, np.uint8)),
     'labels/drive0/001.png has id 40'),
    (lambda root: cut(root / 'images/drive0/001.png'), 'images/drive0/001.png is cut short'),
    (jpeg, 'images/drive0/001.jpg is cut short'),
    (lambda root: cut(root / 'labels/drive0/001.png'), 'labels/drive0/001.png is cut short'),
    (lambda root: (root / 'images/drive0/001.png').write_text('text'),
     'images/drive0/001.png is not a readable image'),
    (lambda root: (root / 'images').rename(root / 'pictures'), 'no images in .*images'),
    (lambda root: (root / 'labels').rename(root / 'masks'),
     'no frame of .*images has a label file in .*labels'),
])
def test_errors_are_named_and_end_with_status_1(data, tmp_path, capsys, spoil, message):
    spoil(data)
    config = tmp_path / 'recipe.yaml'
    config.write_text(f'data: {{train: [{{kind: folder, root: {data}}}]}}')
    assert main(['check-data', '--config', str(config)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('error')]
    assert len(lines) == 1
    assert re.search(message, lines[0])


def test_warnings_and_notes(data, tmp_path):
    (data / 'labels/drive0/001.png').unlink()
    (data / 'images/drive1/003.png').unlink()
    recipe = recipe_of(data)
    recipe.data.val = Source('folder', str(data))
    found = check_data(recipe, tmp_path)
    assert not found.errors
    text = '\n'.join(found.lines())
    for line in ('1 of 7 images have no labels', 'labels/drive1/003.png belongs to no image',
                 '1 drives are shorter than a clip of 4', '7 frames of val are in train too',
                 'class bicyclist never occurs in val'):
        assert line in text


def test_ten_lines_of_a_kind_are_enough(tmp_path):
    data = write_folder(tmp_path / 'data', drives=2, frames=8)
    for path in (data / 'labels').glob('*/*.png'):
        cv2.imwrite(str(path), np.full((64, 96), 40, np.uint8))
    lines = [each for each in check_data(recipe_of(data), tmp_path).lines() if 'error' in each]
    assert len(lines) == MOST + 1 and lines[-1].startswith('error: ... and 6 more')


def test_the_ids_of_a_label_map_are_right(data, tmp_path):
    ids = tmp_path / 'ids.yaml'
    ids.write_text('{0: void, 1: road, 2: car, 3: sky}')
    found = check_data(recipe_of(data, label_map=str(ids)), tmp_path)
    assert not found.errors and 'road' in found.summary[1]
    ids.write_text('{0: void, 1: road, 2: car}')
    found = check_data(recipe_of(data, label_map=str(ids)), tmp_path)
    assert 'has id 3' in found.errors['labels that cannot be used'][0]


def test_bad_files_of_any_kind_are_survived(data, tmp_path):
    (data / 'images/drive0/000.png').unlink()
    (data / 'images/drive0/000.png').mkdir()
    (data / 'images/drive1/001.png').unlink()
    (data / 'images/drive1/001.png').symlink_to('nowhere')
    recipe = recipe_of(data)
    recipe.data.train += [Source('folder', str(tmp_path / 'nothing')), Source('street')]
    found = check_data(recipe, tmp_path)
    assert [len(found.errors[kind]) for kind in (
        'images that cannot be used', 'sources that cannot be read')] == [2, 1]
    assert found.summary[1:] == [f'train: folder {tmp_path}/nothing: cannot be read',
                                 'train: street: rendered, nothing to check']


def test_classes_beyond_the_label_set_are_an_error(data, tmp_path):
    for part, name in (('images', 'train'), ('labels', 'trainannot')):
        (data / part / 'drive0').rename(data / name)
    recipe = Recipe(data=Data(label_set=str(tmp_path / 'two.yaml'),
                              train=[Source('camvid', str(data))]))
    (tmp_path / 'two.yaml').write_text(
        'name: two\nclasses: [{id: 0, name: a, color: [0, 0, 0]}, '
        '{id: 1, name: b, color: [9, 9, 9]}]')
    assert 'label set two has 2 classes' in check_data(recipe, tmp_path).lines()[-1]


def test_training_names_frames_of_two_sizes_itself(data):
    enlarge(data)
    source = FolderFrames(data, 11)
    with pytest.raises(ValueError, match='drive1/001 is .*drive1/002 of the same drive is'):
        source.load(source.clip_keys(1, 2, 2))
