# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""ImageReader: bit depths and the warning of a wrong one, depth, and files."""
import logging
from types import SimpleNamespace

import bags
import cv2
import numpy as np
import pytest

from ros_vseg.encoding import scale_to_8_bits
from ros_vseg.errors import ImageError
from ros_vseg.image import ImageReader
from ros_vseg.media.sources import open_source
from ros_vseg.media.writers import BagWriter


def image(brightest, encoding='mono16', dtype=np.uint16):
    """Return a message whose values run from 0 to ``brightest``."""
    pixels = np.linspace(0, brightest, 96).astype(dtype).reshape(8, 12)
    return SimpleNamespace(height=8, width=12, encoding=encoding, step=12 * pixels.itemsize,
                           is_bigendian=0, data=pixels.tobytes())


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize('bits', range(8, 17))
def test_the_upper_8_bits_are_taken(bits):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.minimum(values >> (bits - 8), 255)
    np.testing.assert_array_equal(scale_to_8_bits(values, bits), expected)


@pytest.mark.parametrize('bits', [10, 12, 14])
@pytest.mark.parametrize('encoding, channels', [
    ('mono16', 1), ('rgb16', 3), ('bgra16', 4), ('16UC1', 1), ('bayer_grbg16', 1)])
def test_same_picture_as_with_8_bits(bits, encoding, channels):
    """A frame of few bits, in the low bits of 16, is that of its upper 8 bits."""
    eight = np.random.default_rng(0).integers(0, 256, (8, 12, channels), np.uint8)
    low = eight.astype(np.uint16) << (bits - 8)
    plain = {'16UC1': 'mono8'}.get(encoding, encoding.replace('16', '8'))
    expected = ImageReader('plain').read(SimpleNamespace(
        height=8, width=12, encoding=plain, step=12 * channels, is_bigendian=0,
        data=eight.tobytes()))
    found = ImageReader('low', bits, depth_as_grey=True).read(SimpleNamespace(
        height=8, width=12, encoding=encoding, step=24 * channels, is_bigendian=0,
        data=low.tobytes()))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('brightest, bits', [(900, 10), (4080, 12), (4095, 12), (16000, 14)])
@pytest.mark.parametrize('encoding', ['mono16', 'bayer_rggb16'])
def test_unused_range_is_warned_of_once(caplog, brightest, bits, encoding):
    reader = ImageReader('/front/image')
    for value in (brightest, brightest, 100):
        reader.read(image(value, encoding))
    warning, = warnings(caplog)
    assert warning.startswith('/front/image: ') and f'is {brightest}, ' in warning
    assert f'set bit_depth to {bits} ' in warning


def test_dark_images_are_waited_for(caplog):
    reader = ImageReader('camera')
    for value in (0, 3, 20):        # a covered lens
        reader.read(image(value))
    assert not warnings(caplog)
    reader.read(image(4000))
    assert 'bit_depth to 12' in warnings(caplog)[0]


def test_images_that_stay_dark(caplog):
    reader = ImageReader('camera')
    for _ in range(20):
        reader.read(image(255))
    assert len(warnings(caplog)) == 1 and 'is 255' in warnings(caplog)[0]


@pytest.mark.parametrize('brightest, bits', [(65535, 16), (20000, 16), (4095, 12), (1024, 12)])
def test_used_range(caplog, brightest, bits):
    reader = ImageReader('camera', bits)
    for _ in range(20):
        reader.read(image(brightest))
    assert not warnings(caplog)


def test_values_beyond_the_bit_depth(caplog):
    reader = ImageReader('camera', 10)
    reader.read(image(1023))
    assert (reader.read(image(4095))[-1, -1] == 255).all()
    reader.read(image(4095))
    warning, = warnings(caplog)
    assert 'up to 4095' in warning and 'set bit_depth to 12' in warning


