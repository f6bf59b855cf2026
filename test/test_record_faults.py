# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The recorder where something is wrong: it is counted and told, and nothing else is lost."""
from contextlib import contextmanager
import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import rclpy
from rclpy.parameter import Parameter
from ros_helpers import image
from std_msgs.msg import String

from ros_vseg.errors import MediaError, VsegError
from ros_vseg.files import to_json
from ros_vseg.labels import load_label_set
from ros_vseg.media.sources import open_source
from ros_vseg.media.summary import Summary
from ros_vseg.media.writers import BagWriter, VideoWriter, write_png
from ros_vseg.nodes.player import Replay
from ros_vseg.nodes.recorder import _run, Recorder

CAMVID = load_label_set('camvid')
ZERO, ONE, VOID = (np.full((4, 4), value, np.uint8) for value in (0, 1, 255))


def summed(exact, labels):
    """Return a Summary of (stamp, image) of either kind, exact ones first."""
    summary = Summary()
    for stamp, each in exact:
        summary.add_exact(each, stamp)
    for stamp, each in labels:
        summary.add_label(each, stamp, stamp + 5)
    return summary


@pytest.mark.parametrize('count, ambiguous', [(2, 4), (3, 6)])
def test_equal_stamps_are_not_compared(count, ambiguous):
    frames = [(0, ZERO), (0, ONE), (0, ONE)][:count]
    summary = summed(frames, frames)
    result = summary.to_dict(CAMVID.names)
    assert (result['compared'], result['ambiguous']) == (0, ambiguous)
    assert 'miou' not in result and 'have the same stamp' in summary.problems(CAMVID.names)[0]


def test_equal_stamps_without_exact_labels_are_no_fault():
    summary = summed([], [(0, ZERO), (0, ONE)])
    assert summary.to_dict()['ambiguous'] == 0 and not summary.problems()


def test_exact_labels_that_are_void_give_no_number():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        summary = summed([(1, VOID)], [(1, ONE)])
        result = summary.to_dict(CAMVID.names)
    assert result['compared'] == 1 and not {'iou', 'miou'} & set(result)
    assert 'have no pixel of a class' in summary.problems(CAMVID.names)[0]


def test_exact_labels_of_another_size_are_counted():
    summary = summed([(1, ZERO[:2]), (2, ZERO)], [(1, ZERO), (2, ZERO)])
    result = summary.to_dict(CAMVID.names)
    assert (result['compared'], result['other_size'], result['miou']) == (1, 1, 1.0)
    assert '1 exact label images are of another size' in summary.problems(CAMVID.names)[0]


def test_json_for_others_has_no_nan():
    value = {'a': float('nan'), 'b': [1, (float('-inf'), 'x')], 'c': True}
    assert json.loads(to_json(value), parse_constant=pytest.fail) == {
        'a': None, 'b': [1, [None, 'x']], 'c': True}


@contextmanager
def ros_node(make, **parameters):
    """Give a node in this process."""
    own, node = not rclpy.ok(), None
    if own:
        rclpy.init()
    try:
        node = make([Parameter(name, value=value) for name, value in parameters.items()])
        yield node
    finally:
        if node:
            node.destroy_node()
        if own:
            rclpy.shutdown()


def recorder(output, **more):
    """Give a Recorder in this process; its messages come by calls."""
    return ros_node(Recorder, output=str(output), **more)


def fill(node, count=3, info=True):
    """Send ``count`` frames to a recorder."""
    if info:
        node._on_label_info(String(data=json.dumps(CAMVID.to_dict())))
    for stamp in range(1, count + 1):
        picture = np.full((48, 64, 3), 100, np.uint8)
        node._on_image(image(picture, stamp))
        node._on_label(image(np.zeros((48, 64), np.uint8), stamp, 'mono8'))
        node._on_overlay(image(picture, stamp))


def ended(node):
    """Return the exit code of a recorder whose labels have ended."""
    node.done = True
    return _run(node)


def test_a_second_recorder_is_refused_and_the_folder_is_free_afterwards(tmp_path):
    with recorder(tmp_path / 'out') as first:
        fill(first)
        for clear in (False, True):
            with pytest.raises(MediaError, match='another run or recorder writes to .*out'):
                with recorder(tmp_path / 'out', clear=clear):
                    pass
        assert ended(first) == 0
    assert len(list(open_source(tmp_path / 'out/labels', 'label'))) == 3
    with recorder(tmp_path / 'out', clear=True) as again:
        fill(again, 2)
        assert ended(again) == 0
    assert len(list(open_source(tmp_path / 'out/labels', 'label'))) == 2


