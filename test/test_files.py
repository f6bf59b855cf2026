# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Files are replaced whole; what is no file is left as it is, with one line for the user."""
import os
import socket
import stat

import pytest
from tiny_bundle import build_model, info

from ros_vseg.bundle import write_bundle
from ros_vseg.engines.cache import keep
from ros_vseg.errors import BundleError, EngineError
from ros_vseg.files import write_whole


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_link(path):
    path.symlink_to('/dev/full')


@pytest.mark.parametrize('make', [make_pipe, make_socket, make_link])
def test_what_is_no_file_is_never_replaced(tmp_path, make, monkeypatch):
    monkeypatch.chdir(tmp_path)     # names of sockets are short
    path = tmp_path / 'out'
    make(path.relative_to(tmp_path) if make is make_socket else path)
    before = os.lstat(path)
    model = build_model(info())
    for write, error in ((lambda: write_whole(path, b'x'), OSError),
                         (lambda: keep(path, b'x'), EngineError),
                         (lambda: write_bundle(model, info(), path), BundleError)):
        with pytest.raises(error, match='it exists and is no regular file'):
            write()
    after = os.lstat(path)
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert os.listdir(tmp_path) == ['out'] and not stat.S_ISREG(after.st_mode)


def test_files_and_links_to_them_are_written(tmp_path):
    (tmp_path / 'a').write_bytes(b'old')
    (tmp_path / 'b').symlink_to(tmp_path / 'gone')
    for name in ('a', 'b', 'deep/c'):
        write_whole(tmp_path / name, b'new')
        assert (tmp_path / name).read_bytes() == b'new'
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / 'deep', b'new')
    assert sorted(os.listdir(tmp_path)) == ['a', 'b', 'deep']
