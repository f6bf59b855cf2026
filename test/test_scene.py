# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Cuts are told from bad frames, on the embedded drive and on made-up scenes."""
import cv2
import numpy as np
import pytest

from ros_vseg.media.sources import open_source
from ros_vseg.processes import demo_clip
from ros_vseg.scene import alike, SceneChange, thumbnail


@pytest.fixture(scope='module')
def drive():
    """Return the frames of the demo clip, 15 a second."""
    return [frame.image for frame in open_source(demo_clip())]


def scene(seed, number=0, size=(270, 480)):
    """Return a made-up scene uint8 [H, W, 3] that moves with the number."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (12, 20, 3)).astype(np.float32)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.roll(image.clip(0, 255).astype(np.uint8), 4 * number, axis=1)


def cuts(images, admitted=None):
    """Numbers of the frames at which a stream would empty its pool."""
    change, found = SceneChange(), []
    for number, image in enumerate(images):
        if change.is_cut(image):
            found.append(number)
            change.reset()
        change.labelled(admitted is None or admitted[number])
    return found


@pytest.mark.parametrize('every', [1, 2, 3, 5])
def test_continuous_video_has_no_cut(drive, every):
    """15 down to 3 Hz."""
    for first in range(every):
        assert cuts(drive[first::every]) == []


def test_repeated_and_still_frames_are_no_cut(drive):
    """As of a camera at 60 Hz, or one that stands."""
    assert cuts([image for image in drive[:20] for _ in range(4)]) == []


@pytest.mark.parametrize('seed', range(5))
def test_cut_to_another_scene_is_told_one_frame_later(drive, seed):
    other = [scene(seed, number) for number in range(6)]
    assert cuts([*drive[:5], *other]) == [6]
    assert cuts([*other, *drive[:5]]) == [7]
    assert cuts([*drive[:5], *other, *drive[20:25]]) == [6, 12]


def test_one_frame_of_another_scene_is_no_cut(drive):
    images = list(drive[:30])
    for number, place in enumerate((3, 9, 15, 21, 27)):
        images[place] = scene(number)
    assert cuts(images) == []


def blur(image):
    return cv2.GaussianBlur(image, (0, 0), 6)


def dark(image):
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    return np.clip(image * 0.08 + noise, 0, 255).astype(np.uint8)


def fog(image):
    return (0.2 * image + 0.8 * 210).astype(np.uint8)


def glare(image):
    y, x = np.mgrid[:image.shape[0], :image.shape[1]]
    spot = np.exp(-((x - 288) / 80)**2 - ((y - 108) / 80)**2)
    return np.clip(image + 400 * spot[..., None], 0, 255).astype(np.uint8)


@pytest.mark.parametrize('degrade', [blur, dark, fog, glare])
@pytest.mark.parametrize('burst', [1, 2, 4, 8])
def test_bursts_of_bad_frames_are_no_cut(drive, degrade, burst):
    """Even where no confidence tells that they are bad."""
    images = [degrade(image) if number % 16 >= 16 - burst else image
              for number, image in enumerate(drive[:50])]
    assert cuts(images) == []


def test_frames_that_are_held_back_are_never_a_scene(drive):
    """Eight frames of a covered lens: held back, they neither are nor confirm a cut."""
    covered = [scene(0, number) for number in range(8)]
    images = [*drive[:5], *covered, *drive[5:10]]
    assert cuts(images, [*[True] * 5, *[False] * 8, *[True] * 5]) == []
    assert cuts(images) == [6, 14]      # the same frames where nothing tells


def test_cut_is_told_through_a_bad_frame_after_it(drive):
    other = [scene(1, number) for number in range(3)]
    images = [*drive[:4], other[0], blur(drive[0]), *other[1:]]
    assert cuts(images, [True] * 5 + [False] + [True] * 2) == [6]


@pytest.mark.parametrize('held_back, expected', [(0, [6]), (1, [7]), (2, []), (8, [])])
def test_other_view_after_a_long_burst_is_no_cut(drive, held_back, expected):
    """The car has moved on meanwhile: nothing tells that from a cut."""
    after = [scene(0, number) for number in range(4)]
    images = [*drive[:5], *[blur(image) for image in drive[5:5 + held_back]], *after]
    assert cuts(images, [True] * 5 + [False] * held_back + [True] * 4) == expected


@pytest.mark.parametrize('level', [0, 255])
def test_frames_without_contrast_tell_nothing(drive, level):
    blank = np.full_like(drive[0], level)
    assert thumbnail(blank) is None
    assert cuts([*[blank] * 5, *drive[:5], *[blank] * 5, *drive[5:10]]) == []
    assert cuts([*drive[:3], *[blank] * 3, *[scene(2, number) for number in range(3)]]) == [7]


@pytest.mark.parametrize('change', [
    lambda image: np.clip(1.6 * image, 0, 255).astype(np.uint8),
    lambda image: image // 3 + 90,
    lambda image: cv2.LUT(image, (255 * np.linspace(0, 1, 256)**2.2).astype(np.uint8))])
def test_exposure_does_not_count(drive, change):
    for image in drive[::30]:
        assert float(np.vdot(thumbnail(image), thumbnail(change(image)))) > 0.5


@pytest.mark.parametrize('size', [(8, 8), (20, 300), (96, 128), (1080, 1920), (1081, 1917)])
def test_images_of_any_size(size):
    one, other = (thumbnail(scene(seed, size=size)) for seed in (0, 1))
    assert one.shape == (24, 32) and one.dtype == np.float32
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert alike(one, one) and not alike(one, other)
