# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Readers, augmentation and the resumable order of samples."""
import cv2
import numpy as np
from PIL import Image
import pytest
import torch
from torch._utils import ExceptionWrapper

from folders import write_folder
from vseg_training.data import (
    Augmentation, build_loader, build_source, CamVid, class_frequency, Clip, ClipDataset,
    ClipSource, FolderFrames, PADDING, VOID)
from vseg_training.recipe import Recipe, Source


def test_folder_reads_drives_in_order(tmp_path):
    source = FolderFrames(write_folder(tmp_path), 11)
    assert [len(drive) for drive in source.drives] == [4, 4]
    image, labels = source.read(source.drives[1][2])
    expected = cv2.imread(str(tmp_path / 'images/drive1/002.png'))[:, :, ::-1]
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(labels, cv2.imread(
        str(tmp_path / 'labels/drive1/002.png'), cv2.IMREAD_UNCHANGED))


def test_clip_repeats_the_first_frame_at_the_start_of_a_drive(tmp_path):
    source = FolderFrames(write_folder(tmp_path), 11)
    first, second = (source.read(key)[0] for key in source.drives[1][:2])
    clip = source.load(source.clip_keys(1, 1, 4))
    for image, expected in zip(clip.images, [first, first, first, second]):
        np.testing.assert_array_equal(image, expected)


def test_frame_without_label_file_is_void(tmp_path):
    write_folder(tmp_path)
    (tmp_path / 'labels/drive0/001.png').unlink()
    source = FolderFrames(tmp_path, 11)
    assert (source.read(source.drives[0][1])[1] == VOID).all()


@pytest.mark.parametrize('spoil, message', [
    (lambda root: cv2.imwrite(
        str(root / 'labels/drive0/000.png'), np.full((64, 96), 11, np.uint8)),
     'has id 11, which no class has'),
    (lambda root: cv2.imwrite(str(root / 'labels/drive0/000.png'), np.zeros((32, 96), np.uint8)),
     'single-channel PNGs of the image size'),
    (lambda root: (root / 'images/drive0/000.png').write_bytes(b'no image'),
     'not a readable image'),
])
def test_bad_files_are_named(tmp_path, spoil, message):
    spoil(write_folder(tmp_path))
    source = FolderFrames(tmp_path, 11)
    with pytest.raises(ValueError, match=f'drive0/000.*{message}'):
        source.read(source.drives[0][0])


def test_empty_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match='no images in .*images'):
        FolderFrames(tmp_path, 11)


def test_camvid_layout(tmp_path):
    for name in ('0001TP_000030', '0006R0_000010', '0001TP_000001'):
        for folder, pixels in (('train', np.zeros((4, 6, 3), np.uint8)),
                               ('trainannot', np.full((4, 6), 11, np.uint8))):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f'{name}.png'), pixels)
    source = CamVid(tmp_path, 'train')
    assert [[key.stem for key in drive] for drive in source.drives] == [
        ['0001TP_000001', '0001TP_000030'], ['0006R0_000010']]
    assert (source.read(source.drives[0][0])[1] == VOID).all()


def test_augmentation_keeps_image_and_labels_together():
    """Grey level and label of a pixel say the same, before and after, in every frame alike."""
    labels = np.repeat(np.repeat(np.arange(20, dtype=np.uint8).reshape(4, 5), 16, 0), 16, 1)
    image = np.repeat(labels[:, :, None] * 10 + 20, 3, 2)
    augment = Augmentation(crop=(48, 48), scale=(0.5, 2.0), brightness=0)
    seen = set()
    for seed in range(40):
        clip = augment(Clip(np.stack([image] * 2), np.stack([labels] * 2)),
                       np.random.default_rng(seed))
        assert clip.images.shape == (2, 48, 48, 3) and clip.labels.shape == (2, 48, 48)
        np.testing.assert_array_equal(clip.images[0], clip.images[1])
        np.testing.assert_array_equal(clip.labels[0], clip.labels[1])
        inside = clip.labels[0] != PADDING
        # away from block edges, where bilinear and nearest differ
        inner = cv2.erode(inside.astype(np.uint8), np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT,
                          borderValue=0) > 0
        same = cv2.dilate(clip.labels[0], np.ones((3, 3))) == cv2.erode(
            clip.labels[0], np.ones((3, 3)))
        inner &= same
        found = (clip.images[0][:, :, 0][inner].astype(int) - 20) / 10
        np.testing.assert_allclose(found, clip.labels[0][inner], atol=0.11)
        seen.add(clip.labels.tobytes())
    assert len(seen) == 40


