# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
MCAP files, read as far as they go (https://mcap.dev/spec).

A recorder that was killed leaves no index and perhaps half a chunk; other programs write channels
of any encoding into the same file. Neither may keep the images from being read.
"""
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
import heapq
from importlib import import_module
from os import fstat
from pathlib import Path
import struct
from typing import Any, BinaryIO, NamedTuple
from zlib import crc32

MAGIC = b'\x89MCAP0\r\n'
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK = 0x02, 0x03, 0x04, 0x05, 0x06
CHUNK_INDEX, STATISTICS, DATA_END = 0x08, 0x0B, 0x0F
KNOWN = range(0x01, 0x100)      # 0 is no record, but the zeros that a power cut leaves
HEAD = struct.Struct('<BQ')     # of each record: kind and size
MESSAGE_HEAD = struct.Struct('<HIQQ')   # channel, sequence, time of recording, of publishing
TAIL = HEAD.size + 20 + len(MAGIC)      # footer and magic
MISFORMED = (struct.error, ValueError)


class Channel(NamedTuple):
    """One topic: its message type (such as sensor_msgs/msg/Image) and encoding (cdr)."""

    topic: str
    kind: str
    encoding: str


class _Piece(NamedTuple):
    """
    A chunk, or a message outside of chunks: its first time and where its record begins.

    channels: ids that occur in it; None where the index does not tell; cut: whether the file ends
    within it.
    """

    start: int
    offset: int
    channels: set[int] | None
    cut: bool = False


class _Fields:
    """The fields of one record, read one after the other; struct.error where it is cut."""

    def __init__(self, data: bytes) -> None:
        self._data, self.place = data, 0

    def number(self, kind: str) -> int:
        """Return the next number; kind: its letter of the struct module."""
        value: int
        value, = struct.unpack_from('<' + kind, self._data, self.place)
        self.place += struct.calcsize('<' + kind)
        return value

    def block(self, size: int | None = None) -> bytes:
        """Return the next bytes: ``size`` of them, or as many as the number before them says."""
        size = self.number('I') if size is None else size
        data = self._data[self.place:self.place + size]
        if len(data) != size:
            raise struct.error(f'{size} bytes are announced, {len(data)} are there')
        self.place += size
        return data

    def rest(self) -> bytes:
        """Return all that has not been read."""
        return self._data[self.place:]

    def text(self) -> str:
        """Return the next string."""
        return self.block().decode('utf-8', 'replace')


class McapFile:
    """
    One MCAP file.

    ``channels`` by id, ``counts`` of messages by channel; ``incomplete`` says that the file ends
    without its end marker. ValueError if it is not an MCAP file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.incomplete = False
        with open(path, 'rb') as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError('it does not begin as an MCAP file does')
            self._size = file.seek(0, 2)
            self._clear()
            if not self._read_index(file):
                self._clear()
                self._scan(file)

    def _clear(self) -> None:
        self.channels: dict[int, Channel] = {}
        self.counts: dict[int, int] = Counter()
        self._schemas: dict[int, str] = {0: ''}
        self._pieces: list[_Piece] = []

    def _read_index(self, file: BinaryIO) -> bool:
        """Read the summary at the end; return whether there is a usable one."""
        file.seek(max(0, self._size - TAIL))
        tail = file.read()
        if tail[-len(MAGIC):] != MAGIC or tail[:HEAD.size] != HEAD.pack(FOOTER, 20):
            return False
        start, _, crc = struct.unpack_from('<QQI', tail, HEAD.size)
        if not len(MAGIC) < start < self._size - TAIL:
            return False
        file.seek(start)
        summary = file.read(self._size - TAIL - start)
        if crc and crc32(summary + tail[:HEAD.size + 16]) != crc:
            return False
        try:
            for kind, data in _records(summary):
                self._define(kind, data)
                if kind == CHUNK_INDEX:
                    self._pieces.append(_indexed(data))
                elif kind == STATISTICS:
                    self._read_counts(data)
        except MISFORMED:
            return False
        return bool(self._pieces and self.channels and self.counts)

    def _read_counts(self, data: bytes) -> None:
        fields = _Fields(data)
        fields.block(42)    # totals and times of the whole file
        counts = fields.block()
        self.counts.update(dict(struct.iter_unpack('<HQ', counts)))

    def _scan(self, file: BinaryIO) -> None:
        """Walk through all records, as far as they are whole."""
        place, kind = len(MAGIC), 0
        while kind not in (DATA_END, FOOTER):
            file.seek(place)
            head = file.read(HEAD.size)
            kind, size = HEAD.unpack(head) if len(head) == HEAD.size else (0, 0)
            if kind not in KNOWN or place + HEAD.size + size > self._size:
                self.incomplete = True
                if kind != CHUNK:
                    return
                place = self._enter_cut_chunk(file, place)
                continue
            try:
                if kind == CHUNK:
                    self._scan_chunk(file.read(size), place)
                elif kind == MESSAGE:
                    channel, _, time, _ = MESSAGE_HEAD.unpack(file.read(MESSAGE_HEAD.size))
                    self.counts[channel] += 1
                    self._pieces.append(_Piece(time, place, {channel}))
                elif kind in (SCHEMA, CHANNEL):
                    self._define(kind, file.read(size))
            except MISFORMED:
                pass    # told when the messages are read
            place += HEAD.size + size

    def _enter_cut_chunk(self, file: BinaryIO, place: int) -> int:
        """
        Take what is whole of a chunk that is longer than the file; return where to go on.

        Records that are not compressed lie in the file as they do outside of chunks: go on there.
        """
        fields = _Fields(file.read(64))     # more than the head of a chunk has
        try:
            start = fields.number('Q')
            fields.block(20)    # last time, size and checksum
            compression, _ = fields.text(), fields.number('Q')
            if not compression:
                return place + HEAD.size + fields.place
            file.seek(place + HEAD.size)
            self._pieces.append(_Piece(start, place, None, cut=True))
            self._count(_chunk_records(file.read(), cut=True))
        except MISFORMED:
            pass    # told when the messages are read, if any can be
        return self._size

    def _scan_chunk(self, data: bytes, place: int) -> None:
        self._pieces.append(_Piece(_Fields(data).number('Q'), place, None))
        self._count(_chunk_records(data))

    def _count(self, records: Iterable[tuple[int, bytes]]) -> None:
        for kind, record in records:
            self._define(kind, record)
            if kind == MESSAGE:
                self.counts[MESSAGE_HEAD.unpack_from(record)[0]] += 1

    def _define(self, kind: int, data: bytes) -> None:
        """Take a schema or a channel; the schema's text is not needed and not looked at."""
        fields = _Fields(data)
        if kind == SCHEMA:
            number = fields.number('H')
            name = fields.text()    # ROS 1 has no /msg/ in it
            self._schemas[number] = name.replace('/', '/msg/') if name.count('/') == 1 else name
        elif kind == CHANNEL:
            number, schema = fields.number('H'), fields.number('H')
            self.channels[number] = Channel(
                fields.text(), self._schemas.get(schema, ''), fields.text())

    def messages(self, wanted: set[int],
                 damaged: Callable[[str], None]) -> Iterator[tuple[int, int, bytes]]:
        """
        Yield channel id, time of recording in ns and bytes of the messages of some channels.

        In the order of recording. ``damaged`` is told of each chunk that cannot be read whole.
        """
        waiting: list[tuple[int, int, int, bytes]] = []
        with open(self._path, 'rb') as file:
            order = 0
            for piece in sorted(self._pieces, key=lambda piece: piece.start):
                if piece.channels is not None and not piece.channels & wanted:
                    continue
                while waiting and waiting[0][0] < piece.start:
                    time, _, channel, data = heapq.heappop(waiting)
                    yield channel, time, data
                try:
                    for channel, time, data in _piece_messages(file, piece):
                        if channel in wanted:
                            order += 1
                            heapq.heappush(waiting, (time, order, channel, data))
                except MISFORMED as error:
                    damaged(f'{self._path} at byte {piece.offset} ({error})')
            while waiting:
                time, _, channel, data = heapq.heappop(waiting)
                yield channel, time, data


def _indexed(data: bytes) -> _Piece:
    """Return the piece that a record of the chunk index describes."""
    fields = _Fields(data)
    start, _, offset, _ = (fields.number('Q') for _ in range(4))
    channels = {channel for channel, _ in struct.iter_unpack('<HQ', fields.block())}
    return _Piece(start, offset, channels or None)


def _piece_messages(file: BinaryIO, piece: _Piece) -> Iterator[tuple[int, int, bytes]]:
    """Yield channel id, time and bytes of the messages of a piece."""
    file.seek(piece.offset)
    kind, size = HEAD.unpack(file.read(HEAD.size))
    if kind not in (CHUNK, MESSAGE):
        raise ValueError('there is no chunk where the index has one')
    there = fstat(file.fileno()).st_size - file.tell()
    if size > there and not piece.cut:
        raise ValueError('it is cut short')
    data = file.read(min(size, there))
    for kind, record in _chunk_records(data, piece.cut) if kind == CHUNK else [(kind, data)]:
        if kind == MESSAGE:
            channel, _, time, _ = MESSAGE_HEAD.unpack_from(record)
            yield channel, time, record[MESSAGE_HEAD.size:]


def _records(data: bytes, cut: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of records in a row; at a cut ValueError, unless one is expected."""
    place = 0
    while place < len(data):
        end = place + HEAD.size
        if end <= len(data):
            kind, size = HEAD.unpack_from(data, place)
            end += size
        if end > len(data):
            if cut:
                return
            raise ValueError('a record is cut short')
        yield kind, data[place + HEAD.size:end]
        place = end


def _chunk_records(data: bytes, cut: bool = False) -> Iterator[tuple[int, bytes]]:
    """
    Yield the records of a chunk, decompressed and checked; ValueError if it is damaged.

    cut: whether the file ends within the chunk; then those before the cut, which have no checksum.
    """
    fields = _Fields(data)
    fields.block(16)    # first and last time
    size, crc = fields.number('Q'), fields.number('I')
    compression = fields.text()
    stored = fields.number('Q')
    packed = fields.rest()[:stored] if cut else fields.block(stored)
    try:
        records = _decompressor(compression, cut)(packed)
    except ValueError:
        raise
    except Exception as error:  # the libraries' errors have no common base
        raise ValueError(f'{compression} cannot be unpacked: {error}') from error
    if not cut and (len(records) != size or crc and crc32(records) != crc):
        raise ValueError('its checksum or size is wrong')
    yield from _records(records, cut)


def _decompressor(compression: str, cut: bool) -> Callable[[bytes], bytes]:
    """Return a function that decompresses; with ``cut`` as far as the data go."""
    if compression == '':
        return bytes
    if compression == 'lz4':
        library = _first_module('lz4.frame', 'safelz4.frame')
        return library.LZ4FrameDecompressor().decompress if cut else library.decompress
    if compression == 'zstd':
        return _unpack_zstd_begin if cut else unpack_zstd
    raise ValueError(f'compression {compression!r} is unknown')


def _unpack_zstd_begin(data: bytes) -> bytes:
    library = zstd_library()
    unpacker = library.ZstdDecompressor()
    if library.__name__ == 'zstandard':
        unpacker = unpacker.decompressobj()
    return unpacker.decompress(data)


def unpack_zstd(data: bytes) -> bytes:
    """Decompress one Zstandard frame."""
    library = zstd_library()
    if library.__name__ == 'zstandard':     # its own function needs the size in the frame
        return library.ZstdDecompressor().decompressobj().decompress(data)
    return library.decompress(data)


def zstd_library() -> Any:
    """Return the module for Zstandard; rosbags has brought one of them."""
    return _first_module('compression.zstd', 'backports.zstd', 'zstandard')


def _first_module(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ValueError(f'none of the Python packages {", ".join(names)} is installed')
