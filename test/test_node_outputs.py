# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Masks, probabilities, compressed labels, label_info: right, and made only if wanted."""
from contextlib import closing
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rclpy.validate_full_topic_name import validate_full_topic_name
import ros_helpers as ros
from ros_helpers import pictures
from std_msgs.msg import String

from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.errors import LabelSetError, VsegError
from ros_vseg.image import compressed_to_label_array, to_label_array
from ros_vseg.labels import LabelSet, load_label_set
from ros_vseg.nodes import label_info
from ros_vseg.nodes import outputs
from ros_vseg.nodes.diagnostics import camera_status
from ros_vseg.nodes.outputs import Extras, extras, Outputs, published_once
from ros_vseg.nodes.parameters import VSEG_NODE
from ros_vseg.nodes.qos import LATCHED
from ros_vseg.probabilities import class_probabilities
from ros_vseg.stream import Stream

CAMVID = load_label_set('camvid')
GOOD = pictures(1, seed=4)[0]
MERGED = CAMVID.from_dict({'name': 'merged', 'classes': [
    {'id': 0, 'name': 'flat', 'color': [1, 2, 3], 'from': ['road', 'sidewalk']},
    {'id': 1, 'name': 'rest', 'color': [4, 5, 6], 'from': [
        name for name in CAMVID.names if name not in ('road', 'sidewalk')]}]})


def softmax(scores):
    powers = np.exp(scores - scores.max(0))
    return powers / powers.sum(0)


def upsample(scores, size):
    """Bilinear, align_corners=False, place by place."""
    rows, columns = (np.clip((np.arange(full) + 0.5) * coarse / full - 0.5, 0, coarse - 1)
                     for full, coarse in zip(size, scores.shape[1:]))
    result = np.empty((len(scores), *size))
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, scores.shape[1] - 1), min(x0 + 1, scores.shape[2] - 1)
            top = scores[:, y0, x0] * (1 - x + x0) + scores[:, y0, x1] * (x - x0)
            low = scores[:, y1, x0] * (1 - x + x0) + scores[:, y1, x1] * (x - x0)
            result[:, i, j] = top * (1 - y + y0) + low * (y - y0)
    return result


def test_probabilities_are_the_softmax_of_the_upsampled_scores():
    scores = np.random.default_rng(0).normal(0, 3, (5, 3, 4)).astype(np.float32)
    expected = softmax(upsample(scores.astype(np.float64), (11, 17)))
    first, pair, none = class_probabilities(scores, (11, 17), [[0], [1, 4], []])
    assert (first.dtype, first.shape) == (np.float32, (11, 17))
    np.testing.assert_allclose(first, expected[0], atol=1e-5)
    np.testing.assert_allclose(pair, expected[1] + expected[4], atol=1e-5)
    assert not none.any()


def test_probabilities_of_scores_that_are_not_numbers():
    scores = np.zeros((3, 2, 2), np.float32)
    scores[0], scores[1] = np.nan, np.inf
    values = class_probabilities(scores, (4, 4), [[0], [1], [2]])
    np.testing.assert_array_equal([value[0, 0] for value in values], [0, 1, 0])


def test_extras_name_topics_and_ids():
    more = extras(CAMVID, CAMVID, {'people': ['pedestrian', 'bicyclist']}, ['road'])
    table = more.masks['mask/people']
    ids = [CAMVID.names.index(name) for name in ('pedestrian', 'bicyclist')]
    assert np.flatnonzero(table).tolist() == sorted(ids) and set(table.tolist()) == {0, 255}
    assert more.probabilities == {'probability/road': [CAMVID.names.index('road')]}
    merged = extras(MERGED, CAMVID, {}, ['flat'])
    assert merged.probabilities == {'probability/flat': sorted(
        CAMVID.names.index(name) for name in ('road', 'sidewalk'))}


@pytest.mark.parametrize('masks, probabilities, reason', [
    ({'people': ['pedestrain']}, [], "mask people: .*'pedestrain', only .*pedestrian"),
    ({'two words': ['car']}, [], "'two words' cannot be a topic"),
    ({}, ['street'], "probabilities: .*'street'")])
def test_extras_refuse(masks, probabilities, reason):
    with pytest.raises(LabelSetError, match=reason):
        extras(CAMVID, CAMVID, masks, probabilities)


