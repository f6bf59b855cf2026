# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Bags, videos and pictures, written whole or not at all."""
import os
from pathlib import Path
import shutil

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores

from ros_vseg.errors import MediaError

_TYPES = get_typestore(Stores.ROS2_HUMBLE)
_Image = _TYPES.types['sensor_msgs/msg/Image']
_Compressed = _TYPES.types['sensor_msgs/msg/CompressedImage']
_Header = _TYPES.types['std_msgs/msg/Header']
_Time = _TYPES.types['builtin_interfaces/msg/Time']


def _partial(path):
    """Return the temporary name beside a path, its folder made and both names free."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f'{path} cannot be written ({error.strerror}): choose another '
                         'output') from error
    return path.with_name(f'.{os.getpid()}.{path.name}')


class BagWriter:
    """
    A ROS 2 bag (MCAP, metadata version 8: Humble reads it) in a folder named ``path``.

    If ``path`` ends in .mcap, it is that one file instead. The bag appears when ``close`` is
    called, or at the end of a ``with`` block that did not fail. A folder with an older bag is
    replaced. MediaError if it cannot be written, or anything else has that name.
    """

    def __init__(self, path):
        self._path, self._partial = Path(path), _partial(path)
        self._is_file = self._path.suffix == '.mcap'
        if self._path.exists() and self._is_file:  # perhaps a recording: never replaced
            raise MediaError(f'{path} exists: remove it or choose another output')
        if self._path.exists() and not (self._path / 'metadata.yaml').exists():
            raise MediaError(f'{path} exists and is no bag: remove it or choose another output')
        # one folder deeper: the file inside a bag is named after the bag's folder
        self._made = self._partial / (self._path.stem if self._is_file else self._path.name)
        self._connections = {}
        shutil.rmtree(self._partial, ignore_errors=True)
        try:
            self._partial.mkdir()
            self._writer = Writer(self._made, version=8, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.close()
        else:
            self.discard()

    def image(self, topic, pixels, encoding, stamp, frame_id=''):
        """Add a sensor_msgs/Image: pixels uint8 [H, W] or [H, W, 3], stamp in nanoseconds."""
        pixels = np.ascontiguousarray(pixels)
        message = _Image(_header(stamp, frame_id), *pixels.shape[:2], encoding, 0,
                         pixels.strides[0], pixels.reshape(-1))
        self.message(topic, message, stamp)

    def compressed(self, topic, data, kind, stamp, frame_id=''):
        """Add a sensor_msgs/CompressedImage: data bytes of format kind (jpeg or png)."""
        message = _Compressed(_header(stamp, frame_id), kind, np.frombuffer(data, np.uint8))
        self.message(topic, message, stamp)

    def message(self, topic, message, stamp):
        """Add a message of rosbags' own classes."""
        kind = message.__msgtype__
        try:
            if topic not in self._connections:
                self._connections[topic] = self._writer.add_connection(
                    topic, kind, typestore=_TYPES)
            self._writer.write(
                self._connections[topic], stamp, _TYPES.serialize_cdr(message, kind))
        except OSError as error:
            self.discard()
            raise self._failed(error) from error

    def close(self):
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

    def discard(self):
        """Leave nothing behind."""
        try:
            self._writer.close()
        except Exception:  # closing a bag on a full disk fails again; the first error is told
            pass
        shutil.rmtree(self._partial, ignore_errors=True)

    def _failed(self, error):
        return MediaError(f'bag {self._path} cannot be written ({error}): free some space or '
                          'choose another output')


def _header(stamp, frame_id):
    return _Header(_Time(*divmod(stamp, 10**9)), frame_id)


class VideoWriter:
    """
    An mp4 video; it appears when ``close`` is called. MediaError if it cannot be written.

    All images have the size of the first. MPEG-4 Part 2, which players show and browsers do not:
    OpenCV's wheels have no H.264 encoder, and their VP9 takes some 75 times as long.
    """

    def __init__(self, path, fps):
        self._path, self._partial, self._fps = Path(path), _partial(path), fps
        self._writer, self._count = None, 0

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, image):
        """Append an image uint8 [H, W, 3] RGB."""
        size = image.shape[1], image.shape[0]
        if self._writer is None:
            self._size = size
            self._writer = cv2.VideoWriter(
                str(self._partial), cv2.VideoWriter_fourcc(*'mp4v'), self._fps, size)
            if not self._writer.isOpened():
                self._fail()
        if size != self._size:
            image = cv2.resize(image, self._size)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._count += 1

    def close(self):
        """Complete the video and give it its name."""
        if self._writer is None:
            return
        self._writer.release()
        # OpenCV's writer says nothing on a full disk: read back how many frames there are
        video = cv2.VideoCapture(str(self._partial))
        whole = video.isOpened() and round(video.get(cv2.CAP_PROP_FRAME_COUNT)) == self._count
        video.release()
        if not whole:
            self._fail()
        try:
            os.replace(self._partial, self._path)
        except OSError:
            self._fail()

    def discard(self):
        """Leave nothing behind."""
        if self._writer is not None:
            self._writer.release()
        self._partial.unlink(missing_ok=True)

    def _fail(self):
        self.discard()
        raise MediaError(f'video {self._path} cannot be written: check its folder and the free '
                         'space, or choose another output')


def write_png(path, pixels):
    """Write labels uint8 [H, W] or an image uint8 [H, W, 3] RGB as PNG; MediaError if it fails."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    partial = _partial(path)
    try:
        partial.write_bytes(cv2.imencode('.png', pixels)[1].tobytes())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise MediaError(f'{path} cannot be written ({error.strerror}): free some space or choose '
                         'another output') from error
