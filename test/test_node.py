# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The node as a process, over DDS: one process for most tests, each with frames of its own."""
from itertools import count
import json
import re
import signal
import time

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')

from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue  # noqa: E402
from rcl_interfaces.srv import DescribeParameters, SetParameters  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
import ros_helpers as ros  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from tiny_bundle import write_tiny_bundle  # noqa: E402

from ros_vseg import backends  # noqa: E402
from ros_vseg.bundle import Bundle  # noqa: E402
from ros_vseg.camera import LatestSlot  # noqa: E402
from ros_vseg.image import to_label_array  # noqa: E402
from ros_vseg.labels import colorize, load_label_set, overlay  # noqa: E402
from ros_vseg.stream import Stream  # noqa: E402

FRAME = ros.SECOND // 10
OK, WARN, ERROR = 0, 1, 2
CAMVID = load_label_set('camvid')
stamps = count(1_000 * ros.SECOND, 100 * ros.SECOND)    # each test has a time of its own


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('bundle') / 'tiny.onnx')


@pytest.fixture(scope='module')
def probe():
    probe = ros.Probe()
    yield probe
    probe.close()


@pytest.fixture(scope='module')
def node(bundle, tmp_path_factory):
    arguments = {'qos_overrides./front/image.subscription.reliability': 'reliable',
                 'qos_overrides./vseg_node/front/label.publisher.depth': 50}
    log = tmp_path_factory.mktemp('node') / 'log'
    with ros.start('node', log, bundle=bundle, cameras='[front, rear]', threads=1,
                   precision='fp32', **arguments) as child:
        yield child
        child.check_alive()


@pytest.fixture(scope='module')
def front(node, probe):
    """Return the camera that publishes raw images and that only labels are wanted of."""
    return ros.CameraProbe(probe, 'vseg_node', 'front')


@pytest.fixture(scope='module')
def rear(node, probe):
    """Return the camera that publishes JPEG, and that everything is wanted of."""
    outputs = ('label', 'color', 'overlay', 'confidence', 'camera_info')
    return ros.CameraProbe(probe, 'vseg_node', 'rear', outputs, raw=False)


@pytest.fixture(scope='module')
def backend(bundle):
    return backends.load(Bundle.load(bundle), threads=1, precision='fp32')


def pictures(number, height=120, width=160, seed=0):
    """Return smooth coloured pictures, uint8 [H, W, 3], that drift from one to the next."""
    rng = np.random.default_rng(seed)
    start, step = rng.integers(0, 256, (6, 8, 3)), rng.integers(-20, 20, (6, 8, 3))
    return [cv2.resize(np.clip(start + i * step, 0, 255).astype(np.uint8), (width, height))
            for i in range(number)]


def jpeg(picture):
    return cv2.imencode('.jpg', picture)[1].tobytes()


def set_parameter(probe, name, kind, value):
    """Set a parameter of the node; return (successful, reason)."""
    field = {ParameterType.PARAMETER_DOUBLE: 'double_value',
             ParameterType.PARAMETER_STRING: 'string_value'}[kind]
    parameter = Parameter(name=name, value=ParameterValue(type=kind, **{field: value}))
    result = probe.call(SetParameters, '/vseg_node/set_parameters', parameters=[parameter])
    return result.results[0].successful, result.results[0].reason


def transition(probe, label):
    request = ChangeState.Request()
    request.transition.label = label
    return probe.call(ChangeState, '/vseg_node/change_state',
                      transition=request.transition).success


def state(probe):
    return probe.call(GetState, '/vseg_node/get_state').current_state.label


# What comes out

def test_labels_equal_the_offline_stream(front, backend):
    stream, start = Stream(backend), next(stamps)
    for number, picture in enumerate(pictures(8)):
        stamp = start + number * FRAME
        label = front.label(ros.image(picture, stamp))
        assert label.header == ros.header(stamp, 'camera')
        assert (label.encoding, label.step, label.is_bigendian) == ('mono8', 160, 0)
        expected = stream.step(picture, stamp, 'camera').labels
        assert len(np.unique(expected)) > 2
        np.testing.assert_array_equal(to_label_array(label), expected)
    assert front.values()['context_frames'] == 3


