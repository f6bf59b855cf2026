# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Labels in the forms in which tools save them: read right, or refused, and fit does as well."""
import re
import struct
import zlib

import cv2
import numpy as np
from PIL import Image
import pytest

from folders import write_folder
from ros_vseg.labels import load_label_set
from vseg_training.cli import main
from vseg_training.data import build_source, FolderFrames
from vseg_training.data.check import check_data
from vseg_training.data.label_files import read_label_file, read_label_map
from vseg_training.recipe import Data, Recipe, Source


CLASSES = load_label_set('camvid')
VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]


@pytest.fixture
def data(tmp_path):
    return write_folder(tmp_path / 'data', drives=1)


def recipe_of(root, **source):
    return Recipe(data=Data(train=[Source('folder', str(root), **source)]))


def errors(root, tmp_path, **source):
    """All errors of check-data."""
    found = check_data(recipe_of(root, **source), tmp_path)
    return [message for messages in found.errors.values() for message in messages]


def refusal(root, tmp_path, **source):
    """What fit says: the error of opening the source, or else of reading all of it."""
    recipe = recipe_of(root, **source)
    with pytest.raises(ValueError) as raised:
        built = build_source(recipe.data.train[0], recipe, tmp_path)
        for drive in built.drives:
            for key in drive:
                built.read(key)
    return str(raised.value)


def refused_by_both(root, tmp_path, **source):
    """Message of fit, which check-data has too."""
    message = refusal(root, tmp_path, **source)
    assert message in errors(root, tmp_path, **source) and '\n' not in message
    return message


def labels_of(root, name='drive0/000'):
    return cv2.imread(str(root / f'labels/{name}.png'), cv2.IMREAD_UNCHANGED)


def grey_png(ids, depth):
    """A grey PNG of 1, 2 or 4 bits, written by hand: libraries do not write all of them."""
    bits = np.unpackbits(ids[..., None], axis=2)[..., -depth:].reshape(len(ids), -1)
    rows = b''.join(b'\0' + np.packbits(row).tobytes() for row in bits)
    chunks = [(b'IHDR', struct.pack('>IIBBBBB', ids.shape[1], ids.shape[0], depth, 0, 0, 0, 0)),
              (b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
        for name, body in chunks)


def save_palette(root, colors, ids=None, name='drive0/000'):
    """Save labels with a palette."""
    image = Image.fromarray(labels_of(root, name) if ids is None else ids).convert('L')
    # 256 colours: else the file has too few bits for id 255
    image.putpalette(np.resize([*np.ravel(colors), *[0] * 768], 768).astype(int).tolist())
    image.save(root / f'labels/{name}.png')


def turn(root, orientation, kind='JPEG'):
    path = root / 'images/drive0/001.png'
    image = Image.open(path).convert('RGB')
    path.unlink()
    exif = Image.Exif()
    exif[0x0112] = orientation
    ending = {'JPEG': '.jpg', 'PNG': '.png'}[kind]
    image.save(path.with_suffix(ending), kind, exif=exif)


@pytest.mark.parametrize('depth', [1, 2, 4])
def test_grey_levels_of_few_bits_are_ids(data, tmp_path, depth):
    ids = labels_of(data) % 2 ** depth
    (data / 'labels/drive0/000.png').write_bytes(grey_png(ids, depth))
    source = FolderFrames(data, 11)
    np.testing.assert_array_equal(source.read(source.drives[0][0])[1], ids)
    assert len(np.unique(ids)) == min(4, 2 ** depth) and not errors(data, tmp_path)


def test_a_1_bit_png_as_a_library_writes_it(data):
    ids = labels_of(data) % 2
    Image.fromarray(ids * 255).convert('1').save(data / 'labels/drive0/000.png')
    np.testing.assert_array_equal(
        read_label_file(data / 'labels/drive0/000.png').ids, ids)


def make_masks(root):
    for path in (root / 'labels').rglob('*.png'):
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.uint8([0, 255])[ids % 2])


