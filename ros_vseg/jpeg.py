# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Whether a JPEG has all its pixels: its Huffman codes are counted, without computing a pixel.

A decoder fills what is missing with grey, or paints shifted blocks, and at most prints a line on
the process's stderr. Markers, tables and scans as in ITU-T T.81; sequential and progressive.
"""
from functools import lru_cache
from typing import NamedTuple, Optional

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.jit import jit

LOOK = 9            # bits of a code that one look-up takes
SPARE = 8           # bytes that some cameras leave behind the last block
_SOF, _DHT, _EOI, _SOS, _DRI = (0xc0, 0xc1, 0xc2), 0xc4, 0xd9, 0xda, 0xdd
_OTHER_SOF = (0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf)   # not Huffman, 12 bits
_ALONE = (0x00, 0x01, *range(0xd0, 0xd9))     # markers without a length

Table = npt.NDArray[np.int32]


class _Component(NamedTuple):
    """Sampling factors of a component, and its size in blocks without padding."""

    across: int
    down: int
    columns: int
    rows: int


class _Frame(NamedTuple):
    progressive: bool
    columns: int        # of MCUs
    rows: int
    components: dict[int, _Component]
    nonzero: dict[int, npt.NDArray[np.uint8]]       # coefficients seen [blocks, 64], progressive
    missing_bits: dict[int, npt.NDArray[np.int64]]  # of each coefficient [64]; -1: never sent


class _Damage(Exception):
    """What is wrong, in words."""


class _Unknown(Exception):
    """A kind of JPEG that is not looked into."""


def find_damage(data: bytes) -> Optional[str]:
    """
    Say what is wrong with a JPEG; None if every block of every scan is there.

    A missing end marker, and what follows it, do not matter. Arithmetic coding, 12 bits and
    lossless JPEG are not looked into: for them the end marker is asked for.
    """
    try:
        _check(data)
    except _Damage as damage:
        return str(damage)
    except _Unknown:
        return None if data.rfind(b'\xff\xd9') > data.rfind(b'\xff\xda') else 'its end is missing'
    except (IndexError, ValueError, KeyError):
        return 'its header is damaged'
    return None


def _check(data: bytes) -> None:
    """Walk through the markers of a JPEG and the codes of its scans."""
    frame: Optional[_Frame] = None
    tables = dict(_standard_tables())
    interval, place = 0, 2
    while place < len(data):
        place = data.find(b'\xff', place)
        while 0 <= place < len(data) and data[place] == 0xff:
            place += 1
        if place < 0 or place >= len(data) or data[place] == _EOI:
            break
        marker = data[place]
        if marker in _ALONE:
            continue
        length = int.from_bytes(data[place + 1:place + 3], 'big')
        body = data[place + 3:place + 1 + length]
        if marker in _OTHER_SOF:
            raise _Unknown
        place += 1 + length
        if marker in _SOF:
            frame = _read_frame(body, marker == 0xc2)
        elif marker == _DHT:
            tables.update(_read_tables(body))
        elif marker == _DRI:
            interval = int.from_bytes(body[:2], 'big')
        elif marker == _SOS:
            if frame is None:
                break
            places, codes = _marks(data[place:])
            ends = places[(codes < 0xd0) | (codes > 0xd7)]
            stop = place + int(ends[0]) if len(ends) else len(data)
            _check_scan(frame, body, data[place:stop], tables, interval)
            place = stop
    if frame is None or any(bits.any() for bits in frame.missing_bits.values()):
        raise _Damage('its end is missing')


def _read_frame(body: bytes, progressive: bool) -> _Frame:
    precision, height, width = body[0], *(int.from_bytes(body[i:i + 2], 'big') for i in (1, 3))
    if precision != 8 or not height:
        raise _Unknown
    sampling = {body[i]: (body[i + 1] >> 4, body[i + 1] & 15)
                for i in range(6, 6 + 3 * body[5], 3)}
    widest, tallest = (max(factors) for factors in zip(*sampling.values()))
    if not width or not all(1 <= factor <= 4 for pair in sampling.values() for factor in pair):
        raise _Damage('its header is damaged')
    components = {
        name: _Component(across, down, _parts(width * across, 8 * widest),
                         _parts(height * down, 8 * tallest))
        for name, (across, down) in sampling.items()}
    columns, rows = _parts(width, 8 * widest), _parts(height, 8 * tallest)
    if columns * rows > 2**22:      # beyond what OpenCV decodes
        raise _Damage('its header is damaged')
    return _Frame(progressive, columns, rows, components, {},
                  {name: np.full(64, -1, np.int64) for name in components})


def _parts(size: int, part: int) -> int:
    return -(-size // part)


def _check_scan(frame: _Frame, header: bytes, data: bytes, tables: dict[int, Table],
                interval: int) -> None:
    names = [header[1 + 2 * i] for i in range(header[0])]
    choice = [header[2 + 2 * i] for i in range(header[0])]
    first, last, approximation = header[1 + 2 * len(names):4 + 2 * len(names)]
    high, low = approximation >> 4, approximation & 15
    if not (first <= last < 64 and names) or (first and len(names) > 1) or (
            bool(last and not first) == frame.progressive and last):
        raise _Damage('its header is damaged')
    if len(names) == 1:
        part = frame.components[names[0]]
        blocks, units = [0], part.columns * part.rows
    else:
        parts = [frame.components[name] for name in names]
        blocks = [i for i, part in enumerate(parts) for _ in range(part.across * part.down)]
        units = frame.columns * frame.rows
    nonzero = np.zeros((0, 64), np.uint8)
    if frame.progressive and last:
        nonzero = frame.nonzero.setdefault(names[0], np.zeros((units, 64), np.uint8))
    dc = np.stack([tables.get(choice[i] >> 4, _EMPTY) for i in blocks])
    ac = np.stack([tables.get(16 + (choice[i] & 15), _EMPTY) for i in blocks])
    _check_intervals(
        _intervals(data, interval, units), min(interval or units, units), units, dc, ac,
        np.array([first, last, high], np.int64), nonzero)
    for name in names:
        frame.missing_bits[name][first:last + 1] = low


def _marks(data: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Places and codes of the markers in coded data, where a plain 0xff has a zero behind it."""
    array = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(array[:-1] == 0xff)
    codes = array[places + 1]
    real = (codes != 0) & (codes != 0xff)
    return places[real], codes[real]


