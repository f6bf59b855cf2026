# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a JPEG is whole: every kind that OpenCV writes, with pieces cut out of it."""
import itertools

import cv2
import numpy as np
import pytest

from ros_vseg.jpeg import find_damage

KINDS = list(itertools.product(
    (0, 1), (0, 1), (0, 1, 7), (0x111111, 0x211111, 0x221111, 0x411111)))
OPTIONS = (cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_OPTIMIZE, cv2.IMWRITE_JPEG_RST_INTERVAL)
SAMPLING = 7    # cv2.IMWRITE_JPEG_SAMPLING_FACTOR, which OpenCV 4.5.4 has no name for


def picture(height=121, width=155, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def jpeg(image, kind=(0, 0, 0, 0x221111), quality=90):
    *values, sampling = kind
    options = [number for pair in zip(OPTIONS, values) for number in pair]
    return cv2.imencode('.jpg', image, [
        cv2.IMWRITE_JPEG_QUALITY, quality, *options, SAMPLING, sampling])[1].tobytes()


def scan(data):
    """Return the place behind the header of the first scan."""
    start = data.find(b'\xff\xda')
    return start + 2 + int.from_bytes(data[start + 2:start + 4], 'big')


PICTURES = {
    'smooth': picture(), 'grey': picture()[..., 0], 'black': np.zeros((50, 70, 3), np.uint8),
    'noise': np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8),
    'small': np.full((1, 1), 7, np.uint8)}


@pytest.mark.parametrize('name', PICTURES)
@pytest.mark.parametrize('quality', [5, 95])
def test_whole(name, quality):
    for kind in KINDS:
        data = jpeg(PICTURES[name], kind, quality)
        assert find_damage(data) is None, kind
        assert find_damage(data[:-2]) is None, kind
        assert find_damage(data[:-1]) is None, kind
        assert find_damage(data + bytes(1000)) is None, kind


@pytest.mark.parametrize('name', ['smooth', 'grey', 'noise'])
@pytest.mark.parametrize('progressive', [0, 1])
def test_cut_short(name, progressive):
    for kind in KINDS:
        if kind[0] == progressive:
            data = jpeg(PICTURES[name], kind)
            for share in (0.3, 0.6, 0.95):
                end = scan(data) + int(share * (len(data) - scan(data)))
                assert find_damage(data[:end]), (kind, share)
                assert find_damage(data[:end] + b'\xff\xd9'), (kind, share)


@pytest.mark.parametrize('progressive', [0, 1])
def test_data_missing_in_the_middle(progressive):
    """Where codes go on by chance as if nothing was missing, libjpeg does not notice either."""
    rng, found = np.random.default_rng(2), []
    for name, kind in itertools.product(('smooth', 'grey'), KINDS):
        if kind[0] == progressive:
            data = jpeg(PICTURES[name], kind)
            for _ in range(4):
                size = rng.integers(200, 1000)
                start = rng.integers(scan(data), len(data) - size - 2)
                found.append(bool(find_damage(data[:start] + data[start + size:])))
    assert len(found) >= 96 and np.mean(found) > 0.9


@pytest.mark.parametrize('quality', [50, 90])
def test_missing_interval(quality):
    """Restart markers show that a piece is missing, even one that is an interval long."""
    data = jpeg(PICTURES['smooth'], (0, 0, 3, 0x221111), quality)
    first, second = data.find(b'\xff\xd1'), data.find(b'\xff\xd2')
    assert 'out of order' in find_damage(data[:first] + data[second:] + b'\xff\xd9') or (
        'missing' in find_damage(data[:first] + data[second:]))
    assert '8 of' in find_damage(
        data[:first] + data[data.find(b'\xff\xd1', first + 2):])


def test_motion_jpeg_without_tables():
    """Cameras leave the standard tables out."""
    data = jpeg(PICTURES['smooth'])
    while (start := data.find(b'\xff\xc4')) >= 0:
        data = data[:start] + data[start + 2 + int.from_bytes(data[start + 2:start + 4], 'big'):]
    assert find_damage(data) is None
    assert find_damage(data[:-2000] + data[-1500:])


def test_few_bytes_behind_the_last_block_are_no_damage():
    data = jpeg(PICTURES['smooth'])
    assert find_damage(data[:-2] + b'\1\2\3\4' + data[-2:]) is None
    assert find_damage(data[:-2] + bytes(200) + data[-2:]) is None
    assert 'left over' in find_damage(data[:-2] + bytes(range(100)) + data[-2:])


def test_other_kinds_need_their_end():
    """Arithmetic coding, which OpenCV may read: its codes are not looked into."""
    data = jpeg(PICTURES['smooth'])
    other = data.replace(b'\xff\xc0', b'\xff\xc9')
    assert find_damage(other) is None
    assert 'end is missing' in find_damage(other[:-2])


def test_wrong_bytes_raise_nothing():
    rng, sizes = np.random.default_rng(3), set()
    for kind in KINDS:
        data = bytearray(jpeg(PICTURES['smooth'], kind))
        for _ in range(8):
            wrong = bytearray(data)
            for place in rng.integers(2, len(data), 3):
                wrong[place] = rng.integers(256)
            sizes.add(type(find_damage(bytes(wrong))))
            head = bytearray(data)
            head[rng.integers(2, scan(data))] = rng.integers(256)
            sizes.add(type(find_damage(bytes(head))))
    assert sizes == {str, type(None)}
    for size in range(0, 700, 7):
        assert find_damage(bytes(data[:size]))
