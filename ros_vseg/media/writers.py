# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Bags, videos and pictures, written whole or not at all."""
from collections.abc import Iterator
from contextlib import contextmanager, suppress
import fcntl
import glob
import os
from pathlib import Path
import shutil
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores

from ros_vseg.errors import MediaError
from ros_vseg.files import for_opencv, partial_path, remove_abandoned, write_whole

SLOWEST = 1.0       # frames a second of a video: a time lapse is shown faster than it was
LARGEST = 8190      # pixels of a side, of MPEG-4
_TYPES = get_typestore(Stores.ROS2_HUMBLE)
_Image = _TYPES.types['sensor_msgs/msg/Image']
_Compressed = _TYPES.types['sensor_msgs/msg/CompressedImage']
_Header = _TYPES.types['std_msgs/msg/Header']
_Time = _TYPES.types['builtin_interfaces/msg/Time']


def begin(path: Path) -> Path:
    """Return the ``partial_path`` of a path, its folder made; MediaError where none can be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:      # ValueError: a NUL in the path
        raise not_written(path, error) from error
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise not_written(path, 'it exists and is a device or a pipe')
    return partial_path(path)


def hold_folder(folder: Path) -> int:
    """
    Make a folder and hold it for this process alone: until it ends, however that is.

    Args:
        folder: to write to.

    Returns:
        a file descriptor; closing it lets the folder go.

    Raises:
        MediaError: The folder cannot be written, or another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (OSError, ValueError) as error:      # ValueError: a NUL in the path
        raise not_written(folder, error) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise MediaError(f'another run or recorder writes to {folder}: wait until it has ended, '
                         'or choose another output') from None
    except OSError:     # a file system without: NFS may refuse folders
        pass
    return held


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold a folder as ``hold_folder`` does, for a block."""
    held = hold_folder(folder)
    try:
        yield
    finally:
        os.close(held)


def not_written(path: Path, error: object) -> MediaError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return MediaError(f'{str(path)!r} cannot be written ({reason}): choose another output')


class BagWriter:
    """
    A ROS 2 bag (MCAP, metadata version 8: Humble reads it) in a folder named ``path``.

    If ``path`` ends in .mcap, it is that one file instead. The bag appears when ``close`` is
    called, or at the end of a ``with`` block that did not fail. A folder with an older bag is
    replaced. MediaError if it cannot be written, or anything else has that name.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._partial = begin(self._path)
        self._is_file = self._path.suffix == '.mcap'
        if self._path.exists() and self._is_file:  # perhaps a recording: never replaced
            raise MediaError(f'{path} exists: remove it or choose another output')
        if self._path.exists() and not (self._path / 'metadata.yaml').exists():
            raise MediaError(f'{path} exists and is not a bag: remove it or choose another '
                             'output')
        # one folder deeper: the file inside a bag is named after the bag's folder
        self._made = self._partial / (self._path.stem if self._is_file else self._path.name)
        self._connections: dict[str, Any] = {}
        shutil.rmtree(self._partial, ignore_errors=True)
        remove_abandoned(self._path.parent, glob.escape(self._path.name))
        try:
            self._partial.mkdir()
            self._writer = Writer(self._made, version=8, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> 'BagWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def image(self, topic: str, pixels: npt.NDArray[np.uint8], encoding: str, stamp: int,
              frame_id: str = '') -> None:
        """Add a sensor_msgs/Image: pixels uint8 [H, W] or [H, W, 3], stamp in nanoseconds."""
        pixels = np.ascontiguousarray(pixels)
        message = _Image(_header(stamp, frame_id), *pixels.shape[:2], encoding, 0,
                         pixels.strides[0], pixels.reshape(-1))
        self.message(topic, message, stamp)

    def compressed(self, topic: str, data: bytes, kind: str, stamp: int,
                   frame_id: str = '') -> None:
        """Add a sensor_msgs/CompressedImage: data bytes of format kind (jpeg or png)."""
        message = _Compressed(_header(stamp, frame_id), kind, np.frombuffer(data, np.uint8))
        self.message(topic, message, stamp)

    def message(self, topic: str, message: Any, stamp: int) -> None:
        """Add a message of rosbags' own classes; stamp: time of recording in ns."""
        kind = message.__msgtype__
        try:
            if topic not in self._connections:
                self._connections[topic] = self._writer.add_connection(
                    topic, kind, typestore=_TYPES)
            self._writer.write(     # bags have no times before 1970
                self._connections[topic], max(0, stamp), _TYPES.serialize_cdr(message, kind))
        except OSError as error:
            self.discard()
            raise self._failed(error) from error

    def close(self) -> None:
        """Complete the bag and give it its name."""
        try:
            self._writer.close()
            if self._is_file:
                os.replace(self._made / f'{self._made.name}.mcap', self._path)
            else:
                shutil.rmtree(self._path, ignore_errors=True)
                os.replace(self._made, self._path)
            shutil.rmtree(self._partial, ignore_errors=True)
        except OSError as error:
            self.discard()
            raise self._failed(error) from error

    def discard(self) -> None:
        """Leave nothing behind."""
        try:
            self._writer.close()
        except Exception:  # closing a bag on a full disk fails again; the first error is told
            pass
        shutil.rmtree(self._partial, ignore_errors=True)

    def _failed(self, error: OSError) -> MediaError:
        return MediaError(f'bag {self._path} cannot be written ({error}): free some space or '
                          'choose another output')


