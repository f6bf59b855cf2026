# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Image files of training data, whole and unturned: the checks that every reader makes."""
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image


PNG = b'\x89PNG\r\n\x1a\n'
JPEG = b'\xff\xd8'
_ORIENTATION = 0x0112  # tag of EXIF
_EXIF = (b'Exif', b'eXIf', b'type exif', b'type APP1')  # one of them is in a file that has EXIF


def read_file(path: Path) -> bytes:
    """
    Read a PNG or JPEG file.

    Raises:
        ValueError: The file is empty, its end is missing, or EXIF says that it is to be turned.
        OSError: It cannot be opened.
    """
    content = path.read_bytes()
    if not content:
        raise unreadable(path)
    if _is_cut(content):
        raise ValueError(f'{path} is cut short: copy it again or remove it')
    orientation = _orientation(content)
    if 2 <= orientation <= 8:
        raise ValueError(
            f'{path} has EXIF orientation {orientation}, and whether its label is turned too '
            'cannot be known: remove the tag if the label fits the stored pixels (exiftool '
            '-Orientation= FILE), else turn the pixels (mogrify -auto-orient FILE)')
    return content


def is_16_bit(path: Path) -> bool:
    """Whether a file is a PNG of 16 bits, of which ``read_image`` takes the upper 8."""
    with open(path, 'rb') as file:
        head = file.read(25)
    return len(head) == 25 and head.startswith(PNG) and head[24] == 16


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """
    Read an image.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        ValueError: As ``read_file``, or the file is not an image.
        OSError: It cannot be opened.
    """
    content = np.frombuffer(read_file(path), np.uint8)
    # the tag is 1 or absent here; older and newer OpenCV differ in what they make of others
    image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise unreadable(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_depth(path: Path) -> npt.NDArray[np.float32]:
    """
    Read a depth image: a 16-bit PNG of millimetres, as REP 118 stores them.

    Returns:
        Float32 [H, W] in metres, 0 where the depth is not known.

    Raises:
        ValueError: As ``read_file``, or the file is not such a PNG.
        OSError: It cannot be opened.
    """
    return read_16_bit(path, 'millimetres of depth').astype(np.float32) / np.float32(1000)


def read_16_bit(path: Path, what: str) -> npt.NDArray[np.uint16]:
    """
    Read a 16-bit PNG of one channel.

    Args:
        path: Of the file.
        what: It holds, for the error.

    Returns:
        uint16 [H, W].

    Raises:
        ValueError: As ``read_file``, or the file is not such a PNG.
        OSError: It cannot be opened.
    """
    content = np.frombuffer(read_file(path), np.uint8)
    values = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 2:
        raise ValueError(f'{path} is no image of {what}: save them as a 16-bit PNG of one channel')
    return values


def unreadable(path: Path) -> ValueError:
    """Error of a file that no decoder understands."""
    return ValueError(f'{path} is not a readable image: replace or remove it')


def _is_cut(content: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end; older OpenCV fills such a JPEG without a word."""
    if content.startswith(PNG):
        return b'IEND' not in content[-64:]
    # a picture's end comes after its last scan; a preview may hold both before
    return content.startswith(JPEG) and content.rfind(b'\xff\xd9') < content.rfind(b'\xff\xda')


def _orientation(content: bytes) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 without the tag."""
    if not any(mark in content for mark in _EXIF):
        return 1
    try:
        with Image.open(BytesIO(content)) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # metadata is no reason to refuse the pixels, whatever is wrong with it
        return 1
