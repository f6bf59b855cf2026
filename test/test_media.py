# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Frames out of bags of every kind, videos and folders; damage and wrong paths."""
import logging
import os
import random

from bags import exact, gradient, PERIOD, picture, png, write_drive, write_foreign_drive
import cv2
import numpy as np
import pytest
from rosbags.typesys import get_typestore, Stores

from ros_vseg.errors import MediaError
from ros_vseg.media.sources import open_source
from ros_vseg.media.writers import BagWriter, VideoWriter, write_png

TYPES = get_typestore(Stores.ROS2_HUMBLE).types
STAMPS = [10**9 + number * PERIOD for number in range(4)]


def assert_drive(source, frame_id='camera', frames=4):
    """Check that a source gives the pictures of ``bags``, twice; return its frames."""
    for _ in range(2):
        found = list(source)
        assert [frame.stamp for frame in found] == STAMPS[:frames]
        assert {frame.frame_id for frame in found} == {frame_id}
        for number, frame in enumerate(found):
            np.testing.assert_array_equal(frame.image, picture(number))
    assert source.count == frames and source.fps == pytest.approx(10, rel=1e-3)
    assert not source.refused
    return found


# bags

@pytest.mark.parametrize('topic', ['/camera/image', '/camera/image/compressed', 'image'])
@pytest.mark.parametrize('labels', ['', 'before', 'after'])
def test_mcap(tmp_path, topic, labels):
    source = open_source(write_drive(tmp_path / 'drive', labels=labels, topic=topic))
    frames = assert_drive(source)
    assert source.name == 'drive' and source.topic == topic
    assert [frame.name for frame in frames] == [str(stamp) for stamp in STAMPS]
    for number, frame in enumerate(frames):
        if labels:
            np.testing.assert_array_equal(frame.labels, exact(number))
        else:
            assert frame.labels is None


def test_mcap_file_without_its_folder(tmp_path):
    write_drive(tmp_path / 'drive').rename(tmp_path / 'x')
    (tmp_path / 'x/drive.mcap').rename(tmp_path / 'alone.mcap')
    assert_drive(open_source(tmp_path / 'alone.mcap'))


def test_sqlite(tmp_path):
    path = write_foreign_drive(tmp_path / 'drive', 'sqlite3')
    assert_drive(open_source(path), 'front')
    assert_drive(open_source(path / 'drive.db3'), 'front')


def test_ros1(tmp_path):
    assert_drive(open_source(write_foreign_drive(tmp_path / 'drive.bag', 'ros1')), 'front')


def test_a_frame_without_labels_between_others(tmp_path):
    with BagWriter(tmp_path / 'drive') as bag:
        for number, stamp in enumerate(STAMPS):
            bag.image('/a/image', picture(number), 'rgb8', stamp)
            if number != 1:
                bag.image('/a/label', exact(number), 'mono8', stamp)
    labels = [frame.labels for frame in open_source(tmp_path / 'drive')]
    assert labels[1] is None
    assert [array[1, 1] for array in labels if array is not None] == [0, 2, 3]


def test_labels_of_another_stamp_are_not_taken(tmp_path):
    with BagWriter(tmp_path / 'drive') as bag:
        for number, stamp in enumerate(STAMPS):
            bag.image('/a/label', exact(number), 'mono8', stamp + 1)
            bag.image('/a/image', picture(number), 'rgb8', stamp)
    assert [frame.labels for frame in open_source(tmp_path / 'drive')] == [None] * 4