def test_8_bits_are_not_looked_at(caplog):
    reader = ImageReader('camera')
    for _ in range(20):
        reader.read(image(9, 'mono8', np.uint8))
    assert not warnings(caplog)


@pytest.mark.parametrize('encoding, dtype', [('16UC1', np.uint16), ('32FC1', np.float32)])
def test_depth_needs_its_option(encoding, dtype):
    message = image(1, encoding, dtype)
    with pytest.raises(ImageError, match='is depth') as error:
        ImageReader('camera').read(message)
    assert error.value.cause == 'depth'
    assert ImageReader('camera', depth_as_grey=True).read(message).shape == (8, 12, 3)


def write(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return path


def test_files(tmp_path):
    rgb = bags.picture(3)
    reader = ImageReader('folder')
    for name in ('a.png', 'b.bmp', 'c.tif'):
        np.testing.assert_array_equal(
            reader.read_file(write(tmp_path / name, rgb[..., ::-1])), rgb)
    grey = write(tmp_path / 'grey.png', rgb[..., 0])
    np.testing.assert_array_equal(reader.read_file(grey), np.repeat(rgb[..., :1], 3, 2))
    alpha = write(tmp_path / 'alpha.png', np.dstack([rgb[..., ::-1], rgb[..., :1]]))
    np.testing.assert_array_equal(reader.read_file(alpha), rgb)
    low = write(tmp_path / 'low.png', rgb[..., ::-1].astype(np.uint16) << 4)
    np.testing.assert_array_equal(ImageReader('folder', 12).read_file(low), rgb)


@pytest.mark.parametrize('pixels', [
    np.full((8, 9), 1500, np.uint16), np.full((8, 9), 1.5, np.float32)])
def test_file_of_depth(tmp_path, pixels):
    path = write(tmp_path / 'depth.tif', pixels)
    with pytest.raises(ImageError, match='is depth') as error:
        ImageReader('folder').read_file(path)
    assert error.value.cause == 'depth'
    assert ImageReader('folder', depth_as_grey=True).read_file(path).shape == (8, 9, 3)


def test_folder_leaves_out_what_is_no_picture(tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode('.jpg', noise)[1].tobytes()
    (tmp_path / '1.jpg').write_bytes(data)
    (tmp_path / '2.jpg').write_bytes(data[:2000] + data[2600:])
    (tmp_path / '3.jpg').write_bytes(data[:-2])
    (tmp_path / '4.jpg').write_bytes(data[:-1000])
    (tmp_path / '5.jpg').write_bytes(b'')
    write(tmp_path / '6.png', np.full((8, 9), 1500, np.uint16))
    source = open_source(tmp_path)
    assert [frame.name for frame in source] == ['1', '3']
    assert source.refused == {'decode': 3, 'depth': 1}
    assert any('2.jpg' in text and 'data is missing' in text for text in warnings(caplog))


def test_bag_with_its_options(tmp_path):
    path = tmp_path / 'bag'
    with BagWriter(path) as writer:
        writer.image('/camera/image', np.full((8, 9), 77, np.uint8), 'mono8', 10**9, 'camera')
    frame, = open_source(path, bit_depth=12, depth_as_grey=True)
    assert (frame.image == 77).all()


@pytest.mark.parametrize('encoding, channels', [('32FC3', 3), ('32FC1', 1)])
def test_floats_above_white_are_warned_of_once(caplog, encoding, channels):
    """0..255 as floats come out white where they are above 1, which is white."""
    reader = ImageReader('/front/image', depth_as_grey=True)
    for brightest in (1.2, 255, 255, 300):
        pixels = np.linspace(0, brightest, 96 * channels).astype(np.float32)
        reader.read(SimpleNamespace(
            height=8, width=12, encoding=encoding, step=48 * channels, is_bigendian=0,
            data=pixels.tobytes()))
    warning, = warnings(caplog)
    assert warning == ('/front/image: floats of up to 255 are brighter than white (1) and come '
                       'out white: publish values in 0..1, or 8 bits')
