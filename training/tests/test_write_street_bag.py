# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The rendered street as a bag holds the street: labels exactly, images up to JPEG's loss."""
import numpy as np
from rosbags.highlevel import AnyReader

from ros_vseg.media.sources import open_source
from vseg_training.data.street import Street
from vseg_training.data.street.write_bag import write_street_bag


def test_bag_holds_the_street(tmp_path):
    assert write_street_bag(tmp_path / 'drive', seed=5, seconds=0.4, size=(96, 128), fps=10) == 4
    street = Street(5, (96, 128), 10)
    frames = list(open_source(tmp_path / 'drive'))
    assert [frame.stamp for frame in frames] == [10**9 + n * 10**8 for n in range(4)]
    for number, frame in enumerate(frames):
        rendered = street.frame(number, flow=False)
        assert np.array_equal(frame.labels, rendered.labels)
        assert np.abs(frame.image.astype(int) - rendered.image).mean() < 12
    with AnyReader([tmp_path / 'drive']) as reader:
        connection, stamp, raw = next(
            entry for entry in reader.messages() if entry[0].topic == '/camera/camera_info')
        info = reader.deserialize(raw, connection.msgtype)
    assert stamp == frames[0].stamp
    assert np.allclose(info.k.reshape(3, 3), street.intrinsics)
    assert (info.height, info.width) == (96, 128)