@pytest.mark.parametrize('late, paired', [(1, 12), (7, 12), (8, 8), (-8, 12)])
def test_labels_that_are_frames_late_or_early(tmp_path, late, paired):
    """
    Simulators render labels apart from images; the order of the images stays.

    8 is too late, but for the last 8, which no image pushes out.
    """
    with BagWriter(tmp_path / 'drive') as bag:
        for number in range(12):
            received = STAMPS[0] + number * PERIOD
            for topic, pixels, encoding, delay in (
                    ('/a/image', picture(number), 'rgb8', 0),
                    ('/a/label', exact(number), 'mono8', late * PERIOD + PERIOD // 2)):
                header = TYPES['std_msgs/msg/Header'](
                    TYPES['builtin_interfaces/msg/Time'](*divmod(received, 10**9)), 'camera')
                bag.message(topic, TYPES['sensor_msgs/msg/Image'](
                    header, 24, 32, encoding, 0, pixels.strides[0], pixels.reshape(-1)),
                    received + delay)
    frames = list(open_source(tmp_path / 'drive'))
    assert [frame.stamp for frame in frames] == [STAMPS[0] + i * PERIOD for i in range(12)]
    found = [number for number, frame in enumerate(frames) if frame.labels is not None]
    assert found == list(range(12 - paired, 12))
    for number in found:
        np.testing.assert_array_equal(frames[number].labels, exact(number))


@pytest.mark.parametrize('damaged', [
    b'', png(exact(1))[:-20], cv2.imencode('.jpg', exact(1))[1].tobytes()])
def test_a_damaged_label_does_not_end_the_bag(tmp_path, damaged):
    with BagWriter(tmp_path / 'drive') as bag:
        for number, stamp in enumerate(STAMPS):
            bag.compressed('/a/image/compressed', png(picture(number)), 'png', stamp)
            label = damaged if number == 1 else png(exact(number))
            bag.compressed('/a/label', label, 'png', stamp)
    source = open_source(tmp_path / 'drive')
    frames = list(source)
    assert [frame.labels is None for frame in frames] == [False, True, False, False]
    np.testing.assert_array_equal(frames[2].labels, exact(2))
    assert source.refused == {'decode': 1}


def test_a_label_topic_can_be_read_as_images(tmp_path):
    path = write_drive(tmp_path / 'drive', labels='after')
    images = [frame.image for frame in open_source(path, '/camera/label')]
    np.testing.assert_array_equal(images[2], np.repeat(exact(2)[..., None], 3, axis=2))


def test_repeated_stamps_have_names_of_their_own(tmp_path):
    with BagWriter(tmp_path / 'drive') as bag:
        for stamp in (5, 5, 7, 5):
            bag.image('/a/image', picture(0), 'rgb8', stamp)
    names = [frame.name for frame in open_source(tmp_path / 'drive')]
    assert sorted(names) == ['5', '5-1', '5-2', '7']


def test_without_a_stamp_the_time_of_recording_counts(tmp_path):
    types = get_typestore(Stores.ROS2_HUMBLE).types
    header = types['std_msgs/msg/Header'](types['builtin_interfaces/msg/Time'](0, 0), 'camera')
    with BagWriter(tmp_path / 'drive') as bag:
        bag.message('/a/image', types['sensor_msgs/msg/Image'](
            header, 24, 32, 'rgb8', 0, 96, picture(1).reshape(-1)), 123)
    [frame] = open_source(tmp_path / 'drive')
    assert (frame.stamp, frame.name) == (123, '123')


def two_cameras(path):
    with BagWriter(path) as bag:
        for side in ('left', 'right'):
            bag.image(f'/{side}/image', picture(len(side)), 'rgb8', 1)
    return path


def test_topic_choice(tmp_path):
    path = two_cameras(tmp_path / 'drive')
    [frame] = open_source(path, '/right/image')
    np.testing.assert_array_equal(frame.image, picture(5))
    with pytest.raises(MediaError, match='several image topics: choose one of '
                                         '/left/image, /right/image'):
        open_source(path)
    with pytest.raises(MediaError, match='no image topic /rear: choose one of /left'):
        open_source(path, '/rear')


def test_bag_without_images(tmp_path):
    with BagWriter(tmp_path / 'drive') as bag:
        bag.message('/time', TYPES['builtin_interfaces/msg/Time'](1, 2), 5)
    with pytest.raises(MediaError, match='drive has no images: it needs a topic of sensor_msgs'):
        open_source(tmp_path / 'drive')


def test_empty_bag(tmp_path):
    with BagWriter(tmp_path / 'drive'):
        pass
    with pytest.raises(MediaError, match='drive'):
        open_source(tmp_path / 'drive')


def test_bag_without_metadata(tmp_path):
    path = write_drive(tmp_path / 'drive')
    (path / 'metadata.yaml').unlink()
    assert_drive(open_source(path))


@pytest.mark.parametrize('kind, name, keep', [
    ('mcap', 'drive.mcap', 0), ('mcap', 'drive.mcap', 10),
    *((kind, name, keep) for kind, name in (('sqlite3', 'drive.db3'), ('ros1', 'drive.bag'))
      for keep in (0, 10, 0.5, 0.9))])
def test_truncated_bag(tmp_path, kind, name, keep):
    if kind == 'mcap':
        path = write_drive(tmp_path / 'drive', frames=20) / name
    else:
        path = write_foreign_drive(
            tmp_path / ('drive.bag' if kind == 'ros1' else 'drive'), kind, frames=20)
        path = path / name if kind == 'sqlite3' else path
    data = path.read_bytes()
    cut = tmp_path / f'cut{path.suffix}'
    cut.write_bytes(data[:int(len(data) * keep) if keep < 1 else keep])
    with pytest.raises(MediaError, match=cut.name):
        assert len(list(open_source(cut))) == 20


@pytest.mark.parametrize('suffix', ['.mcap', '.db3', '.bag'])
def test_file_that_is_no_bag(tmp_path, suffix):
    path = tmp_path / f'notes{suffix}'
    path.write_text('these are notes\n' * 100)
    with pytest.raises(MediaError, match='notes.* is not a readable bag'):
        open_source(path)


@pytest.mark.parametrize('content', [
    'rosbag2_bagfile_information: [', '[' * 100_000, 'a: b', ''])
def test_damaged_metadata(tmp_path, content, caplog):
    path = write_drive(tmp_path / 'drive')
    (path / 'metadata.yaml').write_text(content)
    assert_drive(open_source(path))
    assert 'metadata.yaml is missing or damaged' in caplog.messages[0]
    (path / 'drive.mcap').unlink()
    with pytest.raises(MediaError, match='drive is not a readable bag'):
        open_source(path)


def test_damage_anywhere_is_a_media_error_or_a_frame_left_out(tmp_path, caplog):
    caplog.set_level(logging.CRITICAL)
    whole = (write_drive(tmp_path / 'drive', labels='after') / 'drive.mcap').read_bytes()
    path, chance, outcomes = tmp_path / 'damaged.mcap', random.Random(0), set()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 20])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            outcomes.add(len(list(open_source(path))) <= 4)
        except MediaError:
            outcomes.add('error')
    assert outcomes == {True, 'error'}


