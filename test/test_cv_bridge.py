# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What the node publishes is what cv_bridge reads."""
import numpy as np
import pytest
import ros_helpers as ros
from sensor_msgs.msg import Image

from ros_vseg.image import fill_image

pytest.importorskip('cv_bridge', reason='needs cv_bridge of a ROS distribution')
rng = np.random.default_rng(0)
OUTPUTS = {  # encoding of an output -> pixels
    'mono8': rng.integers(0, 256, (6, 9), np.uint8),        # label, confidence, masks
    'rgb8': rng.integers(0, 256, (6, 9, 3), np.uint8),      # color, overlay
    '32FC1': rng.random((6, 9), np.float32)}                # probability


@pytest.mark.parametrize('encoding', OUTPUTS)
def test_cv_bridge_reads_every_output(encoding):
    from cv_bridge import CvBridge
    message = fill_image(Image(header=ros.header(5)), OUTPUTS[encoding], encoding)
    read = CvBridge().imgmsg_to_cv2(message, desired_encoding='passthrough')
    np.testing.assert_array_equal(read, OUTPUTS[encoding])
