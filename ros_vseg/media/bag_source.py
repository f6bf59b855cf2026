# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Frames from bags, without ROS."""
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ros_vseg.errors import ImageError, MediaError
from ros_vseg.image import compressed_to_label_array, ImageReader, stamp_of, to_label_array
from ros_vseg.media.bags import Bag, bag_name, Channel, ENCODINGS, Message
from ros_vseg.media.frames import Frame, FRAMES_FOR_RATE, LATEST, rate, Source

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
PAIRS_KEPT = 8  # frames that wait for their labels, or the other way round

log = logging.getLogger(__name__)


class BagSource(Source):
    """
    One image topic of a bag, stamped by the message headers.

    An image without a valid stamp (zero, negative) gets the time of recording, moved to the
    clock of the images around it. A topic next to it that ends in /label holds exact labels,
    paired by equal stamps less than PAIRS_KEPT images apart; ``unpaired_labels`` met no image.
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
        for message in islice(self._recorded([self.topic], _ignore), FRAMES_FOR_RATE):
            try:
                times.append((stamp_of(message.read()), message.received))
            except Exception:   # damaged; it is counted when it is its turn
                times.append((0, message.received))
        offsets = [stamp - received for stamp, received in times if 0 < stamp < LATEST]
        self._offset = offsets[0] if offsets else 0
        return rate([stamp if 0 < stamp < LATEST else received + self._offset
                     for stamp, received in times])

    def _recorded(self, topics: list[str | None], damaged: Any) -> Iterator[Message]:
        wanted = {channel for channel in self._bag.counts
                  if channel.topic in topics and _is_image(channel)}
        return self._bag.messages(wanted, damaged)

    def __iter__(self) -> Iterator[Frame]:
        self.refused.clear()
        self.unpaired_labels = 0
        labels: dict[int, npt.NDArray[np.uint8]] = {}
        waiting: deque[Frame] = deque()
        stamps: Counter[int] = Counter()
        for topic, stamp, pixels, frame_id in self._images():
            if topic == self._label_topic:
                labels[stamp] = pixels
                if len(labels) > PAIRS_KEPT:
                    del labels[next(iter(labels))]
                    self.unpaired_labels += 1
            else:
                name = f'{stamp}-{stamps[stamp]}' if stamps[stamp] else str(stamp)
                stamps[stamp] += 1
                waiting.append(Frame(pixels, stamp, frame_id, name))
            patience = PAIRS_KEPT if self._label_topic else 0
            while waiting and (waiting[0].stamp in labels or len(waiting) > patience):
                yield self._labelled(waiting.popleft(), labels)
        for frame in waiting:
            yield self._labelled(frame, labels)
        self.unpaired_labels += len(labels)

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
                stamp = stamp_of(content)
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


def _ignore(what: str) -> None:
    """Take no notice of damage."""
