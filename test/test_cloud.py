# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Points with class and confidence, from depth and label images, over real DDS."""
from contextlib import contextmanager
import math
import struct

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
import pytest
import rclpy
import ros_helpers as ros
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, RegionOfInterest

from ros_vseg.cloud import back_project, depth_in_metres, labelled_points
from ros_vseg.errors import ImageError
from ros_vseg.nodes import cloud as cloud_node
from ros_vseg.nodes.calibration import fits, intrinsics
from ros_vseg.nodes.cloud import Cloud, cloud_message
from ros_vseg.nodes.matching import KEPT, KEPT_LARGE, Matcher

HEIGHT, WIDTH = 6, 8
P = (100.0, 0.0, 3.5, 0.0, 0.0, 110.0, 2.5, 0.0, 0.0, 0.0, 1.0, 0.0)


def inputs(stamp, kind='16UC1', seed=0):
    rng = np.random.default_rng(seed)
    depth = rng.integers(0, 5000, (HEIGHT, WIDTH)).astype('<u2')
    depth[0, 0] = 0
    if kind == '32FC1':
        depth = (depth / 1000).astype('<f4')
        depth[0, 0], depth[0, 1] = math.inf, math.nan
    return {
        'depth': ros.image(depth, stamp, kind, 'depth_optical'),
        'image': ros.image(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), stamp),
        'label': ros.image(rng.integers(0, 11, (HEIGHT, WIDTH), np.uint8), stamp, 'mono8'),
        'confidence': ros.image(rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8), stamp, 'mono8')}


def info(stamp=0, **changes):
    return CameraInfo(**{**{'header': ros.header(stamp), 'height': HEIGHT, 'width': WIDTH, 'p': P},
                         **changes})


def check(cloud, found, unit):
    """Compare every point to plain arithmetic on the bytes of the messages."""
    assert [(field.name, field.offset, field.datatype) for field in cloud.fields] == [
        ('x', 0, 7), ('y', 4, 7), ('z', 8, 7), ('rgb', 12, 7), ('label', 16, 6),
        ('confidence', 20, 7)]
    assert (cloud.height, cloud.width, cloud.point_step) == (HEIGHT, WIDTH, 24)
    assert cloud.header == found['depth'].header
    depth, data = bytes(found['depth'].data), bytes(cloud.data)
    code = '<H' if unit == 1e-3 else '<f'
    for row in range(HEIGHT):
        for column in range(WIDTH):
            place = row * WIDTH + column
            x, y, z, rgb, label, confidence = struct.unpack_from('<fffIIf', data, place * 24)
            z_true = struct.unpack_from(code, depth, place * struct.calcsize(code))[0] * unit
            if not math.isfinite(z_true) or z_true == 0:
                assert math.isnan(x) and math.isnan(y) and math.isnan(z)
            else:
                assert z == pytest.approx(z_true)
                assert x == pytest.approx((column - 3.5) / 100 * z_true, abs=1e-6)
                assert y == pytest.approx((row - 2.5) / 110 * z_true, abs=1e-6)
            red, green, blue = bytes(found['image'].data)[3 * place:3 * place + 3]
            assert rgb == red * 65536 + green * 256 + blue
            assert label == bytes(found['label'].data)[place]
            assert confidence == pytest.approx(bytes(found['confidence'].data)[place] / 255)


@pytest.mark.parametrize('kind, unit', [('16UC1', 1e-3), ('32FC1', 1.0)])
def test_every_point_is_right(kind, unit):
    found = inputs(5, kind)
    check(cloud_message(found, info()), found, unit)


def test_big_endian_and_padded_depth():
    depth = np.array([[1000, 2000], [3000, 0]], '>u2')
    rows = b''.join(row.tobytes() + b'\xff\xff' for row in depth)
    metres = depth_in_metres(rows, 2, 2, 6, '16UC1', True)
    assert np.allclose(metres, [[1, 2], [3, np.nan]], equal_nan=True)


def test_k_serves_where_p_is_empty_and_none_is_refused():
    found = inputs(5)
    k = (100.0, 0.0, 3.5, 0.0, 110.0, 2.5, 0.0, 0.0, 1.0)
    assert cloud_message(found, info(p=(0.0,) * 12, k=k)).data == \
        cloud_message(found, info()).data
    with pytest.raises(ImageError, match='focal length'):
        cloud_message(found, info(p=(0.0,) * 12))
    for wrong in (np.inf, np.nan):
        with pytest.raises(ImageError, match='focal length'):
            cloud_message(found, info(p=(0.0,) * 12, k=(wrong, *k[1:])))


