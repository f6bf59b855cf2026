# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Engine files: name and header say what an engine was built from and for.

A file is MAGIC, the length of the header (uint32, little endian), the header as JSON, and the
engine. A file that does not fit is refused before TensorRT sees it.
"""
from contextlib import contextmanager
from dataclasses import asdict, dataclass
import fcntl
import hashlib
import json
import logging
import os
from pathlib import Path
import platform
import re
import struct
import time
from typing import Any, Callable, Iterator

from ros_vseg.errors import EngineError
from ros_vseg.files import remove_abandoned, write_whole

MAGIC = b'VSEGENG1'
SUFFIX = '.engine'
WAIT = 1800.0   # seconds for which another process may build the same engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineKey:
    """
    What an engine is built from and for; two engines of one key do the same.

    bundle: SHA-256 of the graph (another input size is another graph); module, version: the
    TensorRT that builds and runs it; capability: 'sm86'; precision: fp32, fp16, bf16 or int8;
    batch: images at once; machine: 'x86_64' or 'aarch64'; gpu: its model, where engines are for
    one alone (classic TensorRT).
    """

    bundle: str
    module: str
    version: str
    capability: str
    precision: str
    batch: int = 1
    machine: str = platform.machine()
    gpu: str = ''

    def file_name(self, name: str) -> str:
        """Return the file's name for a bundle called ``name``."""
        return file_name(name, self.bundle[:12], self.module, self.version, self.capability,
                         self.gpu, self.precision, f'b{self.batch}', self.machine + SUFFIX)


def file_name(*parts: str) -> str:
    """Return a file name: the parts that are not empty, with '_' for unusual characters."""
    return '-'.join(re.sub(r'[^A-Za-z0-9_.]+', '_', part) for part in parts if part)


def default_folder() -> Path:
    """Return the folder for engines where none is given: $XDG_CACHE_HOME/ros_vseg."""
    root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(root) / 'ros_vseg'


def write_engine(path: Path, key: EngineKey, engine: bytes, report: dict[str, Any]) -> None:
    """Write an engine with its header, whole or not at all; EngineError if it cannot."""
    header = {**asdict(key), **report, 'bytes': len(engine),
              'sha256': hashlib.sha256(engine).hexdigest()}
    text = json.dumps(header).encode()
    keep(path, b''.join((MAGIC, struct.pack('<I', len(text)), text, engine)))


def keep(path: Path, data: bytes) -> None:
    """Write a file of the cache, whole or not at all; EngineError if it cannot be written."""
    remove_abandoned(path.parent)   # engines are large
    try:
        write_whole(path, data)
    except OSError as error:
        raise EngineError(f'{path} cannot be written ({error.strerror}): free some space, or '
                          'choose another folder for engines') from error


def read_header(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return (header, engine bytes) of an engine file; EngineError if it is damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f'engine {path} cannot be read ({error.strerror})') from error
    start = len(MAGIC) + 4
    try:
        if data[:len(MAGIC)] != MAGIC:
            raise ValueError('it does not begin like an engine file of ros_vseg')
        length, = struct.unpack('<I', data[len(MAGIC):start])
        header = json.loads(data[start:start + length])
        expected, digest = header['bytes'], header['sha256']
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise EngineError(f'engine {path} is damaged: {error}') from error
    engine = data[start + length:]
    if len(engine) != expected:
        raise EngineError(f'engine {path} is truncated: {len(engine)} of {expected} bytes')
    if hashlib.sha256(engine).hexdigest() != digest:
        raise EngineError(f'engine {path} is damaged: its content is not what was written')
    return header, engine


def read_engine(path: Path, key: EngineKey) -> tuple[dict[str, Any], bytes]:
    """Return (header, engine bytes); EngineError names what the engine is not built for."""
    header, engine = read_header(path)
    for name, wanted in asdict(key).items():
        if header.get(name) != wanted:
            raise EngineError(f'engine {path} is for {name} {header.get(name)!r}, not {wanted!r}')
    return header, engine


def obtain(folder: Path, name: str, key: EngineKey,
           make: Callable[[], tuple[bytes, dict[str, Any]]] | None,
           ) -> tuple[Path, dict[str, Any], bytes]:
    """
    Return an engine, built if it must be; of several processes that ask at once, one builds.

    Args:
        folder: where engines lie.
        name: the bundle's, for the file's name.
        key: what the engine is to be built from and for.
        make: builds it and returns the engine and its report; None to refuse building.

    Returns:
        The path of the file, its header, and the engine itself.

    Raises:
        EngineError: it may not be built, or the build was refused.
    """
    path = Path(folder) / key.file_name(name)
    if make is None and not path.exists():
        raise EngineError(f'there is no engine {path}{_others(path, key)}: build it by '
                          '`vseg build`, or allow building')
    try:    # without the lock: a folder that is read-only will do
        return (path, *read_engine(path, key))
    except EngineError:
        if make is None:
            raise
    with _locked(path):
        if path.exists():
            try:
                return (path, *read_engine(path, key))  # by another process, meanwhile
            except EngineError as error:
                log.warning('%s: it is built again', error)
        start = time.monotonic()
        log.warning('building engine %s', path)
        engine, report = make()
        write_engine(path, key, engine, {**report, 'seconds': time.monotonic() - start})
        return (path, *read_engine(path, key))


def _others(path: Path, key: EngineKey) -> str:
    """Say which engines of the same bundle are there."""
    found = sorted(
        file.name for file in path.parent.glob(f'*-{key.bundle[:12]}-*{SUFFIX}'))
    return f' (of this bundle there is {", ".join(found)})' if found else ''


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file's lock: the operating system frees it if its process dies."""
    lock = path.with_name(f'.{path.name}.lock')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(lock, 'w')
    except OSError as error:
        raise EngineError(f'{path.parent} cannot be written ({error.strerror}): choose another '
                          'folder for engines') from error
    with handle:
        deadline = time.monotonic() + WAIT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EngineError(f'another process holds {lock} for {WAIT:.0f} s: end it, or '
                                      'choose another folder for engines') from None
                time.sleep(0.1)
        yield
