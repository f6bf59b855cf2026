# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The encodings of sensor_msgs/Image: how each lies in memory, and how it becomes RGB."""
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, Optional, Union

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.errors import ImageError

Pixels = npt.NDArray[Any]           # uint8, uint16 or float32, [H, W] or [H, W, channels]
Rgb = npt.NDArray[np.uint8]         # [H, W, 3]
Convert = Callable[[npt.NDArray[np.uint8]], Rgb]


class Plane(NamedTuple):
    """Part of a planar image: rows per row of pixels, and bytes of one per byte of a pixel row."""

    rows: float
    width: float


class Layout(NamedTuple):
    """
    How an encoding lies in memory: rows [W, channels] of dtype.

    Scaled to 8 bits, ``convert`` makes them RGB (None: they are). A planar one has its ``planes``
    one after the other. ``block``: height and width of the pixels that share a colour.
    """

    dtype: str
    channels: int
    convert: Optional[Convert] = None
    planes: tuple[Plane, ...] = (Plane(1, 1),)
    block: tuple[int, int] = (1, 1)


def scale_to_8_bits(pixels: Pixels, bit_depth: int) -> npt.NDArray[np.uint8]:
    """
    Scale the values of an image to 0..255.

    Args:
        pixels: uint8 as it is; uint16, of which the upper 8 of ``bit_depth`` bits are taken and
            larger values become 255; or float32 of 0..1, beyond which it is clipped.
        bit_depth: bits that a uint16 value uses, 8 to 16.

    Raises:
        ImageError: a float is NaN or infinite.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        # rounds to the nearest: take half a step off, less a quarter of the smallest part
        step = 2 ** (bit_depth - 8)
        return cv2.convertScaleAbs(pixels, alpha=1 / step, beta=0.5 / step - 0.5)
    if not np.isfinite(pixels).all():
        raise ImageError('image has NaN or infinite pixels: check the driver or the node that '
                         'makes it', 'nan')
    return cv2.convertScaleAbs(np.clip(pixels, 0, 1), alpha=255)


def _code(code: int) -> Convert:
    return lambda pixels: cv2.cvtColor(pixels, code)


def _bayer(code: int) -> Convert:
    def convert(pixels: Pixels) -> Rgb:
        if min(pixels.shape) < 3:   # OpenCV makes black of them
            raise ImageError(f'a Bayer image of {pixels.shape[0]}x{pixels.shape[1]} has no whole '
                             'pattern: it takes 3 rows and columns', 'size')
        return cv2.cvtColor(pixels, code)
    return convert


def _nv24(rows: npt.NDArray[np.uint8]) -> Rgb:
    """Rows [3 * H, W]: Y, then pairs of U and V; ITU-R BT.601 of 16..235, as OpenCV's NV12."""
    height, width = len(rows) // 3, rows.shape[1]
    yuv = np.dstack([rows[:height], rows[height:].reshape(height, width, 2)])
    return cv2.transform(yuv, _YUV_TO_RGB)


_YUV_TO_RGB = np.array([[1.164, 0, 1.596], [1.164, -0.391, -0.813], [1.164, 2.018, 0]])
_YUV_TO_RGB = np.column_stack([_YUV_TO_RGB, -_YUV_TO_RGB @ [16, 128, 128]])
GREY, BGR = _code(cv2.COLOR_GRAY2RGB), _code(cv2.COLOR_BGR2RGB)
_RGBA, _BGRA = _code(cv2.COLOR_RGBA2RGB), _code(cv2.COLOR_BGRA2RGB)
_UYVY = Layout('u1', 2, _code(cv2.COLOR_YUV2RGB_UYVY), block=(1, 2))
_YUYV = Layout('u1', 2, _code(cv2.COLOR_YUV2RGB_YUY2), block=(1, 2))
_I420 = Layout('u1', 1, _code(cv2.COLOR_YUV2RGB_I420),
               (Plane(1, 1), Plane(0.5, 0.5), Plane(0.5, 0.5)), (2, 2))
_PAIRS = (Plane(1, 1), Plane(0.5, 1))
# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first two
BAYER = {'rggb': _bayer(cv2.COLOR_BayerBG2RGB), 'bggr': _bayer(cv2.COLOR_BayerRG2RGB),
         'gbrg': _bayer(cv2.COLOR_BayerGR2RGB), 'grbg': _bayer(cv2.COLOR_BayerGB2RGB)}

