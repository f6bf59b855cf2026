# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""One image as a source, and what a folder leaves out: it is said."""
import base64
import gzip
import logging
import os

from bags import picture, png
import cv2
import numpy as np
import pytest

from ros_vseg.commands.cli import main
from ros_vseg.errors import MediaError
from ros_vseg.media import sources
from ros_vseg.media.sources import open_source
from ros_vseg.media.writers import VideoWriter, write_png

PICTURE = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (96, 64))
TURN_RIGHT = b'\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03' \
    b'\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00'


def one_frame(path):
    source = open_source(path)
    frames = list(source)
    assert source.count == 1 and source.name == path.stem
    return frames[0] if frames else source


@pytest.mark.parametrize('name', ['one.png', 'one.bmp', 'one.tif', 'one.webp', 'no_ending'])
def test_one_image_is_read_as_in_a_folder(name, tmp_path):
    path = tmp_path / name
    kind = path.suffix or '.png'
    path.write_bytes(cv2.imencode(kind, PICTURE, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes())
    np.testing.assert_array_equal(one_frame(path).image, PICTURE[..., ::-1])


def test_one_image_is_looked_at_as_in_a_folder(tmp_path):
    """It is no video, of which OpenCV would take depth, cut and turned images as they come."""
    jpeg = cv2.imencode('.jpg', PICTURE)[1].tobytes()
    (tmp_path / 'turned.jpg').write_bytes(jpeg[:2] + TURN_RIGHT + jpeg[2:])
    assert one_frame(tmp_path / 'turned.jpg').image.shape == (96, 64, 3)
    (tmp_path / 'cut.jpg').write_bytes(jpeg[:len(jpeg) // 2])
    assert one_frame(tmp_path / 'cut.jpg').refused == {'decode': 1}
    cv2.imwrite(str(tmp_path / 'depth.png'), np.full((4, 6), 5000, np.uint16))
    assert one_frame(tmp_path / 'depth.png').refused == {'depth': 1}
    assert main(['run', str(tmp_path / 'depth.png'), '-o', str(tmp_path / 'out'), '-q']) == 1


def test_a_png_may_be_a_video(tmp_path):
    animation = cv2.Animation()
    opaque = np.full((64, 96), 255, np.uint8)
    animation.frames = [np.dstack([picture, opaque]) for picture in (
        PICTURE, PICTURE // 2, PICTURE[::-1])]
    animation.durations = [100] * 3
    assert cv2.imwriteanimation(str(tmp_path / 'moving.png'), animation)
    assert len(list(open_source(tmp_path / 'moving.png'))) > 1


def test_a_pipe_is_not_waited_for(tmp_path):
    folder = tmp_path / 'frames'
    folder.mkdir()
    write_png(folder / 'b.png', PICTURE)
    os.mkfifo(folder / 'a.png')
    assert [frame.name for frame in open_source(folder)] == ['b']
    (folder / 'c.png').symlink_to('/dev/zero')
    assert [frame.name for frame in open_source(folder)] == ['b']
    for name in ('a.png', 'c.png'):
        with pytest.raises(MediaError, match='is no file'):
            open_source(folder / name)


def test_images_of_other_kinds_are_named(tmp_path, caplog):
    for name in ('a.png', 'b.PNG', 'c.gif', 'd.gif', 'e.ppm', 'notes.txt'):
        (tmp_path / name).write_bytes(b'' if name[0] not in 'ab' else
                                      cv2.imencode('.png', PICTURE)[1].tobytes())
    with caplog.at_level(logging.WARNING):
        assert open_source(tmp_path).count == 2
    assert caplog.messages == [
        f'{tmp_path}: what lies beside the images is left out: 2 .gif, 1 .ppm']


def test_a_bag_and_a_video_beside_images_are_named(tmp_path, caplog):
    for name in ('a.png', 'b.mp4', 'c.mcap'):
        (tmp_path / name).write_bytes(cv2.imencode('.png', PICTURE)[1].tobytes())
    with caplog.at_level(logging.WARNING):
        assert open_source(tmp_path).count == 1
    assert caplog.messages == [
        f'{tmp_path}: what lies beside the images is left out: 1 .mcap, 1 .mp4']


def test_a_folder_with_some_metadata_is_no_bag(tmp_path):
    (tmp_path / 'metadata.yaml').write_text('camera: front\n')
    write_png(tmp_path / 'a.png', PICTURE)
    assert [frame.name for frame in open_source(tmp_path)] == ['a']


def test_videos_have_no_bit_depth(tmp_path):
    with VideoWriter(tmp_path / 'a.mp4', 10) as video:
        for _ in range(3):
            video.write(np.zeros((48, 64, 3), np.uint8))
    for reading in ({'bit_depth': 12}, {'depth_as_grey': True}):
        with pytest.raises(MediaError, match='is a video, of 8 bits'):
            open_source(tmp_path / 'a.mp4', **reading)
    assert open_source(tmp_path / 'a.mp4', bit_depth=16, depth_as_grey=False).count == 3


def test_hidden_files_are_no_frames(tmp_path):
    """A Mac leaves one beside each file."""
    for number in range(2):
        (tmp_path / f'a{number}.png').write_bytes(png(picture(number)))
        (tmp_path / f'._a{number}.png').write_bytes(b'Mac OS X')
    source = open_source(tmp_path)
    assert [frame.stamp for frame in source] == [0, round(1e9 / source.fps)] and not source.refused


def test_an_animated_webp_is_refused(tmp_path):
    path = tmp_path / 'a.webp'
    path.write_bytes(b'RIFF\x7e\0\0\0WEBPVP8X\n\0\0\0\x02' + bytes(9) + b'ANIM\x06\0\0\0')
    with pytest.raises(MediaError, match='is an animated WebP'):
        open_source(path)


# 3 frames of MPEG-2 in AVI, 32x32, interlaced, all about (B, G, R) = (145, 2, 108)
INTERLACED = (
    'H4sICL/uCWsCA2MuYXZpAAvydHObIs7A4BjmqeDjGRwSIcTAkJFSlJNYlplhwcDA4DCHgWFFIgMYCHAyMDBDmAyMEB'
    'EGBSCpwIAJQGYxCDIwFJcU5QAx2KyyzJTi3IJ0I2R1IHMkoWyQ2blA/B8IYPIKQAjUn6YBZGtA7VIA65NgAJvFg2m3'
    'V6ift4QAAwMLlG9gkJLMMApGwSgYBaNgFIyCUTAKRsEoGAWjYBSMghEFygqKClKQ+KDxBwUG2LgCI5zNxAAa4YCwYT'
    'Q6wCcPGtsAjUWwABn5Kbk5QJTxYwSHOygsfjCPpr9RMApGIgCNCX8A0rn5ZZmgMdlcSCm5mYlBQfj//wcSQPZWkSbI'
    '0DLjDgYOBgdwGcr//wdIpv//5waQBOPhmkVTlv5ufXZ/0+zak/67tj9sCDaM+tvTftcAKMt0+M+ietXlv7+FpP965p'
    '/79sbXT/71dovNrr/TfP8HPBJsAiubw///bgAZ3CgPNfhQfsMc9ismS/Of6ZxlAJvVKPjrpHPBKql7i+MyQHoNYXqn'
    'Q/U26cP1Nlr8+bx4q10DWGPDBBXbyNSMpCyTGC2GzJQKQ6DbwLaD6gnQuHQuA2JcugqITZD424AYZBMAx+26g5wXAA'
    'A=')


def test_an_interlaced_video_is_decoded_or_told(tmp_path, caplog):
    """As the OpenCV that is installed does: the wheels below 4.13 decode it."""
    (tmp_path / 'v.avi').write_bytes(gzip.decompress(base64.b64decode(INTERLACED)))
    frames = list(open_source(tmp_path / 'v.avi'))
    assert len(frames) == 3
    is_decoded = all(np.abs(frame.image.mean((0, 1)) - (108, 2, 145)).max() < 8
                     for frame in frames)
    assert is_decoded != ('interlaced' in caplog.text)


@pytest.mark.parametrize('levels, told', [
    ((0, 0, 0, 0), True), ((90, 90, 90, 90), True), ((40, 80, 120, 160), False)])
def test_a_video_that_shows_nothing_new_is_told(tmp_path, monkeypatch, caplog, levels, told):
    """As OpenCV 4.13 and newer give interlaced ones; older ones mean a video of a still."""
    with VideoWriter(tmp_path / 'v.mp4', 15) as video:
        for level in levels:
            video.write(np.full((64, 96, 3), level, np.uint8))
    for is_new in (False, True):
        monkeypatch.setattr(sources, '_LOSES_INTERLACED', is_new)
        caplog.clear()
        assert len(list(open_source(tmp_path / 'v.mp4'))) == 4
        assert ('interlaced' in caplog.text) == (told and is_new)
