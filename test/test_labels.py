# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Label sets: what is read, refused, renamed and painted."""
import tracemalloc

import numpy as np
import pytest
import yaml

from ros_vseg.errors import LabelSetError
from ros_vseg.labels import colorize, LabelSet, load_label_set, overlay, remap_table


def tree(**changes):
    """Return a correct label set as a dict, with changes."""
    classes = [{'id': 0, 'name': 'road', 'color': [128, 64, 128]},
               {'id': 1, 'name': 'car', 'color': [0, 0, 142]}]
    return {'name': 'small', 'void_id': 255, 'classes': classes, **changes}


def entry(**changes):
    """Return a tree whose second class is changed; a value of None removes the key."""
    changed = {'id': 1, 'name': 'car', 'color': [0, 0, 142], **changes}
    kept = {key: value for key, value in changed.items() if value is not None}
    return tree(classes=[tree()['classes'][0], kept])


SMALL = LabelSet.from_dict(tree())


def test_shipped_camvid():
    camvid = load_label_set('camvid')
    assert camvid.names == (
        'sky', 'building', 'pole', 'road', 'sidewalk', 'tree', 'sign_symbol', 'fence', 'car',
        'pedestrian', 'bicyclist')
    assert camvid.void_id == 255
    assert camvid.palette[[0, 3, 10, 11, 255]].tolist() == [
        [128, 128, 128], [128, 64, 128], [0, 128, 192], [0, 0, 0], [0, 0, 0]]


def test_shipped_cityscapes():
    cityscapes = load_label_set('cityscapes')
    assert len(cityscapes.names) == 19
    assert cityscapes.names.index('road') == 0
    assert cityscapes.names.index('car') == 13
    assert cityscapes.names[18] == 'bicycle'
    assert cityscapes.palette[[0, 10, 11, 13]].tolist() == [
        [128, 64, 128], [70, 130, 180], [220, 20, 60], [0, 0, 142]]


@pytest.mark.parametrize('name', ['ade20k', 'camvid', 'cityscapes', 'nyu40', 'voc'])
def test_dict_round_trip(name):
    label_set = load_label_set(name)
    assert LabelSet.from_dict(label_set.to_dict()) == label_set


def test_to_dict_is_the_documented_form():
    assert SMALL.to_dict() == tree()


def test_classes_may_come_in_any_order():
    reverse = tree(classes=tree()['classes'][::-1])
    assert LabelSet.from_dict(reverse) == SMALL