def test_masks_of_0_and_255_are_refused_until_255_has_a_meaning(data, tmp_path):
    make_masks(data)
    assert 'labels/drive0/000.png and the other labels of its drive have no ids but 0 and 255' in (
        refused_by_both(data, tmp_path))
    ids = tmp_path / 'ids.yaml'
    for name, label in (('road', 3), ('void', 255)):
        ids.write_text(f'{{0: sky, 255: {name}}}')
        assert not errors(data, tmp_path, label_map=str(ids))
        source = build_source(
            recipe_of(data, label_map=str(ids)).data.train[0], Recipe(), tmp_path)
        assert set(np.unique(source.read(source.drives[0][0])[1])) == {0, label}


def test_masks_are_found_in_one_drive_of_many_but_one_file_may_be_so(tmp_path):
    root = write_folder(tmp_path / 'data', drives=3)
    for path in (root / 'labels/drive1').iterdir():
        cv2.imwrite(str(path), np.uint8([[0, 255]]).repeat(64, 0).repeat(48, 1))
    assert 'labels/drive1/000.png' in refused_by_both(root, tmp_path)
    for path in sorted((root / 'labels/drive1').iterdir())[1:]:
        path.unlink()
    assert not errors(root, tmp_path)


def test_two_ids_are_no_mask_where_there_is_one_class(data, tmp_path):
    make_masks(data)
    (tmp_path / 'one.yaml').write_text(
        'name: one\nclasses: [{id: 0, name: road, color: [9, 9, 9]}]')
    recipe = recipe_of(data)
    recipe.data.label_set = str(tmp_path / 'one.yaml')
    assert not check_data(recipe, tmp_path).errors


def test_jpegs_are_refused_whatever_their_name_is(data, tmp_path):
    path = data / 'labels/drive0/002.png'
    ids = labels_of(data, 'drive0/002')
    cv2.imwrite(str(path.with_suffix('.jpg')), ids)
    path.unlink()
    assert 'labels/drive0/002.jpg is not read as the label of' in refused_by_both(data, tmp_path)
    path.with_suffix('.jpg').rename(path)
    assert 'labels/drive0/002.png holds a JPEG' in refused_by_both(data, tmp_path)
    Image.fromarray(ids).save(path, 'BMP')
    assert 'labels/drive0/002.png is not a PNG' in refused_by_both(data, tmp_path)


def test_colours_and_16_bits_are_refused(data, tmp_path):
    path = data / 'labels/drive0/002.png'
    for pixels, kind in ((np.zeros((64, 96, 3), np.uint8), '8-bit RGB'),
                         (np.zeros((64, 96, 4), np.uint8), '8-bit RGBA'),
                         (np.zeros((64, 96), np.uint16), '16-bit grey')):
        cv2.imwrite(str(path), pixels)
        assert f'002.png is {kind}: labels must be' in refused_by_both(data, tmp_path)


@pytest.mark.parametrize('colors', [
    CLASSES.colors[:4], VOC, [(i, i, i) for i in range(4)]], ids=['classes', 'voc', 'grey'])
@pytest.mark.parametrize('ids', [(0, 1, 2), (0, 1, 255)])
def test_palettes_that_agree_count_by_their_indices(data, tmp_path, colors, ids):
    labels = np.uint8([*ids, 0])[labels_of(data)]
    save_palette(data, colors, labels)
    source = build_source(recipe_of(data).data.train[0], Recipe(), tmp_path)
    np.testing.assert_array_equal(source.read(source.drives[0][0])[1], labels)
    assert not errors(data, tmp_path)


@pytest.mark.parametrize('colors, message', [
    (CLASSES.colors[3::-1], 'index 0 of its palette has the colour of class road, but id 0 is'),
    (CLASSES.colors[1:5], r'index 0 of its palette has the colour of class building'),
    (VOC[::-1], r'index 0 of its palette has the colour'),
    ([(1, 2, 3), *CLASSES.colors[1:4]], r'has the colour .1, 2, 3., but id 0 is sky with .128'),
], ids=['reversed', 'shifted', 'voc-reversed', 'one-foreign'])
def test_palettes_that_contradict_are_refused_without_a_label_map(
        data, tmp_path, colors, message):
    save_palette(data, colors)
    found = refused_by_both(data, tmp_path)
    assert found.startswith(f'{data}/labels/drive0/000.png: index')
    assert re.search(message, found)
    ids = tmp_path / 'ids.yaml'
    ids.write_text('{0: sky, 1: building, 2: pole, 3: road}')
    assert not errors(data, tmp_path, label_map=str(ids))


