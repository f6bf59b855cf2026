# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The node as a process, over DDS: bursts, large and bad images, cameras that change or vanish."""
import os
import re
import time

import numpy as np
import pytest
import ros_helpers as ros
from ros_helpers import FRAME, jpeg, pictures, stamps

from ros_vseg.image import to_label_array
from ros_vseg.labels import colorize, overlay
from ros_vseg.nodes.diagnostics import camera_status
from ros_vseg.nodes.inputs import lost_images
from ros_vseg.processes import PROFILE_VARIABLES
from ros_vseg.rate import FrameRate
from ros_vseg.stream import Stream

WARN, ERROR = 1, 2      # levels of a DiagnosticStatus
GOOD = pictures(1, seed=4)[0]


def test_the_newest_frame_wins_and_drops_are_counted(rear):
    # Confidence of a large image takes long: frames arrive faster than they are labelled.
    before, start, number = rear.values(), next(stamps), 20
    data = jpeg(pictures(1, 1080, 1920)[0])
    for i in range(number):
        rear.compressed.publish(ros.compressed(data, start + i * FRAME))
        rear.probe.spin(0.01)
    rear.wait_for(start + (number - 1) * FRAME)
    rear.probe.spin(0.3)
    labelled = [ros.stamp_of(m) for m in rear.received['label'] if ros.stamp_of(m) >= start]
    assert labelled == sorted(set(labelled))
    after = rear.values()
    received, superseded, done = (
        after[key] - before[key] for key in ('received', 'dropped_superseded', 'labelled'))
    assert 0 < superseded < received <= number      # best effort: a busy machine may lose some
    assert done == len(labelled) == received - superseded


def test_large_images_all_arrive(front):
    before, begin, number = front.values(), time.monotonic(), 15
    message = ros.image(np.full((1024, 2048, 3), 99, np.uint8), 0)
    for i in range(number):
        message.header.stamp = front.probe.node.get_clock().now().to_msg()
        front.images.publish(message)
        front.probe.spin(begin + (i + 1) * 0.1 - time.monotonic())
        if i % 3 == 2:      # a busy machine needs a pause, or its queue of 5 overflows
            front.wait_for(ros.stamp_of(message))
    after = front.values()
    assert after['received'] - before['received'] == number
    assert after['labelled'] > before['labelled']
    passed = 1e3 * (time.monotonic() - begin)
    p50, p95, p99 = (after[f'latency_{q}_ms'] for q in ('p50', 'p95', 'p99'))
    assert 0 < p50 <= p95 <= p99 < passed
    assert after['processing_p50_ms'] < p50
    stages = sum(after[f'stage_{name}_ms']
                 for name in ('image', 'resize', 'network', 'decode', 'publish'))
    assert 0 < stages < 2 * after['processing_p95_ms']


def test_images_that_vanish_without_the_profile_are_counted_and_explained(rear, tmp_path):
    (tmp_path / 'images').mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (1024, 2048, 3), np.uint8)
    for number in range(30):    # a small image after a lost one: Fast DDS then miscounts
        pixels = picture if number % 3 else picture[:40, :60]
        (tmp_path / f'images/{number:02d}.jpg').write_bytes(jpeg(pixels))
    bare = {k: v for k, v in os.environ.items() if k not in PROFILE_VARIABLES}
    with ros.start('replay', tmp_path / 'log', '-r', 'camera/image:=/rear/image',
                   environment=bare, path=tmp_path / 'images') as child:
        def explained():
            level, message, _ = rear.probe.status(rear.name)
            return level == WARN and 'config/fastdds.xml' in message and 'lost' in message
        rear.probe.wait(explained, 'the loss to be explained')
        rear.probe.wait(lambda: child.process.poll() is not None, 'the replay to end')
        assert 0 < rear.values()['lost_in_transport'] <= 20
    # Nobody publishes raw images any more: the node turns to the compressed ones again.
    rear.probe.wait(rear.compressed.get_subscription_count, 'the node to come back')
    rear.probe.spin(0.3)
    rear.label(ros.compressed(jpeg(GOOD), next(stamps)))


@pytest.mark.parametrize('spurious', [0, 1, 2])
@pytest.mark.parametrize('lost', [0, 1])
def test_what_fast_dds_adds_is_no_lost_image(lost, spurious):
    signed = np.array([lost], np.int64)
    for _ in range(spurious):
        signed += 2**31 - 1
    widened = int(signed.astype(np.int32).astype(np.uint64)[0])    # as rmw hands it on
    assert lost_images(widened) == lost


# Bad input: counted by cause, named in the log, and the next frame is labelled