def test_brightness_contrast_and_saturation_stay_in_range():
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    clip = Clip(image, np.zeros((1, 32, 32), np.uint8))
    augment = Augmentation((32, 32), (1.0, 1.0), brightness=10)
    for seed in range(10):
        got = augment(clip, np.random.default_rng(seed)).images.astype(int)
        best = min(abs(got - other).max() for other in (image, image[:, :, ::-1]))
        assert best <= 11
    strong = Augmentation((32, 32), (1.0, 1.0), 100, 0.9, 0.9)(clip, np.random.default_rng(0))
    assert strong.images.dtype == np.uint8 and len(np.unique(strong.images)) > 20


def dataset(root, steps=12, seed=3):
    sources = [FolderFrames(write_folder(root / str(i), seed=i), 11) for i in range(2)]
    return ClipDataset(sources, [3, 1], [1, 2, 4], 4, Augmentation((32, 32)), seed, steps)


def test_every_step_holds_the_same_number_of_frames(tmp_path):
    shapes = [batch['images'].shape for batch in build_loader(dataset(tmp_path), 0, 0)]
    assert len(shapes) == 12
    assert {shape[1] for shape in shapes} == {1, 2, 4}
    assert all(shape[0] * shape[1] == 4 for shape in shapes)


def test_resumed_loader_gives_the_rest_of_the_run(tmp_path):
    whole = list(build_loader(dataset(tmp_path), 0, 0))
    rest = list(build_loader(dataset(tmp_path), 7, 1))
    assert len(rest) == 5
    for batch, expected in zip(rest, whole[7:]):
        for name in ('images', 'labels', 'video'):
            assert torch.equal(batch[name], expected[name])
        assert batch['name'] == expected['name']


def test_weights_set_the_share_of_sources(tmp_path):
    many = dataset(tmp_path, steps=2000)
    assert abs((many.choice == 0).mean() - 0.75) < 0.03
    # one pass of a source shows each of its frames once
    ranks = many.rank[many.choice == 1]
    np.testing.assert_array_equal(ranks, np.arange(len(ranks)))


def test_class_frequency_counts_labelled_pixels(tmp_path):
    write_folder(tmp_path)
    (tmp_path / 'labels/drive0/002.png').unlink()
    source = FolderFrames(tmp_path, 5)
    labels = np.concatenate([source.read(key)[1].ravel() for drive in source.drives
                             for key in drive])
    np.testing.assert_allclose(class_frequency(source, 5),
                               np.bincount(labels[labels != VOID], minlength=5) / (7 * 64 * 96))


def test_frames_are_in_the_order_of_their_numbers_also_behind_a_link(tmp_path):
    root = write_folder(tmp_path / 'real', drives=1, frames=11)
    for path in (root / 'images/drive0').iterdir():
        path.rename(path.with_name(f'frame{int(path.stem)}.png'))
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/linked').symlink_to(root / 'images/drive0')
    (drive,) = FolderFrames(tmp_path, 11).drives
    assert [key.stem for key in drive] == [f'frame{index}' for index in range(11)]


def test_labels_that_are_there_can_be_ignored(tmp_path):
    root = write_folder(tmp_path / 'data', drives=2, frames=3)
    options = {'kind': 'folder', 'root': str(root), 'ignore_labels': True}
    source = build_source(Source(**options), Recipe(), tmp_path)
    assert len(source.frames()) == 6
    image, labels = source.read(source.drives[0][0])
    assert image.any() and (labels == VOID).all()
    seen = build_source(Source(**{**options, 'ignore_labels': False}), Recipe(), tmp_path)
    assert (seen.read(seen.drives[0][0])[1] != VOID).any()
    with pytest.raises(ValueError, match='ignore_labels is for files: leave it out of the source'):
        build_source(Source(kind='street', ignore_labels=True), Recipe(), tmp_path)


def test_clips_end_at_labelled_frames_unless_unlabelled_ones_may(tmp_path):
    write_folder(tmp_path)
    for name in ('drive0/000', 'drive0/003', 'drive1/001'):
        (tmp_path / f'labels/{name}.png').unlink()
    assert FolderFrames(tmp_path, 11).frames() == [(0, 1), (0, 2), (1, 0), (1, 2), (1, 3)]
    assert len(FolderFrames(tmp_path, 11, unlabelled=True).frames()) == 8
    for path in tmp_path.glob('labels/*/*.png'):
        path.unlink()
    with pytest.raises(ValueError, match='no frame of .*images has a label file in .*labels'):
        FolderFrames(tmp_path, 11).frames()


