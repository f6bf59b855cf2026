# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Bags, videos and pictures are written whole or not at all; full disks and wrong outputs."""
from contextlib import contextmanager
import os
import resource
import shutil
import subprocess
import time

from bags import exact, gradient, picture, write_drive
import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
import yaml

from ros_vseg.errors import MediaError
from ros_vseg.media.sources import open_source
from ros_vseg.media.writers import BagWriter, VideoWriter, write_png


@contextmanager
def full_disk(room):
    """Let no file grow beyond ``room`` bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_bag_metadata_is_what_rosbag2_expects(tmp_path):
    path = write_drive(tmp_path / 'drive', labels='before')
    assert sorted(os.listdir(tmp_path)) == ['drive']
    assert sorted(os.listdir(path)) == ['drive.mcap', 'metadata.yaml']
    tree = yaml.safe_load((path / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
    assert tree['relative_file_paths'] == ['drive.mcap']
    assert (tree['version'], tree['storage_identifier'], tree['message_count']) == (8, 'mcap', 8)
    topics = {topic['topic_metadata']['name']: (
        topic['topic_metadata']['type'], topic['message_count'])
        for topic in tree['topics_with_message_count']}
    assert topics == {'/camera/image': ('sensor_msgs/msg/Image', 4),
                      '/camera/label': ('sensor_msgs/msg/Image', 4)}


def test_bag_messages_are_whole(tmp_path):
    with AnyReader([write_drive(tmp_path / 'drive', frames=1)]) as reader:
        [(connection, received, raw)] = reader.messages()
        message = reader.deserialize(raw, connection.msgtype)
    assert (received, message.header.stamp.sec, message.header.stamp.nanosec) == (10**9, 1, 0)
    assert (message.header.frame_id, message.height, message.width, message.encoding) == (
        'camera', 24, 32, 'rgb8')
    assert (message.step, message.is_bigendian) == (96, 0)
    assert message.data.tobytes() == picture(0).tobytes()


def test_bag_replaces_an_older_bag_when_it_is_whole(tmp_path):
    write_drive(tmp_path / 'drive', frames=4)
    with BagWriter(tmp_path / 'drive') as bag:
        bag.image('/camera/image', picture(0), 'rgb8', 10**9)
        assert len(list(open_source(tmp_path / 'drive'))) == 4
    assert len(list(open_source(tmp_path / 'drive'))) == 1
    assert os.listdir(tmp_path) == ['drive']


def test_bag_never_replaces_what_is_not_a_bag(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos/holiday.jpg').write_text('dear')
    for path in (tmp_path / 'photos', tmp_path / 'photos/holiday.jpg'):
        with pytest.raises(MediaError, match='exists and is not a bag'):
            BagWriter(path)
    assert os.listdir(tmp_path) == ['photos']
    assert os.listdir(tmp_path / 'photos') == ['holiday.jpg']


def test_bag_of_one_file(tmp_path):
    write_drive(tmp_path / 'day.1.mcap')
    assert os.listdir(tmp_path) == ['day.1.mcap'] and (tmp_path / 'day.1.mcap').is_file()
    frames = list(open_source(tmp_path / 'day.1.mcap'))
    assert len(frames) == 4
    np.testing.assert_array_equal(frames[3].image, picture(3))


def test_bag_of_one_file_never_replaces_a_recording(tmp_path):
    recording = write_drive(tmp_path / 'drive') / 'drive.mcap'
    before = recording.read_bytes()
    with pytest.raises(MediaError, match='drive.mcap exists: remove it or choose another'):
        BagWriter(recording)
    assert recording.read_bytes() == before
    assert sorted(os.listdir(tmp_path / 'drive')) == ['drive.mcap', 'metadata.yaml']


@pytest.mark.parametrize('make', [
    lambda path: BagWriter(path / 'drive'), lambda path: BagWriter(path / 'drive.mcap'),
    lambda path: VideoWriter(path / 'drive.mp4', 10)])
def test_an_error_in_between_leaves_nothing(tmp_path, make):
    with pytest.raises(KeyError):
        with make(tmp_path) as writer:
            if isinstance(writer, BagWriter):
                writer.image('/a', picture(0), 'rgb8', 1)
            else:
                writer.write(gradient(0))
            assert os.listdir(tmp_path) != []
            raise KeyError
    assert os.listdir(tmp_path) == []


def test_a_video_without_frames_is_no_file(tmp_path):
    with VideoWriter(tmp_path / 'drive.mp4', 10):
        pass
    assert os.listdir(tmp_path) == []


def noise(size=(240, 320)):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize('room, frames', [(300_000, 8), (200, 1)])
def test_bag_on_a_full_disk(tmp_path, room, frames):
    """Space runs out while messages are written, or at the end."""
    write_drive(tmp_path / 'drive')
    with full_disk(room), pytest.raises(MediaError, match='drive cannot be written .*free some'):
        with BagWriter(tmp_path / 'drive') as bag:
            for stamp in range(frames):
                bag.image('/a', noise(), 'rgb8', stamp)
    assert os.listdir(tmp_path) == ['drive']
    for number, frame in enumerate(open_source(tmp_path / 'drive')):    # the older one is whole
        np.testing.assert_array_equal(frame.image, picture(number))
    assert number == 3


@pytest.mark.parametrize('room', [100_000, 100])
def test_video_on_a_full_disk(tmp_path, room):
    with full_disk(room), pytest.raises(MediaError, match='drive.mp4 cannot be .*are free'):
        with VideoWriter(tmp_path / 'drive.mp4', 10) as video:
            for _ in range(20):
                video.write(noise())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('fps, shown', [
    (66.66666, 66.67), (100, 100), (240.1234, 240.12), (999.99, 1000), (29.97, 29.97),
    (1, 1), (0.0004, 1), (0, 1), (1e9, 65535)])
def test_video_at_any_frame_rate(tmp_path, fps, shown):
    """MPEG-4 tells rates as fractions of 16 bits."""
    with VideoWriter(tmp_path / 'drive.mp4', fps) as video:
        for number in range(3):
            video.write(gradient(number))
    found = cv2.VideoCapture(str(tmp_path / 'drive.mp4'))
    assert found.get(cv2.CAP_PROP_FPS) == pytest.approx(shown, rel=1e-3)
    assert found.get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.mark.parametrize('size, shown', [
    ((1, 1), (2, 2)), ((9, 9000), (8, 8190)), ((9000, 9), (8190, 8))])
def test_video_of_any_size(tmp_path, size, shown):
    with VideoWriter(tmp_path / 'drive.mp4', 10) as video:
        video.write(np.zeros((*size, 3), np.uint8))
    frame, = open_source(tmp_path / 'drive.mp4')
    assert frame.image.shape[:2] == shown


def test_png_on_a_full_disk(tmp_path):
    write_png(tmp_path / 'a.png', picture(0))
    with full_disk(1000), pytest.raises(MediaError, match='a.png cannot be written'):
        write_png(tmp_path / 'a.png', noise())
    assert os.listdir(tmp_path) == ['a.png']
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'a.png'))[..., ::-1], picture(0))


@pytest.mark.parametrize('write', [
    lambda path: BagWriter(path / 'out'), lambda path: VideoWriter(path / 'out.mp4', 10),
    lambda path: write_png(path / 'out.png', picture(0))])
def test_unwritable_output(tmp_path, write):
    """The folder's place is taken by a file: not even root can write there."""
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(MediaError, match='out.* cannot be written .*choose another output'):
        write(tmp_path / 'file')
    assert os.listdir(tmp_path) == ['file']


