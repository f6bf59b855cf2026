# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Image messages: each encoding against pixels worked out here, and each kind of damage."""
import array
from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.typesys import get_typestore, Stores

from ros_vseg.encoding import DEPTH, LAYOUTS
from ros_vseg.errors import ImageError
from ros_vseg.image import fill_image, to_label_array, to_rgb

TYPES = get_typestore(Stores.ROS2_HUMBLE).types
RED, GREEN, BLUE = (250, 20, 10), (15, 240, 30), (5, 25, 230)


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
    sixteen = image.astype(np.uint16) * 257
    with_alpha = np.concatenate([image, alpha], 2)
    return {
        'rgb8': (image, image), 'bgr8': (image[..., ::-1], image),
        '8UC3': (image[..., ::-1], image),
        'rgb16': (sixteen, image), 'bgr16': (sixteen[..., ::-1], image),
        '16UC3': (sixteen[..., ::-1], image),
        'rgba8': (with_alpha, image),
        'bgra8': (with_alpha[..., [2, 1, 0, 3]], image),
        '8UC4': (with_alpha[..., [2, 1, 0, 3]], image),
        'rgba16': (with_alpha.astype(np.uint16) * 257, image),
        'bgra16': (with_alpha[..., [2, 1, 0, 3]].astype(np.uint16) * 257, image),
        '16UC4': (with_alpha[..., [2, 1, 0, 3]].astype(np.uint16) * 257, image),
        'mono8': (grey, grey_rgb), '8UC1': (grey, grey_rgb),
        'mono16': (sixteen[..., 0], grey_rgb), '16UC1': (sixteen[..., 0], grey_rgb),
        '32FC1': ((grey / 255).astype(np.float32), grey_rgb),
        '32FC3': ((image[..., ::-1] / 255).astype(np.float32), image),
    }[encoding]


PLAIN = ['rgb8', 'bgr8', '8UC3', 'rgba8', 'bgra8', '8UC4', 'rgb16', 'bgr16', '16UC3', 'rgba16',
         'bgra16', '16UC4', 'mono8', '8UC1', 'mono16', '16UC1', '32FC1', '32FC3']
PACKED = {'yuv422': 'uyvy', 'uyvy': 'uyvy', 'yuv422_yuy2': 'yuyv', 'yuyv': 'yuyv'}
PLANAR = ['nv12', 'nv21', 'nv24', 'yuv420', 'i420']
BAYER = [f'bayer_{name}{bits}' for name in ('rggb', 'bggr', 'gbrg', 'grbg') for bits in (8, 16)]
LAID_OUT = pytest.mark.parametrize('padding, big_endian', [(0, 0), (4, 0), (0, 1), (8, 1)])


def test_every_encoding_is_tested():
    assert {*PLAIN, *PACKED, *PLANAR, *BAYER} == set(LAYOUTS)


@LAID_OUT
@pytest.mark.parametrize('encoding', PLAIN)
def test_plain_encodings(encoding, padding, big_endian):
    rows, expected = plain(encoding, rgb_image())
    rgb = to_rgb(message(rows, encoding, 6, padding=padding, big_endian=big_endian),
                 depth_as_grey=encoding in DEPTH)
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, expected)


@pytest.mark.parametrize('encoding, value, expected', [
    ('mono16', 65535, 255), ('mono16', 255, 0), ('mono16', 256, 1), ('16UC1', 32768, 128),
    ('32FC1', 0.5, 128), ('32FC1', 1.5, 255), ('32FC1', -2, 0)])
def test_scaling(encoding, value, expected):
    dtype = np.uint16 if '16' in encoding else np.float32
    pixel = to_rgb(message(np.full((1, 1), value, dtype), encoding, 1), depth_as_grey=True)[0, 0]
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


def planes(encoding, padding):
    """Return the bytes of ``two_halves(6, 8)``, row by row, each with its share of padding."""
    (red_y, red_u, red_v), (blue_y, blue_u, blue_v) = yuv(RED), yuv(BLUE)
    pairs = [red_u, red_v] * 2 + [blue_u, blue_v] * 2
    chroma = {
        'nv12': [(pairs, 1)] * 3,
        'nv21': [([red_v, red_u] * 2 + [blue_v, blue_u] * 2, 1)] * 3,
        'nv24': [([red_u, red_v] * 4 + [blue_u, blue_v] * 4, 2)] * 6,
        'yuv420': ([([red_u] * 2 + [blue_u] * 2, 0.5)] * 3
                   + [([red_v] * 2 + [blue_v] * 2, 0.5)] * 3)}
    rows = [([red_y] * 4 + [blue_y] * 4, 1)] * 6 + chroma[encoding.replace('i420', 'yuv420')]
    return b''.join(bytes(row) + bytes([77]) * int(share * padding) for row, share in rows)


