# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Real driving video: a CamVid drive at 15 Hz over DDS gives what the offline run gives."""
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from ros_helpers import Probe, RELIABLE, stamp_of, start
from sensor_msgs.msg import Image

from ros_vseg import backends
from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.image import to_label_array
from ros_vseg.media.sources import open_source
from ros_vseg.stream import Stream


CAMVID = Path(os.environ.get(
    'CAMVID', Path(__file__).resolve().parents[2] / 'shared/data/camvid'))
pytestmark = pytest.mark.skipif(
    not (CAMVID / 'val').is_dir(), reason='CamVid is not here: set CAMVID to its folder')


@pytest.fixture
def probe():
    probe = Probe()
    yield probe
    probe.close()


def mean_iou(pairs, classes=11):
    """Return the mIoU in percent of (labels, truth) pairs by definition, void ignored."""
    hits, union = np.zeros(classes), np.zeros(classes)
    for labels, truth in pairs:
        known = truth < classes
        for index in range(classes):
            mine, its = (labels == index) & known, truth == index
            hits[index] += (mine & its).sum()
            union[index] += (mine | its).sum()
    return 100 * (hits[union > 0] / union[union > 0]).mean()


@pytest.fixture(scope='module')
def offline():
    """Labels of every frame of the drive, by stamp, as `vseg run` computes them."""
    stream = Stream(backends.load(Bundle.load(default_bundle_path())))
    return {frame.stamp: (stream.step(frame.image, frame.stamp, frame.frame_id).labels, frame.name)
            for frame in open_source(CAMVID / 'val')}


def test_quality_on_real_video(offline):
    """The shipped student keeps the quality that its card states."""
    pairs = [(labels, cv2.imread(str(CAMVID / f'valannot/{name}.png'), cv2.IMREAD_UNCHANGED))
             for labels, name in offline.values()]
    stated = Bundle.load(default_bundle_path()).info.metrics['camvid val']['mIoU']
    assert mean_iou(pairs) == pytest.approx(stated, abs=0.1)


def play(probe, folder, rate):
    """Labels by stamp of the drive played to the node over DDS, and the node's own counts."""
    labels = {}

    def keep(message):
        labels[stamp_of(message)] = to_label_array(message)

    subscription = probe.node.create_subscription(
        Image, '/vseg_node/camera/label', keep, RELIABLE)
    folder.mkdir()
    with start('vseg_node', folder / 'node.log') as node:
        node.wait_for_line(f'{Bundle.load(default_bundle_path()).info.name} labels', 60)
        with start('replay', folder / 'replay.log', path=CAMVID / 'val', clock=True,
                   rate=rate) as replay:
            probe.wait(lambda: replay.process.poll() is not None, 'the end of the drive', 90)
            replay.check()
        counts = probe.status('vseg_node: camera')[2]
    probe.node.destroy_subscription(subscription)
    return labels, counts


def test_drive_over_dds_equals_the_offline_run(offline, probe, tmp_path):
    """At 15 Hz; on a machine too busy for that, where frames are superseded, slower."""
    for rate in (1.0, 0.5, 0.2):
        labels, counts = play(probe, tmp_path / f'rate{rate}', rate)
        assert int(counts['received']) == len(offline)
        assert len(labels) + int(counts['dropped_superseded']) == len(offline)
        if len(labels) == len(offline):
            break
    assert labels.keys() == offline.keys()
    for stamp, (expected, _) in offline.items():
        np.testing.assert_array_equal(labels[stamp], expected)
