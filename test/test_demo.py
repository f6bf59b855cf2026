# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The demo as a user runs it: three real processes, their result, and every way it can fail."""
import itertools
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

from bags import CAMERA_CHANNEL, image_message, write_mcap
import cv2
import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle

from ros_vseg import backends
from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.commands import demo, pace
from ros_vseg.errors import BackendError, BundleError
from ros_vseg.media.sources import open_source
from ros_vseg.media.writers import BagWriter
from ros_vseg.processes import demo_clip
from ros_vseg.stream import Stream

STUDENT = Bundle.load(default_bundle_path())
FRAMES, RATE = 16, 4      # slow enough to drop none, and four frames are less than max_gap


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('bundle') / 'tiny.onnx')


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    """Return a bag of the first frames of the embedded drive."""
    path = tmp_path_factory.mktemp('bag') / 'drive'
    with BagWriter(path) as writer:
        for number, frame in zip(range(FRAMES), open_source(demo_clip())):
            stamp = 10**9 + number * 10**9 // RATE
            writer.image('/camera/image', frame.image, 'rgb8', stamp, 'camera')
            png = cv2.imencode('.png', frame.labels)[1].tobytes()
            writer.compressed('/camera/label', png, 'png', stamp, 'camera')
    return path


def fastest(step):
    """Return what is chosen for 10 frames a second where a pixel of the network takes ``step``."""
    return pace.choose(STUDENT, 10, lambda bundle: step * bundle.info.height * bundle.info.width)


@pytest.mark.parametrize('share, size, words', [
    (0.5, None, []), (1.2, (304, 400), ['takes 120 ms at 400x528', 'runs at 304x400, 69 ms']),
    (2.7, (192, 256), ['runs at 192x256', '--size']),
    (9, (192, 256), ['frames will be left out', 'runs at 192x256'])])
def test_the_largest_size_that_keeps_up_is_chosen(share, size, words):
    found = fastest(share * 0.1 / (400 * 528))
    assert found.size == size and bool(found.reason) == bool(words)
    assert all(word in found.reason for word in words)


def test_a_network_of_one_size_and_a_clip_without_frames(monkeypatch):
    def refuse(bundle, size):
        if size != (400, 528):
            raise BundleError('wrapped')
        return bundle
    monkeypatch.setattr(pace, 'at_size', refuse)
    found = fastest(1)
    assert found.size is None and found.reason.endswith('frames will be left out')
    assert pace.choose(STUDENT, 10, pace.measured([])) == (None, '')