# REP 118: distances, in millimetres and in metres
DEPTH = ('16UC1', '32FC1')
LAYOUTS = {
    'rgb8': Layout('u1', 3), 'rgb16': Layout('u2', 3),
    'bgr8': Layout('u1', 3, BGR), 'bgr16': Layout('u2', 3, BGR),
    'rgba8': Layout('u1', 4, _RGBA), 'rgba16': Layout('u2', 4, _RGBA),
    'bgra8': Layout('u1', 4, _BGRA), 'bgra16': Layout('u2', 4, _BGRA),
    'mono8': Layout('u1', 1, GREY), 'mono16': Layout('u2', 1, GREY),
    # OpenCV's types: colours in its order
    '8UC1': Layout('u1', 1, GREY), '8UC3': Layout('u1', 3, BGR), '8UC4': Layout('u1', 4, _BGRA),
    '16UC1': Layout('u2', 1, GREY), '16UC3': Layout('u2', 3, BGR),
    '16UC4': Layout('u2', 4, _BGRA),
    '32FC1': Layout('f4', 1, GREY), '32FC3': Layout('f4', 3, BGR),
    'yuv422': _UYVY, 'uyvy': _UYVY, 'yuv422_yuy2': _YUYV, 'yuyv': _YUYV,
    'yuv420': _I420, 'i420': _I420,
    'nv12': Layout('u1', 1, _code(cv2.COLOR_YUV2RGB_NV12), _PAIRS, (2, 2)),
    'nv21': Layout('u1', 1, _code(cv2.COLOR_YUV2RGB_NV21), _PAIRS, (2, 2)),
    'nv24': Layout('u1', 1, _nv24, (Plane(1, 1), Plane(1, 2))),
    **{f'bayer_{name}8': Layout('u1', 1, convert) for name, convert in BAYER.items()},
    **{f'bayer_{name}16': Layout('u2', 1, convert) for name, convert in BAYER.items()},
}


@dataclass(frozen=True)
class RawImage:
    """
    An image of 8 bits as its camera sent it, for backends that convert it themselves.

    Attributes:
        encoding: of LAYOUTS.
        pixels: uint8 [rows, W] or [rows, W, channels]; planes lie one after the other. A row of
            yuv422 of an odd width has one pixel more.
        height: of the picture.
        width: of the picture.
    """

    encoding: str
    pixels: npt.NDArray[np.uint8]
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the picture in RGB."""
        return self.height, self.width, 3

    def rgb(self) -> Rgb:
        """Return the picture, uint8 [H, W, 3]."""
        return self._convert(self.pixels)

    def rows(self, every: int) -> Rgb:
        """Return the same as ``rgb()[::every]``, without converting the other rows."""
        rows = np.arange(0, self.height, every)
        if self.encoding.startswith('bayer_'):
            # four rows around each, from an even one on: the pattern goes on from strip to strip
            inside = rows.clip(1, self.height - 2)
            begins = (inside - 1) // 2 * 2
            strips = (begins[:, None] + np.arange(4)).clip(max=self.height - 1).reshape(-1)
            return self._convert(self.pixels[strips])[
                4 * np.arange(len(rows)) + inside - begins]
        if LAYOUTS[self.encoding].block[0] == 1:
            return self._convert(self.pixels[::every])
        # each row twice, with the chroma that it shares with a neighbour
        luma, chroma = self.pixels[:self.height], self.pixels[self.height:]
        planes = len(LAYOUTS[self.encoding].planes) - 1
        shared = chroma.reshape(planes, self.height // 2, -1)[:, rows // 2]
        parts = np.concatenate([luma[rows.repeat(2)].reshape(-1), shared.reshape(-1)])
        return self._convert(parts.reshape(-1, self.width))[::2]

    def _convert(self, pixels: npt.NDArray[np.uint8]) -> Rgb:
        convert = LAYOUTS[self.encoding].convert
        pixels = np.ascontiguousarray(pixels)
        rgb = convert(pixels) if convert else pixels
        return np.ascontiguousarray(rgb[:, :self.width])


Picture = Union[Rgb, RawImage]      # what a Stream and its backend take


def to_rgb_pixels(picture: Picture) -> Rgb:
    """Return a picture as uint8 [H, W, 3]."""
    return picture.rgb() if isinstance(picture, RawImage) else picture
