# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Compressed image messages: what their format says, and damage."""
import array
import struct
from types import SimpleNamespace
import zlib

import cv2
import numpy as np
import pytest

from ros_vseg.errors import ImageError
from ros_vseg.image import compressed_to_label_array, compressed_to_rgb

COLORS = [(250, 20, 10), (15, 240, 30), (5, 25, 230), (100, 100, 100)]


def rgb_image(height=4, width=6):
    """Return uint8 [H, W, 3]: no two values alike where they matter."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def compressed(form, pixels, kind='.png'):
    """Return a message that holds pixels [H, W] or RGB [H, W, 3]."""
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    return SimpleNamespace(format=form, data=cv2.imencode(kind, stored)[1].tobytes())


@pytest.mark.parametrize('kind, tolerance', [('.png', 0), ('.jpg', 3)])
@pytest.mark.parametrize('color', COLORS)
def test_compressed(kind, tolerance, color):
    image = np.full((24, 32, 3), color, np.uint8)
    data = cv2.imencode(kind, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    for held in (data, array.array('B', data), np.frombuffer(data, np.uint8)):
        rgb = compressed_to_rgb(SimpleNamespace(format=kind[1:], data=held))
        assert rgb.shape == (24, 32, 3) and rgb.flags.c_contiguous
        assert np.abs(rgb - image.astype(int)).max() <= tolerance


def test_compressed_grey():
    grey = rgb_image()[..., 0]
    data = cv2.imencode('.png', grey)[1]
    rgb = compressed_to_rgb(SimpleNamespace(format='mono8; png compressed', data=data.ravel()))
    np.testing.assert_array_equal(rgb, np.repeat(grey[..., None], 3, axis=2))


def mosaic(dtype=np.uint8):
    """Return a Bayer mosaic that only the pixels of even rows and columns see light in."""
    pixels = np.zeros((16, 16), dtype)
    pixels[::2, ::2] = 200 * (257 if dtype == np.uint16 else 1)
    return pixels


@pytest.mark.parametrize('kind', ['.png', '.jpg'])
@pytest.mark.parametrize('form, light', [
    ('bayer_rggb8; {} compressed ', (200, 0, 0)),
    ('bayer_rggb8; {}', (200, 0, 0)),
    ('bayer_rggb8', (200, 0, 0)),
    ('bayer_bggr8; {} compressed bayer_bggr8', (0, 0, 200)),
    ('bayer_grbg8; {} compressed bayer_bggr8', (0, 0, 200))])
def test_mosaic_becomes_colour(form, light, kind):
    """The word behind ``compressed`` says what is stored, else that before it."""
    message = compressed(form.format(kind[1:]), mosaic(), kind)
    rgb = compressed_to_rgb(message)[6:10, 6:10].astype(int)
    assert np.abs(rgb - light).max() <= (0 if kind == '.png' else 25)


@pytest.mark.parametrize(
    'form', ['bayer_rggb16; png', 'bayer_rggb16; png compressed bayer_rggb16'])
def test_mosaic_of_16_bits(form):
    rgb = compressed_to_rgb(compressed(form, mosaic(np.uint16)))
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb[6:10, 6:10], [[[200, 0, 0]] * 4] * 4)


@pytest.mark.parametrize('form', [
    'bayer_rggb8; {} compressed mono8', 'bayer_gbrg16; {} compressed mono8',
    'yuv422_yuy2; {} compressed mono8', 'rgb8; {} compressed mono8', 'mono8; {} compressed ',
    '{}', ''])
@pytest.mark.parametrize('kind', ['.png', '.jpg'])
def test_grey_stays_grey(form, kind):
    """compressed_image_transport makes grey of a Bayer image, and says so behind the word."""
    rgb = compressed_to_rgb(compressed(form.format(kind[1:]), mosaic(), kind))
    as_stored = compressed_to_rgb(compressed('mono8', mosaic(), kind))
    assert (rgb == rgb[..., :1]).all()
    np.testing.assert_array_equal(rgb, as_stored)


@pytest.mark.parametrize('form', [
    'bayer_rggb8; png compressed bgr8', 'rgb8; png compressed bgr8', 'rgb16; png compressed bgr16',
    'png', ''])
@pytest.mark.parametrize('scale', [1, 257])
def test_colour_stays_colour(form, scale):
    image = rgb_image()
    message = compressed(form, image * np.array(scale, np.uint8 if scale == 1 else np.uint16))
    np.testing.assert_array_equal(compressed_to_rgb(message), image)


def test_bit_depth():
    twelve = np.arange(0, 4096, dtype=np.uint16).reshape(64, 64)
    message = compressed('mono16; png compressed mono16', twelve)
    np.testing.assert_array_equal(compressed_to_rgb(message, bit_depth=12)[..., 1], twelve // 16)


@pytest.mark.parametrize('form, dtype', [
    ('16UC1; png compressed ', np.uint16), ('16UC1; png compressed 16UC1', np.uint16),
    ('32FC1; png compressed ', np.uint16), ('16UC1; compressedDepth png', np.uint16),
    ('32FC1; compressedDepth', np.uint16), ('16UC1; compressedDepth rvl', np.uint16),
    ('16UC1; jpeg compressed mono8', np.uint8), ('png', np.uint16), ('', np.uint16)])
def test_depth_is_refused(form, dtype):
    with pytest.raises(ImageError, match='depth.*REP 118') as error:
        compressed_to_rgb(compressed(form, np.full((8, 8), 200, dtype)))
    assert error.value.cause == 'depth'


@pytest.mark.parametrize('form', ['16UC1; png compressed ', 'png'])
def test_depth_as_grey(form):
    message = compressed(form, np.full((8, 8), 2 * 257, np.uint16))
    assert (compressed_to_rgb(message, depth_as_grey=True) == 2).all()
    assert (compressed_to_rgb(message, 12, True) == 32).all()


def test_compressed_depth_is_never_grey():
    message = compressed('16UC1; compressedDepth png', np.zeros((8, 8), np.uint16))
    with pytest.raises(ImageError, match='give the raw topic'):
        compressed_to_rgb(message, depth_as_grey=True)


@pytest.mark.parametrize('container', [bytes, lambda data: array.array('B', data),
                                       lambda data: np.frombuffer(data, np.uint8)])
def test_compressed_label_array(container):
    labels = rgb_image()[..., 0]
    data = container(cv2.imencode('.png', labels)[1].tobytes())
    found = compressed_to_label_array(SimpleNamespace(format='png', data=data))
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_labels_of_fewer_bits_are_refused(bits):
    """What OpenCV makes of them is spread over 0..255."""
    def chunk(name, body):
        return struct.pack('>I', len(body)) + name + body + struct.pack(
            '>I', zlib.crc32(name + body))

    rows = b''.join(b'\0' + bytes([0b01010101] * bits) for _ in range(4))
    data = b'\x89PNG\r\n\x1a\n' + b''.join([
        chunk(b'IHDR', struct.pack('>2I5B', 8, 4, bits, 0, 0, 0, 0)),
        chunk(b'IDAT', zlib.compress(rows)), chunk(b'IEND', b'')])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).max() >= 85
    with pytest.raises(ImageError, match='is not a grey 8-bit PNG'):
        compressed_to_label_array(SimpleNamespace(format='png', data=data))


@pytest.mark.parametrize('kind, pixels, keep, reason', [
    ('.jpg', rgb_image()[..., 0], None, 'JPEG changes ids'),
    ('.png', rgb_image(), None, 'is not a grey 8-bit PNG'),
    ('.png', np.zeros((4, 6), np.uint16), None, 'is not a grey 8-bit PNG'),
    ('.png', rgb_image()[..., 0], -20, 'cut short'),
    ('.png', rgb_image()[..., 0], 0, 'neither JPEG nor PNG')])
def test_compressed_label_damage(kind, pixels, keep, reason):
    data = cv2.imencode(kind, pixels)[1].tobytes()[:keep]
    with pytest.raises(ImageError, match=reason) as error:
        compressed_to_label_array(SimpleNamespace(format='png', data=array.array('B', data)))
    assert error.value.cause == 'decode'


def jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return cv2.imencode('.jpg', noise)[1].tobytes()


def jpeg_of_size(side):
    """Return a JPEG whose header lies about its size."""
    data = bytearray(jpeg())
    place = data.find(b'\xff\xc0')
    data[place + 5:place + 9] = side.to_bytes(2, 'big') * 2
    return bytes(data)


def test_jpeg_without_its_end():
    """Each pixel is there: it is the image that it would be with its end marker."""
    whole = compressed_to_rgb(SimpleNamespace(format='jpeg', data=jpeg()))
    for data in (jpeg()[:-2], jpeg()[:-1]):
        np.testing.assert_array_equal(
            compressed_to_rgb(SimpleNamespace(format='jpeg', data=data)), whole)


def test_jpeg_that_the_driver_padded():
    padded = SimpleNamespace(format='jpeg', data=jpeg() + bytes(1000))
    np.testing.assert_array_equal(
        compressed_to_rgb(padded),
        compressed_to_rgb(SimpleNamespace(format='jpeg', data=jpeg())))


@pytest.mark.parametrize('data, reason', [
    (jpeg()[:len(jpeg()) // 2], 'cut short'),
    (jpeg()[:2000] + jpeg()[2600:], 'data is missing'),
    (jpeg()[:3], 'cut short'), (jpeg()[:200], 'cut short'),
    (jpeg()[:100] + bytes(5000), 'cut short'),
    (jpeg()[:4] + jpeg()[-2:], 'damaged'), (jpeg_of_size(65500), 'damaged'),
    (cv2.imencode('.png', rgb_image())[1].tobytes()[:-12], 'cut short'),
    (b'\x89PNG' + bytes(50) + b'IEND', 'damaged'),
    (b'', 'neither JPEG nor PNG'), (b'GIF89a' + bytes(90), "('jpeg', 96 bytes) is neither"),
    (bytes(500), 'neither JPEG nor PNG')])
def test_compressed_damage(data, reason):
    with pytest.raises(ImageError) as error:
        compressed_to_rgb(SimpleNamespace(format='jpeg', data=array.array('B', data)))
    assert error.value.cause == 'decode'
    assert reason in str(error.value)
