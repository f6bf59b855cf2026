# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What --data names: ids and depth are those of the recipe's own folders."""
import cv2
import pytest

from folders import write_folder
from vseg_training.cli import _source
from vseg_training.data_option import named_source, title_of
from vseg_training.recipe import Data, Recipe, Source


def recipe_of(val, *train):
    return Recipe(data=Data(train=list(train), val=val))


def folder(root, label_map=None, **more):
    return Source('folder', root, label_map=label_map, **more)


def test_labels_of_a_folder_are_read_by_the_label_map_of_the_recipe(tmp_path):
    write_folder(tmp_path / 'data', 1, 1)
    ids = tmp_path / 'ids.yaml'
    ids.write_text('{0: road, 1: sky, 2: void, 3: road}')
    val = folder(str(tmp_path / 'data'), str(ids))
    for recipe in (recipe_of(val), recipe_of(None, val), recipe_of(Source('street'), val)):
        source = _source(recipe, f'folder:{tmp_path / "data"}')
        key = source.drives[0][0]
        raw = cv2.imread(str(source.label_path(key)), cv2.IMREAD_UNCHANGED)
        assert (source.read(key)[1][raw == 0] == 3).all()


def test_the_folder_of_the_same_root_comes_first_then_val():
    recipe = recipe_of(folder('v', 'v.yaml', focal=5.0), folder('a', 'a.yaml'),
                       folder('b', 'b.yaml'))
    assert named_source(recipe, 'folder:./b#test/x') == folder(
        './b', 'b.yaml', split='test', drives=['x'])
    assert named_source(recipe, 'folder:new') == folder('new', 'v.yaml', split='val', focal=5.0)
    assert named_source(recipe, 'voc:v').label_map is None
    assert named_source(recipe, None) is recipe.data.val


def test_without_data_the_recipe_needs_val():
    with pytest.raises(ValueError, match='no data.val: give --data'):
        named_source(recipe_of(None, folder('a')), '')


@pytest.mark.parametrize('data, title', [
    (None, 'folder val'), ('folder:a', 'folder val'), ('folder:a#test', 'folder test'),
    ('folder:x/b', 'folder b val'), ('camvid:c#val/0016E5', 'camvid val/0016E5')])
def test_titles_tell_what_is_measured(data, title):
    assert title_of(recipe_of(folder('a', split='val')), data) == title