def test_every_output_of_a_compressed_camera(rear, backend):
    stream, start = Stream(backend), next(stamps)
    rear.info.publish(CameraInfo(header=ros.header(5), width=160, height=120, d=[0.25]))
    rear.probe.wait(lambda: rear.compressed.wait_for_all_acked(), 'camera_info to be sent')
    rear.probe.spin(0.2)
    for number, picture in enumerate(pictures(3, seed=1)):
        stamp, data = start + number * FRAME, jpeg(picture)
        rear.label(ros.compressed(data, stamp), 'camera_info')
        seen = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)
        expected = stream.step(seen, stamp, 'camera', confidence=True)
        for output, encoding, pixels in (
                ('label', 'mono8', expected.labels),
                ('confidence', 'mono8', expected.confidence),
                ('color', 'rgb8', colorize(expected.labels, CAMVID)),
                ('overlay', 'rgb8', overlay(seen, expected.labels, CAMVID, 0.5))):
            message = rear.wait_for(stamp, output)
            assert (message.encoding, message.header.frame_id) == (encoding, 'camera')
            np.testing.assert_array_equal(
                np.frombuffer(message.data, np.uint8).reshape(pixels.shape), pixels)
        info = rear.wait_for(stamp, 'camera_info')
        assert (info.width, info.height, list(info.d)) == (160, 120, [0.25])


def test_label_info_is_latched(node, probe):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    received = probe.collect('/vseg_node/label_info', String, latched)
    info = json.loads(probe.wait(lambda: received, 'label_info')[0].data)
    assert info == CAMVID.to_dict()
    assert info['void_id'] == 255 and info['classes'][8]['name'] == 'car'


def test_cameras_have_pools_of_their_own(front, rear, backend):
    start, pairs = next(stamps), zip(pictures(4, seed=2), pictures(4, seed=3))
    ahead, behind = Stream(backend), Stream(backend)
    for number, (mine, other) in enumerate(pairs):
        stamp, data = start + number * FRAME, cv2.imencode('.png', other)[1].tobytes()
        label = front.label(ros.image(mine, stamp))
        label_behind = rear.label(ros.compressed(data, stamp, 'png'))
        np.testing.assert_array_equal(
            to_label_array(label), ahead.step(mine, stamp, 'camera').labels)
        np.testing.assert_array_equal(
            to_label_array(label_behind), behind.step(other[..., ::-1], stamp, 'camera').labels)


def test_without_a_listener_the_node_is_not_subscribed(front):
    assert front.images.get_subscription_count() == 1
    front.turn_away('label')
    front.probe.wait(lambda: front.images.get_subscription_count() == 0, 'the node to let go')
    level, message, _ = front.probe.status(front.name)
    assert (level, message) == (OK, 'idle: nothing subscribes to an output')
    front.listen('label')
    front.probe.wait(front.images.get_subscription_count, 'the node to come back')
    front.label(ros.image(pictures(1)[0], next(stamps)))


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
    assert received == number and superseded > 0
    assert done == len(labelled) == number - superseded


def test_large_images_all_arrive(front):
    before, begin, number = front.values(), time.monotonic(), 15
    message = ros.image(np.full((1024, 2048, 3), 99, np.uint8), 0)
    for i in range(number):
        message.header.stamp = front.probe.node.get_clock().now().to_msg()
        front.images.publish(message)
        front.probe.spin(begin + (i + 1) * 0.1 - time.monotonic())
    front.wait_for(ros.stamp_of(message))
    after = front.values()
    assert after['received'] - before['received'] == number
    assert after['labelled'] > before['labelled']
    assert 0 < after['latency_p50_ms'] <= after['latency_p95_ms'] <= after['latency_p99_ms'] < 1e3
    assert after['processing_p50_ms'] < after['latency_p50_ms']
    stages = sum(after[f'stage_{name}_ms']
                 for name in ('image', 'resize', 'network', 'decode', 'publish'))
    assert 0 < stages < 2 * after['processing_p95_ms']


def test_qos_can_be_overridden(front):
    endpoint, = front.probe.node.get_subscriptions_info_by_topic('/front/image')
    assert endpoint.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    endpoint, = front.probe.node.get_subscriptions_info_by_topic('/front/camera_info')
    assert endpoint.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    endpoint, = front.probe.node.get_publishers_info_by_topic('/vseg_node/front/label')
    assert endpoint.qos_profile.reliability == ReliabilityPolicy.RELIABLE


# Bad input: counted by cause, named in the log, and the next frame is labelled

