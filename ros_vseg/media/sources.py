# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Frames from bags, videos and folders of images, without ROS."""
from collections import Counter
from collections.abc import Iterator
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ros_vseg.errors import ImageError, MediaError
from ros_vseg.files import for_opencv, natural_key
from ros_vseg.image import ImageReader
from ros_vseg.media.bag_source import BagSource
from ros_vseg.media.bags import bag_files, is_bag_file
from ros_vseg.media.frames import DEFAULT_FPS, Frame, FRAMES_FOR_RATE, LATEST, rate, Source

SLOWEST, FASTEST = 0.001, 1_000_000     # frames a second of folders
_STILLS = ('.png', '.jpg', '.jpeg', '.jpe', '.bmp', '.tif', '.tiff', '.webp', '.jp2')
_OTHERS = ('.gif', '.avif', '.heic', '.heif', '.jxl', '.exr', '.tga', '.ppm', '.pgm', '.pnm',
           '.mp4', '.avi', '.mkv', '.mov', '.webm', '.m4v', '.mpg', '.mcap', '.db3', '.bag')
# whether this OpenCV makes black or stale frames of interlaced videos, and gives no error
_LOSES_INTERLACED = tuple(map(int, cv2.__version__.split('.')[:2])) >= (4, 13)
_MAGIC = (b'\xff\xd8\xff', b'\x89PNG', b'II*\0', b'MM\0*')  # of stills, whatever they are named

log = logging.getLogger(__name__)


def open_source(path: str | Path, topic: str | None = None, fps: float | None = None,
                **reading: Any) -> Source:
    """
    Open a bag (ROS 2 folder, .mcap, .db3, ROS 1 .bag), a video file, a folder of images, or one.

    >>> import tempfile, numpy
    >>> from ros_vseg.media.writers import write_png
    >>> folder = tempfile.TemporaryDirectory()
    >>> for number in (9, 10):
    ...     write_png(f'{folder.name}/frame_{number}.png', numpy.zeros((4, 6, 3), numpy.uint8))
    >>> source = open_source(folder.name, fps=10)
    >>> for frame in source:
    ...     print(frame.name, frame.stamp, frame.image.shape)
    frame_9 0 (4, 6, 3)
    frame_10 100000000 (4, 6, 3)
    >>> folder.cleanup()

    Args:
        path: Of the bag, video, folder or image.
        topic: Image topic of a bag; None: its only one.
        fps: Frames a second of a folder, whose images carry no time, 0.001 to 1000000; None: 15.
        reading: ``bit_depth`` and ``depth_as_grey`` of an ImageReader, for a bag or a folder.

    Returns:
        A Source, which can be iterated over many times.

    Raises:
        MediaError: The source does not exist, cannot be read, or has no such topic.

    """
    path = Path(path)
    if fps is not None and not SLOWEST <= fps <= FASTEST:
        raise MediaError(f'{fps} frames a second are not possible: give {SLOWEST} to {FASTEST}')
    try:
        is_folder, is_bag = _look_at(path)
    except MediaError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise MediaError(f'{str(path)!r} cannot be opened ({error}): give a bag, a video or a '
                         'folder of images') from error
    source: Source
    if is_bag:
        source = BagSource(path, topic, **reading)
    elif topic:
        raise MediaError(f'{path} is not a bag, so it has no topic {topic}: leave the topic out')
    elif is_folder or _is_still(path):
        source = FolderSource(path, DEFAULT_FPS if fps is None else fps, **reading)
    elif reading.get('depth_as_grey') or reading.get('bit_depth', 16) != 16:
        raise MediaError(f'{path} is a video, of 8 bits: bit depth and depth as grey are for bags '
                         'and images, leave them out')
    else:
        source = VideoSource(path)
    source.path = path
    if fps is not None and not isinstance(source, FolderSource):
        raise MediaError(f'{path} has times of its own: leave the frames a second out')
    return source


def _look_at(path: Path) -> tuple[bool, bool]:
    """Return whether a path is a folder and whether it is a bag."""
    if not path.exists():
        raise MediaError(f'{path} does not exist: give a bag, a video or a folder of images')
    if not path.is_file() and not path.is_dir():  # to read a pipe or device may take for ever
        raise MediaError(f'{path} is no file: give a bag, a video or a folder of images')
    if not path.is_dir():
        return False, is_bag_file(path)
    metadata = path / 'metadata.yaml'
    if _stills(path):   # images may have metadata of their own
        return True, _describes_a_bag(metadata)
    return True, metadata.exists() or bool(bag_files(path))


def _describes_a_bag(file: Path) -> bool:
    return file.is_file() and b'rosbag2_bagfile_information' in file.read_bytes()[:4096]


def _stills(folder: Path) -> list[Path]:
    """Return the images of a folder; what is no file would never end, a dead link is told."""
    return sorted((file for file in folder.iterdir() if file.suffix.lower() in _STILLS
                   and not file.name.startswith('.') and (file.is_file() or not file.exists())),
                  key=lambda file: natural_key(file.name))