def _header(stamp: int, frame_id: str) -> Any:
    seconds = min(stamp // 10**9, 2**31 - 1)    # nanosec may hold more than a second
    return _Header(_Time(seconds, stamp - seconds * 10**9), frame_id)


class VideoWriter:
    """
    An mp4 video; it appears when ``close`` is called. MediaError if it cannot be written.

    All images have the size of the first. Fewer than SLOWEST frames a second are shown as
    SLOWEST. MPEG-4 Part 2, which players show and browsers do not: OpenCV's wheels have no H.264
    encoder, and their VP9 takes some 75 times as long.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self._path, self._fps = Path(path), _encodable(fps)
        self._partial = begin(self._path)
        remove_abandoned(self._path.parent, glob.escape(self._path.name))
        self._writer: Any = None
        self._size = (0, 0)
        self._count = 0

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        """Append an image uint8 [H, W, 3] RGB."""
        if self._writer is None:
            self._open(image.shape[1], image.shape[0])
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._count += 1

    def _open(self, width: int, height: int) -> None:
        scale = min(1, LARGEST / max(width, height))
        self._size = max(2, round(scale * width)), max(2, round(scale * height))
        try:
            self._partial.write_bytes(b'')      # OpenCV does not say why it cannot
        except OSError as error:
            raise self._failed(error.strerror) from error
        self._writer = cv2.VideoWriter(
            for_opencv(self._partial), cv2.VideoWriter.fourcc(*'mp4v'), self._fps, self._size)
        if not self._writer.isOpened():
            raise self._failed('OpenCV does not encode MPEG-4 of {}x{} pixels at {:g} frames a '
                               'second here'.format(*self._size, self._fps))

    def close(self) -> None:
        """Complete the video and give it its name."""
        if self._writer is None:
            return
        self._writer.release()
        # OpenCV's writer says nothing on a full disk: read back how many frames there are
        video = cv2.VideoCapture(for_opencv(self._partial))
        found = max(0, round(video.get(cv2.CAP_PROP_FRAME_COUNT))) if video.isOpened() else 0
        video.release()
        if found != self._count:
            raise self._failed(
                f'{found} of {self._count} frames are in the file; {_room(self._path.parent)}')
        try:
            os.replace(self._partial, self._path)
        except OSError as error:
            raise self._failed(error.strerror) from error

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._writer is not None:
            self._writer.release()
        with suppress(OSError):     # of a file that could not even be made
            self._partial.unlink(missing_ok=True)

    def _failed(self, reason: str | None) -> MediaError:
        self.discard()
        return MediaError(f'video {self._path} cannot be written ({reason}): free some space or '
                          'choose another output')


def _room(folder: Path) -> str:
    try:
        free = shutil.disk_usage(folder).free / 2**20
    except OSError as error:
        return f'{folder}: {error.strerror}'
    return f'{free:.0f} MiB are free: the disk or the quota may be full'


def _encodable(fps: float) -> float:
    """Return the nearest rate that MPEG-4 can tell: a fraction with a part of at most 65535."""
    fps = min(max(fps, SLOWEST), 65535.0)
    decimals = 3 if fps < 65 else 2 if fps < 655 else 1 if fps < 6553 else 0
    return round(fps, decimals)


def write_png(path: str | Path, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    """Write labels uint8 or uint16 [H, W], or RGB uint8 [H, W, 3], as PNG; MediaError if not."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    try:
        write_whole(Path(path), cv2.imencode('.png', pixels)[1].tobytes())
    except OSError as error:
        raise MediaError(f'{path} cannot be written ({error.strerror}): free some space or choose '
                         'another output') from error
    except ValueError as error:     # a NUL in the path
        raise not_written(Path(path), error) from error
