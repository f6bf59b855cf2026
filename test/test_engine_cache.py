# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Engine files are whole, for this very machine, and built once: no TensorRT is needed for it."""
from dataclasses import asdict, replace
import errno
import fcntl
import logging
import os
from pathlib import Path
import platform
import struct
import subprocess
import sys
import time

import pytest

from ros_vseg.engines import cache
from ros_vseg.engines.cache import EngineKey, MAGIC, obtain, read_engine, write_engine
from ros_vseg.errors import EngineError

KEY = EngineKey(
    'a' * 40 + 'b' * 24, 'tensorrt_rtx', '1.7.1', 'sm86', 'fp16', 1, 'x86_64', 'RTX 3080')
OTHER = {'bundle': 'a' * 64, 'module': 'tensorrt', 'version': '1.7.2', 'capability': 'sm89',
         'precision': 'int8', 'batch': 2, 'machine': 'aarch64', 'gpu': 'RTX 3060'}
ENGINE = bytes(range(256)) * 2
REPORT = {'inputs': {'image': ['UINT8', [1, 8, 8, 3]]}, 'layers': {'HALF CONVOLUTION': 59}}


@pytest.fixture
def path(tmp_path):
    """Return the path of an engine of KEY that is there."""
    path = tmp_path / KEY.file_name('tiny')
    write_engine(path, KEY, ENGINE, REPORT)
    return path


def make():
    return ENGINE, REPORT


def no_make():
    raise AssertionError('it is built though it is there')


def test_file_name_carries_the_key():
    assert KEY.file_name('my student/2') == (
        'my_student_2-aaaaaaaaaaaa-tensorrt_rtx-1.7.1-sm86-RTX_3080-fp16-b1-x86_64.engine')
    assert EngineKey(*'abcde', 2, 'arm').file_name('tiny') == 'tiny-a-b-c-d-e-b2-arm.engine'
    assert list(OTHER) == list(asdict(KEY))     # the tests below leave no field out


@pytest.mark.parametrize('field', [each for each in OTHER if each != 'bundle'])
def test_file_names_of_two_keys_differ(field):
    assert replace(KEY, **{field: OTHER[field]}).file_name('tiny') != KEY.file_name('tiny')


def test_machine_of_a_key_is_this_one():
    assert EngineKey(*'abcde').machine == platform.machine()


def test_folder_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert cache.default_folder() == tmp_path / 'ros_vseg'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert cache.default_folder() == Path.home() / '.cache/ros_vseg'


def test_round_trip(tmp_path):
    folder = tmp_path / 'new' / 'folder'
    path, header, engine = obtain(folder, 'tiny', KEY, make)
    assert path == folder / KEY.file_name('tiny') and engine == ENGINE
    assert header['seconds'] >= 0 and header['bytes'] == 512
    assert {**header, **REPORT, **asdict(KEY)} == header
    assert obtain(folder, 'tiny', KEY, no_make) == (path, header, ENGINE)
    assert obtain(folder, 'tiny', KEY, None) == (path, header, ENGINE)
    assert cache.read_header(path) == (header, ENGINE)


@pytest.mark.parametrize('field', OTHER)
def test_engine_of_another_key_is_not_given_out(path, field):
    """Of another bundle, too, whose hash begins alike."""
    other = replace(KEY, **{field: OTHER[field]})
    renamed = path.rename(path.with_name(other.file_name('tiny')))
    for refuse in (lambda: read_engine(renamed, other),
                   lambda: obtain(path.parent, 'tiny', other, None)):
        with pytest.raises(EngineError) as error:
            refuse()
        assert str(error.value) == (
            f'engine {renamed} is for {field} {getattr(KEY, field)!r}, not {OTHER[field]!r}')


def test_engine_of_an_older_header_is_not_given_out(path):
    """One that lacks a field of the key."""
    path.write_bytes(path.read_bytes().replace(b'"batch"', b'"butch"'))
    with pytest.raises(EngineError, match='is for batch None, not 1'):
        read_engine(path, KEY)


DAMAGE = {
    'is truncated: 511 of 512': lambda data: data[:-1],
    'is truncated: 0 of 512': lambda data: data[:-512],
    'is truncated: 513 of 512': lambda data: data + b'\0',
    'content is not what was written': lambda data: data[:-100] + b'?' + data[-99:],
    'is damaged: it does not begin like': lambda data: b'',
    'does not begin like an engine file': lambda data: b'ftrt' + data,
    'like an engine file of ros_vseg': lambda data: MAGIC[:-1],
    'is damaged: unpack requires': lambda data: data[:10],
    'is damaged: Expecting value': lambda data: data[:12],
    'is damaged: Unterminated': lambda data: data[:18],
    'is damaged: .*decode byte': lambda data: MAGIC + struct.pack('<I', 2**32 - 1) + data[12:],
    'is damaged: Extra data': lambda data: MAGIC + struct.pack('<I', 4) + b'{}{}',
    "is damaged: 'bytes'": lambda data: MAGIC + struct.pack('<I', 2) + b'{}',
    'is damaged: list indices': lambda data: MAGIC + struct.pack('<I', 2) + b'[]',
    'is damaged: .*not subscriptable': lambda data: MAGIC + struct.pack('<I', 1) + b'1',
}


@pytest.mark.parametrize('reason', DAMAGE)
def test_damaged_engine_is_refused_or_built_anew(path, reason, caplog):
    path.write_bytes(DAMAGE[reason](path.read_bytes()))
    with pytest.raises(EngineError, match=reason) as error:
        obtain(path.parent, 'tiny', KEY, None)
    assert str(path) in str(error.value)
    with caplog.at_level(logging.WARNING, cache.__name__):
        assert obtain(path.parent, 'tiny', KEY, make)[2] == ENGINE
    assert [record.message for record in caplog.records] == [
        f'{error.value}: it is built again', f'building engine {path}']
    assert obtain(path.parent, 'tiny', KEY, no_make)[2] == ENGINE


