# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Bags of every kind as topics and messages: MCAP, SQLite, ROS 1; folders, compressed files."""
from collections.abc import Callable, Iterator
from contextlib import closing
import logging
from pathlib import Path
import re
import shutil
import sqlite3
from tempfile import gettempdir, TemporaryDirectory
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.typesys import get_typestore, Stores
import yaml

from ros_vseg.errors import MediaError
from ros_vseg.files import natural_key
from ros_vseg.media.mcap import Channel, McapFile, unpack_zstd, zstd_library

SUFFIXES = ('.mcap', '.db3', '.bag')
_LOGS = ('-wal', '-journal')    # that SQLite keeps beside a file
ENCODINGS = ('cdr', 'ros1')     # of messages, that can be read
_NAME = re.compile(r'(.*)(\.mcap|\.db3|\.bag|\.bag\.active)(\.zstd)?', re.IGNORECASE)
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
        self._copy: TemporaryDirectory[str] | None = None   # goes with this object
        self._address = self._complete(path.resolve())
        with closing(self._open()) as database:
            self.channels = {
                number: Channel(topic, kind, encoding) for number, topic, kind, encoding in
                database.execute('SELECT id, name, type, serialization_format FROM topics')}
            self.counts = dict(database.execute(
                'SELECT topic_id, count(*) FROM messages GROUP BY topic_id'))

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._address, uri=True)

    def _complete(self, path: Path) -> str:
        """
        Return the address under which SQLite reads a file with all that was committed to it.

        A recorder that was killed leaves a part of the bag in a log beside the file. SQLite has
        to write there to take it in; where it cannot, it does so in a copy of both.
        """
        address = _address(path, 'mode=ro')
        try:
            with closing(sqlite3.connect(address, uri=True)) as database:
                database.execute('SELECT 1 FROM topics')
            return address
        except sqlite3.OperationalError:    # a folder where SQLite's lock files cannot be made
            logs = [file for file in (path.with_name(path.name + end) for end in _LOGS)
                    if file.is_file() and file.stat().st_size]
        if not logs:
            return _address(path, 'immutable=1')    # this alone would leave a log unread
        try:
            self._copy = TemporaryDirectory(prefix='ros_vseg_')
            for file in (path, *logs):
                shutil.copyfile(file, Path(self._copy.name, file.name))
        except OSError as error:
            raise MediaError(
                f'{path} cannot be read where it is, as a part of it is still in {logs[0].name}, '
                f'nor be copied to {gettempdir()} ({error}): copy the bag with all its files to a '
                'folder that can be written') from error
        return _address(Path(self._copy.name, path.name), 'mode=rw')

    def messages(self, wanted: set[int],
                 damaged: Damaged) -> Iterator[tuple[int, int, bytes]]:
        """See _File; sqlite3.Error where the file is damaged."""
        chosen = ','.join(str(number) for number in wanted)
        with closing(self._open()) as database:
            yield from database.execute('SELECT topic_id, timestamp, data FROM messages '
                                        f'WHERE topic_id IN ({chosen}) ORDER BY timestamp')


