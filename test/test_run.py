# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""vseg run in this process: what it refuses, clears, reports, and what a failing output costs."""
import json
import os
from pathlib import Path
import signal
import subprocess
import sys

from bags import (
    CAMERA_CHANNEL, exact, image_message, PERIOD, picture, png, write_drive, write_mcap)
import cv2
import pytest

from ros_vseg import backends
from ros_vseg.bundle import Bundle
from ros_vseg.commands import cli
from ros_vseg.commands.run import NothingLabelledError, run
from ros_vseg.errors import MediaError
from ros_vseg.media import writers
from ros_vseg.media.sources import open_source
from ros_vseg.stream import Stream

ALL = ['labels', 'color', 'overlay', 'bag']


@pytest.fixture
def stream(bundle):
    return Stream(backends.load(Bundle.load(bundle), 'onnxruntime', threads=1))


@pytest.fixture
def vseg(bundle, capsys):
    """Return a function that runs the command here: (exit code, stdout, stderr)."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]

    def call(*arguments):
        options = ('--bundle', bundle, '--backend', 'onnxruntime', '--threads', 1)
        code = cli.main([str(argument) for argument in ('run', *arguments, *options)])
        return code, *capsys.readouterr()
    yield call
    for number, handler in before:
        signal.signal(number, handler)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob('*')
                  if path.is_file())


def test_earlier_results_are_refused_or_cleared(vseg, tmp_path):
    four, two = write_drive(tmp_path / 'four'), write_drive(tmp_path / 'two', 2)
    out = tmp_path / 'out'
    assert vseg(four, '-o', out, '--save', *ALL)[0] == 0
    before = files(out)
    code, _, error = vseg(two, '-o', out)
    assert code == 2 and '--clear' in error and error.count('\n') == 1
    assert 'has labels, color, overlay.mp4, bag, run.jsonl of an earlier run' in error
    assert files(out) == before
    (out / 'notes.txt').write_text('dear')
    assert vseg(two, '-o', out, '--clear')[0] == 0
    assert files(out) == ['labels/1000000000.png', 'labels/1100000000.png', 'notes.txt',
                          'overlay.mp4', 'run.jsonl']


def test_clearing_spares_what_no_run_has_written(vseg, tmp_path):
    drive, out = write_drive(tmp_path / 'drive'), tmp_path / 'out'
    (out / 'labels').mkdir(parents=True)
    (out / 'labels/classes.txt').write_text('dear')
    code, _, error = vseg(drive, '-o', out, '--clear')
    assert code == 2 and 'no run.jsonl' in error
    (out / 'run.jsonl').write_text('')
    code, _, error = vseg(drive, '-o', out, '--clear')
    assert code == 2 and 'files that are not of an earlier run' in error
    assert files(out) == ['labels/classes.txt', 'run.jsonl']


def test_two_files_of_one_stem_give_two_labels(vseg, tmp_path):
    for name in ('a.jpg', 'a.png'):
        cv2.imwrite(str(tmp_path / name), picture(3))
    code, text, _ = vseg(tmp_path, '-o', tmp_path / 'out', '--save', 'labels')
    assert code == 0 and 'frames labelled  2' in text
    assert files(tmp_path / 'out') == ['labels/a.jpg.png', 'labels/a.png.png', 'run.jsonl']


def test_nothing_labelled_is_a_failure_with_its_causes(vseg, tmp_path):
    (tmp_path / 'a.png').write_text('no image')
    (tmp_path / 'b.png').write_text('no image')
    code, text, error = vseg(tmp_path, '-o', tmp_path / 'out', '--save', *ALL)
    assert code == 1 and not text
    assert 'nothing was labelled' in error and 'left out: 2 decode' in error
    assert not files(tmp_path / 'out')


def test_a_video_that_fails_leaves_labels_and_bag(stream, vseg, tmp_path, monkeypatch):
    """As on a machine whose OpenCV cannot encode."""
    class Mute:
        def __init__(self, *_):
            pass

        def isOpened(self):  # noqa: N802
            return False

        def release(self):
            pass

        fourcc = staticmethod(lambda *_: 0)

    monkeypatch.setattr(writers.cv2, 'VideoWriter', Mute)
    code, text, error = vseg(write_drive(tmp_path / 'drive'), '-o', tmp_path / 'out', '--save',
                             *ALL)
    assert code == 1 and 'frames labelled  4' in text
    assert 'overlay.mp4 cannot be written (OpenCV does not encode MPEG-4 of 32x24' in error
    assert len(list(open_source(tmp_path / 'out/bag', 'label'))) == 4
    assert len(files(tmp_path / 'out/labels')) == 4 and not list(tmp_path.glob('out/*.mp4'))


def test_a_bag_that_fails_leaves_no_video(stream, tmp_path, monkeypatch):
    def fail(self):
        raise MediaError('full')
    monkeypatch.setattr(writers.BagWriter, 'close', fail)
    with pytest.raises(MediaError, match='full'):
        run(open_source(write_drive(tmp_path / 'drive', 2)), stream, tmp_path / 'out', ALL)


def test_json_limit_fps_and_quiet(vseg, tmp_path):
    for number in range(12):
        cv2.imwrite(str(tmp_path / f'{number}.png'), picture(number))
    code, text, _ = vseg(tmp_path, '-o', tmp_path / 'a', '--json', '--limit', 11, '--fps', 30,
                         '--save', 'bag')
    tree = json.loads(text)
    assert code == 0 and tree['frames'] == 11 and tree['left_out'] == {} == tree['resets']
    assert tree['problems'] == [] and tree['stages_ms']['network'] > 0
    stamps = [frame.stamp for frame in open_source(tmp_path / 'a/bag', 'label')]
    assert stamps == [round(number * 1e9 / 30) for number in range(11)]
    assert vseg(tmp_path, '-o', tmp_path / 'b', '--quiet') == (0, '', '')
    for option in (('--limit', 0), ('--fps', 0), ('--fps', 'nan')):
        code, _, error = vseg(tmp_path, '-o', tmp_path / 'c', *option)
        assert code == 2 and error.count('\n') == 1


def test_unfinished_mixed_and_damaged_bag(vseg, tmp_path):
    rows = [(1, 10**9 + i * PERIOD, image_message(i, -10**9 + i)) for i in range(6)]
    rows[2] = (1, rows[2][1], rows[2][2][:900])
    rows.append((2, 600 * 10**9, b'{}'))
    other = ('/status', 'Status', 'jsonschema', b'{}', 'json')
    path = write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL, other], rows, ending=False)
    code, text, _ = vseg(path, '-o', tmp_path / 'out', '--save', *ALL)
    assert code == 0 and 'frames labelled  5' in text and 'left out         1 message' in text
    assert 8 < open_source(tmp_path / 'out/overlay.mp4').fps < 12


def test_impossible_outputs_are_one_line(vseg, tmp_path):
    drive = write_drive(tmp_path / 'drive')
    (tmp_path / 'file').write_text('')
    for output in ('a\0b', tmp_path / 'file', tmp_path / 'file/out', tmp_path / ('x' * 300)):
        code, _, error = vseg(drive, '-o', output)
        assert code == 2 and 'cannot be written' in error and error.count('\n') == 1


@pytest.mark.parametrize('name', ['out.MCAP', 'out.db3', 'out.bag', 'out.mp4'])
def test_a_folder_is_not_called_as_a_file(vseg, tmp_path, name):
    drive = write_drive(tmp_path / 'drive', 2)
    code, _, error = vseg(drive, '-o', tmp_path / name)
    assert code == 2 and 'would be a folder: give NAME.mcap to write a bag' in error
    assert error.count('\n') == 1 and not (tmp_path / name).exists()
    (tmp_path / name).mkdir()   # it is wanted
    assert vseg(drive, '-o', tmp_path / name)[0] == 0


def test_an_output_without_a_name_is_refused(vseg, tmp_path, capsys):
    with pytest.raises(SystemExit):
        vseg(write_drive(tmp_path / 'drive', 2), '-o', '')
    assert 'it is empty: give a path' in capsys.readouterr().err


def test_exact_labels_that_cannot_be_compared_are_told(vseg, tmp_path):
    with writers.BagWriter(tmp_path / 'drive') as writer:
        for number in range(12):
            stamp = 10**9 + number * PERIOD
            writer.image('/camera/image', picture(number), 'rgb8', stamp, 'camera')
            later = stamp + (7 if number in (3, 4) else 0)
            labels = exact(number % 3)
            writer.image('/camera/label', labels[::2] if number == 5 else labels, 'mono8', later,
                         'camera')
    code, text, error = vseg(tmp_path / 'drive', '-o', tmp_path / 'out', '--json')
    assert code == 1 and json.loads(text)['problems'] == [
        '1 exact labels are of another size than their images, and were not compared',
        '2 exact labels have the stamp of no image, and were not compared']
    assert error.count('vseg: error: ') == 2
    assert json.loads(text)['frames'] == 12 and 'miou' in json.loads(text)


def test_names_as_long_as_a_file_may_have(vseg, tmp_path):
    frames = tmp_path / 'frames'
    frames.mkdir()
    names = ['a' * 251, 'é' * 120, 'b']
    for name in names:
        (frames / f'{name}.png').write_bytes(png(picture(0)))
    assert vseg(frames, '-o', tmp_path / 'out', '--save', 'labels')[0] == 0
    assert files(tmp_path / 'out/labels') == sorted(f'{name}.png' for name in names)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_half_written(bundle, tmp_path, number):
    drive, out = write_drive(tmp_path / 'drive', 2000), tmp_path / 'out'
    with subprocess.Popen(
            [sys.executable, '-m', 'ros_vseg.commands.cli', 'run', drive, '-o', out, '--bundle',
             bundle, '--backend', 'onnxruntime', '--save', *ALL], stderr=subprocess.PIPE,
            text=True) as process:
        while not list(out.glob('color/*.png')):  # written after the labels
            assert process.poll() is None
        process.send_signal(number)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number and 'Traceback' not in error
    assert set(os.listdir(out)) == {'labels', 'color', 'run.jsonl'}


def test_a_source_without_frames_is_named(stream, tmp_path):
    (tmp_path / 'a.png').write_bytes(png(picture(0))[:40])
    with pytest.raises(NothingLabelledError, match='no readable frame'):
        run(open_source(tmp_path), stream, tmp_path / 'out')


@pytest.mark.parametrize('clear', [(), ('--clear',)])
def test_the_input_is_never_a_result(vseg, tmp_path, clear):
    """Folders of RGB-D data have the names of results; so may a video or a bag."""
    for folder in ('color', 'depth'):
        (tmp_path / folder).mkdir()
        for number in range(2):
            (tmp_path / folder / f'{number}.png').write_bytes(png(picture(number)))
    write_drive(tmp_path / 'bag')
    before = files(tmp_path)
    for source in ('color', 'bag'):
        code, _, error = vseg(tmp_path / source, '-o', tmp_path, *clear)
        assert code == 2 and f'{source} is the input' in error
    assert files(tmp_path) == before


def test_what_is_of_no_run_is_not_cleared(vseg, tmp_path):
    drive, out = write_drive(tmp_path / 'drive', 2), tmp_path / 'out'
    (out / 'depth').mkdir(parents=True)
    (out / 'depth' / '0.png').write_bytes(png(picture(0)))
    code, _, error = vseg(drive, '-o', out, '--clear')
    assert code == 2 and 'no run.jsonl' in error and files(out) == ['depth/0.png']
    (out / 'depth' / '0.png').unlink()
    assert vseg(drive, '-o', out, '--save', 'color')[0] == 0    # without labels too
    assert vseg(drive, '-o', out, '--save', 'color', '--clear')[0] == 0


def test_a_bag_of_ones_own_is_not_cleared(vseg, tmp_path):
    drive, out = write_drive(tmp_path / 'drive', 2), tmp_path / 'out'
    out.mkdir()
    write_drive(out / 'bag', 2)
    before = files(out)
    code, _, error = vseg(drive, '-o', out, '--save', 'bag', '--clear')
    assert code == 2 and 'is a bag of your own' in error and files(out) == before
    other = tmp_path / 'other'
    for _ in range(2):
        assert vseg(drive, '-o', other, '--save', 'bag', '--clear')[0] == 0


def test_two_runs_write_to_one_folder_one_after_the_other(vseg, tmp_path):
    drive, out = write_drive(tmp_path / 'drive', 2), tmp_path / 'out'
    with writers.holding(out):
        code, _, error = vseg(drive, '-o', out)
    assert code == 2 and 'another run or recorder writes to' in error
    assert vseg(drive, '-o', out)[0] == 0


def test_damaged_pictures_of_an_earlier_run_are_made_anew(vseg, tmp_path):
    drive, out = write_drive(tmp_path / 'drive', 4), tmp_path / 'out'
    both = ('--save', 'labels', 'color')
    assert vseg(drive, '-o', out, *both)[0] == 0
    whole = {path: path.read_bytes() for path in (out / 'color').iterdir()}
    last = sorted(whole)[-1]
    last.write_bytes(b'')
    assert vseg(drive, '-o', out, *both, '--resume')[0] == 0
    assert {path: path.read_bytes() for path in (out / 'color').iterdir()} == whole