def test_void_with_the_colour_of_a_class_is_refused(data, tmp_path):
    colors = np.zeros((256, 3), int)
    colors[:4], colors[255] = CLASSES.colors[:4], CLASSES.colors[3]
    save_palette(data, colors.tolist(), np.uint8([0, 1, 2, 255])[labels_of(data)])
    assert 'index 255 of its palette has the colour of class road, but id 255 is void' in (
        refused_by_both(data, tmp_path))


def test_two_images_for_one_label_are_refused(data, tmp_path):
    path = data / 'images/drive0/001.png'
    path.with_suffix('.JPG').write_bytes(path.read_bytes())
    message = refused_by_both(data, tmp_path)
    assert '001.JPG' in message and '001.png are two images for the label' in message


@pytest.mark.parametrize('orientation', [2, 3, 6, 8])
@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_images_that_exif_turns_are_refused(data, tmp_path, orientation, kind):
    turn(data, orientation, kind)
    message = refused_by_both(data, tmp_path)
    assert f'has EXIF orientation {orientation}' in message and 'images/drive0/001' in message


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_upright_images_with_exif_are_read(data, tmp_path, kind):
    for orientation in (1, 0, 9):
        turn(data, orientation, kind)
        assert not errors(data, tmp_path)
        if kind == 'JPEG':
            (data / 'images/drive0/001.jpg').rename(data / 'images/drive0/001.png')


def test_images_that_are_cut_are_refused_by_fit_too(data, tmp_path):
    path = data / 'images/drive0/001.png'
    image = cv2.imread(str(path))
    path.unlink()
    cv2.imwrite(str(path.with_suffix('.jpg')), image)
    content = path.with_suffix('.jpg').read_bytes()
    path.with_suffix('.jpg').write_bytes(content[:-40])
    assert 'images/drive0/001.jpg is cut short' in refused_by_both(data, tmp_path)


def test_validation_without_labels_is_refused_before_training(data, tmp_path):
    from vseg_training.train import build_data
    (data / 'labels').rename(data / 'masks')
    other = write_folder(tmp_path / 'other')
    recipe = recipe_of(other)
    recipe.data.val = Source('folder', str(data))
    with pytest.raises(ValueError, match='no frame of .*data/images has a label file'):
        build_data(recipe, tmp_path, 0)


def test_frames_are_in_the_order_of_every_number_in_their_names(tmp_path):
    names = ['a2/1_9.png', 'a2/1_10.png', 'a2/2_08.png', 'a2/2_9.png', 'a10/7.png', 'a10/٣.png']
    for name in names:
        (tmp_path / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'images' / name).touch()
    drives = FolderFrames(tmp_path, 11).drives
    assert [f'{key.parent.name}/{key.name}' for drive in drives for key in drive] == names


@pytest.mark.parametrize('text, message', [
    ('true: car\n', 'True is not an id: use 0 to 255'), ('256: car\n', '256 is not an id'),
    ('0: [car]\n', "class .'car'. is not in the label set"), ('0: 5\n', 'class 5 is not in'),
    ('', 'must map ids to class names'), ('- car\n', 'holds a list'),
    ('0: car\n0: road\n', 'line 2 gives the key 0 again'), ('0: [car\n', 'line 2: '),
    (5000 * '[', 'not readable YAML')])
def test_label_maps_that_are_none_are_told_in_one_line(tmp_path, text, message):
    path = tmp_path / 'ids.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_label_map(str(path), ['road', 'car'])
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_an_empty_label_set_is_told_in_one_line(data, tmp_path, capsys):
    (tmp_path / 'classes.yaml').write_text('')
    (tmp_path / 'recipe.yaml').write_text(
        f'data: {{label_set: {tmp_path}/classes.yaml, train: [{{kind: folder, root: {data}}}]}}')
    assert main(['check-data', '--config', str(tmp_path / 'recipe.yaml')]) == 2
    error = capsys.readouterr().err
    assert 'classes.yaml' in error and error.count('\n') == 1
