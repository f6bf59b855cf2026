# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Image messages: each encoding against pixels worked out here, and each kind of damage."""
import array
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rosbags.typesys import get_typestore, Stores

from ros_vseg.errors import ImageError
from ros_vseg.image import (
    compressed_to_label_array, compressed_to_rgb, fill_image, LAYOUTS, to_label_array, to_rgb)

TYPES = get_typestore(Stores.ROS2_HUMBLE).types
RED, GREEN, BLUE, GREY = (250, 20, 10), (15, 240, 30), (5, 25, 230), (100, 100, 100)


def rgb_image(height=4, width=6):
    """Return uint8 [H, W, 3]: no two values alike where they matter."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def message(rows, encoding, width, height=None, padding=0, big_endian=False):
    """Return a message whose rows [rows, ...] are laid out with padding, in a byte order."""
    rows = np.asarray(rows)
    rows = rows.astype(rows.dtype.newbyteorder('>' if big_endian else '<'))
    raw = np.frombuffer(rows.tobytes(), np.uint8).reshape(len(rows), -1)
    raw = np.pad(raw, ((0, 0), (0, padding)), constant_values=77)
    return SimpleNamespace(
        height=height or len(rows), width=width, encoding=encoding, step=raw.shape[1],
        is_bigendian=int(big_endian), data=array.array('B', raw.tobytes()), header='stamp')


def yuv(color):
    """Y, U, V of an RGB colour by ITU-R BT.601, studio range."""
    red, green, blue = (value / 255 for value in color)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return (round(16 + 219 * luma), round(128 + 112 / 0.886 * (blue - luma)),
            round(128 + 112 / 0.701 * (red - luma)))


def two_halves(height, width):
    """Return uint8 [H, W, 3]: left half red, right half blue."""
    image = np.empty((height, width, 3), np.uint8)
    image[:, :width // 2], image[:, width // 2:] = RED, BLUE
    return image


def plain(encoding, image):
    """Rows [H, W] or [H, W, C] of an encoding without subsampling, and the RGB they mean."""
    grey = image[..., 0]
    grey_rgb = np.repeat(grey[..., None], 3, axis=2)
    alpha = np.full_like(grey, 9)[..., None]
    sixteen = grey.astype(np.uint16) * 257
    return {
        'rgb8': (image, image), 'bgr8': (image[..., ::-1], image),
        '8UC3': (image[..., ::-1], image),
        'rgba8': (np.concatenate([image, alpha], 2), image),
        'bgra8': (np.concatenate([image[..., ::-1], alpha], 2), image),
        'mono8': (grey, grey_rgb), '8UC1': (grey, grey_rgb),
        'mono16': (sixteen, grey_rgb), '16UC1': (sixteen, grey_rgb),
        '32FC1': ((grey / 255).astype(np.float32), grey_rgb),
        '32FC3': ((image[..., ::-1] / 255).astype(np.float32), image),
    }[encoding]


PLAIN = ['rgb8', 'bgr8', '8UC3', 'rgba8', 'bgra8', 'mono8', '8UC1', 'mono16', '16UC1', '32FC1',
         '32FC3']
PACKED = {'yuv422': 'uyvy', 'uyvy': 'uyvy', 'yuv422_yuy2': 'yuyv', 'yuyv': 'yuyv'}
PLANAR = ['nv12', 'nv21']
BAYER = [f'bayer_{name}{bits}' for name in ('rggb', 'bggr', 'gbrg', 'grbg') for bits in (8, 16)]
LAID_OUT = pytest.mark.parametrize('padding, big_endian', [(0, 0), (4, 0), (0, 1), (8, 1)])


def test_every_encoding_is_tested():
    assert {*PLAIN, *PACKED, *PLANAR, *BAYER} == set(LAYOUTS)


@LAID_OUT
@pytest.mark.parametrize('encoding', PLAIN)
def test_plain_encodings(encoding, padding, big_endian):
    rows, expected = plain(encoding, rgb_image())
    rgb = to_rgb(message(rows, encoding, 6, padding=padding, big_endian=big_endian))
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, expected)


@pytest.mark.parametrize('encoding, value, expected', [
    ('mono16', 65535, 255), ('mono16', 128, 0), ('mono16', 129, 1), ('16UC1', 32768, 128),
    ('32FC1', 0.5, 128), ('32FC1', 1.5, 255), ('32FC1', -2, 0)])
def test_scaling(encoding, value, expected):
    dtype = np.uint16 if '16' in encoding else np.float32
    pixel = to_rgb(message(np.full((1, 1), value, dtype), encoding, 1))[0, 0]
    assert np.abs(pixel.astype(int) - expected).max() <= (value == 0.5)


@LAID_OUT
@pytest.mark.parametrize('encoding, order', PACKED.items())
def test_packed_yuv(encoding, order, padding, big_endian):
    """Two pixels share a U and a V: U Y V Y, or Y U Y V."""
    rows = []
    for color in (RED, GREEN, BLUE):
        y, u, v = yuv(color)
        rows.append([u, y, v, y] if order == 'uyvy' else [y, u, y, v])
    rows = np.uint8([np.concatenate(rows)] * 2)
    rgb = to_rgb(message(rows, encoding, 6, padding=padding, big_endian=big_endian))
    expected = np.repeat([[RED, RED, GREEN, GREEN, BLUE, BLUE]], 2, axis=0)
    assert rgb.shape == (2, 6, 3)
    assert np.abs(rgb - expected).max() <= 3


@LAID_OUT
@pytest.mark.parametrize('encoding', PLANAR)
def test_planar_yuv(encoding, padding, big_endian):
    """All Y, then one row of U V (or V U) pairs for two rows of pixels."""
    expected = two_halves(4, 8)
    (red_y, *red), (blue_y, *blue) = yuv(RED), yuv(BLUE)
    pairs = [red, red, blue, blue]
    chroma = [value for pair in pairs for value in (pair if encoding == 'nv12' else pair[::-1])]
    rows = np.uint8([[red_y] * 4 + [blue_y] * 4] * 4 + [chroma] * 2)
    rgb = to_rgb(message(rows, encoding, 8, 4, padding, big_endian))
    assert rgb.shape == (4, 8, 3)
    assert np.abs(rgb - expected.astype(int)).max() <= 3


@LAID_OUT
@pytest.mark.parametrize('encoding', BAYER)
def test_bayer(encoding, padding, big_endian):
    """The four letters name the first two pixels of the first and of the second row."""
    image = two_halves(12, 16)
    letters = encoding[6:10]
    rows = np.empty((12, 16), np.uint8)
    for place, letter in enumerate(letters):
        y, x = divmod(place, 2)
        rows[y::2, x::2] = image[y::2, x::2, 'rgb'.index(letter)]
    if encoding.endswith('16'):
        rows = rows.astype(np.uint16) * 257
    rgb = to_rgb(message(rows, encoding, 16, padding=padding, big_endian=big_endian))
    away = np.r_[1:6, 10:15]        # from the edge between the colours and from the border
    np.testing.assert_array_equal(rgb[1:-1, away], image[1:-1, away])


def test_bayer_names_by_hand():
    """bayer_rggb8 of pure red: only the pixels of even rows and columns see light."""
    rows = np.zeros((6, 6), np.uint8)
    rows[::2, ::2] = 200
    np.testing.assert_array_equal(
        to_rgb(message(rows, 'bayer_rggb8', 6))[2:4, 2:4], [[[200, 0, 0]] * 2] * 2)
    np.testing.assert_array_equal(
        to_rgb(message(rows, 'bayer_bggr8', 6))[2:4, 2:4], [[[0, 0, 200]] * 2] * 2)


def test_rgb8_is_a_view_and_padding_a_copy():
    tight = message(rgb_image(), 'rgb8', 6)
    view = to_rgb(tight)
    assert np.shares_memory(view, np.frombuffer(tight.data, np.uint8))
    tight.data[0] ^= 255
    assert view[0, 0, 0] == tight.data[0]
    padded = message(rgb_image(), 'rgb8', 6, padding=2)
    assert not np.shares_memory(to_rgb(padded), np.frombuffer(padded.data, np.uint8))


@pytest.mark.parametrize('container', [bytes, bytearray, lambda d: np.frombuffer(d, np.uint8)])
def test_data_of_other_libraries(container):
    one = message(rgb_image(), 'bgr8', 6)
    one.data = container(one.data.tobytes())
    np.testing.assert_array_equal(to_rgb(one), rgb_image()[..., ::-1])


def test_message_of_rosbags():
    header = TYPES['std_msgs/msg/Header'](TYPES['builtin_interfaces/msg/Time'](1, 2), 'camera')
    one = TYPES['sensor_msgs/msg/Image'](
        header, 4, 6, 'rgb8', 0, 18, np.frombuffer(rgb_image().tobytes(), np.uint8))
    np.testing.assert_array_equal(to_rgb(one), rgb_image())


def spoiled(encoding='rgb8', rows=None, width=6, **fields):
    one = message(rgb_image() if rows is None else rows, encoding, width)
    vars(one).update(fields)
    return one


@pytest.mark.parametrize('one, cause, reason', [
    (spoiled(encoding='h264'), 'encoding', "'h264' is unknown: publish one of rgb8"),
    (spoiled(encoding=''), 'encoding', "'' is unknown"),
    (spoiled(width=0), 'size', '0x4: it has no pixels'),
    (spoiled(height=0), 'size', '6x0'),
    (spoiled(step=17), 'step', 'step is 17, but 6 pixels of rgb8 take 18 bytes'),
    (spoiled(step=0), 'step', 'step is 0'),
    (spoiled('mono16', np.zeros((4, 6), np.uint16), step=13), 'step', 'step is 13'),
    (spoiled(step=19), 'data', 'data has 72 bytes, but 4 rows of step 19 make 76'),
    (spoiled(data=array.array('B', bytes(71))), 'data', 'data has 71 bytes'),
    (spoiled(data=array.array('B', bytes(73))), 'data', 'data has 73 bytes'),
    (spoiled(data=array.array('B')), 'data', 'data has 0 bytes'),
    (spoiled(data=b''), 'data', 'data has 0 bytes'),
    (spoiled('nv12', np.zeros((6, 5), np.uint8), 5, height=4), 'size', '5x4: it needs even sides'),
    (spoiled('nv12', np.zeros((4, 6), np.uint8)), 'data', '6 rows of step 6'),
    (spoiled('yuv422', np.zeros((4, 10), np.uint8), 5), 'size', 'even'),
    (spoiled('32FC1', np.float32([[0, np.nan]]), 2), 'nan', 'NaN or infinite'),
    (spoiled('32FC3', np.float32([[0, 0, np.inf]]), 1), 'nan', 'NaN or infinite'),
])
def test_damage(one, cause, reason):
    with pytest.raises(ImageError) as error:
        to_rgb(one)
    assert error.value.cause == cause
    assert reason in str(error.value)


@pytest.mark.parametrize('kind, tolerance', [('.png', 0), ('.jpg', 3)])
@pytest.mark.parametrize('color', [RED, GREEN, BLUE, GREY])
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


def test_exif_does_not_turn_the_image():
    """EXIF orientation 6 asks a viewer to turn the picture: camera_info would not fit it."""
    data = cv2.imencode('.jpg', two_halves(24, 32)[..., ::-1])[1].tobytes()
    tag = struct.pack('>HHIHH', 0x0112, 3, 1, 6, 0)
    exif = b'Exif\0\0MM\0*' + struct.pack('>IH', 8, 1) + tag + bytes(4)
    turned = data[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (32, 24, 3)
    np.testing.assert_array_equal(
        compressed_to_rgb(SimpleNamespace(format='jpeg', data=turned)),
        compressed_to_rgb(SimpleNamespace(format='jpeg', data=data)))


@pytest.mark.parametrize('encoding, form', [
    ('bayer_rggb8', 'bayer_rggb8; png compressed '), ('bayer_rggb16', 'bayer_rggb16; png'),
    ('bayer_bggr8', 'bayer_bggr8; png compressed bayer_bggr8')])
def test_compressed_bayer(encoding, form):
    """image_transport compresses the mosaic itself and names its pattern first."""
    dtype = np.uint16 if encoding.endswith('16') else np.uint8
    mosaic = np.zeros((6, 6), dtype)
    mosaic[::2, ::2] = 200 * (257 if dtype == np.uint16 else 1)
    data = cv2.imencode('.png', mosaic)[1].tobytes()
    rgb = compressed_to_rgb(SimpleNamespace(format=form, data=data))
    assert rgb.dtype == np.uint8
    light = [200, 0, 0] if 'rggb' in encoding else [0, 0, 200]
    np.testing.assert_array_equal(rgb[2:4, 2:4], [[light] * 2] * 2)


def test_compressed_bayer_that_its_driver_made_colour():
    image = rgb_image()
    data = cv2.imencode('.png', image[..., ::-1])[1].tobytes()
    colour = SimpleNamespace(format='bayer_rggb8; png compressed bgr8', data=data)
    np.testing.assert_array_equal(compressed_to_rgb(colour), image)


@pytest.mark.parametrize('container', [bytes, lambda data: array.array('B', data),
                                       lambda data: np.frombuffer(data, np.uint8)])
def test_compressed_label_array(container):
    labels = rgb_image()[..., 0]
    data = container(cv2.imencode('.png', labels)[1].tobytes())
    found = compressed_to_label_array(SimpleNamespace(format='png', data=data))
    np.testing.assert_array_equal(found, labels)


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


def test_jpeg_that_the_driver_padded():
    padded = SimpleNamespace(format='jpeg', data=jpeg() + bytes(1000))
    np.testing.assert_array_equal(
        compressed_to_rgb(padded),
        compressed_to_rgb(SimpleNamespace(format='jpeg', data=jpeg())))


@pytest.mark.parametrize('data, reason', [
    (jpeg()[:-2], 'cut short'), (jpeg()[:len(jpeg()) // 2], 'cut short'),
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


@pytest.mark.parametrize('padding', [0, 3])
def test_label_array(padding):
    labels = rgb_image()[..., 0]
    found = to_label_array(message(labels, 'mono8', 6, padding=padding))
    np.testing.assert_array_equal(found, labels)


def test_label_array_of_another_encoding():
    with pytest.raises(ImageError, match="mono8, not 'rgb8'") as error:
        to_label_array(message(rgb_image(), 'rgb8', 6))
    assert error.value.cause == 'encoding'


@pytest.mark.parametrize('encoding', ['rgb8', 'mono8'])
@pytest.mark.parametrize('make_contiguous', [True, False])
def test_fill_image_round_trip(encoding, make_contiguous):
    pixels = rgb_image() if encoding == 'rgb8' else rgb_image()[..., 0]
    if not make_contiguous:
        pixels = np.repeat(pixels, 2, axis=1)[:, ::2]
    one = SimpleNamespace(header='kept', is_bigendian=1)
    assert fill_image(one, pixels, encoding) is one
    assert (one.height, one.width, one.encoding, one.is_bigendian, one.header) == (
        4, 6, encoding, 0, 'kept')
    assert one.step == (18 if encoding == 'rgb8' else 6)
    assert isinstance(one.data, array.array) and one.data.typecode == 'B'
    back = to_rgb(one) if encoding == 'rgb8' else to_label_array(one)
    np.testing.assert_array_equal(back, pixels)


def test_fill_image_copies():
    pixels = rgb_image()
    one = fill_image(SimpleNamespace(), pixels, 'rgb8')
    pixels[:] = 0
    np.testing.assert_array_equal(to_rgb(one), rgb_image())
