# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Glare in every fifth frame: what the demo shows of the prototypes of earlier frames."""
import cv2
import numpy as np
import pytest

from ros_vseg import backends
from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.commands.bad_frames import compare, glare, write_picture
from ros_vseg.errors import MediaError
from ros_vseg.media.sources import open_source
from ros_vseg.processes import demo_clip
from ros_vseg.stream import Stream


def test_glare_takes_most_of_the_picture_and_is_the_same_each_time():
    image = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
    first, second = (glare(image, np.random.default_rng(3)) for _ in range(2))
    assert first.dtype == np.uint8 and np.array_equal(first, second)
    assert first.std() < image.std() / 1.5 and first.mean() > image.mean()


def test_the_shipped_student_is_better_with_the_frames_before_a_glare(tmp_path):
    backend = backends.load(Bundle.load(default_bundle_path()), precision='fp32')
    stream = Stream(backend)
    result = compare(stream, Stream(backend), open_source(demo_clip()), 20)
    assert result.frames == 4 and result.kept > result.emptied + 0.02
    write_picture(tmp_path / 'context.png', result.best, stream.label_set)
    assert cv2.imread(str(tmp_path / 'context.png')).shape == (390, 3 * 488, 3)


def test_frames_without_labels_are_refused():
    backend = backends.load(Bundle.load(default_bundle_path()), precision='fp32')
    frames = [frame._replace(labels=None) for frame, _ in zip(open_source(demo_clip()), range(5))]
    with pytest.raises(MediaError, match='exact labels'):
        compare(Stream(backend), Stream(backend), frames, 5)