def test_splits_are_folders_of_the_root(tmp_path):
    write_folder(tmp_path / 'train', frames=3)
    write_folder(tmp_path / 'val', drives=1, frames=2)
    for split, frames in (('train', 6), ('val', 2)):
        source = build_source(Source('folder', str(tmp_path), split), Recipe(), tmp_path)
        assert len(source.frames()) == frames
        key = source.drives[0][1]
        assert source.frame_name(key) == f'{tmp_path.name}/{split}/images/drive0/001'
        assert source.read(key)[1].max() == 3


def test_label_map_names_what_the_ids_on_disk_mean(tmp_path):
    write_folder(tmp_path / 'data')
    ids = tmp_path / 'ids.yaml'
    source = Source('folder', str(tmp_path / 'data'), label_map=str(ids))
    ids.write_text('{0: road, 1: sky, 2: void, 3: road}')
    built = build_source(source, Recipe(), tmp_path)
    key = built.drives[0][0]
    raw = cv2.imread(str(built.label_path(key)), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(built.read(key)[1], np.uint8([3, 0, VOID, 3])[raw])
    for text, message in (('{0: road}', 'has id [123], which no class has'), ('{0: rode}', 'rode'),
                          ('{-1: road}', '-1'), ('[road]', 'holds a list'),
                          ('{', 'is not readable YAML')):
        ids.write_text(text)
        with pytest.raises(ValueError, match=message):
            build_source(source, Recipe(), tmp_path).read(key)


def test_a_png_with_a_palette_counts_by_its_indices(tmp_path):
    write_folder(tmp_path)
    path = tmp_path / 'labels/drive0/000.png'
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    image = Image.fromarray(labels, 'P')
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    image.save(path)
    source = FolderFrames(tmp_path, 11)
    np.testing.assert_array_equal(source.read(source.drives[0][0])[1], labels)


@pytest.mark.parametrize('position, steps', [
    (20, [5, 10, 15]), (7, [8, 3, 2]), (29, [14, 19, 24])])
def test_distant_frames_turn_back_at_the_ends_of_their_drive(position, steps):
    source = ClipSource()
    source.drives = [[], list(range(30))]
    assert source.distant_keys(1, position, 3, 5) == steps
    source.drives = [[7]]
    assert source.distant_keys(0, 0, 3, 5) == [7, 7, 7]


def test_an_item_has_distant_frames_of_its_drive_augmented_as_the_clip_is(tmp_path):
    for index in range(2):
        write_folder(tmp_path / str(index), drives=1 + index, frames=1)
    sources = [FolderFrames(tmp_path / str(index), 11) for index in range(2)]
    data = ClipDataset(sources, [1, 1], [2], 4, Augmentation((32, 32)), 0, 8, distant=True)
    items = [data[number, 2] for number in range(len(data))]
    assert data.num_videos == 3
    assert {int(item['video']) for item in items} == {0, 1, 2}
    for item in items:
        # a drive of one frame: all frames are the same one
        assert torch.equal(item['distant'], item['images']) and item['images'].shape[0] == 2
        assert item['name'].startswith(f'{int(item["video"] > 0)}/images/drive')


def test_frames_of_two_sizes_in_a_clip_are_named(tmp_path):
    write_folder(tmp_path)
    for part in ('images', 'labels'):
        cv2.imwrite(str(tmp_path / part / 'drive1/002.png'), np.zeros((32, 96), np.uint8))
    source = FolderFrames(tmp_path, 11)
    for load in (source.load, source.load_images):
        with pytest.raises(ValueError, match='drive1/001 is .64, 96.* but .*drive1/002 of .*32'):
            load(source.clip_keys(1, 2, 2))


def test_an_error_in_a_worker_is_one_line(tmp_path):
    write_folder(tmp_path, drives=1, frames=1)
    cv2.imwrite(str(tmp_path / 'labels/drive0/000.png'), np.full((64, 96), 40, np.uint8))
    data = ClipDataset([FolderFrames(tmp_path, 11)], [1], [1], 1, Augmentation((32, 32)), 0, 1)
    try:
        data[0, 1]
    except ValueError:
        wrapped = ExceptionWrapper(where='in a worker')  # as DataLoader hands it over
    with pytest.raises(ValueError) as raised:
        wrapped.reraise()
    assert str(raised.value).startswith(str(tmp_path / 'labels')) and '\n' not in str(raised.value)