def test_superseded_frames_are_explained(bundle, tmp_path, monkeypatch, capsys):
    summary = {'sent': 9, 'labels': 6, 'fps': 3.0, 'latency_ms': {}, 'diagnostics': {
        'vseg_node: camera': {'dropped_superseded': '3', 'received': '9'}}}
    monkeypatch.setattr(demo, 'run', lambda *arguments: summary)
    assert demo.main([str(tmp_path), '-o', str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert '3 superseded' in text and 'demo: superseded: ' in text and '--size' in text
    summary['diagnostics']['vseg_node: camera']['dropped_superseded'] = '0'
    summary.update(latency_ms=None, latency='unknown')
    demo.main([str(tmp_path), '-o', str(tmp_path)])
    text = capsys.readouterr().out
    assert 'demo: superseded' not in text and re.search('ms +unknown', text)


def _demo(*arguments, output):
    return [sys.executable, '-m', 'ros_vseg.commands.demo', *map(str, arguments),
            '--output', str(output)]


def _children(marker):
    """Return the processes that have ``marker`` in their command line."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            command = (folder / 'cmdline').read_bytes()
        except OSError:
            continue
        if str(marker).encode() in command and b'ros_vseg' in command:
            found.append(int(folder.name))
    return set(found) - {os.getpid()}


@pytest.fixture(scope='module')
def result(bag, bundle, tmp_path_factory):
    """Return (printed text, output folder) of one whole demo."""
    output = tmp_path_factory.mktemp('demo')
    done = subprocess.run(_demo(bag, '--bundle', bundle, output=output),
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, output


def test_every_frame_is_labelled_and_the_table_says_so(result):
    text, output = result
    row = dict(re.findall(r'^  (.+?)  +(.+)$', text, re.M))
    assert row['frames sent'] == row['received by the node'] == str(FRAMES)
    assert row['labelled and recorded'] == str(FRAMES)
    assert row['dropped'] == 'none' and row['lost on the way in'] == '0'
    assert RATE / 2 < float(row['label images a second']) < 2 * RATE    # as busy as it may be
    assert row['earlier frames attended to'] == '3'
    latency = row['latency, now - stamp, ms']
    p50, p95, p99 = (float(re.search(rf'{q} ([\d.]+)', latency)[1]) for q in ('p50', 'p95', 'p99'))
    assert 0 < p50 <= p95 <= p99
    assert set(re.findall('[a-z]+', row['stages in the node, ms'])) == {
        'image', 'resize', 'network', 'decode', 'publish'}
    assert not _children(output)


def test_labels_over_dds_are_those_of_the_stream_offline(result, bag, bundle):
    _, output = result
    stream = Stream(backends.load(Bundle.load(bundle)))
    recorded = list(open_source(output / 'labels', 'label'))
    assert len(recorded) == FRAMES
    for sent, kept in zip(open_source(bag), recorded):      # at the time it was really sent
        labels = stream.step(sent.image, kept.stamp, sent.frame_id).labels
        np.testing.assert_array_equal(kept.image[..., 0], labels)


def test_miou_is_that_of_the_recorded_labels(result, bag):
    _, output = result
    summary = json.loads((output / 'summary.json').read_text())
    pairs = [(frame.labels, kept.image[..., 0]) for frame, kept in zip(
        open_source(bag), open_source(output / 'labels', 'label'))]
    exact, labels = (np.concatenate([array.ravel() for array in side]) for side in zip(*pairs))
    labels, exact = labels[exact != 255], exact[exact != 255]
    ious = []
    for index in range(11):
        union = np.sum((labels == index) | (exact == index))
        if union:
            ious.append(np.sum((labels == index) & (exact == index)) / union)
    assert summary['compared'] == FRAMES
    assert summary['miou'] == pytest.approx(np.mean(ious))


def test_pictures_are_there(result):
    _, output = result
    assert len(list(open_source(output / 'overlay.mp4'))) == FRAMES
    sheet = cv2.imread(str(output / 'contact_sheet.png'))
    assert sheet.shape[1] > 1000 and sheet.std() > 20


def test_folder_of_images_without_exact_labels(bundle, tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for number, frame in zip(range(6), open_source(demo_clip())):
        cv2.imwrite(str(folder / f'{number}.png'), frame.image)
    done = subprocess.run(_demo(folder, '--bundle', bundle, output=tmp_path / 'out'),
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'labelled and recorded' in done.stdout and 'mIoU' not in done.stdout


@pytest.mark.parametrize('arguments, message', [
    (['/does/not/exist'], '/does/not/exist does not exist'),
    (['--bundle', '/no/bundle.onnx'], '/no/bundle.onnx cannot be read'),
])
def test_wrong_input_is_one_clear_error(arguments, message, tmp_path):
    done = subprocess.run(_demo(*arguments, output=tmp_path), capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 1
    assert message in done.stderr and 'Traceback' not in done.stderr


def _started(bag, bundle, output):
    """Start a demo and return it with its children once the replay runs."""
    demo = subprocess.Popen(_demo(bag, '--bundle', bundle, output=output),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while not (output / 'replay.log').exists():
        assert demo.poll() is None, demo.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return demo


def test_node_that_dies_is_reported_and_nothing_is_left(bag, bundle, tmp_path):
    demo = _started(bag, bundle, tmp_path)
    [node] = [pid for pid in _children(bundle) if pid != demo.pid
              and b'ros_vseg.nodes.vseg_node' in Path(f'/proc/{pid}/cmdline').read_bytes()]
    os.kill(node, signal.SIGKILL)
    _, errors = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert 'node ended with exit code -9' in errors and 'Traceback' not in errors
    assert not _children(tmp_path)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_every_process(bag, bundle, tmp_path, number):
    demo = _started(bag, bundle, tmp_path)
    for _ in range(2):
        demo.send_signal(number)
    _, errors = demo.communicate(timeout=120)
    assert demo.returncode == 128 + number
    assert 'interrupted' in errors and 'Traceback' not in errors
    assert not _children(tmp_path) and not _children(bundle)


def test_a_pause_in_the_recording_and_a_home_that_cannot_be_written(bundle, tmp_path):
    """The clock jumps too; the second run replaces the first, and only that."""
    jump = 10**18
    stamps = [10**9, 12 * 10**8, 7 * 10**9, 72 * 10**8, jump, jump + 2 * 10**8]
    path = write_mcap(tmp_path / 'pause.mcap', [CAMERA_CHANNEL], [
        (1, 10**9 + number * 10**8, image_message(number, stamp))
        for number, stamp in enumerate(stamps)])
    for _ in range(2):
        done = subprocess.run(_demo(path, '--bundle', bundle, output=tmp_path / 'out'),
                              capture_output=True, text=True, timeout=240,
                              env={**os.environ, 'HOME': '/dev/null', 'ROS_LOG_DIR': ''})
        assert done.returncode == 0, done.stdout + done.stderr
        row = dict(re.findall(r'^  (.+?)  +(.+)$', done.stdout, re.M))
        assert row['frames sent'] == row['labelled and recorded'] == '6'
    assert 'is stamped' in (tmp_path / 'out/replay.log').read_text()


def test_labels_that_are_not_of_a_demo_are_kept(bundle, bag, tmp_path):
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'labels/mine.png').write_text('dear')
    done = subprocess.run(_demo(bag, '--bundle', bundle, output=tmp_path), capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 1 and 'exists and is not a bag' in done.stderr
    assert (tmp_path / 'labels/mine.png').read_text() == 'dear'


def test_a_backend_that_refuses_is_passed_over_when_measuring(bundle, monkeypatch):
    """As the node does: OpenVINO refuses processors without AVX2."""
    def refuse(*_):
        raise BackendError('refused')
    monkeypatch.setattr('ros_vseg.backends.openvino.load', refuse)
    seconds = pace.measured(itertools.islice(open_source(demo_clip()), 4))(Bundle.load(bundle))
    assert seconds > 0