def _address(path: Path, how: str) -> str:
    return f'file:{quote(str(path))}?{how}'


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

    ``counts`` of messages by channel. What is missing at the end of an MCAP file, and files that
    are left out, are logged. MediaError if nothing can be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unpacked: TemporaryDirectory[str] | None = None
        self._files = self._open_all(_files(path))
        self.counts: dict[Channel, int] = {}
        for _, file in self._files:
            for number, channel in file.channels.items():
                count = file.counts.get(number, 0)
                self.counts[channel] = self.counts.get(channel, 0) + count

    def _open_all(self, paths: list[Path]) -> list[tuple[Path, _File]]:
        """Open files; one that cannot be read does not keep the others from being read."""
        files, errors = [], []
        for path in paths:
            try:
                files.append((path, self._open(path)))
            except MediaError as error:
                errors.append(error)
        if not files:
            if len(errors) == 1:
                raise errors[0]
            raise MediaError(f'{self._path}: none of its {len(errors)} files can be read: '
                             f'{errors[0]}') from errors[0]
        for told in errors:
            log.warning('%s. The bag is read without this file', told)
        return files

    def _open(self, path: Path) -> _File:
        named, kind = path, _kind(path)
        try:
            if path.suffix.lower() == '.zstd':
                path = self._unpack(path)
            if kind == '.db3':
                return _SqliteFile(path)
            if kind.startswith('.bag'):
                return _Ros1File(path)
            file = McapFile(path)
        except MediaError:
            raise
        except Exception as error:  # a damaged bag meets parsers with no common error
            raise MediaError(f'{named} is not a readable bag, or is damaged ({error}): '
                             f'{_remedy(named)}') from error
        whole = sum(file.counts.values())
        if file.incomplete:
            remedy = f'"mcap recover {path.name} -o whole.mcap" repairs it'
            if not whole:
                raise MediaError(f'{named} is not a readable bag: it ends before its first whole '
                                 'message: record it again')
            log.warning('%s is unfinished or cut short: its %d whole messages are read; %s',
                        named, whole, remedy)
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
        for path, file in self._files:
            numbers = {number for number, channel in file.channels.items() if channel in wanted}
            if not numbers:
                continue
            try:
                for number, received, data in file.messages(numbers, damaged):
                    yield Message(file.channels[number], received, data)
            except Exception as error:  # again the parsers' many errors
                damaged(f'the rest of {path} ({error})')


def is_bag_file(path: Path) -> bool:
    """Return whether a file is named as a bag is, in small or capital letters."""
    return _NAME.fullmatch(path.name) is not None


def bag_name(path: Path) -> str:
    """Return the name of a bag file without what says its kind."""
    match = _NAME.fullmatch(path.name)
    return match[1] if match else path.stem


def _kind(path: Path) -> str:
    """Return the ending that says the kind of a bag file, in small letters; empty if none."""
    match = _NAME.fullmatch(path.name)
    return match[2].lower() if match else ''


def bag_files(folder: Path) -> list[Path]:
    """Return the bag files of a folder, numbers in their names by value."""
    files = {file.name: file for file in folder.iterdir()
             if file.is_file() and is_bag_file(file) and not file.name.startswith('.')}
    # rosbag2 unpacks NAME.zstd beside it where it plays it
    return [files[name] for name in sorted(files, key=natural_key)
            if name.removesuffix('.zstd') == name or name.removesuffix('.zstd') not in files]


def _files(path: Path) -> list[Path]:
    """Return the files of a bag in the order of recording."""
    if not path.is_dir():
        return [path]
    files = bag_files(path)
    stated = [path / name for name in _stated(path)]
    for file in stated:
        if not file.is_file():
            log.warning('%s is missing: metadata.yaml has it, so a part of the bag is lost', file)
    parts = [file for file in stated if file.is_file()]
    if parts:   # in the order that is stated: names need not sort by time
        for file in files:
            if file not in parts:
                log.warning('%s is left out: metadata.yaml does not have it; if it is a part of '
                            'the bag, run "ros2 bag reindex %s"', file, path)
        files = parts
    if not files:
        raise MediaError(f'{path} is not a readable bag: it has a metadata.yaml, but none of the '
                         f'files *{", *".join(SUFFIXES)}: copy the whole folder')
    return files


def _stated(folder: Path) -> list[str]:
    """Return the names of files as metadata.yaml orders them; none where it cannot be read."""
    path = folder / 'metadata.yaml'
    try:
        tree = yaml.safe_load(path.read_text(encoding='utf-8'))
        names = tree['rosbag2_bagfile_information']['relative_file_paths']
        return list(dict.fromkeys(Path(name).name for name in names))
    except (OSError, ValueError, TypeError, LookupError, RecursionError, yaml.YAMLError):
        log.warning('%s is missing or damaged: the files beside it are read without it', path)
        return []


def _remedy(path: Path) -> str:
    kind = _kind(path)
    if kind == '.bag.active':
        return f'a recorder that was killed leaves such a file: run "rosbag reindex {path.name}"'
    if kind == '.bag':
        return 'run "rosbag reindex" on it, or record it again'
    if kind == '.db3' and path.suffix.lower() != '.zstd':
        return f'run "sqlite3 {path.name} .recover", or record it again'
    return 'record it again'