def test_a_folder_where_the_file_should_be(tmp_path):
    (tmp_path / 'out').mkdir()
    with pytest.raises(MediaError, match='out cannot be written'):
        write_png(tmp_path / 'out', picture(0))
    with pytest.raises(MediaError, match='out cannot be written'):
        with VideoWriter(tmp_path / 'out', 10) as video:
            video.write(gradient(0))
    assert os.listdir(tmp_path) == ['out']


@pytest.mark.parametrize('pixels', [exact(3), picture(3)])
def test_png_round_trip(tmp_path, pixels):
    write_png(tmp_path / 'deep/a.png', pixels)
    read = cv2.imread(str(tmp_path / 'deep/a.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read[..., ::-1] if read.ndim == 3 else read, pixels)
    assert os.listdir(tmp_path / 'deep') == ['a.png']


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    ended = subprocess.Popen(['true'])
    ended.wait()
    old, young = time.time() - 3600, time.time()
    kept = [tmp_path / f'.{os.getppid()}.overlay.mp4',   # it lives
            tmp_path / f'.{ended.pid}.other.mp4', tmp_path / '.7z.overlay.mp4']
    gone = [tmp_path / f'.{ended.pid}.overlay.mp4', tmp_path / f'.{10**12}.overlay.mp4']
    for path in [*kept, *gone]:
        path.write_bytes(b'half')
        os.utime(path, (old, old))
    left = tmp_path / f'.{ended.pid}.drive'
    (left / 'drive').mkdir(parents=True)
    os.utime(left, (young, young))
    with VideoWriter(tmp_path / 'overlay.mp4', 10) as video:
        video.write(picture(1))
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)
    write_drive(tmp_path / 'drive')
    assert left.exists()        # perhaps of a process that this machine does not see
    os.utime(left, (old, old))
    shutil.rmtree(tmp_path / 'drive')
    write_drive(tmp_path / 'drive')
    assert not left.exists()


@pytest.mark.parametrize('write', [
    lambda path: write_png(path, np.zeros((2, 2), np.uint8)), lambda path: VideoWriter(path, 15)])
def test_a_pipe_is_never_replaced(write, tmp_path):
    path = tmp_path / 'there'
    os.mkfifo(path)
    with pytest.raises(MediaError, match='it exists and is'):
        write(path)
    assert path.is_fifo() and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('stamp', [-2**31 * 10**9, (2**31 - 1) * 10**9 + 2**32 - 1])
def test_any_stamp_of_a_message_can_be_written(stamp, tmp_path):
    with BagWriter(tmp_path / 'a.mcap') as bag:
        bag.image('label', np.zeros((2, 2), np.uint8), 'mono8', stamp)
    with AnyReader([tmp_path / 'a.mcap']) as reader:
        connection, _, data = next(reader.messages())
        found = reader.deserialize(data, connection.msgtype).header.stamp
    assert found.sec * 10**9 + found.nanosec == stamp