NAN = np.full((120, 160, 3), np.nan, np.float32)
BAD_IMAGES = {
    'step': (GOOD, 'rgb8', {'step': 479}, 'step'),
    'short data': (GOOD, 'rgb8', {'data': b'\0' * 100}, 'data'),
    'long data': (GOOD, 'rgb8', {'data': b'\0' * 60000}, 'data'),
    'zero size': (GOOD, 'rgb8', {'width': 0, 'height': 0}, 'size'),
    'encoding': (GOOD, 'rgb9', {}, 'encoding'),
    'no encoding': (GOOD, '', {}, 'encoding'),
    'NaN': (NAN, '32FC3', {}, 'nan'),
    'depth': (NAN[..., 0], '32FC1', {}, 'depth'),
}


@pytest.mark.parametrize('case', BAD_IMAGES)
def test_bad_image(front, node, case):
    pixels, encoding, changes, cause = BAD_IMAGES[case]
    before, start = front.dropped(cause), next(stamps)
    front.images.publish(ros.image(pixels, start, encoding, **changes))
    front.probe.wait(lambda: front.dropped(cause) == before + 1, f'{cause} to be counted')
    label = front.label(ros.image(GOOD, start + FRAME))
    assert label.height == 120
    assert start not in map(ros.stamp_of, front.received['label'])
    assert 'image on /front/image not labelled' in node.log.read_text()


@pytest.mark.parametrize(
    'data', [jpeg(GOOD)[:700], jpeg(GOOD)[:1500] + jpeg(GOOD)[1900:], b'', b'not a picture'],
    ids=['truncated', 'pierced', 'empty', 'text'])
def test_bad_compressed_image(rear, data):
    before, start = rear.dropped('decode'), next(stamps)
    rear.compressed.publish(ros.compressed(data, start))
    rear.probe.wait(lambda: rear.dropped('decode') == before + 1, 'the image to be counted')
    rear.label(ros.compressed(jpeg(GOOD), start + FRAME))
    assert start not in map(ros.stamp_of, rear.received['label'])


def test_errors_of_one_cause_are_logged_once_and_shown_as_a_warning(front, node):
    start, mark = next(stamps), node.log.read_text().count('rgb7')
    for i in range(20):
        front.images.publish(ros.image(GOOD, start + i * FRAME, 'rgb7'))

    def warned():
        level, message, _ = front.probe.status(front.name)
        return level == WARN and 'encoding' in message

    assert front.probe.wait(warned, 'a warning')
    assert node.log.read_text().count('rgb7') - mark <= 1


def test_changes_in_mid_stream_empty_the_pool(front, backend):
    front.label(ros.image(GOOD, start := next(stamps)))
    before, small = front.values(), pictures(1, 60, 80)[0]
    steps = ((None, GOOD, start + FRAME, 'camera'),
             ('size', small, start + 2 * FRAME, 'camera'),
             ('frame_id', small, start + 3 * FRAME, 'other'),
             ('time_back', small, start + FRAME + 1, 'other'),
             ('gap', small, start + 3 * ros.SECOND, 'other'))
    for cause, pixels, stamp, frame_id in steps:
        label = front.label(ros.image(pixels, stamp, frame_id=frame_id))
        assert label.header.frame_id == frame_id
        if cause:
            alone = Stream(backend).step(pixels, stamp).labels
            np.testing.assert_array_equal(to_label_array(label), alone)
    after = front.values()
    for cause in ('size', 'frame_id', 'time_back', 'gap'):
        assert after[f'resets_{cause}'] - before.get(f'resets_{cause}', 0) == 1, cause
    assert after['context_frames'] == 0


class Spy(Stream):
    """A stream that notes what is asked of it, and fails for black images."""

    def __init__(self, backend):
        super().__init__(backend)
        self.asked = []

    def step(self, image, stamp, frame_id='', confidence=False):
        if not image.any():
            raise RuntimeError('the device is gone')
        self.asked.append(confidence)
        return super().step(image, stamp, frame_id, confidence)


@pytest.fixture
def inner(probe, backend):
    """Return a Camera with a Spy, in a node of this process."""
    with ros.inner_camera(probe, Spy(backend), backend.bundle.info.label_set) as camera:
        yield camera


def test_only_what_is_listened_to_is_computed(inner, probe, monkeypatch):
    painted = []
    for name, paint in (('colorize', colorize), ('overlay', overlay)):
        monkeypatch.setattr(
            f'ros_vseg.nodes.outputs.{name}', lambda *arguments, name=name, paint=paint:
            painted.append(name) or paint(*arguments))
    seen = ros.CameraProbe(probe, 'inner', 'inner')
    seen.label(ros.image(GOOD, 1))
    assert (inner._stream.asked, painted) == ([False], [])
    for output in ('confidence', 'color'):
        seen.received[output] = []
        seen.listen(output)
    probe.wait(lambda: all(map(inner.outputs.wanted, ('confidence', 'color'))), 'the match')
    seen.label(ros.image(GOOD, 2), 'color')
    assert (inner._stream.asked, painted) == ([False, True], ['colorize'])


