# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""vseg run --resume: an interrupted run that goes on writes what one run would have written."""
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle

from ros_vseg import backends
from ros_vseg.backends.onnxruntime import OnnxRuntimeStream
from ros_vseg.bundle import Bundle
from ros_vseg.commands import cli, journal
from ros_vseg.commands.journal import Journal, NAME, Replay
from ros_vseg.commands.run import run
from ros_vseg.errors import MediaError
from ros_vseg.media.frames import Frame
from ros_vseg.media.sources import open_source
from ros_vseg.media.writers import BagWriter, write_png
from ros_vseg.stream import Result, Stream

ALL = ['labels', 'color', 'overlay', 'bag']
FRAMES, SIZE, PERIOD = 40, (96, 128), 10**8
BAD = {6, 7, 24, 29, 33}    # without contrast: labelled unsurely, held back
CUT, GAP = 12, 16           # first frames of another scene, and after a pause


def image(number):
    """Return a smooth picture that moves with its number; bad ones are grey with noise."""
    rng = np.random.default_rng(number)
    if number in BAD:
        return rng.integers(126, 130, (*SIZE, 3)).astype(np.uint8)
    y, x = np.mgrid[:SIZE[0], :SIZE[1]] / (9 if number >= CUT else 20)
    phase = number % 6
    planes = [np.sin(x + 0.1 * phase + c) * np.cos(y - 0.05 * phase * c) for c in range(3)]
    return (127 + 120 * np.stack(planes, -1)).astype(np.uint8)


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp('drive') / 'drive'
    with BagWriter(path) as writer:
        for number in range(FRAMES):
            stamp = number * PERIOD + (5 * 10**9 if number >= GAP else 0) + PERIOD
            writer.image('/front/image', image(number), 'rgb8', stamp, 'front')
    return path


@pytest.fixture(scope='module')
def confident(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('confident') / 'confident.onnx', SIZE,
                             has_confidence=True)


@pytest.fixture(scope='module')
def label(confident, drive):
    """Return a function that runs with a new stream: (Report, Stream)."""
    backend = backends.load(Bundle.load(confident), 'onnxruntime', threads=1)

    def call(output, **changes):
        stream = Stream(backend)
        return run(open_source(drive), stream, output, ALL, progress=False, **changes), stream
    return call


