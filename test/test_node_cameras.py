# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Several cameras and their own parameters: transport, remaps, rates, shares."""
from contextlib import closing
import time

from diagnostic_msgs.msg import DiagnosticStatus
import pytest
import ros_helpers as ros
from ros_helpers import FRAME, jpeg, pictures, stamps
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ros_vseg.nodes import diagnostics
from ros_vseg.stream import Stream

GOOD = pictures(1, seed=4)[0]
DATA = jpeg(GOOD)


@pytest.fixture
def inner(probe, backend):
    """Return a function that starts a Camera with ROS arguments; gives it and its probe."""
    opened = []

    def start(*arguments, topic=None, raw=True):
        camera = ros.inner_camera(
            probe, Stream(backend), backend.bundle.info.label_set, arguments=arguments)
        opened.append(camera)
        made = camera.__enter__()
        seen = ros.CameraProbe(probe, 'inner', 'inner', topic=topic, raw=raw)
        opened.append(closing(seen))
        return made, seen
    yield start
    for manager in reversed(opened):
        manager.__exit__(None, None, None)


def test_compressed_images_follow_a_remap_of_the_raw_ones(inner):
    camera, seen = inner('-r', 'inner/image:=/usb/image_raw', topic='/usb/image_raw', raw=False)
    seen.label(ros.compressed(DATA, 1))
    assert camera.inputs.transport() == 'compressed'
    assert camera.inputs.topic_of(ros.compressed(DATA, 1)) == '/usb/image_raw/compressed'


def test_the_rule_of_a_remap_is_applied_once(inner):
    """Cables swapped: the topic that an image is remapped to is the name of another rule."""
    camera, seen = inner('-r', 'inner/image:=/other/image', '-r', '/other/image:=/inner/image',
                         topic='/other/image')
    assert camera.inputs.topic == '/other/image'
    seen.label(ros.image(GOOD, next(stamps)))


def test_an_image_that_comes_both_ways_is_labelled_once(inner, probe, monkeypatch):
    """Raw images so slow that compressed ones are taken too."""
    monkeypatch.setattr('ros_vseg.nodes.inputs.SILENCE', 0.2)
    camera, seen = inner()
    probe.spin(0.5)     # the raw ones are silent
    probe.wait(seen.compressed.get_subscription_count, 'compressed images to be wanted')
    for _ in range(3):
        stamp = next(stamps)
        seen.compressed.publish(ros.compressed(DATA, stamp))
        probe.spin(0.1)
        seen.images.publish(ros.image(GOOD, stamp))
        probe.spin(0.6)
    labelled = list(map(ros.stamp_of, seen.received['label']))
    assert len(labelled) == len(set(labelled)) == 3


@pytest.mark.parametrize('override', [
    'front/image.subscription.reliability:=foo', 'front/image.subscription.depth:=abc',
    'vseg_node/front/label.publisher.reliability:=foo'])
def test_wrong_qos_overrides_are_told_when_the_node_configures(bundle, tmp_path, override):
    with ros.start('vseg_node', tmp_path / 'log', '-p', f'qos_overrides./{override}',
                   bundle=bundle, cameras='[front]') as child:
        child.wait_for_line('cannot configure', 60)
        text = child.log.read_text()
    assert 'correct its qos_overrides' in text and 'Traceback' not in text


@pytest.mark.parametrize('name', ['inner/image/compressed', '/usb/image_raw/compressed'])
def test_compressed_images_can_be_remapped_by_themselves(inner, probe, name):
    """By their own name or by the one that follows from the raw images; no rule after it."""
    publisher = probe.node.create_publisher(CompressedImage, '/zip', ros.RELIABLE)
    _, seen = inner('-r', 'inner/image:=/usb/image_raw', '-r', f'{name}:=/zip',
                    '-r', '/zip:=/elsewhere', topic='/usb/image_raw')
    probe.node.destroy_publisher(seen.images)
    probe.wait(publisher.get_subscription_count, 'the node to subscribe')
    publisher.publish(ros.compressed(DATA, 1))
    seen.wait_for(1)
    seen.images = None
    probe.node.destroy_publisher(publisher)


def test_a_topic_of_another_type_is_told(probe, backend):
    publisher = probe.node.create_publisher(CompressedImage, '/usb/compressed', ros.RELIABLE)
    with ros.inner_camera(probe, Stream(backend), backend.bundle.info.label_set, arguments=(
            '-r', 'inner/image:=/usb/compressed')) as camera:
        probe.wait(camera.inputs.publishers, 'the publisher')
        level, message = diagnostics._silent(camera, camera._node)
    probe.node.destroy_publisher(publisher)
    assert level == DiagnosticStatus.ERROR
    assert message.startswith('/usb/compressed is sensor_msgs/msg/CompressedImage, not sensor_')


