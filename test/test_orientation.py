# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""EXIF: files are turned upright, messages are left as the sensor saw them."""
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ros_vseg.image import compressed_to_rgb, ImageReader
from ros_vseg.media.sources import open_source

HEIGHT, WIDTH = 32, 48
# what a viewer does for each value of the tag
UPRIGHT = {
    1: lambda image: image, 2: np.fliplr, 3: lambda image: np.rot90(image, 2), 4: np.flipud,
    5: lambda image: image.swapaxes(0, 1), 6: lambda image: np.rot90(image, 3),
    7: lambda image: np.rot90(image.swapaxes(0, 1), 2), 8: np.rot90}


def stored():
    """Return an image uint8 [H, W, 3] RGB whose corners differ."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    image[:16, :32], image[16:, 32:] = (250, 20, 10), (5, 25, 230)
    return image


def assert_alike(image, expected):
    """Check all but the edges, which a JPEG blurs; turned otherwise they differ by 50 and more."""
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 10


def jpeg(orientation):
    data = cv2.imencode('.jpg', stored()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    tag = struct.pack('>HHIHH', 0x0112, 3, 1, orientation, 0)
    exif = b'Exif\0\0MM\0*' + struct.pack('>IH', 8, 1) + tag + bytes(4)
    return data[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + data[2:]


@pytest.mark.parametrize('orientation', UPRIGHT)
def test_message_is_not_turned(orientation):
    """The camera's camera_info describes the pixels as the sensor saw them."""
    rgb = compressed_to_rgb(SimpleNamespace(format='jpeg', data=jpeg(orientation)))
    assert_alike(rgb, stored())


@pytest.mark.parametrize('orientation', UPRIGHT)
def test_file_is_turned(tmp_path, orientation):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(jpeg(orientation))
    upright = UPRIGHT[orientation](stored())
    rgb = ImageReader('photo').read_file(path)
    assert_alike(rgb, upright)
    frame, = open_source(tmp_path)
    np.testing.assert_array_equal(frame.image, rgb)


def test_video_is_turned(tmp_path):
    """A phone's video holds its orientation as a matrix in the box tkhd."""
    path = tmp_path / 'phone.mp4'
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, (WIDTH, HEIGHT))
    assert video.isOpened()
    video.write(stored()[..., ::-1])
    video.release()
    data = bytearray(path.read_bytes())
    matrix = data.find(b'tkhd') + 4 + 40
    assert struct.unpack('>9i', data[matrix:matrix + 36])[:5] == (65536, 0, 0, 0, 65536)
    data[matrix:matrix + 36] = struct.pack(
        '>9i', 0, 65536, 0, -65536, 0, 0, HEIGHT << 16, 0, 1 << 30)
    path.write_bytes(data)
    frame, = open_source(path)
    assert_alike(frame.image, np.rot90(stored(), 3))
