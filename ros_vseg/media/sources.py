# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Frames from bags, videos and folders of images, without ROS."""
from collections import Counter, defaultdict, deque
from contextlib import contextmanager
import logging
from pathlib import Path
from typing import NamedTuple, Optional

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.typesys import get_typestore, Stores

from ros_vseg.errors import ImageError, MediaError, VsegError
from ros_vseg.image import compressed_to_label_array, ImageReader, to_label_array

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
DEFAULT_FPS = 15.0  # of folders, whose images carry no time
PAIRS_KEPT = 8  # frames that wait for their labels, or the other way round
_STILLS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')
_BAGS = ('.mcap', '.db3', '.bag')

log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """
    One image of a source.

    image uint8 [H, W, 3] RGB; stamp in nanoseconds; name: a file-name-safe name of the frame;
    labels uint8 [H, W]: exact ids (255 = void) where the source has them.
    """

    image: np.ndarray
    stamp: int
    frame_id: str
    name: str
    labels: Optional[np.ndarray] = None


def open_source(path, topic=None, fps=DEFAULT_FPS, **reading):
    """
    Open a bag (ROS 2 folder, .mcap, .db3, ROS 1 .bag), a video file, or a folder of images.

    topic: the image topic of a bag, by default its only one. fps: of a folder. reading: bit_depth
    and depth_as_grey of an ImageReader, for a bag or a folder. The result can be
    iterated over many times, and has ``name``, ``fps``, ``count`` (None if unknown) and
    ``refused``, a Counter by cause of the frames of the last iteration that could not be read and
    were left out. MediaError names a source that cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise MediaError(f'{path} does not exist: give a bag, a video or a folder of images')
    if path.suffix in _BAGS or (path.is_dir() and (path / 'metadata.yaml').exists()):
        return BagSource(path, topic, **reading)
    if topic:
        raise MediaError(f'{path} is no bag, so it has no topic {topic}: leave the topic out')
    if path.is_dir():
        return FolderSource(path, fps, **reading)
    return VideoSource(path)


class Source:
    """What all sources share: frames that cannot be read are counted and left out."""

    def __init__(self, name, fps, count):
        self.name, self.fps, self.count = name, fps, count
        self.refused = Counter()

    def refuse(self, where, cause, reason):
        """Count a frame that cannot be read; the first of each cause is logged."""
        self.refused[cause] += 1
        if self.refused[cause] == 1:
            log.warning('%s is left out: %s', where, reason)


class FolderSource(Source):
    """Images of a folder in the order of their names, at a fixed rate."""

    def __init__(self, path, fps=DEFAULT_FPS, **reading):
        self._reader = ImageReader(str(path), **reading)
        self.files = sorted(file for file in path.iterdir() if file.suffix.lower() in _STILLS)
        super().__init__(path.name, fps, len(self.files))
        if not self.files:
            raise MediaError(f'folder {path} has no images ({", ".join(_STILLS)}) and is no bag: '
                             'give the folder that holds the frames, or run "ros2 bag reindex" '
                             'on a recording without metadata.yaml')

    def __iter__(self):
        self.refused.clear()
        for number, file in enumerate(self.files):
            try:
                image = self._reader.read_file(file)
            except ImageError as error:
                self.refuse(file, error.cause, error)
                continue
            yield Frame(image, round(number * 1e9 / self.fps), 'camera', file.stem)


class VideoSource(Source):
    """Frames of a video file, stamped by their number."""

    def __init__(self, path):
        self._path = path
        video = cv2.VideoCapture(str(path))
        readable = video.isOpened() and video.grab()
        frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        super().__init__(path.stem, video.get(cv2.CAP_PROP_FPS) or DEFAULT_FPS,
                         frames if frames > 0 else None)
        video.release()
        if not readable:
            raise MediaError(f'{path} is not a video that OpenCV can read: convert it to mp4')

    def __iter__(self):
        video = cv2.VideoCapture(str(self._path))
        try:
            number = 0
            while True:
                more, image = video.read()
                if not more:
                    break
                yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB),
                            round(number * 1e9 / self.fps), 'camera', f'{number:06d}')
                number += 1
        finally:
            video.release()
        if self.count and number < 0.98 * self.count:  # some containers only estimate it
            log.warning('%s ends after %d of %d frames: it is cut short or damaged',
                        self._path, number, self.count)


class BagSource(Source):
    """
    One image topic of a bag, stamped by the message headers.

    A topic next to it that ends in /label holds exact labels, paired by equal stamps less than
    PAIRS_KEPT images apart.
    """

    def __init__(self, path, topic=None, **reading):
        self._path = path
        with self._open() as reader:
            counts = defaultdict(int)
            for connection in reader.connections:
                if connection.msgtype in (IMAGE, COMPRESSED):
                    counts[connection.topic] += connection.msgcount
            seconds = reader.duration / 1e9
        images = [name for name in counts if not name.endswith('/label')]
        self.topic = topic or (images[0] if len(images) == 1 else None)
        if not images:
            raise MediaError(f'bag {path} has no images: it needs a topic of {IMAGE} or '
                             f'{COMPRESSED}')
        if self.topic not in counts:
            wrong = f'no image topic {topic}' if topic else 'several image topics'
            raise MediaError(f'bag {path} has {wrong}: choose one of {", ".join(sorted(images))}')
        label_topic = self.topic.removesuffix('/compressed').rpartition('/')[0] + '/label'
        self._label_topic = label_topic if label_topic in counts.keys() - {self.topic} else None
        count = counts[self.topic]
        if not count:
            raise MediaError(f'bag {path} has no message on {self.topic}: record it again')
        self._reader = ImageReader(self.topic, **reading)
        super().__init__(
            path.stem, (count - 1) / seconds if seconds and count > 1 else DEFAULT_FPS, count)

    @contextmanager
    def _open(self):
        # bags of Humble and before carry no message definitions
        types = get_typestore(Stores.ROS2_HUMBLE)
        try:
            with AnyReader([self._path], default_typestore=types) as reader:
                yield reader
        except VsegError:
            raise
        except Exception as error:  # a damaged bag meets parsers with no common error
            raise MediaError(f'{self._path} is not a readable bag, or is damaged ({error}): '
                             'record it again, or run "ros2 bag reindex" on its folder') from error

    def __iter__(self):
        self.refused.clear()
        labels, waiting, stamps = {}, deque(), Counter()
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
    def _labelled(frame, labels):
        return frame._replace(labels=labels.pop(frame.stamp, None))

    def _images(self):
        """Yield topic, stamp in ns, pixels and frame_id of images and labels as recorded."""
        with self._open() as reader:
            wanted = [one for one in reader.connections
                      if one.topic in (self.topic, self._label_topic)]
            for connection, received, raw in reader.messages(wanted):
                message = reader.deserialize(raw, connection.msgtype)
                stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
                read = self._reader.read
                if connection.topic == self._label_topic:
                    read = (to_label_array if connection.msgtype == IMAGE
                            else compressed_to_label_array)
                try:
                    pixels = read(message)
                except ImageError as error:
                    self.refuse(f'{connection.topic} at {stamp} ns', error.cause, error)
                    continue
                yield connection.topic, stamp or received, pixels, message.header.frame_id
