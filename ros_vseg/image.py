# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
ROS image messages and image files to numpy, and numpy to messages, by OpenCV alone.

Messages are read by duck typing, so rclpy's and rosbags' are alike. cv_bridge is not used: it
does the same work by the same OpenCV functions, but breaks with NumPy 2 and knows no NV12.

EXIF orientation: a file is shown upright, as viewers and the training do. A message is taken as
the sensor saw it, because camera_info describes those pixels.
"""
from array import array
import logging
from pathlib import Path
from typing import Any, cast, Collection, NamedTuple, Optional, Protocol, TypeVar, Union

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.encoding import (
    BAYER, BGR, Convert, DEPTH, GREY, Layout, LAYOUTS, Picture, Pixels, RawImage, Rgb,
    scale_to_8_bits)
from ros_vseg.errors import ImageError
from ros_vseg.jpeg import find_damage

BIT_DEPTHS = (8, 10, 12, 14, 16)
WATCHED = 100       # 16-bit and float images whose brightest values are looked at
OVERBRIGHT = 1.5    # of floats: a little above white is a bright light
DARK = 256          # below it an image may be of a covered lens: wait for a brighter one ...
PATIENCE = 5        # ... for this many images
SMALLEST_RAW = 4    # pixels: OpenCV has rules of its own for smaller Bayer mosaics
_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG'
_STORED = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
_SENSOR = _STORED | cv2.IMREAD_IGNORE_ORIENTATION

log = logging.getLogger(__name__)


class ImageMessage(Protocol):
    """What is read of a sensor_msgs/Image; ``data`` is any buffer of bytes."""

    height: int
    width: int
    encoding: str
    is_bigendian: Union[int, bool]
    step: int
    data: Any


class CompressedMessage(Protocol):
    """What is read of a sensor_msgs/CompressedImage; ``data`` is any buffer of bytes."""

    format: str     # noqa: A003
    data: Any


Message = TypeVar('Message', bound=ImageMessage)


class Raw(NamedTuple):
    """
    Pixels as they were stored: uint8, uint16 or float32, [H, W] or [H, W, channels].

    Scaled to 8 bits, ``convert`` makes them RGB (None: they are).
    """

    pixels: Pixels
    convert: Optional[Convert]
    width: int

    def to_rgb(self, bit_depth: int = 16) -> Rgb:
        """Return uint8 [H, W, 3]."""
        pixels = scale_to_8_bits(np.ascontiguousarray(self.pixels), bit_depth)
        rgb = self.convert(pixels) if self.convert else pixels
        return rgb if rgb.shape[1] == self.width else np.ascontiguousarray(rgb[:, :self.width])


class ImageReader:
    """
    Reads the images of one camera, and warns once if ``bit_depth`` does not fit their values.

    Args:
        name: of the topic or the source, for the warning.
        bit_depth: bits that 16-bit values use, 8 to 16: 12 for a sensor of 0..4095.
        depth_as_grey: whether 16UC1 and 32FC1 images are grey pictures (16UC1 like mono16, 32FC1
            from 0 to 1) instead of depth, which is refused.
    """

    def __init__(self, name: str, bit_depth: int = 16, depth_as_grey: bool = False) -> None:
        self._name, self._bit_depth, self._depth_as_grey = name, bit_depth, depth_as_grey
        self._brightest = self._watched = 0

    def read(self, message: Union[ImageMessage, CompressedMessage]) -> Rgb:
        """Return the pixels of an Image or CompressedImage, uint8 [H, W, 3]; ImageError."""
        if hasattr(message, 'format'):
            compressed = cast(CompressedMessage, message)
            return self._rgb(_unpack_compressed(compressed, self._depth_as_grey))
        return self._rgb(_unpack(message, self._depth_as_grey))

    def read_raw(self, message: Union[ImageMessage, CompressedMessage],
                 encodings: Collection[str]) -> Picture:
        """
        Return an Image of one of some encodings of 8 bits as it is, and all else as ``read`` does.

        Raises:
            ImageError: the message is damaged, of an unknown encoding, or depth.
        """
        encoding = getattr(message, 'encoding', None)
        if encoding not in encodings:
            return self.read(message)
        plain = cast(ImageMessage, message)
        if min(plain.height, plain.width) < SMALLEST_RAW:
            return self.read(message)
        raw = _unpack(plain, self._depth_as_grey)
        return RawImage(plain.encoding, raw.pixels, plain.height, plain.width)

    def read_file(self, path: Path) -> Rgb:
        """Return the pixels of an image file, upright, uint8 [H, W, 3]; ImageError."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ImageError(f'it cannot be read: {error.strerror}', 'decode') from error
        image = _decode(data, 'image file', _STORED, others=True)
        return self._rgb(_decoded(image, '', self._depth_as_grey))

    def _rgb(self, raw: Raw) -> Rgb:
        if raw.pixels.dtype == np.uint16 and self._watched < WATCHED:
            self._watch(raw.pixels)
        elif raw.pixels.dtype == np.float32 and self._watched < WATCHED:
            self._watch_floats(raw.pixels)
        return raw.to_rgb(self._bit_depth)

    def _watch_floats(self, pixels: Pixels) -> None:
        """Compare the brightest value with 1, which is white."""
        self._watched += 1
        brightest = float(pixels.max(initial=0))
        if brightest > OVERBRIGHT:
            log.warning('%s: floats of up to %g are brighter than white (1) and come out white: '
                        'publish values in 0..1, or 8 bits', self._name, brightest)
            self._watched = WATCHED

    def _watch(self, pixels: Pixels) -> None:
        """Compare the brightest value so far with ``bit_depth``."""
        self._watched += 1
        self._brightest = max(self._brightest, int(pixels.max(initial=0)))
        top = 2 ** self._bit_depth - 1
        fits = next(bits for bits in BIT_DEPTHS if self._brightest < 2 ** bits)
        if self._brightest > top:
            log.warning('%s: pixels of up to %d are brighter than bit_depth %d allows (%d) and '
                        'come out white: set bit_depth to %d', self._name, self._brightest,
                        self._bit_depth, top, fits)
        elif fits <= self._bit_depth - 2 and (
                self._brightest >= DARK or self._watched == PATIENCE):
            log.warning('%s: the brightest of its 16-bit values is %d, where bit_depth %d allows '
                        '%d, so its images are nearly black: set bit_depth to %d if the camera '
                        'has %d bits', self._name, self._brightest, self._bit_depth, top, fits,
                        fits)
        else:
            return
        self._watched = WATCHED


