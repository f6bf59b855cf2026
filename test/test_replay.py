# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The replay as a process: what a subscriber gets of a bag, when, and how it ends."""
import signal
import time

import bags
import numpy as np
import pytest
import ros_helpers as ros
from rosgraph_msgs.msg import Clock

from ros_vseg.image import to_label_array, to_rgb


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


@pytest.mark.parametrize('arguments, error', [
    (lambda folder: {}, 'no path: name a bag'),
    (lambda folder: {'path': folder / 'missing'}, 'does not exist'),
    (lambda folder: {'path': write_empty_folder(folder)}, 'has no images'),
    (lambda folder: {'path': 'x', 'rate': 0.0}, "'rate' is 0.0: it must be a decimal number"),
], ids=['no path', 'missing', 'no images', 'rate'])
def test_what_cannot_be_played_is_one_error(tmp_path, arguments, error):
    with ros.start('replay', tmp_path / 'log', **arguments(tmp_path)) as child:
        assert child.process.wait(60) == 1
    lines = child.log.read_text().splitlines()
    assert len(lines) == 1 and error in lines[0]


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