ODD = LabelSet('odd', ('traffic light', 'traffic-light', '3d'), ((0, 0, 0),) * 3)


def test_extras_make_a_topic_of_any_name():
    topics = extras(ODD, ODD, {}, ['traffic light', '3d']).probabilities
    assert topics == {'probability/traffic_light': [0], 'probability/_3d': [2]}
    for topic in topics:
        assert validate_full_topic_name(f'/vseg_node/camera/{topic}')


def test_extras_refuse_two_classes_with_one_topic():
    with pytest.raises(LabelSetError, match="'traffic light' and 'traffic-light' would both be "
                                            'published at probability/traffic_light'):
        extras(ODD, ODD, {}, ['traffic light', '3d', 'traffic-light'])


@pytest.mark.parametrize('name, allowed', [
    ('front', True), ('left/rgb', True), ('front\n', False), ('/front', False), ('3d', False),
    ('left//rgb', False), ('', False), ('masks', False), ('masks/a', True), (True, False)])
def test_names_of_cameras(name, allowed):
    cameras, = (parameter for parameter in VSEG_NODE if parameter.name == 'cameras')
    assert cameras.allows([name]) is allowed


def test_names_of_classes_are_taken_whole():
    probabilities, = (each for each in VSEG_NODE if each.name == 'probabilities')
    assert probabilities.allows(['traffic light', '3d']) and not probabilities.allows([''])
    assert not probabilities.allows(['road\n'])


def test_a_name_too_long_for_a_topic_is_one_line(probe):
    with pytest.raises(VsegError, match=r'^~/a+/label cannot be a topic \(.*length.*\): .* choose '
                                        r'a shorter name$'):
        Outputs(probe.node, 'a' * 250, CAMVID, Bundle.load(default_bundle_path()).info)


def test_outputs_that_fail_leave_no_topic(probe):
    made = []

    def create(kind, topic, *arguments, **named):
        if len(made) == 2:
            raise RuntimeError('a wrong override')
        made.append(topic)
        return topic
    node = SimpleNamespace(create_publisher=create, destroy_publisher=made.remove)
    with pytest.raises(VsegError, match='a wrong override'):
        Outputs(node, 'front', CAMVID, Bundle.load(default_bundle_path()).info)
    assert made == []


def test_two_cameras_with_one_topic_are_refused():
    info = Bundle.load(default_bundle_path()).info
    more = extras(CAMVID, CAMVID, {'label': ['car'], 'label2': ['car']}, [])
    with pytest.raises(VsegError, match='cameras a and a/mask would both publish ~/a/mask'):
        published_once(['a', 'a/mask'], info, more)
    published_once(['a', 'b', 'a/b'], info, more)


def decoded(message):
    """Return the labels of a message in Autoware's form, read as its runLengthDecoder reads it."""
    assert (message.encoding, message.step) == ('mono8', message.width)
    flat = []
    for label, length in struct.iter_unpack('<Bi', bytes(message.data)):
        assert length > 0
        flat += [label] * length
    return np.array(flat, np.uint8).reshape(message.height, message.width)


@pytest.mark.parametrize('labels', [
    [[3]], [[1, 1, 2], [2, 2, 255]], [[0] * 400], [[1], [2], [2]], np.eye(5, dtype=int)])
def test_runs_are_autowares(labels):
    labels = np.array(labels, np.uint8)
    message = outputs._runs(ros.header(5), labels)
    np.testing.assert_array_equal(decoded(message), labels)
    assert len(message.data) == 5 * (1 + np.count_nonzero(np.diff(labels.reshape(-1))))


TOPICS = ('label', 'label/compressed', 'label/runs', 'mask/people', 'probability/road')