def test_auto_moves_to_the_transport_that_really_sends(inner, probe):
    camera, seen = inner()      # both are offered, and only the raw ones are subscribed to
    assert not seen.compressed.get_subscription_count()
    begin = next(stamps)
    seen.label(ros.image(GOOD, begin))
    assert camera.inputs.transport() == 'raw'
    probe.wait(seen.compressed.get_subscription_count, 'the node to turn to the compressed ones')
    probe.spin(0.3)
    seen.label(ros.compressed(DATA, begin + FRAME))
    assert camera.inputs.transport() == 'compressed'
    seen.label(ros.image(GOOD, begin + 2 * FRAME))
    received = int(camera.statistics.report()[0]['received'])
    seen.compressed.publish(ros.compressed(DATA, begin + 2 * FRAME))    # the same frame
    seen.images.publish(ros.image(GOOD, begin + 3 * FRAME))
    seen.wait_for(begin + 3 * FRAME)
    assert int(camera.statistics.report()[0]['received']) == received + 1
    assert camera.inputs.transport() == 'raw'


def test_camera_info_of_before_an_unsubscription_is_forgotten(inner, probe):
    camera, seen = inner()
    seen.info.publish(CameraInfo(width=160, height=120))
    probe.wait(lambda: camera.inputs.camera_info, 'the camera_info')
    seen.turn_away('label')
    probe.wait(lambda: not camera.inputs.subscribed, 'the camera to unsubscribe')
    assert camera.inputs.camera_info is None


def test_raw_images_alone_can_be_chosen(inner, probe):
    camera, seen = inner('-p', 'inner.transport:=raw')
    seen.label(ros.image(GOOD, 1))
    probe.spin(3)       # longer than a silence
    assert not seen.compressed.get_subscription_count()
    # of other tests, too
    assert camera.inputs.publishers() == probe.node.count_publishers('/inner/image')


def test_compressed_images_alone_can_be_chosen(inner, probe):
    camera, seen = inner('-p', 'inner.transport:=compressed', raw=False)
    other = probe.node.create_publisher(Image, '/inner/image', ros.RELIABLE)
    seen.label(ros.compressed(DATA, 1))
    probe.spin(0.5)
    assert not other.get_subscription_count()
    assert camera.inputs.publishers() == probe.node.count_publishers('/inner/image/compressed')
    probe.node.destroy_publisher(other)


def test_max_rate_thins_out_and_counts(inner, probe):
    camera, seen = inner('-p', 'inner.max_rate:=1.0')
    begin = next(stamps)
    for number in range(20):
        seen.images.publish(ros.image(GOOD, begin + number * FRAME))
        probe.spin(0.02)
    probe.wait(lambda: int(camera.statistics.report()[0]['received']) == 20, 'all images')
    values = camera.statistics.report()[0]
    dropped = int(values['dropped_max_rate'])
    assert dropped >= 15 and 'dropped_superseded' in values
    probe.wait(lambda: int(camera.statistics.report()[0]['labelled']) + dropped
               + int(values['dropped_superseded']) == 20, 'the rest to be labelled')


def test_cameras_share_the_device_evenly(node, front, rear):
    """Both send faster than the node labels: it serves them in turn."""
    start, number, picture = next(stamps), 0, pictures(1, 1080, 1920)[0]
    raw, data = ros.image(picture, 0), jpeg(picture)
    before = [camera.values() for camera in (front, rear)]

    def counted():
        """By the node itself: this end may be late to take the labels from a busy machine."""
        front.probe.spin(0.5)
        now = [camera.values() for camera in (front, rear)]
        return [[int(new[name] - old[name]) for new, old in zip(now, before)]
                for name in ('labelled', 'dropped_superseded')]

    deadline = time.monotonic() + 4 * ros.PATIENCE   # the sender takes most of a busy machine
    labelled, superseded = [0, 0], [0, 0]
    while min(labelled) < 6 or not min(superseded):
        assert time.monotonic() < deadline
        for _ in range(8):
            raw.header = ros.header(start + number * FRAME)
            front.images.publish(raw)
            rear.compressed.publish(ros.compressed(data, start + number * FRAME))
            number += 1
            front.probe.spin(0.01)
        labelled, superseded = counted()
    assert abs(labelled[0] - labelled[1]) <= 3      # what is on its way, or lost by DDS