def to_rgb(message: ImageMessage, bit_depth: int = 16, depth_as_grey: bool = False) -> Rgb:
    """
    Pixels of a sensor_msgs/Image.

    Args:
        message: of any encoding in LAYOUTS.
        bit_depth: bits that the values of 16-bit encodings use, 8 to 16.
        depth_as_grey: whether 16UC1 and 32FC1 are grey pictures instead of depth.

    Returns:
        uint8 [H, W, 3]: a view of the message's data for rgb8 without padding, else a copy. Of
        16-bit values the upper 8 of ``bit_depth`` bits; floats are scaled from 0..1.

    Raises:
        ImageError: the message is damaged, of an unknown encoding, or depth.
    """
    return _unpack(message, depth_as_grey).to_rgb(bit_depth)


def compressed_to_rgb(message: CompressedMessage, bit_depth: int = 16,
                      depth_as_grey: bool = False) -> Rgb:
    """
    Pixels of a sensor_msgs/CompressedImage (JPEG or PNG), as the sensor saw them.

    What is stored is said by the word behind ``compressed`` in the format ('bayer_rggb8; jpeg
    compressed mono8' is grey), or by the encoding before it, which is the sender's original.

    Args:
        message: a JPEG or PNG.
        bit_depth: as for ``to_rgb``.
        depth_as_grey: as for ``to_rgb``, and also for 16-bit grey of an unknown encoding.

    Returns:
        uint8 [H, W, 3]; a Bayer mosaic becomes colour.

    Raises:
        ImageError: the data is damaged or incomplete, of another format, or depth.
    """
    return _unpack_compressed(message, depth_as_grey).to_rgb(bit_depth)