def _intervals(data: bytes, interval: int, units: int) -> list[bytes]:
    """Return the bytes between restart markers, without the zeros that follow each 0xff."""
    places, marks = _marks(data) if interval else _marks(b'')
    wanted = _parts(units, interval) if interval else 1
    pieces = [data[start:end] for start, end in zip([0, *places + 2], [*places, len(data)])]
    texts = [piece.replace(b'\xff\x00', b'\xff') for piece in pieces]
    if len(texts) == wanted + 1 and not texts[-1]:      # a marker behind the last interval
        texts.pop()
    order = [0xd0 + number % 8 for number in range(len(marks))]
    if len(texts) < wanted:
        raise _Damage(f'{wanted - len(texts)} of {wanted} intervals are missing')
    if len(texts) > wanted or list(marks) != order:
        raise _Damage('its restart markers are out of order')
    return texts


def _check_intervals(texts: list[bytes], interval: int, units: int, dc: Table, ac: Table,
                     scan: npt.NDArray[np.int64], nonzero: npt.NDArray[np.uint8]) -> None:
    starts = np.cumsum([0, *map(len, texts)])
    data = np.frombuffer(b''.join(texts) + bytes(16), np.uint8)
    done, used, sound = _walk(data, starts, interval, units, dc, ac, scan, nonzero)
    if not sound:
        raise _Damage(f'data is missing or wrong: {done} of {units} parts can be read')
    for text, end in zip(texts, used):
        spare = text[end:]
        if len(spare) > SPARE and len(set(spare)) > 1:
            raise _Damage(f'{len(spare)} bytes are left over: data is missing before them')


def _read_tables(body: bytes) -> dict[int, Table]:
    """Huffman tables by their number: 0 to 3 for DC, 16 to 19 for AC."""
    tables = {}
    while body:
        counts = body[1:17]
        size = 17 + sum(counts)
        if len(body) < size or len(counts) < 16:
            raise _Damage('its header is damaged')
        tables[body[0]] = _table(counts, body[17:size])
        body = body[size:]
    return tables


@lru_cache(maxsize=32)
def _table(counts: bytes, symbols: bytes) -> Table:
    """
    Return a Huffman table as one row of numbers, for ``_find``.

    First, for every LOOK bits, 256 * length + symbol of the code that they start with (0: a longer
    one); then for each length the first number beyond its codes and what to add to a code for
    the place of its symbol; then the symbols.
    """
    look = 1 << LOOK
    table = np.zeros(look + 34 + 256, np.int32)
    code = place = 0
    for length, count in enumerate(counts, 1):
        table[look + 17 + length] = place - code
        for symbol in symbols[place:place + count]:
            if length <= LOOK:
                shift = LOOK - length
                table[code << shift:(code + 1) << shift] = 256 * length + symbol
            table[look + 34 + place] = symbol
            code, place = code + 1, place + 1
        if code > 1 << length:
            raise _Damage('its header is damaged')
        table[look + length] = code if count else 0
        code <<= 1
    return table


_EMPTY = np.zeros((1 << LOOK) + 34 + 256, np.int32)


