# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Frames from bags, videos and folders of images, without ROS."""
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
import logging
from pathlib import Path
import statistics
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.errors import ImageError, MediaError
from ros_vseg.files import for_opencv, natural_key
from ros_vseg.image import compressed_to_label_array, ImageReader, to_label_array
from ros_vseg.media.bags import (
    Bag, bag_files, bag_name, Channel, ENCODINGS, is_bag_file, Message)

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
DEFAULT_FPS = 15.0  # of folders, whose images carry no time
SLOWEST, FASTEST = 0.001, 1_000_000     # frames a second of folders
PAIRS_KEPT = 8  # frames that wait for their labels, or the other way round
LATEST = 2**31 * 10**9  # ns; a stamp of ROS ends here
_FRAMES_FOR_RATE = 16
_STILLS = ('.png', '.jpg', '.jpeg', '.jpe', '.bmp', '.tif', '.tiff', '.webp', '.jp2')
_OTHERS = ('.gif', '.avif', '.heic', '.heif', '.jxl', '.exr', '.tga', '.ppm', '.pgm', '.pnm')
_MAGIC = (b'\xff\xd8\xff', b'\x89PNG', b'II*\0', b'MM\0*')  # of stills, whatever they are named

log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """
    One image of a source.

    image uint8 [H, W, 3] RGB; stamp in nanoseconds; name: a file-name-safe name, of this frame
    alone; labels uint8 [H, W]: exact ids (255 = void) where the source has them.
    """

    image: npt.NDArray[np.uint8]
    stamp: int
    frame_id: str
    name: str
    labels: npt.NDArray[np.uint8] | None = None


class Source:
    """
    What all sources share: frames that cannot be read are counted and left out.

    Attributes:
        name: Of the bag, video or folder, without its ending.
        fps: Frames a second, the median of the first ones where the source has times.
        count: Frames that should be there; None if unknown.
        refused: Frames of the last iteration that were left out, counted by cause.
        path: Where they lie.
    """

    def __init__(self, name: str, fps: float, count: int | None) -> None:
        self.name, self.fps, self.count = name, fps, count
        self.refused: Counter[str] = Counter()
        self.path: Path | None = None

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def refuse(self, where: object, cause: str, reason: object) -> None:
        """Count a frame that cannot be read; the first of each cause is logged."""
        self.refused[cause] += 1
        if self.refused[cause] == 1:
            log.warning('%s is left out: %s', where, reason)

    def left_out(self) -> str:
        """Return the counts of ``refused`` in words; empty if nothing was left out."""
        return ', '.join(f'{count} {cause}' for cause, count in self.refused.items())


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
    if path.is_fifo() or path.is_socket():  # to open it would wait for ever
        raise MediaError(f'{path} is no file: give a bag, a video or a folder of images')
    if not path.is_dir():
        return False, is_bag_file(path)
    is_bag = (path / 'metadata.yaml').exists() or bool(not _stills(path) and bag_files(path))
    return True, is_bag