def test_every_further_output(probe, backend):
    own = backend.bundle.info.label_set
    people, road = own.names[:2], own.names[2]
    more = Extras(extras(own, own, {'people': people}, []).masks, {'probability/road': [2]})
    with ros.inner_camera(probe, Stream(backend), own, more), \
            closing(ros.CameraProbe(probe, 'inner', 'inner', TOPICS)) as seen:
        message = ros.image(GOOD, 7)
        labels = to_label_array(seen.label(message))
        compressed, runs, mask, probability = (seen.wait_for(7, topic) for topic in TOPICS[1:])
    alone = Stream(backend)
    result = alone.step(GOOD, 7, confidence=True)
    np.testing.assert_array_equal(labels, result.labels)
    assert compressed.format == 'mono8; png compressed mono8'
    np.testing.assert_array_equal(compressed_to_label_array(compressed), labels)
    np.testing.assert_array_equal(decoded(runs), labels)
    np.testing.assert_array_equal(to_label_array(mask), 255 * (labels < 2))
    assert probability.encoding == '32FC1' and probability.step == 4 * probability.width
    values = np.frombuffer(probability.data, np.float32).reshape(labels.shape)
    where = labels == own.names.index(road)     # there it is the largest: the confidence
    assert where.any()
    assert np.abs(255 * values - result.confidence)[where].max() < 2


def test_an_output_that_fails_beside_the_label_is_counted_and_told(
        probe, backend, monkeypatch, capfd):
    def fail(*arguments):
        raise ValueError('cannot be blended')
    monkeypatch.setattr(outputs, 'overlay', fail)
    own, topics = backend.bundle.info.label_set, ('label', 'overlay')
    with ros.inner_camera(probe, Stream(backend), own) as camera, \
            closing(ros.CameraProbe(probe, 'inner', 'inner', topics)) as seen:
        for stamp in (7, 8):
            seen.label(ros.image(GOOD, stamp))
        probe.wait(lambda: camera.statistics.report()[0].get('failed_outputs') == '2', 'a count')
        camera.statistics.count('failed_outputs')
        status = camera_status(camera, camera._node, backend)
    assert int.from_bytes(status.level, 'little') == 1 and 'beside the label' in status.message
    counts = {pair.key: pair.value for pair in status.values}
    assert counts['labelled'] == '2' and 'dropped_internal' not in counts
    assert not seen.received['overlay']
    assert capfd.readouterr().err.count('ValueError: cannot be blended') == 1


def test_what_nobody_wants_is_not_computed(probe, backend, monkeypatch):
    made = []
    for module, name in ((outputs.cv2, 'LUT'), (outputs.cv2, 'imencode'),
                         (outputs, 'class_probabilities')):
        whole = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments, name=name, whole=whole:
                            made.append(name) or whole(*arguments))
    more = Extras({'mask/people': np.zeros(256, np.uint8)}, {'probability/road': [0]})
    with ros.inner_camera(probe, Stream(backend), CAMVID, more), \
            closing(ros.CameraProbe(probe, 'inner', 'inner')) as seen:
        seen.label(ros.image(GOOD, 1))
        assert made == []
        seen.received['mask/people'] = []
        seen.listen('mask/people')
        probe.spin(0.5)
        seen.label(ros.image(GOOD, 2), 'mask/people')
    assert set(made) == {'LUT'}


class StandInMessage:
    """A message of vision_msgs: only its named fields, with a header."""

    def __init__(self, **fields):
        self.__dict__.update(fields, header=ros.header(0))


def test_label_info_names_every_id(probe, monkeypatch):
    monkeypatch.setattr(label_info, 'LabelInfo', StandInMessage)
    monkeypatch.setattr(label_info, 'VisionClass', StandInMessage, raising=False)
    message = label_info.label_info(probe.node, CAMVID)
    names = {entry.class_id: entry.class_name for entry in message.class_map}
    assert names == {**dict(enumerate(CAMVID.names)), 255: 'UNLABELED'}


def test_label_info_of_the_real_type_is_latched(node, probe):
    vision = pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not installed')
    received = probe.collect('/vseg_node/label_info', vision.LabelInfo, LATCHED)
    message = probe.wait(lambda: received, 'label_info')[0]
    assert message.class_map[8].class_name == 'car' and message.threshold == 0.0
    text = probe.collect('/vseg_node/label_info_json', String, LATCHED)
    assert probe.wait(lambda: text, 'label_info_json')


def test_compressed_labels_lose_nothing():
    labels = np.random.default_rng(1).integers(0, 256, (33, 47), np.uint8)
    message = outputs._png(ros.header(0), labels)
    np.testing.assert_array_equal(
        cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED), labels)