GOOD = pictures(1, seed=4)[0]
NAN = np.full((120, 160), np.nan, np.float32)
BAD_IMAGES = {
    'step': (GOOD, 'rgb8', {'step': 479}, 'step'),
    'short data': (GOOD, 'rgb8', {'data': b'\0' * 100}, 'data'),
    'long data': (GOOD, 'rgb8', {'data': b'\0' * 60000}, 'data'),
    'zero size': (GOOD, 'rgb8', {'width': 0, 'height': 0}, 'size'),
    'encoding': (GOOD, 'rgb9', {}, 'encoding'),
    'no encoding': (GOOD, '', {}, 'encoding'),
    'NaN': (NAN, '32FC1', {}, 'nan'),
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


@pytest.mark.parametrize('data', [jpeg(GOOD)[:700], b'', b'not a picture'],
                         ids=['truncated', 'empty', 'text'])
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


@pytest.mark.parametrize('cause, change', [
    ('size', {'pixels': pictures(1, 60, 80)[0]}), ('frame_id', {'frame_id': 'other'}),
    ('time_back', {'stamp': -2 * FRAME}), ('gap', {'stamp': 3 * ros.SECOND})])
def test_changes_in_mid_stream_empty_the_pool(front, backend, cause, change):
    front.label(ros.image(GOOD, start := next(stamps)))
    front.label(ros.image(GOOD, start + FRAME))
    before = front.values()
    pixels = change.get('pixels', GOOD)
    stamp = start + FRAME + change.get('stamp', FRAME)
    frame_id = change.get('frame_id', 'camera')
    label = front.label(ros.image(pixels, stamp, frame_id=frame_id))
    assert label.header.frame_id == frame_id
    np.testing.assert_array_equal(to_label_array(label), Stream(backend).step(pixels, 0).labels)
    after = front.values()
    assert after[f'resets_{cause}'] == before.get(f'resets_{cause}', 0) + 1
    assert (before['context_frames'], after['context_frames']) == (1, 0)


def test_repeated_stamp_is_labelled(front):
    front.label(ros.image(GOOD, stamp := next(stamps)))
    front.images.publish(ros.image(GOOD, stamp))
    front.probe.wait(
        lambda: [ros.stamp_of(m) for m in front.received['label']].count(stamp) == 2, 'both')
    assert front.values()['context_frames'] == 1


def test_camera_that_stops_and_returns(rear):
    rear.label(ros.compressed(jpeg(GOOD), start := next(stamps)))
    rear.probe.wait(lambda: rear.probe.status(rear.name)[0] == WARN, 'silence to be noticed')
    assert re.match('no image for . s from 1 publisher', rear.probe.last(rear.name)[1])
    topic = rear.compressed.topic_name
    rear.probe.node.destroy_publisher(rear.compressed)
    rear.probe.wait(lambda: rear.probe.status(rear.name)[0] == ERROR, 'the loss to be noticed')
    assert 'no publisher on /rear/image' in rear.probe.last(rear.name)[1]
    rear.compressed = rear.probe.node.create_publisher(
        type(ros.compressed(b'', 0)), topic, ros.RELIABLE)
    rear.probe.wait(rear.compressed.get_subscription_count, 'the node to be matched again')
    rear.label(ros.compressed(jpeg(GOOD), start + 20 * ros.SECOND))
    assert rear.values()['resets_gap'] >= 1


# Requests

def test_reset_service_empties_the_pools(front, backend):
    front.label(ros.image(GOOD, start := next(stamps)))
    assert front.probe.call(Trigger, '/vseg_node/reset').success
    before = front.values()
    label = front.label(ros.image(GOOD, start + FRAME))
    np.testing.assert_array_equal(to_label_array(label), Stream(backend).step(GOOD, 0).labels)
    after = front.values()
    assert after['resets_request'] == before.get('resets_request', 0) + 1
    assert after['context_frames'] == 0


def test_parameters_while_running(front, bundle):
    double, string = ParameterType.PARAMETER_DOUBLE, ParameterType.PARAMETER_STRING
    ok, reason = set_parameter(front.probe, 'overlay_alpha', double, 1.5)
    assert not ok and 'overlay_alpha' in reason
    ok, reason = set_parameter(front.probe, 'bundle', string, 'other.onnx')
    assert not ok and 'unconfigured' in reason
    ok, reason = set_parameter(front.probe, 'autostart', string, 'no')
    assert not ok
    assert set_parameter(front.probe, 'max_gap', double, 5.0)[0]
    front.label(ros.image(GOOD, start := next(stamps)))
    front.label(ros.image(GOOD, start + 4 * ros.SECOND))
    assert front.values()['context_frames'] == 1
    assert set_parameter(front.probe, 'max_gap', double, 1.0)[0]


def test_parameters_are_described(front):
    response = front.probe.call(
        DescribeParameters, '/vseg_node/describe_parameters', names=['overlay_alpha', 'backend'])
    alpha, backend = response.descriptors
    assert alpha.floating_point_range[0].to_value == 1.0 and 'overlay' in alpha.description
    assert backend.additional_constraints == 'one of auto, tensorrt, openvino, onnxruntime'


def test_lifecycle_goes_round(front, node, bundle, tmp_path):
    probe, string = front.probe, ParameterType.PARAMETER_STRING
    assert transition(probe, 'deactivate')
    probe.wait(lambda: front.images.get_subscription_count() == 0, 'the node to let go')
    assert probe.status(front.name)[:2] == (OK, 'inactive')
    assert transition(probe, 'activate')
    probe.wait(front.images.get_subscription_count, 'the node to subscribe')
    front.label(ros.image(GOOD, next(stamps)))

    assert transition(probe, 'deactivate') and transition(probe, 'cleanup')
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(bundle.read_bytes()[:-100])
    assert set_parameter(probe, 'bundle', string, str(broken))[0]
    assert not transition(probe, 'configure')
    assert state(probe) == 'unconfigured'
    assert node.log.read_text().count('cannot configure') == 1
    level, message, _ = probe.status('vseg_node: node')
    assert level == ERROR and str(broken) in message

    assert set_parameter(probe, 'bundle', string, str(bundle))[0]
    assert transition(probe, 'configure') and transition(probe, 'activate')
    probe.wait(front.images.get_subscription_count, 'the node to subscribe')
    front.label(ros.image(GOOD, next(stamps)))
    assert state(probe) == 'active'


# Starting and ending

def bad_bundles(bundle, folder):
    """Write bundles that cannot be loaded; return {path: what the error must say}."""
    (folder / 'text.onnx').write_text('not a bundle')
    (folder / 'short.onnx').write_bytes(bundle.read_bytes()[:2000])
    return {folder / 'text.onnx': 'no ONNX file', folder / 'short.onnx': 'truncated',
            folder / 'missing.onnx': 'cannot be read'}


def test_bad_bundle_leaves_the_node_alive(bundle, tmp_path):
    for number, (path, reason) in enumerate(bad_bundles(bundle, tmp_path).items()):
        kind = (signal.SIGINT, signal.SIGTERM)[number % 2]
        with ros.start('node', tmp_path / 'log', '-r', '__ns:=/bad', bundle=path,
                       max_gapp=1.0) as child:
            child.wait_for_line('cannot configure', 20)
            lines = child.log.read_text().splitlines()
            errors = [line for line in lines if 'ERROR' in line]
            assert len(errors) == 1 and str(path) in errors[0] and reason in errors[0]
            assert any("'max_gapp' is unknown" in line and "'max_gap'?" in line for line in lines)
            assert child.process.poll() is None
            child.process.send_signal(kind)
            assert child.process.wait(10) == 0


@pytest.mark.parametrize('name, value, mend', [
    ('overlay_alpha', '1.5', 'from 0.0 to 1.0'), ('max_gap', '1', 'a decimal number'),
    ('backend', 'cuda', 'one of auto'), ('cameras', '[front, front]', 'different ROS names')])
def test_a_value_out_of_range_is_refused_at_start(tmp_path, name, value, mend):
    with ros.start('node', tmp_path / 'log', '-r', '__ns:=/bad', **{name: value}) as child:
        assert child.process.wait(20) == 1
    lines = child.log.read_text().splitlines()
    assert len(lines) == 1 and f"'{name}'" in lines[0] and mend in lines[0]


@pytest.mark.parametrize('kind', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_active_node_with_code_0(bundle, tmp_path, kind):
    with ros.start('node', tmp_path / 'log', '-r', '__ns:=/ends', bundle=bundle) as child:
        child.wait_for_line('labels camera', 30)
        child.process.send_signal(kind)
        assert child.process.wait(10) == 0
    assert 'Traceback' not in child.log.read_text()


def test_latest_slot():
    slot = LatestSlot()
    assert [slot.put(1), slot.put(2), slot.take(), slot.put(3)] == [False, True, 2, False]
    slot.close()
    assert slot.take() is None
