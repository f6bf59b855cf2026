# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Images go to the GPU as their camera sends them, and mean what they mean in RGB."""
from fake_backend import by_taps, frame, on_processor
import numpy as np
import pytest
from raw_images import raw_image, raw_message
from streaming import step

from ros_vseg.backends.fallback import FallbackBackend
from ros_vseg.decode import decode
from ros_vseg.encoding import RawImage, to_rgb_pixels
from ros_vseg.errors import ImageError
from ros_vseg.gpu.formats import RAW
from ros_vseg.image import ImageReader, to_rgb
from ros_vseg.scene import thumbnail
from ros_vseg.stream import Stream

pytest_plugins = ['fake_fixtures']
READER = ImageReader('test')


@pytest.mark.parametrize('every', [1, 2, 3, 7])
@pytest.mark.parametrize('encoding', sorted(RAW))
def test_raw_image_means_what_its_message_means_in_rgb(encoding, every):
    message = raw_message(encoding, (42, 62), padding=6)
    image = READER.read_raw(message, RAW)
    assert isinstance(image, RawImage) and image.shape == (42, 62, 3)
    np.testing.assert_array_equal(image.rgb(), to_rgb(message))
    np.testing.assert_array_equal(image.rows(every), to_rgb(message)[::every])


@pytest.mark.parametrize('encoding', ['bgr8', 'yuv422', 'bayer_grbg8'])
def test_rows_of_a_raw_image_of_odd_sides(encoding):
    image = raw_image(encoding, (41, 63))
    for every in (1, 2, 3, 5):
        np.testing.assert_array_equal(image.rows(every), image.rgb()[::every])


def test_a_thumbnail_of_a_raw_image_is_that_of_its_rgb():
    for encoding in ('bgr8', 'nv12', 'bayer_rggb8'):
        image = raw_image(encoding, (270, 480))
        np.testing.assert_array_equal(thumbnail(image), thumbnail(image.rgb()))


def test_what_is_not_taken_raw_is_read_as_rgb():
    for message, encodings in [(raw_message('bgr8', (8, 8)), ()),
                               (raw_message('bayer_rggb8', (8, 3)), RAW),
                               (raw_message('rgb8', (8, 8)), RAW)]:
        np.testing.assert_array_equal(READER.read_raw(message, encodings), to_rgb(message))
    message = raw_message('bgr8', (8, 8))
    message.data = message.data[:-1]
    with pytest.raises(ImageError, match='damaged or mislabelled'):
        READER.read_raw(message, RAW)


@pytest.mark.parametrize('order', ['rgb', 'bgr'])
@pytest.mark.parametrize('encoding', [
    'bgr8', 'rgba8', 'bgra8', 'mono8', 'yuv422', 'nv12', 'bayer_rggb8'])
def test_fake_gpu_labels_raw_images_as_the_processor_labels_their_rgb(load, encoding, order):
    """At the network's size and at the camera's, and then in RGB."""
    backend = load(color_order=order)
    gpu, host = Stream(backend), on_processor(backend).stream()
    images = [raw_image(encoding, size, number) for number, size in enumerate(
        [(96, 128)] * 4 + [(136, 250)] * 2)]
    for number, image in enumerate([*images, frame(3, (136, 250))]):
        found = gpu.step(image, number, confidence=True)
        if found.reset:
            host.reset()
        # resized as the kernel does, since OpenCV rounds otherwise, but converted by OpenCV
        small = by_taps(to_rgb_pixels(image), (96, 128))
        scores = step(host, small if order == 'rgb' else small[..., ::-1])
        labels, confidence = decode(scores, image.shape[:2], confidence=True)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(found.confidence, confidence)
        assert len(np.unique(labels)) > 1
    assert gpu.resets == {'size': 1}


def test_a_raw_image_at_which_the_fake_gpu_is_lost_is_labelled_by_the_standby(load, fake):
    backend = load()
    both = FallbackBackend(backend, on_processor(backend))
    stream = Stream(both)
    assert stream.raw_encodings == RAW
    image = raw_image('bgr8', (96, 128))
    before = stream.step(image, 0).labels.copy()
    fake.fail['cuGraphLaunch'] = 'CUDA_ERROR_LAUNCH_FAILED'
    stream.reset()
    np.testing.assert_array_equal(stream.step(image, 1).labels, before)
    assert both.problem and not list(stream.raw_encodings)
