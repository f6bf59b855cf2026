# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Tab completion, asked for as the shell function of register-python-argcomplete does."""
import os
import subprocess
import sys

import pytest

from ros_vseg.commands import cli


def complete(line, tmp_path, **environment):
    """Return (exit code, what the shell would offer) at the end of a command line."""
    answer = tmp_path / 'answer'
    done = subprocess.run(
        [sys.executable, '-m', 'ros_vseg.commands.cli'], capture_output=True, timeout=120,
        check=False, env={
            **os.environ, '_ARGCOMPLETE': '1', '_ARGCOMPLETE_IFS': '\n', 'COMP_LINE': line,
            'COMP_POINT': str(len(line)), 'COMP_TYPE': '9', '_ARGCOMPLETE_SUPPRESS_SPACE': '1',
            '_ARGCOMPLETE_STDOUT_FILENAME': str(answer), **environment})
    assert not done.stdout and not done.stderr
    return done.returncode, answer.read_text().split('\n') if answer.exists() else []


@pytest.mark.parametrize('line, offered', [
    ('vseg ', {'run', 'info', 'build', 'compare', 'wrap', 'doctor', 'bench'}),
    ('vseg do', {'doctor'}), ('vseg run --re', {'--rerun', '--resume'}),
    ('vseg run a.mcap --save la', {'labels'}),
    ('vseg run a.mcap --backend on', {'onnxruntime', 'onnxruntime_cuda', 'onnxruntime_tensorrt'}),
    ('vseg run a.mcap --precision fp', {'fp16', 'fp32'}), ('vseg compare ope', {'openvino'}),
    ('vseg bench mem', {'memory'})])
def test_names_are_completed(line, offered, tmp_path):
    pytest.importorskip('argcomplete', reason='argcomplete (extra completion) is not installed')
    code, found = complete(line, tmp_path)
    assert code == 0
    assert {entry.strip() for entry in found} - {'-h', '--help', '--version'} == offered


def test_files_are_completed(tmp_path, monkeypatch):
    pytest.importorskip('argcomplete', reason='argcomplete (extra completion) is not installed')
    (tmp_path / 'drive.mcap').touch()
    (tmp_path / 'notes.txt').touch()
    _, found = complete(f'vseg run {tmp_path}/dr', tmp_path)
    assert [entry.strip() for entry in found] == [f'{tmp_path}/drive.mcap']


def test_without_argcomplete_nothing_is_printed(tmp_path):
    (tmp_path / 'argcomplete.py').write_text('raise ImportError')
    path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    assert complete('vseg ', tmp_path, PYTHONPATH=path) == (1, [])


def test_the_module_is_marked_for_global_completion():
    with open(cli.__file__, encoding='utf-8') as file:
        assert 'PYTHON_ARGCOMPLETE_OK' in file.read(1024)
