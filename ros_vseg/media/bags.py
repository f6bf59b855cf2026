# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Bags of every kind as topics and messages: MCAP, SQLite, ROS 1; folders, compressed files."""
from collections.abc import Callable, Iterator
from contextlib import closing
import logging
from pathlib import Path
import shutil
import sqlite3
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.typesys import get_typestore, Stores
import yaml

from ros_vseg.errors import MediaError
from ros_vseg.files import natural_key
from ros_vseg.media.mcap import Channel, McapFile, unpack_zstd, zstd_library

SUFFIXES = ('.mcap', '.db3', '.bag')
ENCODINGS = ('cdr', 'ros1')     # of messages, that can be read
_ZSTD = b'\x28\xb5\x2f\xfd'     # begin of compressed data; no message of ROS begins so
_ROS2, _ROS1 = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS1_NOETIC)

log = logging.getLogger(__name__)
Damaged = Callable[[str], None]     # is told what cannot be read


class Message(NamedTuple):
    """A message as it was recorded: its channel, time of recording in ns, bytes."""

    channel: Channel
    received: int
    data: bytes

    def read(self) -> Any:
        """
        Return it as an object with the fields of its type.

        The definitions of the image types are known, so those in the bag do not matter. Raises
        whatever the parser meets in a damaged message.
        """
        data = unpack_zstd(self.data) if self.data[:4] == _ZSTD else self.data
        if self.channel.encoding == 'ros1':
            return _ROS1.deserialize_ros1(data, self.channel.kind)
        return _ROS2.deserialize_cdr(data, self.channel.kind)


class _File(Protocol):
    """A file of a bag: channels by id, counts of messages by id, and the messages."""

    channels: dict[int, Channel]
    counts: dict[int, int]

    def messages(self, wanted: set[int],
                 damaged: Damaged) -> Iterator[tuple[int, int, bytes]]:
        """Yield channel id, time in ns and bytes in the order of recording."""


class _SqliteFile:
    """A .db3 file of rosbag2."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(self._open()) as database:
            self.channels = {
                number: Channel(topic, kind, encoding) for number, topic, kind, encoding in
                database.execute('SELECT id, name, type, serialization_format FROM topics')}
            self.counts = dict(database.execute(
                'SELECT topic_id, count(*) FROM messages GROUP BY topic_id'))

    def _open(self) -> sqlite3.Connection:
        place = f'file:{quote(str(self._path.resolve()))}'
        try:
            database = sqlite3.connect(place + '?mode=ro', uri=True)
            database.execute('SELECT 1 FROM topics')
        except sqlite3.OperationalError:    # a folder where SQLite's lock files cannot be made
            database = sqlite3.connect(place + '?immutable=1', uri=True)
        return database

    def messages(self, wanted: set[int],
                 damaged: Damaged) -> Iterator[tuple[int, int, bytes]]:
        """See _File; sqlite3.Error where the file is damaged."""
        chosen = ','.join(str(number) for number in wanted)
        with closing(self._open()) as database:
            yield from database.execute('SELECT topic_id, timestamp, data FROM messages '
                                        f'WHERE topic_id IN ({chosen}) ORDER BY timestamp')


class _Ros1File:
    """A .bag file of ROS 1."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with Ros1Reader(path) as reader:
            self.channels = {each.id: Channel(each.topic, each.msgtype, 'ros1')
                             for each in reader.connections}
            self.counts = {each.id: each.msgcount for each in reader.connections}

    def messages(self, wanted: set[int],
                 damaged: Damaged) -> Iterator[tuple[int, int, bytes]]:
        """See _File; any error where the file is damaged."""
        with Ros1Reader(self._path) as reader:
            chosen = [each for each in reader.connections if each.id in wanted]
            for connection, received, data in reader.messages(chosen):
                yield connection.id, received, bytes(data)