def of_sensor(**changes):
    """Return the camera_info of images that are the middle of a sensor, binned by 2 and 3."""
    k = (200.0, 0.0, 7.0 + 10, 0.0, 330.0, 7.5 + 20, 0.0, 0.0, 1.0)
    p = (*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0)
    roi = RegionOfInterest(x_offset=10, y_offset=20, width=2 * WIDTH + 1, height=3 * HEIGHT)
    return info(**{**{'height': 480, 'width': 640, 'binning_x': 2, 'binning_y': 3, 'roi': roi,
                      'p': p}, **changes})


def test_binning_and_roi_of_camera_info_are_reckoned_with():
    found = inputs(5)
    check(cloud_message(found, of_sensor()), found, 1e-3)
    check(cloud_message(found, of_sensor(k=of_sensor().p.reshape(3, 4)[:, :3].ravel(),
                                         p=(0.0,) * 12)), found, 1e-3)
    binned = info(height=2 * HEIGHT, width=WIDTH, binning_y=2,
                  p=(*P[:5], 2 * P[5], 2 * P[6], *P[7:]))
    check(cloud_message(found, binned), found, 1e-3)
    with pytest.raises(ImageError, match='camera_info is of 480x640, depth is 6'):
        cloud_message(found, of_sensor(binning_y=2))


def test_bad_inputs_name_what_is_wrong():
    with pytest.raises(ImageError, match='encoding rgb8'):
        depth_in_metres(b'', 1, 1, 3, 'rgb8', False)
    with pytest.raises(ImageError, match='less than it says'):
        depth_in_metres(b'12', 2, 2, 4, '16UC1', False)
    with pytest.raises(ImageError, match='camera_info is of 3x4'):
        cloud_message(inputs(5), info(height=3, width=4))
    points = back_project(np.ones((4, 4), np.float32), (1, 1, 0, 0))
    with pytest.raises(ImageError, match='register the depth'):
        labelled_points(points, np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))


def test_matcher_pairs_by_stamp_counts_the_rest_and_forgets():
    matcher = Matcher(['label', 'depth'], 0)
    assert matcher.add('depth', 10, 'd10') is None and matcher.add('depth', 20, 'd20') is None
    assert matcher.add('label', 20, 'l20') == {'label': 'l20', 'depth': 'd20'}
    assert matcher.unmatched == {'label': 0, 'depth': 1}
    assert matcher.add('label', 30, 'l30') is None
    for stamp in range(100, 100 + 2 * KEPT_LARGE):
        matcher.add('depth', stamp, stamp)
    assert matcher.unmatched['depth'] == 1 + KEPT_LARGE


def test_matcher_takes_the_nearest_within_the_slop():
    matcher = Matcher(['label', 'depth'], 5)
    assert matcher.add('depth', 94, 'far') is None and matcher.add('depth', 103, 'near') is None
    assert matcher.add('label', 101, 'l') == {'label': 'l', 'depth': 'near'}
    assert matcher.add('label', 200, 'l') is None


@pytest.mark.parametrize('lost', ['label', 'depth'])
@pytest.mark.parametrize('offset', [-5, 5])
@pytest.mark.parametrize('late', [('label', 2), ('label', 20), ('depth', 2), ('depth', 20)])
def test_a_message_that_is_lost_shifts_no_pair(lost, offset, late):
    """Frames every 33, depth stamped a little apart; slop takes in the frame beside it too."""
    topics = ['label', 'depth', 'image', 'confidence']
    matcher, sent = Matcher(topics, 40), []
    for number in range(10):
        for topic in topics:
            stamp = 100 + 33 * number + offset * (topic == 'depth')
            maker = 'label' if topic == 'confidence' else topic     # published just after it
            if (maker, number) != (lost, 4):
                delay = (late[1] if maker == late[0] else 1) + (topic == 'confidence')
                sent.append((33 * number + delay, topic, stamp, number))
    sets = [found for _, topic, stamp, number in sorted(sent)
            if (found := matcher.add(topic, stamp, number))]
    assert all(len(set(found.values())) == 1 for found in sets), sets
    assert [found['label'] for found in sets] == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_confidence_is_of_the_labels_own_frame_and_depth_of_the_nearest():
    matcher, topics = Matcher(['label', 'depth', 'confidence'], 100), ('label', 'confidence')
    for number in range(4):     # depth comes late, and one label is lost
        for topic in topics[number == 1:]:
            assert matcher.add(topic, 30 * number + 1, number) is None
    assert matcher.add('depth', 91, 3) == {'label': 3, 'depth': 3, 'confidence': 3}
    assert matcher.add('label', 121, 4) is None and matcher.add('depth', 121, 4) is None
    assert matcher.add('confidence', 121, 4) == {'label': 4, 'depth': 4, 'confidence': 4}


