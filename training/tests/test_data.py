# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Readers, augmentation and the resumable order of samples."""
import cv2
import numpy as np
import pytest
import torch

from folders import write_folder
from vseg_training.data import (Augmentation, build_loader, CamVid, class_frequency, Clip,
                                ClipDataset, FolderFrames, VOID)


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
    clip = source.clip(1, 1, 4)
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
     'class id 11, but the label set ends at 10'),
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
        inside = clip.labels[0] != VOID
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
    shapes = [images.shape for images, _ in build_loader(dataset(tmp_path), 0, 0)]
    assert len(shapes) == 12
    assert {shape[1] for shape in shapes} == {1, 2, 4}
    assert all(shape[0] * shape[1] == 4 for shape in shapes)


def test_resumed_loader_gives_the_rest_of_the_run(tmp_path):
    whole = list(build_loader(dataset(tmp_path), 0, 0))
    rest = list(build_loader(dataset(tmp_path), 7, 1))
    assert len(rest) == 5
    for (images, labels), (expected, expected_labels) in zip(rest, whole[7:]):
        assert torch.equal(images, expected) and torch.equal(labels, expected_labels)


def test_weights_set_the_share_of_sources(tmp_path):
    many = dataset(tmp_path, steps=2000)
    assert abs((many.choice == 0).mean() - 0.75) < 0.03
    # one pass of a source shows each of its frames once
    ranks = many.rank[many.choice == 1]
    np.testing.assert_array_equal(ranks, np.arange(len(ranks)))


def test_class_frequency_counts_labelled_pixels(tmp_path):
    source = FolderFrames(write_folder(tmp_path), 5)
    labels = np.concatenate([source.read(key)[1].ravel() for drive in source.drives
                             for key in drive])
    np.testing.assert_allclose(class_frequency(source, 5),
                               np.bincount(labels, minlength=5) / labels.size)
