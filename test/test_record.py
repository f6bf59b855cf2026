# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The recorder: its sums by hand, its pictures by pixel, and the node over real DDS."""
import json
import signal

import cv2
import numpy as np
import pytest
from ros_helpers import image, Probe, start
from sensor_msgs.msg import Image
from std_msgs.msg import String, UInt32

from ros_vseg.labels import load_label_set, overlay
from ros_vseg.media.contact_sheet import contact_sheet, LINE, MARGIN, Row, Samples, WIDTH
from ros_vseg.media.sources import open_source
from ros_vseg.media.summary import PAIRS_KEPT, Summary
from ros_vseg.media.writers import BagWriter
from ros_vseg.nodes.qos import EXACT, LATCHED
from ros_vseg.nodes.recorder import OverlayVideo, READY

CAMVID = load_label_set('camvid')
MS = 10**6


def test_iou_counts_void_predictions_but_not_void_pixels():
    summary = Summary()
    exact = np.array([[0, 0, 1, 1], [1, 255, 255, 0]], np.uint8)
    labels = np.array([[0, 1, 1, 255], [1, 0, 1, 0]], np.uint8)
    summary.add_exact(exact, 5)
    summary.add_label(labels, 5, 6)
    # class 0: 2 right of 3 exact and 2 predicted; class 1: 2 right of 3 exact and 3 predicted
    result = summary.to_dict(('a', 'b', 'c'))
    assert result['iou'] == pytest.approx({'a': 2 / 3, 'b': 2 / 4})
    assert result['miou'] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_labels_meet_their_exact_ones_in_any_order_and_only_by_stamp():
    summary, right, wrong = Summary(), np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)
    summary.add_label(right, 1, 1)
    summary.add_exact(wrong, 2)
    assert summary.compared == 0
    summary.add_label(wrong, 2, 2)
    summary.add_exact(right, 1)
    assert summary.compared == 2
    assert summary.to_dict(('a', 'b'))['iou'] == {'a': 1.0, 'b': 1.0}


def test_unpaired_labels_do_not_pile_up():
    summary, labels = Summary(), np.zeros((2, 2), np.uint8)
    for stamp in range(PAIRS_KEPT + 10):
        summary.add_label(labels, stamp, stamp)
    summary.add_exact(labels, 9)       # forgotten
    summary.add_exact(labels, 10)      # the oldest that is kept
    assert summary.compared == 1


def test_rate_and_latency():
    summary, labels = Summary(), np.zeros((1, 1), np.uint8)
    for number in range(101):
        summary.add_label(labels, number * 50 * MS, number * 50 * MS + (number + 1) * MS // 10)
    result = summary.to_dict()
    assert result['labels'] == 101
    assert result['fps'] == pytest.approx(100 / 5.01)
    assert result['latency_ms'] == pytest.approx({'p50': 5.1, 'p95': 9.6, 'p99': 10.0})


def test_stamps_of_another_clock_give_no_latency():
    summary, labels = Summary(), np.zeros((1, 1), np.uint8)
    for number in range(3):     # of a bag of long ago, and of a clock that runs ahead
        summary.add_label(labels, number, 10**18 + number * MS)
        summary.add_label(labels, 10**18 + number * MS, number * MS)
    result = summary.to_dict()
    assert result['latency_ms'] is None and 'not of this clock' in result['latency']
    summary.add_label(labels, 10**18, 10**18 + 5 * MS)
    assert summary.to_dict()['latency_ms']['p99'] == 5.0


def test_samples_are_evenly_spaced_over_a_run_of_unknown_length():
    samples = Samples()
    for number in range(100):
        samples.add_image(np.full((2, 2, 3), number, np.uint8), number)
        samples.add_labels(np.full((2, 2), number, np.uint8), number)
    numbers = [int(row.labels[0, 0]) for row in samples.rows(4)]
    assert numbers[0] == 0 and numbers[-1] >= 88
    assert np.ptp(np.diff(numbers)) <= 8
    assert all((row.image == row.labels[0, 0]).all() for row in samples.rows(4))


def test_contact_sheet_shows_image_labels_and_overlay():
    height = WIDTH * 3 // 4
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (height, WIDTH, 3), np.uint8)
    labels = np.zeros((height, WIDTH), np.uint8)
    labels[:, WIDTH // 2:] = 3
    sheet = contact_sheet([Row('', picture, labels)], CAMVID, 'title')
    top = next(y for y in range(sheet.shape[0])
               if (sheet[y:y + 3, MARGIN:MARGIN + 9] == picture[:3, :9]).all())
    columns = [sheet[top:top + height, x:x + WIDTH]
               for x in (MARGIN, 2 * MARGIN + WIDTH, 3 * MARGIN + 2 * WIDTH)]
    assert np.array_equal(columns[0], picture)
    assert (columns[1][:, 0] == CAMVID.colors[0]).all()
    assert (columns[1][:, -1] == CAMVID.colors[3]).all()
    assert np.array_equal(columns[2], overlay(picture, labels, CAMVID))
    legend = sheet[top + height:]
    for index, expected in ((0, True), (3, True), (8, False)):
        assert (legend == CAMVID.colors[index]).all(axis=2).any() == expected


@pytest.mark.parametrize('shape', [(1, 2048), (2048, 1)])
def test_contact_sheet_of_a_line_camera(shape):
    sheet = contact_sheet([Row('', np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8))],
                          CAMVID, 'title')
    assert sheet.shape[0] < 6 * WIDTH


