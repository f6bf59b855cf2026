# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The encodings of images that go up to the GPU as they are: which kernel reads each, and how."""
from typing import Callable, NamedTuple

Numbers = Callable[[int, int], tuple[int, ...]]


class Format(NamedTuple):
    """A kernel, and its numbers for an image of height and width: see kernels.cu."""

    kernel: str
    numbers: Numbers


def _packed(size: int, *colors: int) -> Format:
    """Pixels of ``size`` bytes with red, green and blue at these."""
    return Format('resize_packed', lambda height, width: (size, *colors))


def _pairs(luma: int, u: int, v: int) -> Format:
    """Two pixels in four bytes; a row of an odd width ends in half a pair that is whole here."""
    def numbers(height: int, width: int) -> tuple[int, ...]:
        pitch = 4 * -(-width // 2)
        return luma, pitch, 2, u, v, pitch, 4, 0
    return Format('resize_yuv', numbers)


def _two_planes(u: int, v: int) -> Format:
    """Luma, then chroma in pairs for four pixels."""
    return Format('resize_yuv', lambda height, width: (
        0, width, 1, height * width + u, height * width + v, width, 2, 1))


def _three_planes(height: int, width: int) -> tuple[int, ...]:
    """Luma, then U, then V for four pixels."""
    end = height * width
    return 0, width, 1, end, end + end // 4, width // 2, 1, 1


def _bayer(red_y: int, red_x: int) -> Format:
    return Format('resize_bayer', lambda height, width: (red_y, red_x))


_GREY, _BGR, _BGRA = _packed(1, 0, 0, 0), _packed(3, 2, 1, 0), _packed(4, 2, 1, 0)
_UYVY, _YUYV = _pairs(1, 0, 2), _pairs(0, 1, 3)
_I420 = Format('resize_yuv', _three_planes)
RGB = 'rgb8'
FORMATS = {
    RGB: _packed(3, 0, 1, 2), 'bgr8': _BGR, '8UC3': _BGR,
    'rgba8': _packed(4, 0, 1, 2), 'bgra8': _BGRA, '8UC4': _BGRA,
    'mono8': _GREY, '8UC1': _GREY,
    'yuv422': _UYVY, 'uyvy': _UYVY, 'yuv422_yuy2': _YUYV, 'yuyv': _YUYV,
    'nv12': _two_planes(0, 1), 'nv21': _two_planes(1, 0), 'yuv420': _I420, 'i420': _I420,
    'bayer_rggb8': _bayer(0, 0), 'bayer_bggr8': _bayer(1, 1),
    'bayer_gbrg8': _bayer(1, 0), 'bayer_grbg8': _bayer(0, 1)}
RAW = frozenset(FORMATS) - {RGB}