class Bag:
    """
    A bag file, or a folder of them: ROS 2 (.mcap, .db3, these compressed with zstd), ROS 1 (.bag).

    ``counts`` of messages by channel. What is missing at the end of an MCAP file is logged.
    MediaError if nothing can be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unpacked: TemporaryDirectory[str] | None = None
        self._files = [self._open(file) for file in _files(path)]
        self.counts: dict[Channel, int] = {}
        for file in self._files:
            for number, channel in file.channels.items():
                count = file.counts.get(number, 0)
                self.counts[channel] = self.counts.get(channel, 0) + count

    def _open(self, path: Path) -> _File:
        try:
            if path.suffix == '.zstd':
                path = self._unpack(path)
            if path.suffix == '.db3':
                return _SqliteFile(path)
            if path.suffix == '.bag':
                return _Ros1File(path)
            file = McapFile(path)
        except Exception as error:  # a damaged bag meets parsers with no common error
            raise MediaError(f'{path} is not a readable bag, or is damaged ({error}): '
                             f'{_remedy(path)}') from error
        whole = sum(file.counts.values())
        if file.incomplete:
            remedy = f'"mcap recover {path.name} -o whole.mcap" repairs it'
            if not whole:
                raise MediaError(f'{path} is not a readable bag: it ends before its first whole '
                                 'message: record it again')
            log.warning('%s is unfinished or cut short: its %d whole messages are read; %s',
                        path, whole, remedy)
        return file

    def _unpack(self, path: Path) -> Path:
        """Decompress a file that rosbag2 compressed as a whole; it goes with this object."""
        if self._unpacked is None:
            self._unpacked = TemporaryDirectory(prefix='ros_vseg_')
        target = Path(self._unpacked.name, path.stem)
        with zstd_library().open(path, 'rb') as packed, open(target, 'wb') as whole:
            shutil.copyfileobj(packed, whole)
        return target

    def messages(self, wanted: set[Channel], damaged: Damaged) -> Iterator[Message]:
        """Yield the messages of some channels; ``damaged`` is told of what cannot be read."""
        for file in self._files:
            numbers = {number for number, channel in file.channels.items() if channel in wanted}
            if not numbers:
                continue
            try:
                for number, received, data in file.messages(numbers, damaged):
                    yield Message(file.channels[number], received, data)
            except Exception as error:  # again the parsers' many errors
                damaged(f'the rest of {self._path} ({error})')


def is_bag_file(path: Path) -> bool:
    """Return whether a file is named as a bag is."""
    return path.name.removesuffix('.zstd').endswith(SUFFIXES)


def bag_files(folder: Path) -> list[Path]:
    """Return the bag files of a folder, numbers in their names by value."""
    return sorted((file for file in folder.iterdir()
                   if file.is_file() and is_bag_file(file) and not file.name.startswith('.')),
                  key=lambda file: natural_key(file.name))


def _files(path: Path) -> list[Path]:
    """Return the files of a bag in the order of recording."""
    if not path.is_dir():
        return [path]
    files = bag_files(path)
    stated = _stated(path)
    for name in stated:
        if not (path / name).is_file():
            log.warning('%s is missing: metadata.yaml has it, so a part of the bag is lost',
                        path / name)
    if stated:      # another file beside them is not part of the bag
        files = [file for file in files if file.name in stated] or files
    if not files:
        raise MediaError(f'{path} is not a readable bag: it has a metadata.yaml, but none of the '
                         f'files *{", *".join(SUFFIXES)}: copy the whole folder')
    return files


def _stated(folder: Path) -> list[str]:
    """Return the names of the files that metadata.yaml has; none where it cannot be read."""
    path = folder / 'metadata.yaml'
    try:
        tree = yaml.safe_load(path.read_text(encoding='utf-8'))
        names = tree['rosbag2_bagfile_information']['relative_file_paths']
        return [Path(name).name for name in names]
    except (OSError, ValueError, TypeError, LookupError, RecursionError, yaml.YAMLError):
        log.warning('%s is missing or damaged: the files beside it are read without it', path)
        return []


def _remedy(path: Path) -> str:
    if path.suffix == '.bag':
        return 'run "rosbag reindex" on it, or record it again'
    if path.suffix == '.db3':
        return f'run "sqlite3 {path.name} .recover", or record it again'
    return 'record it again'