@lru_cache(maxsize=1)
def _standard_tables() -> dict[int, Table]:
    """Tables of T.81's annex K, which Motion JPEG leaves out: OpenCV writes them."""
    data = cv2.imencode('.jpg', np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    tables: dict[int, Table] = {}
    place = data.find(b'\xff\xc4')
    while place >= 0:
        length = int.from_bytes(data[place + 2:place + 4], 'big')
        tables.update(_read_tables(data[place + 4:place + 2 + length]))
        place = data.find(b'\xff\xc4', place + 2 + length)
    return tables


@jit
def _window(data: npt.NDArray[np.uint8], bit: int) -> int:
    """Return the 16 bits from a bit on."""
    byte = bit >> 3
    bits = (np.int64(data[byte]) << 16) | (np.int64(data[byte + 1]) << 8) | data[byte + 2]
    return int(bits >> (8 - (bit & 7))) & 0xffff


@jit
def _find(data: npt.NDArray[np.uint8], bit: int, table: Table) -> int:
    """Return 256 * length + symbol of the code at a bit; 0 if there is none."""
    bits = _window(data, bit)
    entry = table[bits >> (16 - LOOK)]
    if entry:
        return int(entry)
    for length in range(LOOK + 1, 17):
        code = bits >> (16 - length)
        if code < table[(1 << LOOK) + length]:
            place = code + table[(1 << LOOK) + 17 + length]
            return int(256 * length + table[(1 << LOOK) + 34 + place])
    return 0


@jit
def _skip_dc(data: npt.NDArray[np.uint8], bit: int, table: Table, high: int) -> int:
    """Return the bit behind a block's first coefficient, or behind one more bit of it."""
    if high:
        return bit + 1
    entry = _find(data, bit, table)
    size = entry & 255
    return bit + (entry >> 8) + size if entry and size <= 16 else -1


@jit
def _skip_sequential(data: npt.NDArray[np.uint8], bit: int, end: int, table: Table) -> int:
    """Return the bit behind the 63 other coefficients of a block; -1 for a wrong code."""
    place = 1
    while place < 64 and bit <= end:
        entry = _find(data, bit, table)
        run, size = (entry >> 4) & 15, entry & 15
        if entry == 0 or (size == 0 and 0 < run < 15):
            return -1
        bit += (entry >> 8) + size
        if entry & 255 == 0:    # end of block
            return bit
        place += run + 1
    return bit if place <= 64 else -1


@jit
def _skip_first(data: npt.NDArray[np.uint8], bit: int, end: int, table: Table, first: int,
                last: int, nonzero: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Pass the first bits of coefficients first to last; also the blocks that end with it."""
    place = first
    while place <= last and bit <= end:
        entry = _find(data, bit, table)
        run, size = (entry >> 4) & 15, entry & 15
        if entry == 0:
            return -1, 0
        bit += entry >> 8
        if size == 0 and run < 15:
            return bit + run, (1 << run) - 1 + (_window(data, bit) >> (16 - run))
        bit += size
        place += run
        if size and place <= last:
            nonzero[place] = 1
        place += 1
    return (bit, 0) if place <= last + 1 else (-1, 0)


@jit
def _skip_more(data: npt.NDArray[np.uint8], bit: int, end: int, table: Table, first: int,
               last: int, nonzero: npt.NDArray[np.uint8], blocks: int) -> tuple[int, int]:
    """Pass one more bit of coefficients first to last; ``blocks`` end before any new one."""
    place = first
    while place <= last and bit <= end:
        run, size = 64, 0       # within a run of ended blocks: no new coefficient
        if not blocks:
            entry = _find(data, bit, table)
            if entry == 0 or entry & 15 > 1:
                return -1, 0
            bit += entry >> 8
            run, size = (entry >> 4) & 15, entry & 15
            if size == 0 and run < 15:
                blocks = (1 << run) + (_window(data, bit) >> (16 - run))
                bit += run
                run = 64
            bit += size
        while place <= last:    # a bit for each coefficient on the way over ``run`` zeros
            if nonzero[place]:
                bit += 1
            elif run == 0:
                break
            else:
                run -= 1
            place += 1
        if size and place <= last:
            nonzero[place] = 1
        place += 1
    return bit, max(blocks - 1, 0)


@jit
def _walk(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], interval: int, units: int,
          dc: Table, ac: Table, scan: npt.NDArray[np.int64],
          nonzero: npt.NDArray[np.uint8]) -> tuple[int, npt.NDArray[np.int64], bool]:
    """Return how many units were read, the bytes used of each interval, and if all was well."""
    first, last, high = scan
    used = np.zeros(len(starts) - 1, np.int64)
    done = 0
    for piece in range(len(used)):
        bit, end, ended = 8 * starts[piece], 8 * starts[piece + 1], 0
        for _ in range(min(interval, units - done)):
            for block in range(len(dc)):
                if first == 0:
                    bit = _skip_dc(data, bit, dc[block], high)
                    if last > 0 and 0 <= bit <= end:
                        bit = _skip_sequential(data, bit, end, ac[block])
                elif high:
                    bit, ended = _skip_more(data, bit, end, ac[block], first, last,
                                            nonzero[done], ended)
                elif ended:
                    ended -= 1
                else:
                    bit, ended = _skip_first(data, bit, end, ac[block], first, last,
                                             nonzero[done])
                if not 0 <= bit <= end:
                    return done, used, False
            done += 1
        used[piece] = (bit + 7) // 8 - starts[piece]
    return done, used, True