def test_yaml_file(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(yaml.safe_dump(tree(name='mine', void_id=200)))
    label_set = load_label_set(path)
    assert (label_set.name, label_set.void_id) == ('mine', 200)
    assert label_set.names == ('road', 'car')


@pytest.mark.parametrize('name', ['nowhere', 'a\0b'])
def test_label_set_that_does_not_exist(name):
    with pytest.raises(LabelSetError, match='does not exist: .*camvid'):
        load_label_set(name)


def test_yaml_nested_beyond_reason(tmp_path):
    path = tmp_path / 'deep.yaml'
    path.write_text('[' * 5000)
    with pytest.raises(LabelSetError, match='is not YAML'):
        load_label_set(path)


@pytest.mark.parametrize('broken, reason', [
    (None, 'malformed'),
    ('road', 'malformed'),
    (tree(classes=None), 'malformed'),
    (tree(classes=['road']), 'malformed'),
    ({'classes': tree()['classes']}, "malformed at 'name'"),
    ({'name': 'small'}, "malformed at 'classes'"),
    (entry(name=None), "malformed at 'name'"),
    (entry(color=None), "malformed at 'color'"),
    (entry(color=[0, 0, float('inf')]), 'three whole numbers'),
    (entry(color=[0.5, 0.2, 0.9]), r'has color \[0.5, 0.2, 0.9\]: give three whole numbers'),
    (entry(color=[True, 0, 0]), 'three whole numbers'),
    (entry(color='123'), "color '123': give three whole numbers"),
    (entry(color='blue'), 'three whole numbers'),
    (entry(color=[0, 0]), 'three whole numbers'),
    (entry(color=[0, 0, 256]), 'three whole numbers'),
    (entry(color=[0, 0, 16**5000]), 'three whole numbers'),
    (entry(id=None), "malformed at 'id'"),
    (entry(id='one'), r"classes\[1\] has id 'one': give a whole number"),
    (entry(id=True), 'has id True: give a whole number'),
    (entry(id=1.0), 'has id 1.0: give a whole number'),
    (entry(id=2), r'ids \[0, 2\], with 2 in the place of 1'),
    (entry(id=0), r'ids \[0, 0\]'),
    (entry(id=16**5000), 'in the place of 1'),
    (entry(name='road'), 'differ'),
    (entry(name=False), r'classes\[1\]: name is False, which is not text: put it in quotes'),
    (entry(name=['x' * 10**6] * 9), 'which is not text'),
    (entry(name=''), 'a line of text'),
    (entry(name='two\nlines'), 'a line of text'),
    (entry(form=['car']), r"classes\[1\] has the unknown key 'form': there are only id, name, "),
    (entry(**{'from': 'car'}), 'list'),
    (entry(**{'from': [1]}), r'from\[0\] is 1, which is not text'),
    (tree(name=None), '^label set: name is None, which is not text'),
    (tree(void_from='sky'), 'list'),
    (tree(void_form=['sky']), "unknown key 'void_form': there are only name, classes, void_id, "),
    (tree(classes=[]), 'must be given'),
    (tree(void_id='none'), "void id 'none'"),
    (tree(void_id=float('inf')), 'void id inf'),
    (tree(void_id=2.7), 'void id 2.7: give a whole number'),
    (tree(void_id=True), 'void id True'),
    (tree(void_id=1), 'void id 1'),
    (tree(void_id=-1), 'void id -1'),
    (tree(void_id=256), 'void id 256'),
    (tree(classes=[{'id': i, 'name': str(i), 'color': [0, 0, 0]} for i in range(256)]),
     '256 classes'),
])
def test_malformed(broken, reason):
    with pytest.raises(LabelSetError, match=reason) as error:
        LabelSet.from_dict(broken)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize('content, reason', [
    (b'name: [', 'not YAML'),
    (b'\xff\xfe\x00', 'not YAML'),
    (b'', 'malformed'),
    (b'!!python/object/apply:os.system ["true"]', 'not YAML'),
    (b'name: !!bool x', 'not YAML'),
    (b'name: !!map [x]', 'not YAML'),
    (b'name: !!timestamp x', 'not YAML'),
    (b'name: 2020-13-45', 'not YAML'),
    (b'name: ' + b'1' * 5000, 'not YAML: .*5000'),
    (b'classes: []\nname: 0x' + b'f' * 5000, 'not text'),
    (b'name: [\n', 'not YAML: .*, line 2'),
    (b'name: a\nname: b\nclasses: []', "line 2 gives the key 'name' again: keep one"),
    (b'name: a\nclasses:\n- {id: 0, id: 1}', "line 3 gives the key 'id' again"),
    (b'name: &a small\nclasses: *a', r'line 2 has an alias \(\*a\): write out'),
    (b'name: &a [*a]', 'alias'),
    (b'#' * (2**20 + 1), 'more than 1 MB'),
])
def test_bad_file_is_named(tmp_path, content, reason):
    path = tmp_path / 'mine.yaml'
    path.write_bytes(content)
    with pytest.raises(LabelSetError, match=reason) as error:
        load_label_set(path)
    assert str(path) in str(error.value) and len(str(error.value)) < len(str(path)) + 200


def test_aliases_that_stand_for_gigabytes_are_refused_at_once(tmp_path):
    path = tmp_path / 'bomb.yaml'
    lines = ['b0: &b0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]', *(
        f'b{level}: &b{level} [{", ".join([f"*b{level - 1}"] * 9)}]' for level in range(1, 6))]
    path.write_text('\n'.join([*lines, 'name: x', 'classes:',
                               '- {id: 0, name: *b5, color: [1, 2, 3]}']))
    tracemalloc.start()
    try:
        with pytest.raises(LabelSetError, match='alias'):
            load_label_set(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22     # reading takes 1 MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('color, read', [
    ('[10, 0, 255]', (10, 0, 255)), ('[0xff, 0x0a, 0]', (255, 10, 0)), ('[010, 0, 0]', None),
    ('[1:30, 0, 0]', None), ('[0b11, 0, 0]', None), ('[1_0, 0, 0]', None), ('[-1, 0, 0]', None)])