def _stills(folder: Path) -> list[Path]:
    """Return the images of a folder; what is no file would never end."""
    return sorted((file for file in folder.iterdir() if file.suffix.lower() in _STILLS
                   and not file.name.startswith('.')
                   and not file.is_fifo() and not file.is_socket()),
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


def _rate(stamps: list[int]) -> float:
    """Return frames a second by the median of the gaps between stamps in ns."""
    gaps = [after - before for before, after in zip(stamps, stamps[1:]) if after > before]
    return 1e9 / statistics.median(gaps) if gaps else DEFAULT_FPS


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
            log.warning('%s: images of other kinds are left out: %s', path, ', '.join(
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
            stamps = [times.stamp(video) for _ in range(_FRAMES_FOR_RATE) if video.grab()]
            frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            video.release()
        if not stamps:
            raise MediaError(f'{path} is not a video that OpenCV can read: convert it to mp4')
        super().__init__(path.stem, _rate(stamps) if len(stamps) > 1 else self._nominal,
                         frames if frames > 0 else None)

    def __iter__(self) -> Iterator[Frame]:
        self.refused.clear()
        video = cv2.VideoCapture(for_opencv(self._path))
        times, number, black = _Presentation(self._nominal), 0, 0
        try:
            while True:
                more, image = video.read()
                if not more:
                    break
                black += not image.any()
                yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), times.stamp(video), 'camera',
                            f'{number:06d}')
                number += 1
        finally:
            video.release()
        if 2 * black > number and cv2.__version__.startswith('5.0'):
            log.warning('%s: %d of %d frames are black, as OpenCV %s makes them of interlaced '
                        'videos: convert (ffmpeg -vf yadif) or install opencv-python-headless<5',
                        self._path, black, number, cv2.__version__)
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


class BagSource(Source):
    """
    One image topic of a bag, stamped by the message headers.

    An image without a valid stamp (zero, negative) gets the time of recording, moved to the
    clock of the images around it. A topic next to it that ends in /label holds exact labels,
    paired by equal stamps less than PAIRS_KEPT images apart.
    """

    def __init__(self, path: Path, topic: str | None = None, **reading: Any) -> None:
        self._path, self._bag = path, Bag(path)
        counts: Counter[str] = Counter()
        for channel, number in self._bag.counts.items():
            if _is_image(channel):
                counts[channel.topic] += number
        self.topic = self._choose(counts, topic)
        label_topic = self.topic.removesuffix('/compressed').rpartition('/')[0] + '/label'
        self._reader = ImageReader(self.topic, **reading)
        self._label_topic = label_topic if counts[label_topic] else None
        if self._label_topic == self.topic:
            self._label_topic = None
        self._offset = 0
        name = path.absolute().name if path.is_dir() else bag_name(path)
        super().__init__(name, self._look_ahead(), counts[self.topic])

    def _choose(self, counts: Counter[str], topic: str | None) -> str:
        if topic and counts[topic]:     # whatever its name
            return topic
        filled = sorted(name for name, count in counts.items() if count)
        images = [name for name in filled if not name.endswith('/label')]
        if not topic and len(images) == 1:
            return images[0]
        empty = sorted(name for name, count in counts.items() if not count)
        if topic in empty or empty and not topic and not images:
            raise MediaError(f'bag {self._path} has no message on {topic or ", ".join(empty)}: '
                             'record it again')
        if not filled:
            found = ', '.join(sorted(f'{channel.topic} ({channel.kind}, {channel.encoding})'
                                     for channel in self._bag.counts)) or 'none'
            raise MediaError(f'bag {self._path} has no images: it needs a topic of {IMAGE} or '
                             f'{COMPRESSED}; its topics: {found}')
        if topic or images:
            wrong = f'no image topic {topic}' if topic else 'several image topics'
        else:   # exact labels are no camera's, unless they are asked for
            wrong = 'no images but labels'
        raise MediaError(f'bag {self._path} has {wrong}: choose one of '
                         f'{", ".join(images or filled)}')

    def _look_ahead(self) -> float:
        """Return the rate of the first images, and take the clock of their stamps."""
        times: list[tuple[int, int]] = []
        for message in islice(self._recorded([self.topic], _ignore), _FRAMES_FOR_RATE):
            try:
                times.append((_stamp(message.read()), message.received))
            except Exception:   # damaged; it is counted when it is its turn
                times.append((0, message.received))
        offsets = [stamp - received for stamp, received in times if 0 < stamp < LATEST]
        self._offset = offsets[0] if offsets else 0
        return _rate([stamp if 0 < stamp < LATEST else received + self._offset
                      for stamp, received in times])

    def _recorded(self, topics: list[str | None], damaged: Any) -> Iterator[Message]:
        wanted = {channel for channel in self._bag.counts
                  if channel.topic in topics and _is_image(channel)}
        return self._bag.messages(wanted, damaged)

    def __iter__(self) -> Iterator[Frame]:
        self.refused.clear()
        labels: dict[int, npt.NDArray[np.uint8]] = {}
        waiting: deque[Frame] = deque()
        stamps: Counter[int] = Counter()
        for topic, stamp, pixels, frame_id in self._images():
            if topic == self._label_topic:
                labels[stamp] = pixels
                if len(labels) > PAIRS_KEPT:
                    del labels[next(iter(labels))]
            else:
                name = f'{stamp}-{stamps[stamp]}' if stamps[stamp] else str(stamp)
                stamps[stamp] += 1
                waiting.append(Frame(pixels, stamp, frame_id, name))
            patience = PAIRS_KEPT if self._label_topic else 0
            while waiting and (waiting[0].stamp in labels or len(waiting) > patience):
                yield self._labelled(waiting.popleft(), labels)
        for frame in waiting:
            yield self._labelled(frame, labels)

    @staticmethod
    def _labelled(frame: Frame, labels: dict[int, npt.NDArray[np.uint8]]) -> Frame:
        return frame._replace(labels=labels.pop(frame.stamp, None))

    def _images(self) -> Iterator[tuple[str, int, npt.NDArray[np.uint8], str]]:
        """Yield topic, stamp in ns, pixels and frame_id of images and labels as recorded."""
        offset, seen, told = self._offset, 0, False
        for message in self._recorded([self.topic, self._label_topic], self._damaged):
            topic = message.channel.topic
            seen += topic == self.topic
            try:
                content = message.read()
                stamp = _stamp(content)
            except Exception as error:  # the parsers' errors have no common base
                self.refuse(f'{topic} recorded at {message.received} ns', 'message',
                            f'the message is damaged ({error})')
                continue
            if 0 < stamp < LATEST:
                offset = stamp - message.received
            else:
                given, stamp = stamp, min(max(message.received + offset, 0), LATEST - 1)
                if not told and given != stamp:     # a video's bag does begin at 0
                    log.warning('%s: %s has images stamped %d ns: the time of recording is used '
                                'instead', self._path, topic, given)
                    told = True
            try:
                pixels = self._pixels(message.channel, content)
            except ImageError as error:
                self.refuse(f'{topic} at {stamp} ns', error.cause, error)
                continue
            yield topic, stamp, pixels, content.header.frame_id
        if self.count and seen < self.count:
            self.refused['lost'] += self.count - seen
            log.warning('%s: %d of %d images of %s are lost with the damaged parts', self._path,
                        self.count - seen, self.count, self.topic)

    def _damaged(self, what: str) -> None:
        log.warning('%s is damaged and left out', what)

    def _pixels(self, channel: Channel, content: Any) -> npt.NDArray[np.uint8]:
        if channel.topic == self._label_topic:
            read = to_label_array if channel.kind == IMAGE else compressed_to_label_array
            return read(content)
        return self._reader.read(content)


def _is_image(channel: Channel) -> bool:
    return channel.encoding in ENCODINGS and channel.kind in (IMAGE, COMPRESSED)


def _stamp(message: Any) -> int:
    """Return the header's stamp in nanoseconds."""
    stamp: int = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    return stamp


def _ignore(what: str) -> None:
    """Take no notice of damage."""
