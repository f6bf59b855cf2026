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
from vseg_training.models.options import DepthTask
from vseg_training.recipe import Data, Recipe, Source
from vseg_training.train import fit


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
    recipe.data.val = Source('folder', str(data / 'images/..'))  # the same, written otherwise
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


def blacken(data):
    for path in (data / 'labels').glob('*/*.png'):
        cv2.imwrite(str(path), np.full((64, 96), 255, np.uint8))


@pytest.mark.parametrize('part', ['train', 'val'])
def test_labels_that_are_all_void_are_refused_by_both(data, tmp_path, part):
    good = write_folder(tmp_path / 'good', seed=1)
    blacken(data)
    roots = {'train': good, 'val': good, part: data}
    recipe = recipe_of(roots['train'])
    recipe.data.val = Source('folder', str(roots['val']))
    found = check_data(recipe, tmp_path)
    assert [line[:40] for lines in found.errors.values() for line in lines] == [
        f'all labels of {part} are void: no pixel of '[:40]]
    with pytest.raises(ValueError, match=f'all labels of {part} are void'):
        fit(recipe, tmp_path / 'run')
    recipe.loss.segmentation = 0.0  # what is learned needs no classes, but its mIoU does
    assert bool(check_data(recipe, tmp_path).errors) is (part == 'val')
    recipe.tasks.depth = DepthTask()  # by which the best is chosen
    assert not check_data(recipe, tmp_path).errors


@pytest.mark.parametrize('hide', ['unlabelled', 'ignore_labels'])
def test_a_val_without_labels_is_an_error(data, tmp_path, hide):
    bare = write_folder(tmp_path / 'bare')
    if hide == 'unlabelled':
        (bare / 'labels').rename(bare / 'masks')
    recipe = recipe_of(data)
    recipe.data.val = Source('folder', str(bare), **{hide: True})
    assert check_data(recipe, tmp_path).errors == {'no labels': [
        'no frame of data.val has labels to measure by: give it some, or set data.val to null']}


def test_frames_that_are_linked_to_are_known_in_val(data, tmp_path):
    """A folder of links, or links to the files, as splits are often made."""
    (tmp_path / 'folders').symlink_to(data)
    for path in data.glob('*/*/*.png'):
        link = tmp_path / 'files' / path.relative_to(data)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    recipe = recipe_of(data)
    for root in ('folders', 'files'):
        recipe.data.val = Source('folder', str(tmp_path / root))
        assert '8 frames of val are in train' in '\n'.join(check_data(recipe, tmp_path).lines())


@pytest.mark.parametrize('seeds, shared', [((1, 3), True), ((2, 3), False)])
def test_streets_of_train_are_known_in_val(tmp_path, seeds, shared):
    recipe = Recipe(data=Data(train=[Source('street', seeds=(0, 2))],
                              val=Source('street', seeds=seeds, step=1)))
    assert ('shared frames' in check_data(recipe, tmp_path).warnings) is shared


def test_void_labels_beside_others_are_no_error(data, tmp_path):
    good = write_folder(tmp_path / 'good', seed=1)
    blacken(data)
    recipe = recipe_of(data)
    recipe.data.train.append(Source('folder', str(good)))
    assert not check_data(recipe, tmp_path).errors
    recipe.data.train[1].ignore_labels = True
    assert 'all labels of train are void' in '\n'.join(check_data(recipe, tmp_path).lines())


def with_depth(data, millimetres):
    for path in (data / 'images').glob('*/*.png'):
        place = data / 'depth' / path.relative_to(data / 'images')
        place.parent.mkdir(parents=True, exist_ok=True)
        depth = np.zeros((64, 96), np.uint16)
        depth[:16] = millimetres
        cv2.imwrite(str(place), depth)
    recipe = recipe_of(data, focal=100.0)
    recipe.data.scale = (1.0, 2.0)
    recipe.tasks.depth = DepthTask(nearest=4, farthest=40, focal=200)
    return recipe


def test_depth_is_summed_up(data, tmp_path):
    found = check_data(with_depth(data, 5000), tmp_path)
    assert found.summary[0].endswith('8 labelled, depth of 25.0 % of the pixels, 5 to 5 m')
    assert not found.errors


# of this camera at scale 1 the task's 4 to 40 m are 2 to 20 m, and at scale 2 they are 4 to 40 m
@pytest.mark.parametrize('millimetres, good', [
    (5, False), (1900, False), (2100, True), (39000, True), (41000, False), (0, False)])
def test_depth_outside_the_range_of_the_task_is_an_error(data, tmp_path, millimetres, good):
    recipe = with_depth(data, millimetres)
    found = check_data(recipe, tmp_path)
    assert ('depth that cannot be used' in found.errors) is not good
    text = '\n'.join(found.lines())
    assert ('all depth is 0' in text) is (millimetres == 0)
    assert ('none lies in 2 to 40 m' in text) is (not good and millimetres > 0)
    recipe.tasks.depth = None
    assert bool(check_data(recipe, tmp_path).errors) is (millimetres == 0)


def test_depth_of_val_counts_at_the_size_of_the_network(data, tmp_path):
    recipe = with_depth(data, 2100)
    recipe.data.val, recipe.data.size = Source('folder', str(data), focal=100.0), (128, 192)
    text = '\n'.join(check_data(recipe, tmp_path).lines())
    assert 'none lies in 4 to 40 m' in text  # twice as high as the images


@pytest.mark.parametrize('factor, dark', [(16, True), (256, False)])
def test_16_bit_images_of_fewer_bits_are_a_warning(data, tmp_path, factor, dark):
    for path in (data / 'images').glob('*/*.png'):
        cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) * factor)
    found = check_data(recipe_of(data), tmp_path)
    assert not found.errors and ('dark 16-bit images' in found.warnings) is dark