def test_numbers_are_those_that_people_write(tmp_path, color, read):
    path = tmp_path / 'mine.yaml'
    path.write_text(f'{{name: x, classes: [{{id: 0, name: a, color: {color}}}]}}')
    if read:
        assert load_label_set(path).colors == (read,)
    else:
        with pytest.raises(LabelSetError, match='has color .*three whole numbers'):
            load_label_set(path)


def test_folder_is_told_as_one(tmp_path):
    with pytest.raises(LabelSetError, match=r'cannot be read \(Is a directory\): give a YAML'):
        load_label_set(tmp_path)


def test_missing_label_set_names_the_shipped_ones():
    with pytest.raises(LabelSetError, match='kitti does not exist.*camvid, cityscapes'):
        load_label_set('kitti')


def test_remap_by_name_and_from():
    source = load_label_set('camvid')
    target = LabelSet.from_dict({
        'name': 'free', 'void_id': 9, 'void_from': ['sky'], 'classes': [
            {'id': 0, 'name': 'road', 'color': [0, 0, 0]},
            {'id': 1, 'name': 'obstacle', 'color': [0, 0, 0], 'from': [
                'building', 'pole', 'tree', 'sign_symbol', 'fence', 'car', 'pedestrian',
                'bicyclist']},
            {'id': 2, 'name': 'sidewalk', 'color': [0, 0, 0]}]})
    table = remap_table(source, target)
    assert table.dtype == np.uint8 and table.shape == (256,)
    assert table[:12].tolist() == [9, 1, 1, 0, 2, 1, 1, 1, 1, 1, 1, 9]
    assert (table[11:] == 9).all()


def test_remap_to_itself_is_the_identity():
    table = remap_table(SMALL, SMALL)
    assert table[:2].tolist() == [0, 1] and (table[2:] == 255).all()


def test_remap_that_does_not_fit_names_the_classes():
    with pytest.raises(LabelSetError, match='small does not fit camvid: no class takes '
                                            'sky, building, pole, sidewalk'):
        remap_table(load_label_set('camvid'), SMALL)


def test_remap_refuses_a_class_taken_twice():
    twice = LabelSet.from_dict(entry(**{'from': ['car', 'road']}))
    with pytest.raises(LabelSetError, match='takes road of small twice'):
        remap_table(SMALL, twice)


def test_colorize():
    labels = np.array([[0, 1, 2], [255, 1, 0]], np.uint8)
    assert colorize(labels, SMALL).tolist() == [
        [[128, 64, 128], [0, 0, 142], [0, 0, 0]], [[0, 0, 0], [0, 0, 142], [128, 64, 128]]]


def test_overlay():
    image = np.array([[[100, 0, 20], [200, 40, 255]]], np.uint8)
    labels = np.array([[1, 255]], np.uint8)
    assert overlay(image, labels, SMALL, alpha=0.25).tolist() == [[[75, 0, 50], [150, 30, 191]]]
    assert overlay(image, labels, SMALL, alpha=0.0).tolist() == image.tolist()
    assert overlay(image, labels, SMALL, alpha=1.0).tolist() == [[[0, 0, 142], [0, 0, 0]]]