def test_no_byte_can_change_what_is_given_out(path):
    """Neither the engine nor what it is for."""
    data, refused = path.read_bytes(), 0
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1:])
        try:
            header, engine = read_engine(path, KEY)
        except EngineError:
            refused += 1
            continue
        assert engine == ENGINE and {**header, **asdict(KEY)} == header
    assert refused > len(ENGINE) + len(MAGIC) + 4


def test_engine_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(EngineError, match='nowhere.* cannot be read .No such file'):
        cache.read_header(tmp_path / 'nowhere')


def test_engine_that_may_not_be_built_is_refused(path):
    """The message has the fix, and which engines of the same bundle exist."""
    foreign = path.with_name(replace(KEY, bundle='c' * 64).file_name('tiny'))
    write_engine(foreign, KEY, ENGINE, {})
    with pytest.raises(EngineError, match='there is no engine .*sm89.*`vseg build`') as error:
        obtain(path.parent, 'tiny', replace(KEY, capability='sm89'), None)
    assert f'(of this bundle there is {path.name})' in str(error.value)
    empty = path.parent / 'empty'
    with pytest.raises(EngineError) as error:
        obtain(empty, 'tiny', KEY, None)
    assert 'of this bundle' not in str(error.value) and not empty.exists()


def test_build_that_fails_leaves_no_engine(tmp_path):
    def fail():
        raise EngineError('TensorRT refuses it')
    with pytest.raises(EngineError, match='^TensorRT refuses it$'):
        obtain(tmp_path, 'tiny', KEY, fail)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != '.lock'] == []
    assert obtain(tmp_path, 'tiny', KEY, make)[2] == ENGINE


@pytest.mark.parametrize('below', ['', 'deeper'])
def test_folder_that_cannot_be_written_is_an_error(tmp_path, below):
    folder = tmp_path / 'file'
    folder.write_text('in the way')
    with pytest.raises(EngineError, match='cannot be written .*choose another folder'):
        obtain(folder / below, 'tiny', KEY, make)
    with pytest.raises(EngineError, match='cannot be written .*free some space'):
        write_engine(folder / below / 'x.engine', KEY, ENGINE, {})
    with pytest.raises(EngineError, match='there is no engine'):
        obtain(folder / below, 'tiny', KEY, None)


def test_write_that_fails_half_way_leaves_the_old_engine(path, monkeypatch):
    def half(self, data, write=Path.write_bytes):
        write(self, data[:len(data) // 2])
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(Path, 'write_bytes', half)
    with pytest.raises(EngineError, match='No space left on device.: free some space'):
        write_engine(path, KEY, b'new', {})
    assert list(path.parent.iterdir()) == [path]
    assert read_engine(path, KEY)[1] == ENGINE


CHILD = """
from pathlib import Path
import sys, time
from ros_vseg.engines.cache import EngineKey, obtain

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])

def make():
    with open(folder / 'log', 'a') as log:
        log.write('built\\n')
    print('building', flush=True)
    time.sleep(seconds)
    return b'engine', {}

print('ready', flush=True)
sys.stdin.readline()
obtain(folder, 'tiny', EngineKey(*'abcde'), make)
print('done', flush=True)
"""


def child(folder, seconds):
    """Start a process that asks for an engine as soon as it is told to; return it, ready."""
    process = subprocess.Popen(
        [sys.executable, '-c', CHILD, str(folder), str(seconds)], text=True,
        cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == 'ready\n'
    return process


def test_processes_that_ask_at_once_build_once(tmp_path):
    children = [child(tmp_path, 0.5) for _ in range(2)]
    for each in children:
        each.stdin.write('go\n')
        each.stdin.flush()
    said = sorted(each.communicate(timeout=60)[0] for each in children)
    assert said == ['building\ndone\n', 'done\n']
    assert [each.returncode for each in children] == [0, 0]
    assert (tmp_path / 'log').read_text() == 'built\n'


def test_builder_that_is_killed_does_not_block_the_next(tmp_path):
    killed = child(tmp_path, 600)
    killed.stdin.write('go\n')
    killed.stdin.flush()
    assert killed.stdout.readline() == 'building\n'
    killed.kill()
    killed.communicate(timeout=60)
    start = time.monotonic()
    assert obtain(tmp_path, 'tiny', EngineKey(*'abcde'), make)[2] == ENGINE
    assert time.monotonic() - start < 60    # not cache.WAIT


def test_builder_that_hangs_is_named_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, 'WAIT', 0.2)
    lock = tmp_path / f'.{KEY.file_name("tiny")}.lock'
    with open(lock, 'w') as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(EngineError, match='another process holds .*lock for 0 s: end it'):
            obtain(tmp_path, 'tiny', KEY, make)
    assert obtain(tmp_path, 'tiny', KEY, make)[2] == ENGINE


def test_what_a_killed_process_left_is_removed(path):
    """Engines are large; the file of a process that lives stays."""
    gone = subprocess.Popen([sys.executable, '-c', ''])
    gone.wait()
    left, own = (path.with_name(f'.{number}.other.engine') for number in (gone.pid, os.getpid()))
    for each in (left, own):
        each.write_bytes(ENGINE)
        os.utime(each, (0, 0))
    write_engine(path, KEY, ENGINE, REPORT)
    assert not left.exists() and own.exists()
