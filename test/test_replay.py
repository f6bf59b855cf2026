# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The replay as a process: what a subscriber gets of a bag, when, and how it ends."""
import os
import signal
import subprocess
import sys
import time

import bags
import numpy as np
import pytest
import ros_helpers as ros
from rosgraph_msgs.msg import Clock
from std_msgs.msg import UInt32

from ros_vseg.image import to_label_array, to_rgb
from ros_vseg.nodes.player import REPLAY
from ros_vseg.nodes.qos import LATCHED


FRAMES = 6


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    return bags.write_drive(tmp_path_factory.mktemp('bag') / 'drive', FRAMES, labels='before')


def play(probe, tmp_path, drive, namespace, **parameters):
    """Play the drive to two subscribers; return (child, images, exact labels, median gap in s)."""
    images = probe.collect(f'/{namespace}/camera/image')
    exact = probe.collect(f'/{namespace}/camera/exact_label')
    arrivals = []
    with ros.start('replay', tmp_path / 'log', '-r', f'__ns:=/{namespace}', path=drive,
                   **parameters) as child:
        def ended():
            arrivals.extend([time.monotonic()] * (len(images) - len(arrivals)))
            return child.process.poll() is not None
        probe.wait(ended, 'the replay to end')
    # the median: on a busy machine some frames come late, and those after them at once
    return child, images, exact, np.median(np.diff(arrivals))


def test_every_frame_arrives_in_order_with_its_exact_labels(probe, drive, tmp_path):
    begin = probe.node.get_clock().now().nanoseconds
    child, images, exact, gap = play(probe, tmp_path, drive, 'plain')
    assert child.process.returncode == 0
    assert child.log.read_text().splitlines()[-1] == f'replay: sent {FRAMES} frames'
    assert len(images) == len(exact) == FRAMES
    for number, (image, label) in enumerate(zip(images, exact)):
        np.testing.assert_array_equal(to_rgb(image), bags.picture(number))
        np.testing.assert_array_equal(to_label_array(label), bags.exact(number))
        assert image.header == label.header and image.header.frame_id == 'camera'
        assert begin < ros.stamp_of(image) < probe.node.get_clock().now().nanoseconds
    assert gap == pytest.approx(0.1, rel=0.45)      # neither half nor twice as fast


def test_rate_and_clock(probe, drive, tmp_path):
    clock = probe.collect('/clock', Clock)
    child, images, exact, gap = play(probe, tmp_path, drive, 'fast', rate=0.5, clock='true')
    assert child.process.returncode == 0
    assert gap == pytest.approx(0.2, rel=0.45)
    first, last = 10**9, 10**9 + (FRAMES - 1) * bags.PERIOD
    assert [ros.stamp_of(image) for image in images] == list(range(first, last + 1, bags.PERIOD))
    times = [message.clock.sec * ros.SECOND + message.clock.nanosec for message in clock]
    assert times == sorted(times) and times[-1] == last
    assert len(times) > 3 * FRAMES      # it runs between the frames too


def test_loop_goes_on_until_interrupted(probe, drive, tmp_path):
    images = probe.collect('/loop/camera/image')
    with ros.start('replay', tmp_path / 'log', '-r', '__ns:=/loop', path=drive, loop='true',
                   rate=10.0) as child:
        probe.wait(lambda: len(images) > 2 * FRAMES, 'the third round')
        child.process.send_signal(signal.SIGINT)
        assert child.process.wait(60) == 0
    np.testing.assert_array_equal(to_rgb(images[FRAMES]), bags.picture(0))


def test_it_plays_without_a_subscriber_too(drive, tmp_path):
    with ros.start('replay', tmp_path / 'log', '-r', '__ns:=/alone', path=drive, wait=0.2,
                   rate=10.0) as child:
        assert child.process.wait(60) == 0
    text = child.log.read_text()
    assert 'nobody subscribes to /alone/camera/image' in text
    assert f'sent {FRAMES} frames' in text


def write_empty_folder(folder):
    (folder / 'empty').mkdir()
    return folder / 'empty'


def unreadable_folder(folder):
    (folder / 'a.png').write_text('no image')
    return folder


@pytest.mark.parametrize('arguments, error', [
    (lambda folder: {}, 'no path: name a bag'),
    (lambda folder: {'path': unreadable_folder(folder)}, 'nothing could be sent'),
    (lambda folder: {'path': folder / 'missing'}, 'does not exist'),
    (lambda folder: {'path': write_empty_folder(folder)}, 'has no images'),
    (lambda folder: {'path': 'x', 'rate': 0.0}, "'rate' is 0.0: it must be a decimal number"),
], ids=['no path', 'unreadable', 'missing', 'no images', 'rate'])
def test_what_cannot_be_played_is_one_error(tmp_path, arguments, error):
    with ros.start('replay', tmp_path / 'log', wait=0.0, **arguments(tmp_path)) as child:
        assert child.process.wait(60) == 1
    lines = child.log.read_text().splitlines()
    assert error in lines[-1] and 'Traceback' not in child.log.read_text()
    assert len(lines) == 1 or 'nothing' in error