def _is_still(file: Path) -> bool:
    """Return whether a file is one image; a PNG may be a video (APNG)."""
    with file.open('rb') as opened:
        head = opened.read(4096)
    suffix = file.suffix.lower()
    if suffix == '.webp' and b'ANIM' in head[:64]:
        raise MediaError(f'{file} is an animated WebP, of which only the first image could be '
                         'read: convert it to mp4')
    return suffix not in ('.mjpeg', '.mjpg') and head.startswith(_MAGIC) and (
        b'acTL' not in head) or suffix in ('.bmp', '.jp2', '.webp')


class FolderSource(Source):
    """One image, or those of a folder by name, numbers by value, at a fixed rate."""

    def __init__(self, path: Path, fps: float = DEFAULT_FPS, **reading: Any) -> None:
        self._reader = ImageReader(str(path), **reading)
        is_one = path.is_file()
        self.files = [path] if is_one else _stills(path)
        name = path.stem if is_one else path.absolute().name
        super().__init__(name, fps, len(self.files))
        others = Counter(file.suffix.lower() for file in path.iterdir()
                         if file.suffix.lower() in _OTHERS) if not is_one else Counter()
        if others:
            log.warning('%s: what lies beside the images is left out: %s', path, ', '.join(
                f'{count} {kind}' for kind, count in sorted(others.items())))
        if not self.files:
            raise MediaError(f'folder {path} has no images ({", ".join(_STILLS)}) and is not a '
                             'bag: give the folder that holds the frames')
        if (len(self.files) - 1) * 1e9 / fps >= LATEST:
            raise MediaError(f'folder {path} has {len(self.files)} images, whose times do not fit '
                             f'into stamps at {fps} frames a second: give more frames a second')

    def __iter__(self) -> Iterator[Frame]:
        self.refused.clear()
        for number, (file, name) in enumerate(zip(self.files, self._names())):
            try:
                image = self._reader.read_file(file)
            except ImageError as error:
                self.refuse(file, error.cause, error)
                continue
            yield Frame(image, round(number * 1e9 / self.fps), 'camera', name)

    def _names(self) -> list[str]:
        """Return a name per file: its stem where no other file has that, else its whole name."""
        stems = Counter(file.stem for file in self.files)
        names = [file.stem if stems[file.stem] == 1 else file.name for file in self.files]
        if len(set(names)) < len(names):    # one of these is the stem of yet another file
            return [file.name for file in self.files]
        return names


class VideoSource(Source):
    """Frames of a video file, stamped by their presentation times; the first is at 0."""

    def __init__(self, path: Path) -> None:
        self._path = path
        video = cv2.VideoCapture(for_opencv(path))
        try:
            nominal = video.get(cv2.CAP_PROP_FPS)
            self._nominal = nominal if 0 < nominal < 1e6 else DEFAULT_FPS
            times = _Presentation(self._nominal)
            stamps = [times.stamp(video) for _ in range(FRAMES_FOR_RATE) if video.grab()]
            frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            video.release()
        if not stamps:
            raise MediaError(f'{path} is not a video that OpenCV can read: convert it to mp4')
        super().__init__(path.stem, rate(stamps) if len(stamps) > 1 else self._nominal,
                         frames if frames > 0 else None)

    def __iter__(self) -> Iterator[Frame]:
        self.refused.clear()
        video = cv2.VideoCapture(for_opencv(self._path))
        video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)     # the default, but of OpenCV 4.11
        times, number = _Presentation(self._nominal), 0
        last, lost = None, 0    # frames that show nothing new
        try:
            while True:
                more, image = video.read()
                if not more:
                    break
                if _LOSES_INTERLACED:
                    lost += not image.any() if last is None else np.array_equal(image, last)
                    last = image
                yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), times.stamp(video), 'camera',
                            f'{number:06d}')
                number += 1
        finally:
            video.release()
        if 2 * lost > number:
            log.warning('%s: %d of %d frames are black or as the one before, as OpenCV %s makes '
                        'them of interlaced videos: convert such a video (ffmpeg -vf yadif) or '
                        "install 'opencv-python-headless<4.13'",
                        self._path, lost, number, cv2.__version__)
        # Matroska and FLV tell their duration alone: of a variable rate the count means nothing
        is_counted = self._path.suffix.lower() not in ('.mkv', '.webm', '.flv')
        if is_counted and self.count and number < 0.98 * self.count:  # others may estimate it
            log.warning('%s ends after %d of %d frames: it is cut short or damaged',
                        self._path, number, self.count)


class _Presentation:
    """Stamps of a video's frames; where the container has no times, they are evenly spaced."""

    def __init__(self, fps: float) -> None:
        self._period, self._first, self._number = 1e9 / fps, 0, 0
        self._last = 0

    def stamp(self, video: Any) -> int:
        """Return the stamp in ns of the frame that the cv2.VideoCapture has just read."""
        time = round(video.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        number, self._number = self._number, self._number + 1
        if number == 0:
            self._first = time
            return 0
        stamp = time - self._first
        if stamp <= self._last:
            stamp = max(round(number * self._period), self._last + round(self._period))
        self._last = stamp
        return stamp