def to_label_array(message: ImageMessage) -> npt.NDArray[np.uint8]:
    """Ids of a mono8 sensor_msgs/Image: uint8 [H, W]; ImageError for any other encoding."""
    if message.encoding != 'mono8':
        raise ImageError(f'a label image is mono8, not {message.encoding!r}', 'encoding')
    return np.ascontiguousarray(_view(message, LAYOUTS['mono8']))


def compressed_to_label_array(message: CompressedMessage) -> npt.NDArray[np.uint8]:
    """Ids of a sensor_msgs/CompressedImage that is a grey 8-bit PNG: uint8 [H, W]; ImageError."""
    labels = _decode(bytes(message.data), _name(message), cv2.IMREAD_UNCHANGED)
    # OpenCV spreads grey of fewer bits over 0..255; bit depth and colour type stand in the header
    if (bytes(message.data[:4]) != _PNG or bytes(message.data[24:26]) != b'\x08\x00'
            or labels.ndim != 2):
        raise ImageError(f'compressed label image ({message.format!r}) is not a grey 8-bit PNG of '
                         'class ids: publish that (JPEG changes ids)', 'decode')
    return labels


def _refuse_depth(what: str) -> None:
    raise ImageError(
        f'{what} is depth (REP 118), not a picture: give the topic of the colour or grey image, '
        'or set depth_as_grey if these are grey values', 'depth')


def _unpack(message: ImageMessage, depth_as_grey: bool) -> Raw:
    layout = LAYOUTS.get(message.encoding)
    if layout is None:
        known = ', '.join(name for name in LAYOUTS if name not in DEPTH)
        raise ImageError(f'encoding {message.encoding!r} is unknown: publish one of {known}',
                         'encoding')
    if message.encoding in DEPTH and not depth_as_grey:
        _refuse_depth(message.encoding)
    return Raw(_view(message, layout), layout.convert, message.width)


def _view(message: ImageMessage, layout: Layout) -> Pixels:
    """View of a message's data: [rows, W, channels] or [rows, W], in the machine's byte order."""
    height, width, step = message.height, message.width, message.step
    if not height or not width:
        raise ImageError(f'image is {width}x{height}: it has no pixels', 'size')
    if height % layout.block[0] or (layout.block[0] > 1 and width % layout.block[1]):
        raise ImageError(f'{message.encoding} image is {width}x{height}: it needs even sides',
                         'size')
    dtype = np.dtype(layout.dtype)
    pixel = layout.channels * dtype.itemsize
    if step < width * pixel or step % dtype.itemsize or any(
            step * plane.width % 1 for plane in layout.planes):
        raise ImageError(f'step is {step}, but {width} pixels of {message.encoding} take '
                         f'{width * pixel} bytes: correct step in the driver', 'step')
    rows = int(height * sum(plane.rows * plane.width for plane in layout.planes))
    data = np.frombuffer(message.data, np.uint8)
    if data.size != rows * step:
        raise ImageError(f'data has {data.size} bytes, but {rows} rows of step {step} make '
                         f'{rows * step}: the message is damaged or mislabelled', 'data')
    if len(layout.planes) > 1:
        return _join_planes(data, height, width, step, layout)
    order = dtype.newbyteorder('>' if message.is_bigendian else '<')
    pixels: Pixels = data.view(order).reshape(rows, -1)
    if layout.block == (1, 2) and width % 2:
        return _whole_pairs(pixels, width)
    pixels = pixels[:, :width * layout.channels]
    if layout.channels > 1:
        pixels = pixels.reshape(rows, width, layout.channels)
    return pixels.astype(dtype, copy=False)


def _join_planes(data: npt.NDArray[np.uint8], height: int, width: int, step: int,
                 layout: Layout) -> npt.NDArray[np.uint8]:
    """Planes without the padding of their rows, one after the other in rows of ``width``."""
    if step == width:
        return data.reshape(-1, width)
    parts, start = [], 0
    for plane in layout.planes:
        rows, row = int(height * plane.rows), int(step * plane.width)
        part = data[start:start + rows * row].reshape(rows, row)
        parts.append(part[:, :int(width * plane.width)].reshape(-1))
        start += rows * row
    return np.concatenate(parts).reshape(-1, width)