def test_a_damaged_frame_is_left_out_and_counted(tmp_path):
    with bags.BagWriter(tmp_path / 'drive') as writer:
        good = bags.png(bags.picture(1))
        for number, data in enumerate((good, good[:-20], good)):
            writer.compressed('/camera/image/compressed', data, 'png', 1 + number * 10**8, 'c')
    with ros.start('replay', tmp_path / 'log', path=tmp_path / 'drive', wait=0.0) as child:
        assert child.process.wait(60) == 0
    text = child.log.read_text()
    assert 'damaged or cut short' in text
    assert text.splitlines()[-1] == 'replay: sent 2 frames, left out 1 damaged'


def test_it_says_that_it_has_ended(probe, drive, tmp_path):
    ended = probe.collect('/said/camera/ended', UInt32, LATCHED)
    play(probe, tmp_path, drive, 'said', rate=10.0)
    assert [message.data for message in ended] == [FRAMES]


def stamped(path, stamps):
    """Write an MCAP bag of pictures with these header stamps, recorded 10 a second."""
    return bags.write_mcap(path, [bags.CAMERA_CHANNEL], [
        (1, 10**9 + number * bags.PERIOD, bags.image_message(number, stamp))
        for number, stamp in enumerate(stamps)])


def test_a_jump_of_the_clock_is_no_wait(probe, tmp_path):
    """12 s, then 1.7e9 s: 54 years; and back again, on which nothing waits."""
    second = 10**9
    jump = 1_700_000_000 * second
    path = stamped(tmp_path / 'jump.mcap', (12 * second, jump, jump + second // 10, 13 * second))
    began = time.monotonic()
    child, images, _, _ = play(probe, tmp_path, path, 'jump', clock='true', max_pause=0.5)
    assert child.process.returncode == 0 and len(images) == 4
    assert time.monotonic() - began < 50
    text = child.log.read_text()
    assert 'is stamped 1699999988.000 s later: it is sent after 0.5 s' in text
    assert 'the stamps go back by 1699999987.100 s: the next image is sent at once' in text


def test_pauses_that_are_shortened_are_told_once_and_counted(probe, tmp_path):
    path = stamped(tmp_path / 'fast.mcap', range(10**9, 10**9 + 5 * 10**8, 10**8))
    child, images, _, _ = play(probe, tmp_path, path, 'fast', max_pause=0.0)
    assert child.process.returncode == 0 and len(images) == 5
    text = child.log.read_text()
    assert text.count('is stamped 0.100 s later') == 1
    assert 'sent 5 frames, shortened 4 pauses to max_pause' in text


def test_a_pause_is_kept_and_announced(probe, tmp_path):
    path = stamped(tmp_path / 'pause.mcap', (10**9, 4 * 10**9))
    child, images, _, gap = play(probe, tmp_path, path, 'pause')
    assert len(images) == 2 and gap == pytest.approx(3, abs=1)
    assert 'no image for 3.0 s in the recording' in child.log.read_text()


@pytest.mark.parametrize('stamps', [(-10**9, -9 * 10**8), (0, 0), (0, 5), (2**31 * 10**9 - 1, 1)])
def test_no_stamp_is_a_traceback(probe, tmp_path, stamps):
    path = stamped(tmp_path / 'odd.mcap', stamps)
    child, images, _, _ = play(probe, tmp_path, path, 'odd', clock='true', max_pause=0.2)
    assert child.process.returncode == 0 and len(images) == 2
    assert 'Traceback' not in child.log.read_text()


def run_replay(*arguments, **changes):
    return subprocess.run([sys.executable, '-m', 'ros_vseg.nodes.replay', *map(str, arguments)],
                          env={**os.environ, **changes}, capture_output=True, text=True,
                          timeout=120)


def test_help_and_plain_path(drive):
    text = run_replay('--help')
    assert text.returncode == 0
    assert all(f'{parameter.name}:=' in text.stdout for parameter in REPLAY)
    done = run_replay(drive, '--ros-args', '-p', 'wait:=0.0', '-p', 'rate:=10.0')
    assert done.returncode == 0 and f'sent {FRAMES} frames' in done.stdout
    wrong = run_replay('--loud')
    assert wrong.returncode == 2 and 'unrecognized arguments: --loud' in wrong.stderr


@pytest.mark.parametrize('arguments, changes, message', [
    ((), {'HOME': '/dev/null', 'ROS_HOME': '', 'ROS_LOG_DIR': ''}, 'set ROS_LOG_DIR'),
    (('--ros-args', '-p', 'path'), {}, 'correct the arguments after --ros-args')])
def test_ros_that_cannot_start_is_one_error(arguments, changes, message):
    done = run_replay(*arguments, **changes)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1] and 'Traceback' not in done.stderr


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_no_traceback(drive, tmp_path, number):
    """While it plays, and a second one while it ends."""
    with ros.start('replay', tmp_path / 'log', path=drive, loop='true', wait=0.0) as child:
        child.wait_for_line('playing all the same', 60)
        for _ in range(3):
            child.process.send_signal(number)
        assert child.process.wait(60) == 0
    assert 'Traceback' not in child.log.read_text()


@pytest.mark.parametrize('module', ['replay', 'record'])
def test_ctrl_c_while_it_imports_leaves_no_traceback(tmp_path, module):
    (tmp_path / 'rclpy').mkdir()
    (tmp_path / 'rclpy/__init__.py').write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(100)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    with ros.start(module, tmp_path / 'log',
                   environment={**os.environ, 'PYTHONPATH': path}) as child:
        child.wait_for_line('importing', 60)
        child.process.send_signal(signal.SIGINT)
        assert child.process.wait(60) == -signal.SIGINT
    assert child.log.read_text() == 'importing\n'
