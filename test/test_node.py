# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The node as a process, over DDS: what it publishes, what one can ask of it, how it ends."""
import json
import signal

import cv2
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
import pytest
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
import ros_helpers as ros
from ros_helpers import FRAME, jpeg, pictures, stamps
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import String
from std_srvs.srv import Trigger

from ros_vseg.image import to_label_array
from ros_vseg.labels import colorize, load_label_set, overlay
from ros_vseg.stream import Stream

OK, ERROR = 0, 2        # levels of a DiagnosticStatus
CAMVID = load_label_set('camvid')
GOOD = pictures(1, seed=4)[0]


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
    values = front.values()
    assert values['context_frames'] == 3 and values['held_back_from_pool'] == 0
    assert values['oldest_context_s'] == pytest.approx(3 * FRAME / 1e9, abs=1e-3)


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
    received = probe.collect('/vseg_node/label_info_json', String, latched)
    info = json.loads(probe.wait(lambda: received, 'label_info_json')[0].data)
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


def test_qos_can_be_overridden(front):
    endpoint, = front.probe.node.get_subscriptions_info_by_topic('/front/image')
    assert endpoint.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    endpoint, = front.probe.node.get_subscriptions_info_by_topic('/front/camera_info')
    assert endpoint.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    endpoint, = front.probe.node.get_publishers_info_by_topic('/vseg_node/front/label')
    assert endpoint.qos_profile.reliability == ReliabilityPolicy.RELIABLE


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
    assert backend.additional_constraints == (
        'one of auto, tensorrt, onnxruntime_tensorrt, onnxruntime_cuda, openvino, onnxruntime')


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
    return {folder / 'text.onnx': 'not an ONNX file', folder / 'short.onnx': 'truncated',
            folder / 'missing.onnx': 'cannot be read'}


def test_bad_bundle_leaves_the_node_alive(bundle, tmp_path):
    for number, (path, reason) in enumerate(bad_bundles(bundle, tmp_path).items()):
        kind = (signal.SIGINT, signal.SIGTERM)[number % 2]
        with ros.start('vseg_node', tmp_path / 'log', '-r', '__ns:=/bad', bundle=path,
                       max_gapp=1.0) as child:
            child.wait_for_line('cannot configure', 60)
            lines = child.log.read_text().splitlines()
            errors = [line for line in lines if 'ERROR' in line]
            assert len(errors) == 1 and str(path) in errors[0] and reason in errors[0]
            assert any("'max_gapp' is unknown" in line and "'max_gap'?" in line for line in lines)
            assert child.process.poll() is None
            child.process.send_signal(kind)
            assert child.process.wait(60) == 0


@pytest.mark.parametrize('name, value, mend', [
    ('overlay_alpha', '1.5', 'from 0.0 to 1.0'), ('max_gap', '1', 'a decimal number'),
    ('backend', 'cuda', 'one of auto'), ('cameras', '[front, front]', 'different ROS names')])
def test_a_value_out_of_range_is_refused_at_start(tmp_path, name, value, mend):
    with ros.start('vseg_node', tmp_path / 'log', '-r', '__ns:=/bad', **{name: value}) as child:
        assert child.process.wait(60) == 2
    lines = child.log.read_text().splitlines()
    assert len(lines) == 1 and f"'{name}'" in lines[0] and mend in lines[0]


@pytest.mark.parametrize('kind', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_active_node_with_code_0(bundle, tmp_path, kind):
    with ros.start('vseg_node', tmp_path / 'log', '-r', '__ns:=/ends', bundle=bundle) as child:
        child.wait_for_line('labels camera', 60)
        child.process.send_signal(kind)
        assert child.process.wait(60) == 0
    assert 'Traceback' not in child.log.read_text()