def test_matcher_keeps_few_of_what_is_large():
    matcher = Matcher(['label', 'depth', 'image', 'confidence'], 0)
    for stamp in range(1, 2 * KEPT + 1):
        for topic in ('image', 'depth', 'confidence'):
            matcher.add(topic, stamp, stamp)
    large = 2 * KEPT - KEPT_LARGE
    assert matcher.unmatched == {'label': 0, 'depth': large, 'image': large, 'confidence': KEPT}


@pytest.mark.parametrize('back', [90, 0.5])
def test_matcher_goes_on_after_stamps_went_back(back):
    second, frames = 10**9, 60
    matcher, topics = Matcher(['label', 'depth', 'image'], 0), ('depth', 'image', 'label')
    start = 100 * second
    for number in range(KEPT):      # of depth and image; nothing labels yet
        for topic in topics[:2]:
            assert matcher.add(topic, start + number * second // 30, number) is None
    start += KEPT * second // 30 - int(back * second)
    sets = [matcher.add(topic, start + number * second // 30 + 1, number)
            for number in range(frames) for topic in topics]
    assert [found for found in sets if found] == [
        dict.fromkeys(topics, number) for number in range(frames)]
    assert matcher.unmatched == {'label': 0, 'depth': KEPT, 'image': KEPT}


def test_matcher_forgets_all_topics_when_one_starts_again():
    second = 10**9
    matcher = Matcher(['label', 'depth'], 0)
    matcher.add('depth', 50 * second, 'of the first round')
    matcher.add('label', 60 * second, 'of the first round')
    assert matcher.add('label', 40 * second, 'l40') is None
    assert matcher.add('label', 50 * second, 'l50') is None
    assert matcher.unmatched == {'label': 1, 'depth': 1}
    assert matcher.add('depth', 50 * second, 'd50') == {'label': 'l50', 'depth': 'd50'}


def test_matcher_joins_nothing_without_stamps_and_counts_what_it_replaces():
    matcher = Matcher(['label', 'depth'], 0)
    for topic in ('depth', 'label'):
        assert matcher.add(topic, 0, topic) is None
    assert matcher.unmatched == {'label': 1, 'depth': 1}
    matcher.add('depth', 7, 'first')
    matcher.add('depth', 7, 'second')
    assert matcher.unmatched['depth'] == 2
    assert matcher.add('label', 7, 'l7') == {'label': 'l7', 'depth': 'second'}


@contextmanager
def cloud_of_left():
    """Yield a Cloud in this process, with a way to read its /diagnostics and one to feed it."""
    rclpy.init(args=['--ros-args', '-r', '__ns:=/left'])
    node = Cloud()
    told = []
    node._diagnostics.publish = lambda message: told.append(message.status[0])

    def status():
        node._publish_diagnostics()
        return told[-1].level, told[-1].message, told[-1].name

    def feed(stamp, topics=('depth', 'image', 'label', 'confidence'), **messages):
        for topic in topics:
            node._on_image(topic, {**inputs(stamp), **messages}[topic])

    try:
        yield node, status, feed
    finally:
        node.destroy_node()
        rclpy.shutdown()


def test_diagnostics_tell_why_there_are_no_points(monkeypatch):
    with cloud_of_left() as (node, status, feed):
        assert status() == (b'\0', 'nobody listens', 'left/cloud: points')
        node._subscribe()
        assert status()[:2] == (b'\0', 'points')
        now = cloud_node.time.monotonic()
        monkeypatch.setattr(cloud_node.time, 'monotonic', lambda: now)
        node._on_info(info())
        now += 6
        feed(5, ('depth', 'image'))
        reason = 'no points for 5 s: nothing arrives on /left/label, /left/confidence'
        assert status()[:2] == (b'\1', reason)
        feed(7, ('label', 'confidence'))
        assert status()[1].endswith('5 s: stamps of depth and label image differ: raise slop')
        feed(10, label=ros.image(np.zeros((3, 4), np.uint8), 10, 'mono8'))
        assert status()[1] == 'no points: refused'
        assert 'register the depth' in status()[1]     # still, where sets are rare
        feed(20)
        assert status()[:2] == (b'\0', 'points')


def test_points_are_never_made_with_the_camera_info_of_before_a_pause():
    with cloud_of_left() as (node, _, feed):
        node._subscribe()
        node._on_info(info())
        feed(5)
        assert node._counts['published'] == 1
        node._look()    # nobody listens
        assert not node._inputs
        node._subscribe()
        feed(6)
        assert (node._counts['published'], node._counts['without_camera_info']) == (1, 1)


def test_node_publishes_points_while_somebody_listens(probe, tmp_path):
    remaps = [argument for topic in ('depth', 'image', 'label', 'confidence', 'camera_info')
              for argument in ('-r', f'{topic}:=/rig/{topic}')]
    with ros.start('cloud', tmp_path / 'log', *remaps) as child:
        child.wait_for_line('points on /cloud/points', 60)
        publishers = {name: probe.node.create_publisher(Image, f'/rig/{name}', ros.RELIABLE)
                      for name in ('depth', 'image', 'label', 'confidence')}
        infos = probe.node.create_publisher(CameraInfo, '/rig/camera_info', ros.RELIABLE)
        assert not publishers['label'].get_subscription_count()
        clouds = probe.collect('/cloud/points', PointCloud2)
        reports = probe.collect('/diagnostics', DiagnosticArray)
        everything = [*publishers.values(), infos]
        probe.wait(lambda: all(p.get_subscription_count() for p in everything), 'subscriptions')
        stamp = next(ros.stamps)
        infos.publish(info(stamp))
        found = inputs(stamp)
        probe.spin(1.5)     # on a busy machine the node finds the publishers later
        for name in ('depth', 'confidence', 'image', 'label'):
            publishers[name].publish(found[name])
        probe.wait(lambda: clouds, 'points')
        check(clouds[0], found, 1e-3)
        publishers['label'].publish(ros.image(np.zeros((3, 4), np.uint8), stamp + 1, 'mono8'))
        for name in ('depth', 'confidence', 'image'):
            publishers[name].publish(inputs(stamp + 1)[name])
        child.wait_for_line('register the depth', 30)
        for name in ('depth', 'confidence', 'image', 'label'):
            publishers[name].publish(inputs(stamp + 2)[name])
        probe.wait(lambda: len(clouds) > 1, 'points after a bad image')
        for name in ('depth', 'confidence', 'image', 'label'):
            publishers[name].publish(inputs(0)[name])
        child.wait_for_line('stamps are 0: /rig/', 30)
        probe.spin(0.5)
        assert len(clouds) == 2 and child.log.read_text().count('stamps are 0') == 1

        def told():
            values = {item.key: item.value for item in reports[-1].status[0].values}
            return values == {
                'published': '2', 'refused': '1', 'without_camera_info': '0',
                **{f'unmatched_{name}': '1' for name in publishers}}

        probe.wait(lambda: reports and told(), 'what was lost')
        assert 'no points: refused' in [report.status[0].message for report in reports]
        assert 'Traceback' not in child.log.read_text()


@pytest.mark.parametrize('changes, expected', [
    ({}, (100, 110, 3.5, 2.5)),
    ({'height': 2 * HEIGHT, 'width': 2 * WIDTH, 'binning_x': 2, 'binning_y': 2},
     (50, 55, 1.75, 1.25)),
    ({'height': 480, 'width': 640, 'roi': RegionOfInterest(
        x_offset=2, y_offset=1, height=HEIGHT, width=WIDTH)}, (100, 110, 1.5, 1.5)),
    ({'height': 480, 'width': 640, 'binning_x': 2, 'binning_y': 2, 'roi': RegionOfInterest(
        x_offset=2, y_offset=1, height=2 * HEIGHT, width=2 * WIDTH)}, (50, 55, 0.75, 0.75))])
def test_a_lens_is_that_of_the_region_of_interest_binned(changes, expected):
    size = HEIGHT, WIDTH
    assert fits(info(**changes), size) and intrinsics(info(**changes), size) == expected
    assert not fits(info(**changes), (HEIGHT + 1, WIDTH))
