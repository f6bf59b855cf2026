# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Rendered streets and random streams stay what they are: recipes and results depend on them.

Values are those of the first release. Tolerances are what processors and versions of OpenCV may
differ by; another draw differs far more.
"""
import cv2
import numpy as np
import pytest

from folders import write_folder
from vseg_training.data import Augmentation, ClipDataset, FolderFrames
from vseg_training.data.augment import still_path
from vseg_training.data.degrade import degrade, KINDS
from vseg_training.data.street import Street


GREY = {  # mean grey level of 4x5 parts of a frame, by (seed, frame)
    (0, 3): [[22, 85, 118, 180, 134], [29, 57, 173, 131, 51], [23, 29, 55, 34, 30],
             [29, 44, 39, 42, 36]],
    (5, 120): [[198, 229, 235, 231, 173], [88, 117, 169, 111, 36], [34, 39, 48, 45, 39],
               [38, 44, 50, 49, 46]]}
PIXELS = {  # by class
    (0, 3): [1721, 2864, 162, 2414, 308, 2014, 59, 756, 190, 72, 26],
    (5, 120): [3148, 1766, 177, 3275, 938, 468, 227, 440, 239, 78, 35]}
QUARTERS = {  # mean of the four quarters of a degraded image
    'blur': [50, 103, 100, 153], 'darkness': [8, 16, 15, 23], 'glare': [183, 160, 215, 186],
    'jpeg': [52, 103, 100, 153], 'lost_rows': [53, 106, 99, 152], 'dirt': [72, 100, 89, 108],
    'defocus': [50, 103, 100, 153], 'fog': [162, 161, 138, 160], 'rain': [49, 94, 93, 140],
    'overexposure': [155, 221, 214, 255], 'noise': [50, 104, 100, 153],
    'wiper': [41, 73, 100, 73]}


@pytest.mark.parametrize('seed, index', list(GREY))
def test_streets_look_as_ever(seed, index):
    frame = Street(seed, (90, 120)).frame(index, flow=False)
    grey = cv2.resize(frame.image.mean(2), (5, 4), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(grey, GREY[seed, index], atol=3)
    pixels = np.bincount(frame.labels.ravel(), minlength=256)[:11]
    np.testing.assert_allclose(pixels, PIXELS[seed, index], atol=25)


def test_augmentation_draws_what_it_drew():
    rng = np.random.default_rng(7)
    augment = Augmentation((40, 60), (0.5, 2.0), 10, 0.3, 0.2)
    augment.draw((90, 120), rng)
    draw = augment.draw((90, 120), rng)
    np.testing.assert_allclose(
        draw.matrix, [[1.561, 0, -38.5816], [0, 1.561, -47.0222]], atol=1e-3)
    np.testing.assert_allclose(
        [draw.gain, draw.shift, draw.colour], [0.86706, 12.1143, 0.97803], atol=1e-3)
    np.testing.assert_allclose(draw.places(), [0.3203, 0.2075, 0.2847, 0.3367], atol=1e-3)
    path = still_path((90, 120), 3, rng)
    np.testing.assert_allclose(
        path[0], [[1.0491, 0, -7.0797], [0, 1.0491, -9.1962], [0, 0, 1]], atol=1e-3)
    assert rng.random() == pytest.approx(0.61253940)


@pytest.mark.parametrize('kind', KINDS)
def test_frames_are_degraded_as_they_were(kind):
    y, x = np.mgrid[0:60, 0:80]
    image = np.stack([x * 3, y * 4, x + y], 2).astype(np.uint8)
    bad = degrade(image, np.random.default_rng(3), kind)
    quarters = cv2.resize(bad, (2, 2), interpolation=cv2.INTER_AREA).mean(2).ravel()
    np.testing.assert_allclose(quarters, QUARTERS[kind], atol=2)


def test_samples_come_in_the_order_in_which_they_came(tmp_path):
    sources = [FolderFrames(write_folder(tmp_path / str(i), seed=i), 11) for i in range(2)]
    data = ClipDataset(sources, [3, 1], [1, 2, 4], 4, Augmentation((32, 48)), 3, 12,
                       stills=[0.4, 0], degrade=(0.5, 0.2), focus=[2])
    assert data.lengths.tolist() == [4, 1, 1, 1, 1, 4, 4, 2, 1, 1, 1, 2]
    items = [data[number, 2] for number in range(6)]
    assert [item['name'].replace('/images/drive', '-') for item in items] == [
        '0-1/002', '0-1/003', '0-0/002', '0-0/001', '0-1/000', '0-1/001']
    np.testing.assert_allclose(
        [item['images'].float().mean() for item in items],
        [140.5, 87.5, 123.4, 140.3, 82.2, 99.5], atol=1.5)
