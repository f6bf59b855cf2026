# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What ``vseg run`` has written so far, so that ``--resume`` goes on after its last frame."""
from collections.abc import Collection, Mapping, Sequence
import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, IO, NamedTuple
import zlib

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.errors import MediaError
from ros_vseg.files import to_json, write_whole
from ros_vseg.media.frames import Frame
from ros_vseg.stream import Past, Result, Stream

NAME = 'run.jsonl'      # in the output folder: a line of options, then one of each frame
PICTURES = ('labels', 'color', 'depth')      # folders with a PNG of each frame


class Entry(NamedTuple):
    """A frame whose PNGs are whole: its name, stamp and checksum, and what the network gave."""

    name: str
    stamp: int
    checksum: int
    confidence: float | None
    admitted: bool


class Journal:
    """
    The file that tells which frames are done, a context manager.

    A frame is added once its PNGs have their names. A line that was cut off is as good as none.

    Args:
        folder: the output folder.
        options: all that labels depend on, as values for JSON.

    Attributes:
        entries: the frames of an earlier run, after ``read``.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        self._folder, self._path = folder, folder / NAME
        self._head = to_json({'options': options}, sort_keys=True)
        self._file: IO[str] | None = None
        self.entries: list[Entry] = []

    def read(self, save: Collection[str]) -> None:
        """
        Take the frames of an earlier run, up to the first one with a PNG missing, as ``entries``.

        Raises:
            MediaError: That run had other options; the message names them.
        """
        try:
            head, *lines = self._path.read_text(encoding='utf-8', errors='replace').split('\n')
        except OSError as error:
            raise self._failed(error) from error
        if lines and head != self._head:    # without lines it was cut off before the first frame
            raise MediaError(f'{self._folder} was labelled with other options or of another input '
                             f'({_difference(head, self._head)}): give the same, choose another '
                             'output, or have it removed with --clear')
        for line in lines[:-1]:
            entry = _entry(line)
            # what is wrong with labels is told when they are read
            if entry is None or not all(is_whole(
                    self._folder / kind / f'{entry.name}.png', content=kind != 'labels')
                    for kind in PICTURES if kind in save):
                break
            self.entries.append(entry)

    def start(self) -> None:
        """Begin the file with the frames that are kept, once; MediaError if it cannot be."""
        if self._file:
            return
        text = '\n'.join([self._head, *map(to_json, self.entries), ''])
        try:
            write_whole(self._path, text.encode())
            self._file = open(self._path, 'a', encoding='utf-8', buffering=1)
        except OSError as error:
            raise self._failed(error) from error

    def add(self, frame: Frame, result: Result) -> None:
        """Add a frame whose files are written; MediaError if it cannot be written."""
        assert self._file is not None
        entry = Entry(frame.name, frame.stamp, checksum(frame.image), result.mean_confidence,
                      result.admitted)
        try:
            self._file.write(to_json(entry) + '\n')
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> MediaError:
        return MediaError(f'{self._path} cannot be written ({error.strerror}): free some space or '
                          'choose another output')

    def __enter__(self) -> 'Journal':
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._file:
            self._file.close()


class Replay:
    """
    The frames of an earlier run once more: a stream learns them, and their labels are read back.

    Args:
        folder: the output folder.
        entries: of the frames in their order.
        stream: what goes on after them.
    """

    def __init__(self, folder: Path, entries: Sequence[Entry], stream: Stream) -> None:
        self._folder, self._entries, self._stream = folder, entries, stream
        admitted = [number for number, entry in enumerate(entries) if entry.admitted]
        # the pool holds the last of them; the network need not see the others again
        self._in_pool = set(admitted[max(0, len(admitted) - stream.info.pool_frames):])

    def __len__(self) -> int:
        return len(self._entries)

    def labels(self, number: int, frame: Frame) -> npt.NDArray[np.uint8]:
        """
        Return the labels uint8 [H, W] that the earlier run wrote for a frame.

        Raises:
            MediaError: It is not the same frame, or its label image is damaged.
        """
        entry = self._entries[number]
        if (frame.name, frame.stamp, checksum(frame.image)) != entry[:3]:
            raise MediaError(f'frame {number} of the input, {frame.name}, is not the one that '
                             f'{self._folder} was labelled from: choose another output, or have '
                             'it removed with --clear')
        confidence = entry.confidence
        if confidence is None and not entry.admitted:   # null: NaN, which is never admitted
            confidence = math.nan
        admitted = self._stream.follow(frame.image, frame.stamp, frame.frame_id,
                                       Past(confidence, number in self._in_pool))
        if admitted != entry.admitted:
            raise MediaError(f'{self._folder / NAME} is damaged: have it removed with --clear')
        path = self._folder / f'labels/{frame.name}.png'
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.shape != frame.image.shape[:2]:
            raise MediaError(f'{path} is damaged: remove it, and this frame and those after it '
                             'are labelled again')
        return labels.astype(np.uint8, copy=False)

    def missing(self, count: int) -> None:
        """Raise MediaError if the input ended after ``count`` frames, before these did."""
        if count < len(self):
            raise MediaError(f'the input has {count} frames now, {len(self)} of it were labelled '
                             f'into {self._folder}: choose another output')


def _entry(line: str) -> Entry | None:
    try:
        entry = Entry(*json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    kinds: Any = (str, int, int, (float, type(None)), bool)
    fits = all(isinstance(value, kind) for value, kind in zip(entry, kinds))
    return entry if fits else None


def checksum(image: npt.NDArray[np.uint8]) -> int:
    """Return a number that tells an image uint8 [H, W, 3] from others."""
    return zlib.crc32(np.ascontiguousarray(image).data)


def _difference(before: str, now: str) -> str:
    """Return in words what differs between two first lines."""
    try:
        old, new = json.loads(before)['options'], json.loads(now)['options']
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    except (ValueError, LookupError, TypeError, AttributeError):
        return f'{NAME} is damaged'
    return ', '.join(f'{name}: {_short(old.get(name))}, now {_short(new.get(name))}'
                     for name in sorted(names))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f'{text[:36]} ...'


def is_whole(path: Path, content: bool) -> bool:
    """Whether a PNG is there and, by its content, has its end: a power cut leaves empty files."""
    if not content:
        return path.is_file()
    try:
        with path.open('rb') as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 12))
            return b'IEND' in file.read()
    except OSError:
        return False