@pytest.mark.parametrize('level', [4, 40, 63, 100, 200])
def test_dark_frames_are_shown_brighter_and_others_as_they_are(level):
    image = np.full((60, 80, 3), level, np.uint8)
    image[30:, ::2] = level // 2
    image[:1, :8] = 255     # a lamp
    labels = np.zeros((60, 80), np.uint8)
    sheet = contact_sheet([Row('', image, labels)], CAMVID, 'title')
    height = round(WIDTH * 60 / 80)
    bottom = 3 * LINE + MARGIN + height - 4
    seen = sheet[bottom - height // 2:bottom, MARGIN:MARGIN + WIDTH]
    bright, dark = (int(np.percentile(seen, q)) for q in (90, 10))
    if level < 64:
        assert bright > 100 and bright - dark > 40
    else:
        assert abs(bright - level) <= 1 and abs(dark - level // 2) <= 1


def test_the_legend_has_equal_gaps_and_stays_on_the_sheet():
    labels = np.arange(11, dtype=np.uint8).repeat(40).reshape(11, 40)
    sheet = contact_sheet([Row('', np.zeros((11, 40, 3), np.uint8), labels)], CAMVID, 'title')
    legend = sheet[-LINE - MARGIN:]    # one line is enough here
    boxes = [np.nonzero((legend == CAMVID.colors[index]).all(axis=2))[1].min()
             for index in range(11)]
    ink = (legend != legend[-1, -1]).any(axis=2)
    gaps = []
    for index in range(10):
        start, after = boxes[index], boxes[index + 1]
        gaps.append(after - start - np.nonzero(ink[:, start:after].any(0))[0][-1])
    assert np.ptp(gaps) <= 4
    assert not ink[:, -MARGIN // 2:].any()


@pytest.fixture
def probe():
    probe = Probe()
    yield probe
    probe.close()


def _record(tmp_path, **parameters):
    values = {'output': tmp_path / 'out', 'end_after': 3.0, 'patience': 60.0, **parameters}
    return start('record', tmp_path / 'log', **values)


def _wait_end(probe, child):
    probe.wait(lambda: child.process.poll() is not None, 'the recorder to end')
    return child.process.returncode


def _publishers(probe):
    publishers = {name: probe.node.create_publisher(Image, name, 10)
                  for name in ('label', 'overlay', 'image')}
    publishers['exact_label'] = probe.node.create_publisher(Image, 'exact_label', EXACT)
    probe.label_info = probe.node.create_publisher(String, 'label_info_json', LATCHED)
    probe.label_info.publish(String(data=json.dumps(CAMVID.to_dict())))
    return publishers


def _send(probe, child, publishers, count=20):
    """
    Publish ``count`` frames, 100 ms of stamp apart; return their stamps and label images.

    The exact labels go out before the recorder can be there: they are latched.
    """
    rng, now = np.random.default_rng(0), probe.node.get_clock().now().nanoseconds
    frames = [(now + number * 100 * MS, rng.integers(0, 11, (48, 64), np.uint8))
              for number in range(count)]
    for stamp, labels in frames:
        exact = labels.copy()
        exact[:24] = 255                      # void above, right below
        publishers['exact_label'].publish(image(exact, stamp, 'mono8'))
    # each end must know of the other
    probe.wait(lambda: READY in child.log.read_text()
               and publishers['label'].get_subscription_count()
               and publishers['overlay'].get_subscription_count(), 'the recorder')
    for number, (stamp, labels) in enumerate(frames):
        publishers['label'].publish(image(labels, stamp, 'mono8'))
        picture = np.full((48, 64, 3), 10 * number, np.uint8)
        publishers['overlay'].publish(image(picture, stamp))
        probe.spin(0.03)
    return frames


def test_recorder_keeps_what_was_published_and_ends_by_itself(probe, tmp_path):
    publishers = _publishers(probe)
    with _record(tmp_path) as child:
        sent = _send(probe, child, publishers)
        assert _wait_end(probe, child) == 0, child.last_lines()
    out = tmp_path / 'out'
    summary = json.loads((out / 'summary.json').read_text())
    assert (summary['labels'], summary['overlays'], summary['compared']) == (20, 20, 20)
    assert summary['miou'] == 1.0 and set(summary['iou']) == set(CAMVID.names)
    kept = [(frame.stamp, frame.image[..., 0]) for frame in open_source(out / 'labels', 'label')]
    assert [stamp for stamp, _ in kept] == [stamp for stamp, _ in sent]
    assert all(np.array_equal(found, labels) for (_, found), (_, labels) in zip(kept, sent))
    frames = list(open_source(out / 'overlay.mp4'))
    assert len(frames) == 20
    assert open_source(out / 'overlay.mp4').fps == pytest.approx(10, rel=0.01)
    assert all(abs(frame.image.mean() - 10 * number) < 5
               for number, frame in enumerate(frames))


def test_contact_sheet_is_written_when_images_come_too(probe, tmp_path):
    publishers = _publishers(probe)
    with _record(tmp_path) as child:
        sent = _send(probe, child, publishers, 1)
        probe.wait(publishers['image'].get_subscription_count, 'the recorder to take images')
        labels = np.full((48, 64), 3, np.uint8)
        for number in range(5):
            stamp = sent[0][0] + (number + 1) * 100 * MS
            publishers['image'].publish(image(np.full((48, 64, 3), 200, np.uint8), stamp))
            probe.spin(0.2)
            publishers['label'].publish(image(labels, stamp, 'mono8'))
        assert _wait_end(probe, child) == 0, child.last_lines()
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / 'out/contact_sheet.png')), cv2.COLOR_BGR2RGB)
    picture = WIDTH * (WIDTH * 3 // 4)
    assert (sheet == 200).all(axis=2).sum() > 0.9 * picture
    assert (sheet == CAMVID.colors[3]).all(axis=2).sum() >= picture


def test_interrupt_completes_the_files(probe, tmp_path):
    publishers = _publishers(probe)
    with _record(tmp_path, end_after=60.0) as child:
        _send(probe, child, publishers, 3)
        child.wait_for_line('labels 3', 60)
        child.process.send_signal(signal.SIGINT)
        assert _wait_end(probe, child) == 0, child.last_lines()
    assert open_source(tmp_path / 'out/labels', 'label').count == 3
    assert json.loads((tmp_path / 'out/summary.json').read_text())['labels'] == 3


def test_no_label_is_a_failure_that_leaves_no_bag(probe, tmp_path):
    with _record(tmp_path, patience=0.5) as child:
        assert _wait_end(probe, child) == 1
        assert 'no label image came' in child.last_lines()
    assert not list((tmp_path / 'out').iterdir())


def test_unwritable_output_is_one_clear_error(probe, tmp_path):
    (tmp_path / 'file').write_text('')
    with _record(tmp_path, output=tmp_path / 'file/out') as child:
        assert _wait_end(probe, child) == 1
        assert 'cannot be written' in child.last_lines()
        assert 'Traceback' not in child.last_lines(100)


def test_it_outlasts_a_pause_and_ends_with_the_player(probe, tmp_path):
    """No silence ends it, only the player's last word; half the labels come after a pause."""
    publishers = _publishers(probe)
    ended = probe.node.create_publisher(UInt32, 'ended', LATCHED)
    with start('record', tmp_path / 'log', output=tmp_path / 'out') as child:
        _send(probe, child, publishers, 3)
        probe.spin(4)
        assert child.process.poll() is None
        _send(probe, child, publishers, 3)
        ended.publish(UInt32(data=6))
        assert _wait_end(probe, child) == 0, child.last_lines()
    assert json.loads((tmp_path / 'out/summary.json').read_text())['labels'] == 6


def test_the_end_of_a_player_without_labels_ends_it(probe, tmp_path):
    ended = probe.node.create_publisher(UInt32, 'ended', LATCHED)
    ended.publish(UInt32(data=0))
    with start('record', tmp_path / 'log', output=tmp_path / 'out') as child:
        assert _wait_end(probe, child) == 1
        assert 'no label image came' in child.last_lines()


def test_damaged_messages_are_left_out(probe, tmp_path):
    publishers = _publishers(probe)
    with _record(tmp_path) as child:
        _send(probe, child, publishers, 2)
        picture = np.zeros((4, 4, 3), np.uint8)
        publishers['label'].publish(image(picture, 5, 'rgb8'))
        publishers['overlay'].publish(image(picture, 5, 'rgb8', step=3))
        for data in ('[' * 100_000, 'null', '{"classes": 5}', '{'):
            probe.label_info.publish(String(data=data))
            probe.spin(0.05)
        assert _wait_end(probe, child) == 1, child.last_lines()
    text = child.log.read_text()
    assert 'a message on label is left out' in text and 'label_info is left out' in text
    assert '1 damaged messages on label were left out' in text
    summary = json.loads((tmp_path / 'out/summary.json').read_text())
    assert summary['labels'] == 2 and len(summary['problems']) == 3
    assert summary['damaged'] == {'label': 1, 'overlay': 1, 'label_info_json': 4}


def test_an_earlier_recording_is_refused_or_cleared(probe, tmp_path):
    out = tmp_path / 'out'
    with BagWriter(out / 'labels') as bag:
        bag.image('label', np.zeros((4, 4), np.uint8), 'mono8', 1)
    (out / 'overlay.mp4').write_text('old')
    with _record(tmp_path) as child:
        assert _wait_end(probe, child) == 1
        assert 'has labels, overlay.mp4 of an earlier recording' in child.last_lines()
    assert (out / 'overlay.mp4').exists() and (out / 'labels/metadata.yaml').exists()
    with _record(tmp_path, clear='true', patience=0.5) as child:
        assert _wait_end(probe, child) == 1
    assert not list(out.iterdir())
    (out / 'labels').mkdir()
    (out / 'labels/mine.png').write_text('dear')
    with _record(tmp_path, clear='true') as child:
        assert _wait_end(probe, child) == 1
        assert 'exists and is not a bag' in child.last_lines()
    assert (out / 'labels/mine.png').read_text() == 'dear'


def test_sigterm_completes_the_recording(probe, tmp_path):
    publishers = _publishers(probe)
    with _record(tmp_path, end_after=0.0) as child:
        _send(probe, child, publishers, 5)
        child.wait_for_line('labels 5', 60)
        for _ in range(2):
            child.process.send_signal(signal.SIGTERM)
        assert _wait_end(probe, child) == 0, child.last_lines()
    assert len(list(open_source(tmp_path / 'out/labels', 'label'))) == 5
    assert 'Traceback' not in child.log.read_text()


def test_a_video_that_fails_leaves_the_bag_alone(probe, tmp_path):
    """A folder has the name of the video, made after the recorder looked."""
    publishers = _publishers(probe)
    with _record(tmp_path) as child:
        _send(probe, child, publishers, 3)
        (tmp_path / 'out/overlay.mp4').mkdir()
        assert _wait_end(probe, child) == 1
        assert 'overlay.mp4 cannot be written (Is a directory)' in child.last_lines()
    assert len(list(open_source(tmp_path / 'out/labels', 'label'))) == 3
    assert json.loads((tmp_path / 'out/summary.json').read_text())['problems']


@pytest.mark.parametrize('gap, fps', [(10.00187, 99.98), (15.0001, 66.66), (2_500_000, 1)])
def test_overlay_at_any_rate(tmp_path, gap, fps):
    video = OverlayVideo(tmp_path / 'a.mp4')
    for number in range(20):
        video.add(np.full((48, 64, 3), number, np.uint8), round(number * gap * MS))
    video.close()
    source = open_source(tmp_path / 'a.mp4')
    assert len(list(source)) == 20 and source.fps == pytest.approx(fps, rel=1e-3)