def _whole_pairs(rows: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """Rows of an odd width in which two pixels share a colour: one more pixel completes them."""
    used = 2 * (width + 1)
    if rows.shape[1] >= used:
        return rows[:, :used].reshape(len(rows), -1, 2)
    if width == 1:
        raise ImageError('image of one column has half a colour: its step must be 4 or more',
                         'step')
    pixels = rows[:, :used - 2].reshape(len(rows), -1, 2)
    return np.concatenate([pixels, pixels[:, -2:-1]], axis=1)    # the colour of the pair before


def _unpack_compressed(message: CompressedMessage, depth_as_grey: bool) -> Raw:
    before, _, behind = message.format.partition('compressed')
    original = before.partition(';')[0].strip()
    stored = (behind.split() or [''])[0]
    if behind.startswith('Depth'):
        if depth_as_grey:
            raise ImageError(f'{message.format!r} is made for depth and changes grey values: '
                             'give the raw topic, or one compressed as PNG', 'depth')
        _refuse_depth(repr(message.format))
    if (original in DEPTH or stored in DEPTH) and not depth_as_grey:
        _refuse_depth(repr(message.format))
    image = _decode(bytes(message.data), _name(message), _SENSOR)
    return _decoded(image, stored or original, depth_as_grey)


def _decoded(image: Pixels, encoding: str, depth_as_grey: bool) -> Raw:
    """Describe what OpenCV decoded, [H, W] or [H, W, 3] BGR, and is said to be ``encoding``."""
    width = image.shape[1]
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ImageError(f'image has values of type {image.dtype}: convert it to 8 or 16 bits',
                         'encoding')
    if image.ndim == 3:
        return Raw(image, BGR, width)
    bayer = BAYER.get(encoding[6:10]) if encoding.startswith('bayer_') else None
    if image.dtype != np.uint8 and not (bayer or encoding == 'mono16' or depth_as_grey):
        _refuse_depth(f'grey of {8 * image.itemsize} bits that is not said to be mono16')
    return Raw(image, bayer or GREY, width)


def _name(message: CompressedMessage) -> str:
    return f'compressed image ({message.format!r}, {len(message.data)} bytes)'


def _decode(data: bytes, name: str, flags: int, others: bool = False) -> Pixels:
    """Decode a JPEG or PNG that is whole; ``others``: whatever else OpenCV reads, too."""
    damage = None
    if data.startswith(_JPEG):
        damage = find_damage(data)
        if b'\xff\xd9' not in data[-2:]:
            data += b'\xff\xd9'     # without an end OpenCV may wait for more
    elif data.startswith(_PNG):
        damage = None if b'IEND' in data[-64:] else 'its end is missing'
    elif not others:
        raise ImageError(f'{name} is neither JPEG nor PNG: publish one of them', 'decode')
    image = None
    if not damage:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:   # no data, or a header that asks for too many pixels
            pass
    if image is None:
        raise ImageError(f'{name} is damaged or cut short ({damage or "it cannot be decoded"}): '
                         'check what wrote or sent it', 'decode')
    return image


def stamp_of(message: Any) -> int:
    """Return the stamp of a message's header in nanoseconds."""
    stamp: int = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    return stamp


def fill_image(message: Message, pixels: npt.NDArray[Any], encoding: str) -> Message:
    """
    Put pixels into a sensor_msgs/Image and return it; its header is left alone.

    Args:
        message: the Image to fill.
        pixels: uint8 [H, W] or [H, W, 3], or float32 [H, W]. Pixels that lie in an array.array
            become the message's own without a copy: send it before they change.
        encoding: mono8, rgb8 or 32FC1.
    """
    pixels = np.ascontiguousarray(pixels)
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = 0
    message.step = pixels.strides[0]
    data = _owner(pixels)
    if not isinstance(data, array) or len(data) != pixels.nbytes:
        data = array('B')
        data.frombytes(pixels.reshape(-1).view(np.uint8).data)
    # what rclpy's property does with an array.array where it checks types; else it copies it
    setattr(message, '_data' if hasattr(message, '_data') else 'data', data)
    return message


def _owner(pixels: Any) -> Any:
    """Return the object that holds an array's memory."""
    while isinstance(pixels, np.ndarray) and pixels.base is not None:
        pixels = pixels.base
    return pixels.obj if isinstance(pixels, memoryview) else pixels