def test_results_that_came_meanwhile_are_left_alone(tmp_path, capsys):
    """As on a file system without locks."""
    with recorder(tmp_path / 'out') as node:
        fill(node, 20)
        with BagWriter(tmp_path / 'out/labels') as bag:
            bag.image('label', ONE, 'mono8', 7)
        assert ended(node) == 1
    error, = capsys.readouterr().err.splitlines()
    assert 'got labels of another recording meanwhile' in error
    assert [frame.stamp for frame in open_source(tmp_path / 'out/labels', 'label')] == [7]
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['labels']


def test_a_folder_that_is_removed_midway_takes_only_what_was_in_it(tmp_path, capsys):
    with recorder(tmp_path / 'out') as node:
        fill(node, 20)      # the video is begun
        shutil.rmtree(tmp_path / 'out')
        assert ended(node) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all('cannot be written' in line for line in lines), lines
    summary = json.loads((tmp_path / 'out/summary.json').read_text())
    assert summary['labels'] == 20 and len(summary['problems']) == 2
    assert (tmp_path / 'out/contact_sheet.png').exists()


def test_a_video_whose_folder_is_gone_is_one_line(tmp_path):
    video = VideoWriter(tmp_path / 'out/a.mp4', 10)
    video.write(np.zeros((48, 64, 3), np.uint8))
    shutil.rmtree(tmp_path / 'out')
    with pytest.raises(MediaError, match='a.mp4 cannot be written .*No such file'):
        video.close()


def test_only_damaged_labels_are_told_as_such(tmp_path, capsys):
    with recorder(tmp_path / 'out') as node:
        for stamp in (1, 2):
            node._on_label(image(np.zeros((4, 4, 3), np.uint8), stamp, 'rgb8'))
        assert ended(node) == 1
    error, = [line for line in capsys.readouterr().err.splitlines() if 'record: error' in line]
    assert '2 damaged messages on label were left out' in error


def test_a_recording_without_label_info_says_what_is_missing(tmp_path, capsys):
    with recorder(tmp_path / 'out') as node:
        fill(node, info=False)
        assert ended(node) == 1
    assert 'no label_info came' in capsys.readouterr().err
    problem, = json.loads((tmp_path / 'out/summary.json').read_text())['problems']
    assert 'no contact sheet and no IoU' in problem


@pytest.mark.parametrize('images, reason', [
    (0, 'no image came'), (3, 'none of 3 images came before the label')])
def test_a_recording_without_a_contact_sheet_says_why(tmp_path, capfd, images, reason):
    with recorder(tmp_path / 'out') as node:
        node._on_label_info(String(data=json.dumps(CAMVID.to_dict())))
        for stamp in range(1, 4):
            node._on_label(image(np.zeros((48, 64), np.uint8), stamp, 'mono8'))
            if stamp <= images:     # late
                node._on_image(image(np.full((48, 64, 3), 100, np.uint8), stamp))
        assert ended(node) == 0
    assert f'no contact sheet: {reason}' in capfd.readouterr().err
    summary = json.loads((tmp_path / 'out/summary.json').read_text())
    assert reason in summary['no_contact_sheet']


def test_an_old_bag_has_no_latency(tmp_path, capsys):
    with recorder(tmp_path / 'out') as node:
        fill(node)      # stamps of 1970
        assert ended(node) == 0
    summary = json.loads((tmp_path / 'out/summary.json').read_text())
    assert summary['latency_ms'] is None and 'not of this clock' in summary['latency']
    assert (tmp_path / 'out/contact_sheet.png').is_file()


@pytest.mark.parametrize('make, name', [(Recorder, 'output'), (Replay, 'path')])
def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch, make, name):
    """ROS hands -p output:=~/drive on as it is written."""
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'drive').mkdir()
    write_png(tmp_path / 'drive/0.png', np.zeros((4, 6, 3), np.uint8))
    with ros_node(make, **{name: '~/drive'}) as node:
        found = node.output if name == 'output' else node._source.files[0].parent
    assert found == tmp_path / 'drive'
    with pytest.raises(VsegError, match='no such user'), ros_node(make, **{name: '~nobody_x/a'}):
        pass


def test_an_empty_path_is_not_the_current_folder(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'ros_vseg.nodes.record', ''], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and not list(tmp_path.iterdir())
    assert done.stderr == 'record: error: no output: name a folder to write to: record FOLDER\n'
