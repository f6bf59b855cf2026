# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
ROS image messages to numpy and back, by OpenCV alone.

Messages are read by duck typing, so rclpy's and rosbags' are alike. cv_bridge is not used: it
does the same work by the same OpenCV functions, but breaks with NumPy 2 and knows no NV12.
"""
from array import array
from typing import Callable, NamedTuple, Optional

import cv2
import numpy as np

from ros_vseg.errors import ImageError


class Layout(NamedTuple):
    """How an encoding lies in memory: rows are [W, channels] of dtype, then ``convert`` to RGB."""

    dtype: str
    channels: int
    convert: Optional[Callable] = None
    rows: float = 1.0  # rows of data per row of pixels
    block: tuple = (1, 1)  # height and width that share a colour: the image's are multiples


def _code(code):
    return lambda pixels: cv2.cvtColor(pixels, code)


def _from16(pixels):
    """16-bit values scaled to 8 bits: 65535 becomes 255."""
    return cv2.convertScaleAbs(pixels, alpha=1 / 257)


def _from_float(pixels):
    """Floats of 0..1 scaled to 8 bits."""
    if not np.isfinite(pixels).all():
        raise ImageError('image has NaN or infinite pixels: check the driver or the node that '
                         'makes it', 'nan')
    return cv2.convertScaleAbs(np.clip(pixels, 0, 1), alpha=255)


def _then(first, second):
    return lambda pixels: second(first(pixels))


_GREY = _code(cv2.COLOR_GRAY2RGB)
_BGR = _code(cv2.COLOR_BGR2RGB)
_UYVY, _YUYV = _code(cv2.COLOR_YUV2RGB_UYVY), _code(cv2.COLOR_YUV2RGB_YUY2)
# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first two
_BAYER = {'rggb': cv2.COLOR_BayerBG2RGB, 'bggr': cv2.COLOR_BayerRG2RGB,
          'gbrg': cv2.COLOR_BayerGR2RGB, 'grbg': cv2.COLOR_BayerGB2RGB}
_COLOR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_PNG = b'\x89PNG'

LAYOUTS = {
    'rgb8': Layout('u1', 3), 'bgr8': Layout('u1', 3, _BGR), '8UC3': Layout('u1', 3, _BGR),
    'rgba8': Layout('u1', 4, _code(cv2.COLOR_RGBA2RGB)),
    'bgra8': Layout('u1', 4, _code(cv2.COLOR_BGRA2RGB)),
    'mono8': Layout('u1', 1, _GREY), '8UC1': Layout('u1', 1, _GREY),
    'mono16': Layout('u2', 1, _then(_from16, _GREY)),
    '16UC1': Layout('u2', 1, _then(_from16, _GREY)),
    '32FC1': Layout('f4', 1, _then(_from_float, _GREY)),
    '32FC3': Layout('f4', 3, _then(_from_float, _BGR)),
    **dict.fromkeys(('yuv422', 'uyvy'), Layout('u1', 2, _UYVY, block=(1, 2))),
    **dict.fromkeys(('yuv422_yuy2', 'yuyv'), Layout('u1', 2, _YUYV, block=(1, 2))),
    'nv12': Layout('u1', 1, _code(cv2.COLOR_YUV2RGB_NV12), 1.5, (2, 2)),
    'nv21': Layout('u1', 1, _code(cv2.COLOR_YUV2RGB_NV21), 1.5, (2, 2)),
    **{f'bayer_{name}8': Layout('u1', 1, _code(code)) for name, code in _BAYER.items()},
    **{f'bayer_{name}16': Layout('u2', 1, _then(_code(code), _from16))
       for name, code in _BAYER.items()},
}


def to_rgb(message):
    """
    Pixels of a sensor_msgs/Image: uint8 [H, W, 3] RGB.

    A view of the message's data for rgb8 without padding, else a copy. mono16, 16UC1 and Bayer 16
    are scaled from 0..65535, 32FC1 and 32FC3 (BGR) from 0..1. ImageError names what is wrong.
    """
    layout = LAYOUTS.get(message.encoding)
    if layout is None:
        raise ImageError(f'encoding {message.encoding!r} is unknown: publish one of '
                         f'{", ".join(LAYOUTS)}', 'encoding')
    pixels = _pixels(message, layout)
    if layout.convert is None:
        return np.ascontiguousarray(pixels)
    return layout.convert(np.ascontiguousarray(pixels))


def to_label_array(message):
    """Ids of a mono8 sensor_msgs/Image: uint8 [H, W]; ImageError for any other encoding."""
    if message.encoding != 'mono8':
        raise ImageError(f'a label image is mono8, not {message.encoding!r}', 'encoding')
    return np.ascontiguousarray(_pixels(message, LAYOUTS['mono8']))


def _pixels(message, layout):
    """View of a message's data: [rows, W, channels] or [rows, W], in the machine's byte order."""
    height, width, step = message.height, message.width, message.step
    if not height or not width:
        raise ImageError(f'image is {width}x{height}: it has no pixels', 'size')
    if height % layout.block[0] or width % layout.block[1]:
        raise ImageError(f'{message.encoding} image is {width}x{height}: it needs even sides',
                         'size')
    dtype = np.dtype(layout.dtype)
    used = width * layout.channels * dtype.itemsize
    if step < used or step % dtype.itemsize:
        raise ImageError(f'step is {step}, but {width} pixels of {message.encoding} take {used} '
                         'bytes: correct step in the driver', 'step')
    rows = int(height * layout.rows)
    data = np.frombuffer(message.data, np.uint8)
    if data.size != rows * step:
        raise ImageError(f'data has {data.size} bytes, but {rows} rows of step {step} make '
                         f'{rows * step}: the message is damaged or mislabelled', 'data')
    order = '>' if message.is_bigendian else '<'
    pixels = data.view(dtype.newbyteorder(order)).reshape(rows, -1)[:, :width * layout.channels]
    if layout.channels > 1:
        pixels = pixels.reshape(rows, width, layout.channels)
    return pixels.astype(dtype, copy=False)


def compressed_to_rgb(message):
    """
    Pixels of a sensor_msgs/CompressedImage (JPEG or PNG): uint8 [H, W, 3] RGB.

    As the sensor saw them: EXIF does not turn the image, since camera_info would not turn with
    it. The grey image of a Bayer topic is a mosaic and becomes colour. ImageError for another
    format and for data that is damaged or cut short.
    """
    pattern = _BAYER.get(message.format[6:10]) if message.format.startswith('bayer_') else None
    image = _decode(message, _COLOR if pattern is None else cv2.IMREAD_UNCHANGED)
    if image.ndim == 2:
        image = cv2.cvtColor(image, pattern)
        return _from16(image) if image.dtype == np.uint16 else image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def compressed_to_label_array(message):
    """Ids of a sensor_msgs/CompressedImage that is a grey 8-bit PNG: uint8 [H, W]; ImageError."""
    labels = _decode(message, cv2.IMREAD_UNCHANGED)
    if bytes(message.data[:4]) != _PNG or labels.ndim != 2 or labels.dtype != np.uint8:
        raise ImageError(f'compressed label image ({message.format!r}) is not a grey 8-bit PNG of '
                         'class ids: publish that (JPEG changes ids)', 'decode')
    return labels


def _decode(message, flags):
    data = bytes(message.data)
    # a decoder fills a truncated image with grey and does not complain: look for its end
    if data[:3] == b'\xff\xd8\xff':
        whole = data.rfind(b'\xff\xd9') > data.rfind(b'\xff\xda') > 0  # end after start of scan
    elif data[:4] == _PNG:
        whole = b'IEND' in data[-64:]
    else:
        raise ImageError(f'compressed image ({message.format!r}, {len(data)} bytes) is neither '
                         'JPEG nor PNG: publish one of them', 'decode')
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if whole else None
    except cv2.error:  # a header that asks for too many pixels
        image = None
    if image is None:
        raise ImageError(f'compressed image ({message.format!r}, {len(data)} bytes) is damaged or '
                         'cut short: check the driver and the network', 'decode')
    return image


def fill_image(message, pixels, encoding):
    """
    Put pixels into a sensor_msgs/Image and return it; its header is left alone.

    pixels uint8 [H, W] (mono8) or [H, W, 3] (rgb8). Pixels that lie in an array.array become the
    message's own without a copy; send it before they change.
    """
    pixels = np.ascontiguousarray(pixels)
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = 0
    message.step = pixels.strides[0]
    data = _owner(pixels)
    if not isinstance(data, array) or len(data) != pixels.nbytes:
        data = array('B')
        data.frombytes(memoryview(pixels).cast('B'))
    # what rclpy's property does with an array.array where it checks types; else it copies it
    setattr(message, '_data' if hasattr(message, '_data') else 'data', data)
    return message


def _owner(pixels):
    """Return the object that holds an array's memory."""
    while isinstance(pixels, np.ndarray) and pixels.base is not None:
        pixels = pixels.base
    return pixels.obj if isinstance(pixels, memoryview) else pixels