def test_frames_that_cannot_be_read_are_counted(tmp_path, caplog):
    with BagWriter(tmp_path / 'drive') as bag:
        for number, stamp in enumerate(STAMPS):
            data = png(picture(number))
            bag.compressed('/a/image/compressed', data[:50] if number in (1, 2) else data, 'png',
                           stamp)
            bag.compressed('/a/label', png(picture(0)) if number == 3 else png(exact(number)),
                           'png', stamp)
    source = open_source(tmp_path / 'drive')
    for _ in range(2):      # each iteration counts anew
        frames = list(source)
        assert [frame.stamp for frame in frames] == [STAMPS[0], STAMPS[3]]
        assert [frame.labels is None for frame in frames] == [False, True]
        assert source.refused == {'decode': 3}
    assert '/a/image/compressed at 1100000000 ns is left out' in caplog.messages[0]
    assert len(caplog.messages) == 2


# videos and folders

def test_video(tmp_path):
    with VideoWriter(tmp_path / 'deep/drive.mp4', 12.5) as video:
        for number in range(5):
            video.write(gradient(number))
    assert os.listdir(tmp_path / 'deep') == ['drive.mp4']
    source = open_source(tmp_path / 'deep/drive.mp4')
    assert (source.name, source.count) == ('drive', 5)
    assert source.fps == pytest.approx(12.5)
    for _ in range(2):
        frames = list(source)
        assert [frame.stamp for frame in frames] == [80_000_000 * i for i in range(5)]
        assert [frame.name for frame in frames] == [f'00000{i}' for i in range(5)]
        for number, frame in enumerate(frames):
            assert np.abs(frame.image - gradient(number).astype(int)).max() <= 6