def written(folder):
    """Return the bytes of every file of a run, but for bags: these hold times of writing."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(Path(folder).rglob('*'))
            if path.is_file() and 'bag' not in path.parts}


def bag_of(folder):
    return [(frame.stamp, frame.image.tobytes())
            for frame in open_source(folder / 'bag', 'overlay')]


@pytest.fixture(scope='module')
def whole(label, tmp_path_factory):
    output = tmp_path_factory.mktemp('whole') / 'out'
    report, stream = label(output)
    assert stream.held_back >= 3 and stream.resets['gap'] == 1     # or the tests show little
    return output, report, stream


@pytest.mark.parametrize('stop', [1, 3, 7, 8, 12, 13, 16, 17, 22, 30, 34, FRAMES])
def test_a_resumed_run_is_one_run_to_the_bit(label, whole, tmp_path, stop):
    output, _, stream = whole
    out = tmp_path / 'out'
    label(out, limit=stop)
    report, resumed = label(out, resume=True)
    assert (report.kept, report.frames) == (stop, FRAMES - stop)
    assert written(out) == written(output) and bag_of(out) == bag_of(output)
    assert (resumed.resets, resumed.held_back) == (stream.resets, stream.held_back)


def test_the_network_sees_only_the_frames_of_the_pool_again(
        label, confident, tmp_path, monkeypatch):
    label(tmp_path / 'out', limit=34)
    seen, step = [], OnnxRuntimeStream.step
    monkeypatch.setattr(OnnxRuntimeStream, 'step',
                        lambda self, image: (seen.append(1), step(self, image))[1])
    label(tmp_path / 'out', resume=True)
    warm_up = 1
    assert len(seen) == warm_up + Bundle.load(confident).info.pool_frames + FRAMES - 34


def test_the_gap_begins_at_the_first_frame_that_is_not_whole(label, whole, tmp_path):
    for number, spoil in enumerate((lambda out, names: (out / 'color' / names[20]).unlink(),
                                    lambda out, names: (out / 'labels' / names[20]).unlink(),
                                    _cut_journal)):
        out = tmp_path / str(number)
        label(out, limit=30)
        spoil(out, sorted(os.listdir(out / 'labels'), key=lambda name: int(name[:-4])))
        report, _ = label(out, resume=True)
        assert report.kept == 20
        assert written(out) == written(whole[0])


def _cut_journal(out, names):
    path = out / journal.NAME
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(''.join(lines[:21]) + lines[21][:30])


def test_a_run_that_has_not_begun_or_not_been_interrupted(label, whole, tmp_path):
    out = tmp_path / 'out'
    assert label(out, resume=True)[0].kept == 0
    assert written(out) == written(whole[0])
    (out / 'overlay.mp4').unlink()
    assert label(out, resume=True)[0].frames == 0
    assert written(out) == written(whole[0])
    (out / journal.NAME).write_text('')     # killed before its first line was on the disk
    for path in (out / 'labels').iterdir():
        path.unlink()
    assert label(out, resume=True)[0].kept == 0
    assert written(out) == written(whole[0])


def test_a_killed_process_is_resumed(confident, tmp_path):
    frames = tmp_path / 'frames'
    frames.mkdir()
    for number in range(400):
        cv2.imwrite(str(frames / f'{number}.png'), image(number % FRAMES))
    command = [sys.executable, '-m', 'ros_vseg.commands.cli', 'run', frames, '--bundle', confident,
               '--backend', 'onnxruntime', '--threads', '1', '--save', 'labels', 'overlay', '-o']
    assert subprocess.run([*command, tmp_path / 'whole'], check=False).returncode == 0
    out = tmp_path / 'out'
    with subprocess.Popen([*command, out]) as process:
        while len(list(out.glob('labels/*.png'))) < 5:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    done = subprocess.run([*command, out, '--resume', '--json'], capture_output=True, text=True,
                          check=False)
    tree = json.loads(done.stdout)
    assert 4 <= tree['kept'] < 400 and tree['kept'] + tree['frames'] == 400
    found = {name: data for name, data in written(out).items() if not Path(name).name[0] == '.'}
    assert found == written(tmp_path / 'whole')


@pytest.mark.parametrize('option, value, named', [
    ('--max-gap', 2.0, 'max_gap: 1.0, now 2.0'), ('--size', '48x64', 'size: null, now 48x64'),
    ('--save', 'labels', 'save: ["labels", "overlay"], now ["labels"]'),
    ('--bundle', 'other', 'bundle: '), ('input', 'other', 'input: drive, now other')])
def test_other_options_are_refused(drive, confident, tmp_path, capsys, option, value, named):
    other = write_tiny_bundle(tmp_path / 'other.onnx', SIZE, seed=1)
    with BagWriter(tmp_path / 'other') as writer:
        writer.image('image', image(0), 'rgb8', PERIOD)

    def vseg(source, *more):
        options = ('--backend', 'onnxruntime', '--bundle', confident, '-o', tmp_path / 'out')
        return cli.main([str(part) for part in ('run', source, *options, *more)])
    assert vseg(drive, '--limit', 3) == 0
    before = written(tmp_path / 'out')
    capsys.readouterr()
    changes = () if option == 'input' else (option, other if value == 'other' else value)
    assert vseg(tmp_path / 'other' if option == 'input' else drive, '--resume', *changes) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and named in error and '--clear' in error
    assert written(tmp_path / 'out') == before


def test_what_cannot_be_resumed_is_refused(drive, confident, label, tmp_path, capsys):
    out = tmp_path / 'out'
    for arguments, reason in (
            (('-o', out, '--stabilize'), 'leave --resume or --stabilize out'),
            (('-o', out, '--save', 'bag'), 'labels to --save'),
            (('-o', tmp_path / 'a.mcap'), 'give a folder')):
        arguments = ('run', drive, '--bundle', confident, '--resume', *arguments)
        assert cli.main([str(part) for part in arguments]) == 2
        error = capsys.readouterr().err
        assert reason in error and error.count('\n') == 1
    label(out, limit=3)
    before = written(out)
    with pytest.raises(MediaError, match='has 3 labelled frames, which --limit 2 would cut: '
                       'give 3 or more'):
        label(out, resume=True, limit=2)
    assert written(out) == before
    assert label(out, resume=True, limit=3)[0].kept == 3
    (out / journal.NAME).unlink()
    with pytest.raises(MediaError, match='of an earlier run'):
        label(out, resume=True)


def test_an_input_that_has_changed_is_refused(confident, tmp_path):
    frames, out = tmp_path / 'frames', tmp_path / 'out'
    frames.mkdir()
    for number in range(6):
        cv2.imwrite(str(frames / f'{number}.png'), image(number))
    backend = backends.load(Bundle.load(confident), 'onnxruntime', threads=1)

    def resume():
        run(open_source(frames), Stream(backend), out, ['labels'], resume=True)
    resume()
    cv2.imwrite(str(frames / '2.png'), image(30))
    with pytest.raises(MediaError, match='frame 2 of the input, 2, is not the one'):
        resume()
    changed = image(2)
    changed[SIZE[0] // 2 + 1, 5] ^= 1     # one pixel of one row
    cv2.imwrite(str(frames / '2.png'), changed)
    with pytest.raises(MediaError, match='frame 2 of the input, 2, is not the one'):
        resume()
    cv2.imwrite(str(frames / '2.png'), image(2))
    (frames / '5.png').unlink()
    with pytest.raises(MediaError, match='has 5 frames now, 6 of it were labelled'):
        resume()
    cv2.imwrite(str(frames / '5.png'), image(5))
    (out / 'labels/3.png').write_bytes(b'no picture')
    with pytest.raises(MediaError, match='3.png is damaged: remove it'):
        resume()
    (out / 'labels/3.png').unlink()
    resume()


class NotConfident:
    """A stream that has a pool and admits by numbers."""

    info = SimpleNamespace(pool_frames=1)

    def follow(self, image, stamp, frame_id, past):
        """See Stream."""
        self.past = past
        return past.mean_confidence is None


def test_a_confidence_that_is_no_number_is_null_and_comes_back(tmp_path):
    """No NaN is in JSON, and None would be admitted."""
    picture = np.zeros((8, 8, 3), np.uint8)
    journal = Journal(tmp_path, {'a': float('nan')})
    with journal:
        journal.start()
        journal.add(Frame(picture, 5, '', '0'), Result(
            picture[..., 0], None, 0, None, {}, False, True, None, mean_confidence=np.nan))
    lines = (tmp_path / NAME).read_text().splitlines()
    assert json.loads(lines[1], parse_constant=pytest.fail)[3:] == [None, False]
    assert json.loads(lines[0], parse_constant=pytest.fail) == {'options': {'a': None}}
    write_png(tmp_path / 'labels/0.png', picture[..., 0])
    again, stream = Journal(tmp_path, {'a': float('nan')}), NotConfident()
    again.read(['labels'])
    Replay(tmp_path, again.entries, stream).labels(0, Frame(picture, 5, '', '0'))
    assert np.isnan(stream.past.mean_confidence)