@LAID_OUT
@pytest.mark.parametrize('encoding', PLANAR)
def test_planar_yuv(encoding, padding, big_endian):
    """All Y, then U and V: in pairs for two rows of pixels or for one (nv24), or each alone."""
    rgb = to_rgb(SimpleNamespace(
        height=6, width=8, encoding=encoding, step=8 + padding, is_bigendian=int(big_endian),
        data=array.array('B', planes(encoding, padding))))
    assert rgb.shape == (6, 8, 3)
    assert np.abs(rgb - two_halves(6, 8).astype(int)).max() <= 3


@pytest.mark.parametrize('encoding, order', PACKED.items())
@pytest.mark.parametrize('step', [10, 12, 16])
def test_packed_yuv_of_odd_width(encoding, order, step):
    """The last pixel has a whole pair's bytes if the step leaves room, else Y and one colour."""
    (red_y, red_u, red_v), (blue_y, blue_u, blue_v) = yuv(RED), yuv(BLUE)
    red, blue = (red_u, red_y, red_v, red_y), (blue_u, blue_y, blue_v, blue_y)
    row = red + blue + (blue if step > 10 else blue[:2])
    if order == 'yuyv':
        row = [row[i ^ 1] for i in range(len(row))]
    data = bytes(row) + bytes([77]) * (step - len(row))
    rgb = to_rgb(SimpleNamespace(height=2, width=5, encoding=encoding, step=step, is_bigendian=0,
                                 data=data * 2))
    assert rgb.shape == (2, 5, 3) and rgb.flags.c_contiguous
    assert np.abs(rgb - np.int64([[RED] * 2 + [BLUE] * 3] * 2)).max() <= 3


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
    sample = message(rgb_image(), 'bgr8', 6)
    sample.data = container(sample.data.tobytes())
    np.testing.assert_array_equal(to_rgb(sample), rgb_image()[..., ::-1])


def test_message_of_rosbags():
    header = TYPES['std_msgs/msg/Header'](TYPES['builtin_interfaces/msg/Time'](1, 2), 'camera')
    sample = TYPES['sensor_msgs/msg/Image'](
        header, 4, 6, 'rgb8', 0, 18, np.frombuffer(rgb_image().tobytes(), np.uint8))
    np.testing.assert_array_equal(to_rgb(sample), rgb_image())


def spoiled(encoding='rgb8', rows=None, width=6, **fields):
    sample = message(rgb_image() if rows is None else rows, encoding, width)
    vars(sample).update(fields)
    return sample


@pytest.mark.parametrize('sample, cause, reason', [
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
    (spoiled('yuv420', np.zeros((6, 7), np.uint8), 6, height=4), 'step', 'step is 7'),
    (spoiled('yuv420', np.zeros((5, 6), np.uint8), 6, height=3), 'size', '6x3: it needs even'),
    (spoiled('nv24', np.zeros((8, 6), np.uint8), 6, height=4), 'data', '12 rows of step 6'),
    (spoiled('yuv422', np.zeros((4, 2), np.uint8), 1), 'step', 'must be 4 or more'),
    (spoiled('yuv422', np.zeros((4, 9), np.uint8), 5), 'step', 'step is 9'),
    (spoiled('16UC1', np.zeros((4, 6), np.uint16)), 'depth', '16UC1 is depth (REP 118)'),
    (spoiled('32FC1', np.zeros((4, 6), np.float32)), 'depth', 'or set depth_as_grey'),
    (spoiled('32FC3', np.float32([[0, 0, np.inf]]), 1), 'nan', 'NaN or infinite'),
])
def test_damage(sample, cause, reason):
    with pytest.raises(ImageError) as error:
        to_rgb(sample)
    assert error.value.cause == cause
    assert reason in str(error.value)


def test_not_a_number_in_grey_floats():
    with pytest.raises(ImageError, match='NaN or infinite') as error:
        to_rgb(message(np.float32([[0, np.nan]]), '32FC1', 2), depth_as_grey=True)
    assert error.value.cause == 'nan'


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
    sample = SimpleNamespace(header='kept', is_bigendian=1)
    assert fill_image(sample, pixels, encoding) is sample
    assert (sample.height, sample.width, sample.encoding, sample.is_bigendian, sample.header) == (
        4, 6, encoding, 0, 'kept')
    assert sample.step == (18 if encoding == 'rgb8' else 6)
    assert isinstance(sample.data, array.array) and sample.data.typecode == 'B'
    back = to_rgb(sample) if encoding == 'rgb8' else to_label_array(sample)
    np.testing.assert_array_equal(back, pixels)


def test_fill_image_copies():
    pixels = rgb_image()
    sample = fill_image(SimpleNamespace(), pixels, 'rgb8')
    pixels[:] = 0
    np.testing.assert_array_equal(to_rgb(sample), rgb_image())