class StandInConfidence:
    """Stands for a BackendStream whose bundle tells its confidence: low for dark images."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def label(self, image, confidence=False):
        made = self._stream.label(image, confidence)
        return made._replace(mean_confidence=0.5 if image.mean() < 50 else 0.9)


def test_diagnostics_say_what_is_held_back(inner, probe):
    inner._stream._stream = StandInConfidence(inner._stream._stream)
    seen = ros.CameraProbe(probe, 'inner', 'inner')
    for number, image in enumerate([GOOD, GOOD // 8, GOOD // 8, GOOD]):
        seen.label(ros.image(image, (number + 1) * FRAME))
    values = inner.statistics.report()[0]
    assert 'latency_p50_ms' not in values and 'not of this clock' in values['latency']
    assert (values['held_back_from_pool'], values['labelled']) == ('2', '4')
    assert values['context_frames'] == '1'
    assert float(values['oldest_context_s']) == pytest.approx(3 * FRAME / 1e9, abs=1e-3)
    seen.label(ros.image(GOOD, 1))      # back to the start: no context
    assert inner.statistics.report()[0]['oldest_context_s'] == '-'


def test_rate_that_the_student_was_not_trained_for(inner, probe, backend, capfd):
    inner._stream.rate = FrameRate((100.0, 120.0))
    seen = ros.CameraProbe(probe, 'inner', 'inner')
    for number in range(14):
        seen.label(ros.image(GOOD, (number + 1) * FRAME))
    hz = f'{1e9 / FRAME:.1f} frames a second reach the network, which was trained for 100 to 120'
    status = camera_status(inner, inner._node, backend)
    assert int.from_bytes(status.level, 'little') == WARN and hz in status.message
    log = capfd.readouterr().err
    assert log.count(hz) == 1 and '/inner/image: ' in log


def test_a_failure_inside_costs_one_frame(inner, probe, capfd):
    seen = ros.CameraProbe(probe, 'inner', 'inner')
    for stamp in (2, 4):
        seen.images.publish(ros.image(np.zeros_like(GOOD), stamp - 1))
        probe.wait(lambda: inner.statistics.report()[0].get('dropped_internal') == str(stamp // 2),
                   'the failure')
        seen.label(ros.image(GOOD, stamp))
    values = inner.statistics.report()[0]
    assert (values['resets_internal'], values['received'], values['labelled']) == ('2', '4', '2')
    log = capfd.readouterr().err
    assert log.count('Traceback') == 1 and 'RuntimeError: the device is gone' in log


def test_bit_depth_that_does_not_fit(inner, probe, caplog):
    seen = ros.CameraProbe(probe, 'inner', 'inner')
    for number in range(2):
        seen.label(ros.image(GOOD[..., 0].astype(np.uint16) * 16 + 15, number + 1, 'mono16'))
    warning, = (record.getMessage() for record in caplog.records)
    assert warning.startswith('/inner/image: ') and 'set bit_depth to 12' in warning


def test_repeated_stamp_is_labelled(front):
    front.label(ros.image(GOOD, stamp := next(stamps)))
    front.images.publish(ros.image(GOOD, stamp))
    front.probe.wait(
        lambda: [ros.stamp_of(m) for m in front.received['label']].count(stamp) == 2, 'both')
    assert front.values()['context_frames'] == 1


def test_camera_that_stops_and_returns(rear):
    rear.label(ros.compressed(jpeg(GOOD), start := next(stamps)))
    rear.probe.wait(lambda: rear.probe.status(rear.name)[0] == WARN, 'silence to be noticed')
    assert re.match(r'no image for . s from 1 publisher\(s\) on /rear/image/compressed: ',
                    rear.probe.last(rear.name)[1])
    topic = rear.compressed.topic_name
    rear.probe.node.destroy_publisher(rear.compressed)
    rear.probe.wait(lambda: rear.probe.status(rear.name)[0] == ERROR, 'the loss to be noticed')
    assert 'no publisher on /rear/image or /rear/image/compressed: ' in rear.probe.last(
        rear.name)[1]
    rear.compressed = rear.probe.node.create_publisher(
        type(ros.compressed(b'', 0)), topic, ros.RELIABLE)
    rear.probe.wait(lambda: rear.probe.status(rear.name)[0] == WARN, 'the node to match again')
    rear.label(ros.compressed(jpeg(GOOD), start + 20 * ros.SECOND))
    assert rear.values()['resets_gap'] >= 1