def test_video_colours_are_rgb(tmp_path):
    with VideoWriter(tmp_path / 'red.mp4', 10) as video:
        video.write(np.full((48, 64, 3), (200, 30, 60), np.uint8))
    [frame] = open_source(tmp_path / 'red.mp4')
    assert np.abs(frame.image[24, 32] - np.array([200, 30, 60])).max() <= 12


def test_video_of_odd_and_changing_size(tmp_path):
    with VideoWriter(tmp_path / 'odd.mp4', 10) as video:
        video.write(gradient(1, (45, 61)))
        video.write(gradient(2, (90, 122)))
    frames = list(open_source(tmp_path / 'odd.mp4'))
    assert len(frames) == 2 and frames[0].image.shape == frames[1].image.shape
    assert frames[1].image.mean() == pytest.approx(100, abs=6)


@pytest.mark.parametrize('content', [b'', b'no video\n' * 100, b'\x00\x00\x00\x18ftypmp42'])
def test_file_that_is_no_video(tmp_path, content):
    path = tmp_path / 'drive.mp4'
    path.write_bytes(content)
    with pytest.raises(MediaError, match='drive.mp4 is not a video'):
        open_source(path)


def test_truncated_video(tmp_path):
    with VideoWriter(tmp_path / 'drive.mp4', 10) as video:
        for number in range(5):
            video.write(gradient(number))
    data = (tmp_path / 'drive.mp4').read_bytes()
    (tmp_path / 'drive.mp4').write_bytes(data[:len(data) // 2])
    with pytest.raises(MediaError, match='not a video'):
        open_source(tmp_path / 'drive.mp4')


def test_video_that_ends_too_early(tmp_path, caplog):
    """An AVI tells its length at the front: what is missing cannot be seen when it is opened."""
    path, noise = tmp_path / 'drive.avi', np.random.default_rng(0).integers(
        0, 256, (48, 64, 3), np.uint8)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for number in range(20):
        video.write(np.roll(noise, number, 1))
    video.release()
    whole = path.read_bytes()
    assert len(list(open_source(path))) == 20 and not caplog.messages
    path.write_bytes(whole[:len(whole) // 2])
    found = len(list(open_source(path)))
    assert 0 < found < 20
    assert f'drive.avi ends after {found} of 20 frames' in caplog.messages[0]


def test_folder(tmp_path):
    names = ['0016E5_07961.png', '0016E5_07959.png', '0016E5_07963.PNG', 'Seq05VD_f00000.bmp']
    for number, name in enumerate(names):
        bgr = np.ascontiguousarray(picture(number)[..., ::-1])
        data = cv2.imencode(os.path.splitext(name)[1].lower(), bgr)[1]
        (tmp_path / name).write_bytes(data.tobytes())
    (tmp_path / 'notes.txt').write_text('no image')
    source = open_source(tmp_path, fps=4)
    frames = list(source)
    assert [frame.name for frame in frames] == [
        '0016E5_07959', '0016E5_07961', '0016E5_07963', 'Seq05VD_f00000']
    assert [frame.stamp for frame in frames] == [0, 250_000_000, 500_000_000, 750_000_000]
    assert (source.count, source.fps, source.name) == (4, 4, tmp_path.name)
    for frame, number in zip(frames, (1, 0, 2, 3)):
        np.testing.assert_array_equal(frame.image, picture(number))


def test_folder_with_a_damaged_image(tmp_path):
    write_png(tmp_path / 'a.png', picture(0))
    (tmp_path / 'b.png').write_bytes(b'no image')
    write_png(tmp_path / 'c.png', picture(2))
    source = open_source(tmp_path)
    assert [frame.name for frame in source] == ['a', 'c']
    assert source.refused == {'decode': 1}


def test_folder_without_images(tmp_path):
    with pytest.raises(MediaError, match='has no images .* give the folder that holds'):
        open_source(tmp_path)


def test_path_that_does_not_exist(tmp_path):
    with pytest.raises(MediaError, match='none.mcap does not exist: give a bag'):
        open_source(tmp_path / 'none.mcap')


def test_topic_of_what_is_not_a_bag(tmp_path):
    write_png(tmp_path / 'a.png', picture(0))
    with pytest.raises(MediaError, match='is not a bag, so it has no topic /camera'):
        open_source(tmp_path, '/camera')
