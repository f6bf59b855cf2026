# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Pascal VOC, ADE20K and NYUv2, each on a small generated tree; wrong trees are refused."""
import re

import cv2
import numpy as np
from PIL import Image
import pytest

from ros_vseg.labels import load_label_set
from vseg_training.cli import main
from vseg_training.data import build_source, VOID
from vseg_training.data.check import check_data
from vseg_training.recipe import Data, load_recipe, Recipe, Source
from vseg_training.train import fit


NAMES = ['2007_000032', '2007_000039', '2008_000008', '2011_003276']
LABEL_SETS = {'voc': 'voc', 'ade20k': 'ade20k', 'nyuv2': 'nyu40'}
VAL = {'voc': 'val', 'ade20k': 'val', 'nyuv2': 'test'}


def bit(number, place):
    return number // 2 ** place % 2


def voc_palette():
    """VOC's colours: of the eight bits of an id, from the lowest, each third is a channel's."""
    return [[sum(bit(number, 3 * step + channel) * 128 // 2 ** step for step in range(3)
                 if 3 * step + channel < 8) for channel in range(3)] for number in range(256)]


def size_of(number):
    """Height and width: no two pictures need be alike."""
    return 64 + 8 * number, 96 - 8 * number


def ids_of(number, values):
    """Ids in vertical stripes, another order for each picture."""
    height, width = size_of(number)
    stripes = np.roll(np.array(values, np.uint8), number)
    return stripes[np.arange(width) * len(values) // width][None].repeat(height, 0)


def save_image(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    cv2.imwrite(str(path), rng.integers(0, 256, (*size_of(number), 3), np.uint8))


def save_ids(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), ids)


def write_voc(root):
    """Two pictures in train, one in val, one in test without a label; labels with palettes."""
    for number, name in enumerate(NAMES):
        save_image(root / f'JPEGImages/{name}.jpg', number)
        if number == 3:
            continue
        path = root / f'SegmentationClass/{name}.png'
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray(ids_of(number, [0, 7, 20, 255]))
        image.putpalette(np.ravel(voc_palette()).tolist())
        image.save(path)
    lists = root / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    for split, names in (('train', NAMES[:2]), ('val', NAMES[2:3]), ('test', NAMES[3:])):
        (lists / f'{split}.txt').write_text(''.join(f'{name}\n' for name in names))


def write_ade20k(root):
    for number in range(3):
        split = ('training', 'train') if number < 2 else ('validation', 'val')
        name = f'{split[0]}/ADE_{split[1]}_{number + 1:08d}'
        save_image(root / f'images/{name}.jpg', number)
        save_ids(root / f'annotations/{name}.png', ids_of(number, [0, 1, 12, 150]))


def write_nyuv2(root):
    for number in range(3):
        split = 'train' if number < 2 else 'test'
        save_image(root / f'{split}/rgb/{number + 1:04d}.png', number)
        save_ids(root / f'{split}/semantic_40/{number + 1:04d}.png',
                 ids_of(number, [0, 1, 12, 40]))


WRITERS = {'voc': write_voc, 'ade20k': write_ade20k, 'nyuv2': write_nyuv2}
# ids on disk, and the classes that they are
IDS = {'voc': {0: 'background', 7: 'car', 20: 'tvmonitor', 255: None},
       'ade20k': {0: None, 1: 'wall', 12: 'sidewalk', 150: 'flag'},
       'nyuv2': {0: None, 1: 'wall', 12: 'counter', 40: 'otherprop'}}
# a label of the first picture of train
FIRST = {'voc': 'SegmentationClass/2007_000032.png',
         'ade20k': 'annotations/training/ADE_train_00000001.png',
         'nyuv2': 'train/semantic_40/0001.png'}


@pytest.fixture(params=sorted(WRITERS))
def kind(request):
    return request.param


@pytest.fixture
def root(tmp_path, kind):
    folder = tmp_path / 'data'
    folder.mkdir()
    WRITERS[kind](folder)
    return folder


def recipe_of(kind, root, split='train', **more):
    data = Data(label_set=LABEL_SETS[kind], train=[Source(kind, str(root), split, **more)])
    return Recipe(data=data)


def open_it(kind, root, split='train', **more):
    recipe = recipe_of(kind, root, split, **more)
    return build_source(recipe.data.train[0], recipe, root)


def refusal(kind, root, split='train', **more):
    """The one line of a training that is refused; check-data says the same."""
    with pytest.raises(ValueError) as raised:
        source = open_it(kind, root, split, **more)
        source.frames()
        for drive in source.drives:
            source.read(drive[0])
    message = str(raised.value)
    errors = check_data(recipe_of(kind, root, split, **more), root).errors
    assert message in [line for lines in errors.values() for line in lines]
    assert '\n' not in message
    return message


def test_ids_on_disk_become_the_classes_of_the_label_set(kind, root):
    source, names = open_it(kind, root), load_label_set(LABEL_SETS[kind]).names
    assert [len(drive) for drive in source.drives] == [1, 1]
    assert source.frames() == [(0, 0), (1, 0)]
    for number, (key,) in enumerate(source.drives):
        image, labels = source.read(key)
        assert image.shape == (*size_of(number), 3)
        for disk, name in IDS[kind].items():
            there = ids_of(number, list(IDS[kind])) == disk
            assert there.any()
            assert (labels[there] == (VOID if name is None else names.index(name))).all()


def test_other_splits_are_read_too(kind, root):
    (drive,) = open_it(kind, root, VAL[kind]).drives
    assert drive[0].stem in (NAMES[2], 'ADE_val_00000003', '0003')


def test_good_trees_have_no_errors_and_no_stray_labels(kind, root):
    recipe = recipe_of(kind, root)
    recipe.data.val = Source(kind, str(root), VAL[kind])
    found = check_data(recipe, root)
    assert not found.errors
    assert not any('stray' in name or 'shared' in name for name in found.warnings)
    assert '2 frames in 2 drives, 64x96 and 72x88, 2 labelled' in found.summary[0]


def test_sizes_are_summed_up_where_there_are_many(tmp_path):
    for number in range(12):
        height, width = 20 + number, 60 - number
        save_ids(tmp_path / f'train/rgb/{number}.png', np.zeros((height, width, 3), np.uint8))
        save_ids(tmp_path / f'train/semantic_40/{number}.png', np.ones((height, width), np.uint8))
    found = check_data(recipe_of('nyuv2', tmp_path), tmp_path)
    assert '12 drives, 12 sizes of 20 to 31 by 49 to 60, 12 labelled' in found.summary[0]


def test_a_missing_label_is_refused_unless_frames_may_be_without(kind, root):
    (root / FIRST[kind]).unlink()
    message = refusal(kind, root)
    assert message.startswith('1 of 2 images have no label') and FIRST[kind] in message
    source = open_it(kind, root, unlabelled=True)
    assert len(source.frames()) == 2
    assert (source.read(source.drives[0][0])[1] == VOID).all()


def test_the_folder_above_is_refused_with_the_right_one(kind, root):
    assert refusal(kind, root.parent).endswith(f': set root to {root}')
    (root.parent / 'empty').mkdir()
    assert 'root is the folder that holds' in refusal(kind, root.parent / 'empty')


@pytest.mark.parametrize('split, message', [
    ('training', "ADE20K has no split 'training': use train or val"),
    ('val', "NYUv2 has no split 'val': use train or test"),
    ('validation', 'there is no list .*/validation.txt: use test, train, val')])
def test_unknown_splits_are_refused(tmp_path, split, message):
    for kind, writer in WRITERS.items():
        (tmp_path / kind).mkdir()
        writer(tmp_path / kind)
    kind = {'training': 'ade20k', 'val': 'nyuv2', 'validation': 'voc'}[split]
    assert re.search(message, refusal(kind, tmp_path / kind, split))


def test_ids_that_are_no_class_are_refused(kind, root):
    path, most = root / FIRST[kind], max(number for number in IDS[kind] if number < VOID)
    save_ids(path, np.full(size_of(0), most + 1, np.uint8))
    assert f'{path} has id {most + 1}, which no class has: 0' in refusal(kind, root)


@pytest.mark.parametrize('kind', ['ade20k', 'nyuv2'])
def test_labels_that_were_shifted_before_are_refused(kind, root):
    """There 255 is void: read once more, every class would become the one before it."""
    path = root / FIRST[kind]
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    save_ids(path, ids - 1)
    assert 'has id 255, which no class has: 0 is void' in refusal(kind, root)


def test_colours_instead_of_ids_are_refused(kind, root):
    save_ids(root / FIRST[kind], np.zeros((*size_of(0), 3), np.uint8))
    assert 'is 8-bit RGB: labels must be' in refusal(kind, root)


def test_label_sets_of_other_data_are_refused(kind, root, tmp_path):
    recipe = recipe_of(kind, root)
    for other, words in (('camvid', 'has 11 classes'),
                         ('ade20k', 'are not those of label set ade20k'),
                         ('voc', '')):
        recipe.data.label_set = other
        if other == LABEL_SETS[kind]:
            continue
        with pytest.raises(ValueError, match=f'{words}.* set data.label_set to '
                                             f'{LABEL_SETS[kind]}'):
            build_source(recipe.data.train[0], recipe, root)
    own = load_label_set(LABEL_SETS[kind]).to_dict() | {'name': 'mine'}
    (tmp_path / 'mine.yaml').write_text(str(own))
    recipe.data.label_set = str(tmp_path / 'mine.yaml')
    assert len(build_source(recipe.data.train[0], recipe, root).drives) == 2


def test_label_maps_are_for_folders(kind, root):
    assert 'takes no label_map' in refusal(kind, root, label_map='ids.yaml')


def test_unknown_drives_are_named_once(root, kind):
    message = refusal(kind, root, drives=['nowhere'])
    assert message.startswith("there is no drive 'nowhere'") and message.count('data/') == 1


def test_nyuv2_of_the_older_script_is_read(tmp_path):
    write_nyuv2(tmp_path)
    (tmp_path / 'train/labels_40').mkdir()  # empty, it hides nothing
    source = open_it('nyuv2', tmp_path)
    assert source.label_folder == 'train/semantic_40'
    (tmp_path / 'train/labels_40').rmdir()
    (tmp_path / 'train/semantic_40').rename(tmp_path / 'train/labels_40')
    source = open_it('nyuv2', tmp_path)
    assert set(np.unique(source.read(source.drives[0][0])[1])) == {0, 11, 39, VOID}


@pytest.fixture
def voc(tmp_path):
    folder = tmp_path / 'VOC2012'
    folder.mkdir()
    write_voc(folder)
    return folder


def test_voc_without_labels_is_for_distillation(voc):
    assert 'set unlabelled of this source' in refusal('voc', voc, 'test')
    assert len(open_it('voc', voc, 'test', unlabelled=True).frames()) == 1


def test_voc_lists_of_more_labels_read_those(voc):
    (voc / 'ImageSets/Segmentation/trainaug.txt').write_text(f'{NAMES[3]}\n{NAMES[1]}\n')
    assert '2 of 2 images have no label' in refusal('voc', voc, 'trainaug')
    for number in (3, 1):
        save_ids(voc / f'SegmentationClassAug/{NAMES[number]}.png', ids_of(number, [5, 255]))
    source = open_it('voc', voc, 'trainaug')
    assert [key.stem for (key,) in source.drives] == [NAMES[3], NAMES[1]]
    assert set(np.unique(source.read(source.drives[0][0])[1])) == {5, VOID}


@pytest.mark.parametrize('line, message', [
    ('2007_999999', 'train.txt names .*/JPEGImages/2007_999999.jpg, which is missing'),
    ('2007_000032  1', "has the line '2007_000032  1': a line is the name of one image alone"),
    ('/JPEGImages/2007_000032.jpg', 'a line is the name of one image alone'),
    ('', 'train.txt is empty')])
def test_voc_lists_of_another_form_are_refused(voc, line, message):
    (voc / 'ImageSets/Segmentation/train.txt').write_text(f'{line}\n\n')
    assert re.search(message, refusal('voc', voc))


def test_voc_lists_may_end_lines_as_windows_does_and_name_an_image_twice(voc):
    (voc / 'ImageSets/Segmentation/train.txt').write_bytes(
        '\r\n'.join([NAMES[1], NAMES[0], NAMES[1]]).encode())
    assert [key.stem for (key,) in open_it('voc', voc).drives] == [NAMES[1], NAMES[0]]


def test_voc_palettes_that_contradict_are_refused(voc):
    path = voc / FIRST['voc']
    image = Image.open(path)
    image.putpalette(np.ravel(voc_palette()[1:]).tolist())
    image.save(path)
    assert 'index 0 of its palette has the colour of class aeroplane' in refusal('voc', voc)


@pytest.mark.parametrize('name, count, shift, places', [
    ('voc', 21, 0, {0: 'background', 1: 'aeroplane', 15: 'person', 20: 'tvmonitor'}),
    ('ade20k', 150, 1, {0: 'wall', 2: 'sky', 12: 'person', 20: 'car', 143: 'monitor',
                        149: 'flag'}),
    ('nyu40', 40, 1, {0: 'wall', 1: 'floor', 23: 'refridgerator', 39: 'otherprop'})])
def test_label_sets_have_the_names_and_colours_of_their_data(name, count, shift, places):
    label_set = load_label_set(name)
    assert len(label_set.names) == count and label_set.name == name
    assert {index: label_set.names[index] for index in places} == places
    assert [list(color) for color in label_set.colors] == voc_palette()[shift:count + shift]
    assert len(set(label_set.colors)) == count


RECIPE = """
name: stills
model: {{backbone: efficientnet_lite0, weights: null, output_stride: 16, channels: 16,
        key_channels: 8, num_prototypes: 4, head_widths: [8, 8], dropout: 0.0}}
data:
  label_set: ade20k
  train: [{{kind: ade20k, root: {root}, split: train, stills: 1}}]
  val: {{kind: ade20k, root: {root}, split: val}}
  crop: [64, 64]
  frames_per_step: 4
  size: [64, 96]
  workers: 0
optim: {{max_steps: 1, validate_every: 1, checkpoint_every: 1, precision: 32-true}}
"""


def test_pictures_of_different_sizes_train_and_are_measured(tmp_path, capsys):
    root, recipe = tmp_path / 'ADEChallengeData2016', tmp_path / 'recipe.yaml'
    root.mkdir()
    write_ade20k(root)
    recipe.write_text(RECIPE.format(root=root))
    assert main(['check-data', '--config', str(recipe)]) == 0
    checkpoint = fit(load_recipe(recipe), tmp_path / 'run')
    capsys.readouterr()
    assert main(['evaluate', str(checkpoint), '--data', f'ade20k:{root}#train']) == 0
    assert '| sidewalk |' in capsys.readouterr().out
