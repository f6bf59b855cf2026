# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Bags as they come off a vehicle: unfinished, mixed, with wrong clocks; folders, videos."""
from importlib import import_module
import logging
import sqlite3

from bags import (
    CAMERA_CHANNEL, gradient, image_message, PERIOD, picture, png, write_drive,
    write_foreign_drive, write_mcap)
import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores

from ros_vseg.errors import MediaError
from ros_vseg.files import natural_key
from ros_vseg.media import sources
from ros_vseg.media.mcap import unpack_zstd, zstd_library
from ros_vseg.media.sources import open_source
from ros_vseg.media.writers import BagWriter, VideoWriter, write_png

START = 10**9
STAMPS = [START + number * PERIOD for number in range(8)]


def messages(count=8, channel=1):
    return [(channel, STAMPS[number], image_message(number, STAMPS[number]))
            for number in range(count)]


def numbers(source):
    """Return the numbers of the pictures of a source."""
    found = []
    for frame in source:
        number = int(frame.image[0, 0, 0]) // 10
        np.testing.assert_array_equal(frame.image, picture(number, frame.image.shape[:2]))
        found.append(number)
    return found


# unfinished

@pytest.mark.parametrize('chunk', [0, 1, 3, 100])
def test_mcap_without_an_end_is_read_and_said(tmp_path, caplog, chunk):
    path = write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL], messages(), chunk, ending=False)
    source = open_source(path)
    assert numbers(source) == numbers(source) == list(range(8))
    assert source.count == 8 and source.fps == pytest.approx(10)
    assert 'a.mcap is unfinished or cut short: its 8 whole messages are read' in caplog.text
    assert 'mcap recover' in caplog.text and 'reindex' not in caplog.text


def test_mcap_without_an_index_is_whole(tmp_path, caplog):
    path = write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL], messages())
    assert numbers(open_source(path)) == list(range(8)) and not caplog.messages


@pytest.mark.parametrize('chunk', [0, 1, 3])
def test_mcap_cut_anywhere_gives_its_whole_messages(tmp_path, caplog, chunk):
    caplog.set_level(logging.CRITICAL)
    whole = write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL], messages(), chunk).read_bytes()
    cut, counts = tmp_path / 'cut.mcap', []
    for size in range(100, len(whole), 701):
        cut.write_bytes(whole[:size])
        try:
            counts.append(len(numbers(open_source(cut))))
        except MediaError:
            counts.append(0)
    assert counts == sorted(counts)
    assert set(counts) >= set(range(8))


@pytest.mark.parametrize('name', ['zstd', 'lz4'])
def test_a_cut_chunk_that_is_compressed_gives_its_whole_messages(tmp_path, caplog, name):
    compress = zstd_library().compress if name == 'zstd' else import_module('lz4.frame').compress
    chance = np.random.default_rng(0)   # noise between images, so that there is much to cut
    content = [each for message in messages()
               for each in (message, (2, message[1], chance.bytes(90_000)))]
    path = write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL, ('/x', '', '', b'', '')], content,
                      100, compress=compress, name=name)
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) * 7 // 10])
    source = open_source(path)
    found = numbers(source)
    assert found == list(range(len(found))) and 4 <= len(found) < 8
    assert source.count == len(found) and not source.refused
    assert 'a.mcap is unfinished or cut short' in caplog.text and len(caplog.messages) == 1


def test_zeros_of_a_power_cut_end_the_file(tmp_path, caplog):
    path = write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL], messages(), ending=False)
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert numbers(open_source(path)) == list(range(8)) and 'unfinished' in caplog.text


def test_folder_that_a_killed_recorder_left(tmp_path, caplog):
    """It has no metadata.yaml, and its files are numbered."""
    for part in range(11):
        write_mcap(tmp_path / f'drive_{part}.mcap', [CAMERA_CHANNEL],
                   [(1, START + part * PERIOD, image_message(part, START + part * PERIOD))],
                   ending=part < 10)
    assert numbers(open_source(tmp_path)) == list(range(11))
    assert 'drive_10.mcap is unfinished' in caplog.text


def test_a_missing_part_is_said(tmp_path, caplog):
    path = write_drive(tmp_path / 'drive')
    tree = (path / 'metadata.yaml').read_text()
    (path / 'metadata.yaml').write_text(tree.replace(
        '- drive.mcap', '- drive.mcap\n  - drive_1.mcap', 1))
    assert len(list(open_source(path))) == 4
    assert 'drive_1.mcap is missing' in caplog.text


def test_a_damaged_chunk_costs_its_own_messages(tmp_path, caplog):
    """Zstandard finds the damage."""
    path = write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL], messages(), 2,
                      compress=zstd_library().compress, name='zstd')
    damage(path, 1)
    assert numbers(open_source(path)) == [0, 1, 4, 5, 6, 7]
    assert 'is damaged and left out' in caplog.text


def damage(path, chunk):
    """Overwrite a part of a chunk that is compressed with zstd."""
    data, place = bytearray(path.read_bytes()), -1
    for _ in range(chunk + 1):
        place = data.index(b'\x28\xb5\x2f\xfd', place + 1)
    data[place + 4:place + 30] = bytes(range(26))
    path.write_bytes(data)


def test_with_an_index_what_is_lost_is_counted(tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 256, (600, 700, 3), np.uint8)  # a chunk each
    writer = Writer(tmp_path / 'drive', version=8, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    types = get_typestore(Stores.ROS2_HUMBLE)
    make = types.types
    with writer:
        connection = writer.add_connection('/a/image', 'sensor_msgs/msg/Image', typestore=types)
        for stamp in STAMPS[:4]:
            header = make['std_msgs/msg/Header'](
                make['builtin_interfaces/msg/Time'](*divmod(stamp, 10**9)), 'camera')
            message = make['sensor_msgs/msg/Image'](
                header, 600, 700, 'rgb8', 0, 2100, noise.reshape(-1))
            writer.write(connection, stamp, types.serialize_cdr(message, 'sensor_msgs/msg/Image'))
    damage(tmp_path / 'drive/drive.mcap', 2)
    source = open_source(tmp_path / 'drive')
    assert [frame.stamp for frame in source] == [STAMPS[0], STAMPS[1], STAMPS[3]]
    assert source.refused == {'lost': 1} and '1 of 4 images of /a/image are lost' in caplog.text


def test_bag_of_a_database_that_is_cut_in_use(tmp_path, caplog):
    """A row that cannot be read ends the file, not the run."""
    path = write_foreign_drive(tmp_path / 'drive', 'sqlite3', frames=20) / 'drive.db3'
    database = sqlite3.connect(path)
    database.execute('UPDATE messages SET data = "x" WHERE id = 7')
    database.commit()
    database.close()
    source = open_source(path)
    assert len(list(source)) == 19 and source.refused == {'message': 1}


# other channels

OTHERS = {
    'json': ('/status', 'Status', 'jsonschema', b'{"type": "object"}', 'json'),
    'protobuf': ('/proto', 'foxglove.Pose', 'protobuf', b'\n\x10\xff\x00\x01', 'protobuf'),
    'idl': ('/idl', 'my/msg/A', 'ros2idl',
            b'module my { module msg { struct A { string<=10 x; wchar y; }; }; };', 'cdr'),
    'unknown': ('/x', 'a/msg/X', 'unknown', b'', 'cdr'),
    'broken': ('/x', 'a/msg/X', 'ros2msg', b'int32 x\nnot/Known[<=] y ???\n===', 'cdr'),
    'no schema': ('/x', '', '', b'', ''),
    'not text': ('/x\xff', 'b\xfe', 'ros2msg', b'\xff\xfe', 'cdr'),
    'json image': ('/front/image', 'sensor_msgs/msg/Image', 'jsonschema', b'{}', 'json'),
}


@pytest.mark.parametrize('other', OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize('camera', [b'', b'uint32 height\n', b'?? broken ??'])
def test_other_channels_and_definitions_do_not_matter(tmp_path, caplog, other, camera):
    channels = [CAMERA_CHANNEL[:3] + (camera,) + CAMERA_CHANNEL[4:], other]
    mixed = messages() + [(2, START + 5, b'{"a": 1}')]
    source = open_source(write_mcap(tmp_path / 'a.mcap', channels, mixed))
    assert source.topic == '/camera/image'
    assert numbers(source) == list(range(8)) and source.count == 8 and not caplog.messages


def test_topics_are_told_where_there_is_no_image(tmp_path):
    path = write_mcap(tmp_path / 'a.mcap', [OTHERS['protobuf']], [(1, START, b'x')])
    with pytest.raises(MediaError, match=r'has no images: .* /proto \(foxglove.Pose, protobuf\)'):
        open_source(path)


def test_topics_without_messages_are_not_choices(tmp_path):
    rear = ('/rear/image', *CAMERA_CHANNEL[1:])
    path = write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL, rear], messages())
    assert numbers(open_source(path)) == list(range(8))
    with pytest.raises(MediaError, match='no message on /rear/image'):
        open_source(path, '/rear/image')
    with pytest.raises(MediaError, match='choose one of /camera/image$'):
        open_source(path, '/side/image')


def test_ros1_messages_in_mcap(tmp_path):
    """``mcap convert`` keeps them as they are."""
    types = get_typestore(Stores.ROS1_NOETIC)
    make = types.types
    message = make['sensor_msgs/msg/Image'](
        make['std_msgs/msg/Header'](3, make['builtin_interfaces/msg/Time'](1, 0), 'camera'),
        24, 32, 'rgb8', 0, 96, picture(3).reshape(-1))
    data = bytes(types.serialize_ros1(message, 'sensor_msgs/msg/Image'))
    channel = ('/camera/image', 'sensor_msgs/Image', 'ros1msg', b'', 'ros1')
    assert numbers(open_source(write_mcap(tmp_path / 'a.mcap', [channel], [(1, 5, data)]))) == [3]


@pytest.mark.parametrize('mode', [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags(tmp_path, mode):
    types = get_typestore(Stores.ROS2_HUMBLE)
    writer = Writer(tmp_path / 'drive', version=8, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection('/a/image', 'sensor_msgs/msg/Image', typestore=types)
        for _, stamp, data in messages():
            writer.write(connection, stamp, data)
    assert numbers(open_source(tmp_path / 'drive')) == list(range(8))


def test_a_damaged_message_is_counted_and_passed(tmp_path, caplog):
    rows = messages()
    for number, data in ((2, rows[2][2][:2000]), (3, b''), (4, bytes(12)), (5, b'\xff' * 80)):
        rows[number] = (*rows[number][:2], data)
    source = open_source(write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL], rows))
    for _ in range(2):
        assert numbers(source) == [0, 1, 6, 7]
        assert source.refused.total() == 4 and source.left_out()
    assert 'recorded at 1200000000 ns is left out: the message is damaged' in caplog.text


# rates and clocks

def test_rate_is_the_cameras_own(tmp_path):
    """Not that of a bag with another topic of ten minutes, nor with a pause of the camera."""
    late = 600 * START
    rows = messages(6) + [(2, START, b'{}'), (2, late, b'{}')]
    path = write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL, OTHERS['json']], rows, ending=False)
    assert open_source(path).fps == pytest.approx(10)
    rows = [(1, stamp, image_message(0, stamp))
            for stamp in (*STAMPS[:4], *(late + stamp for stamp in STAMPS[:4]))]
    path = write_mcap(tmp_path / 'b.mcap', [CAMERA_CHANNEL], rows)
    assert open_source(path).fps == pytest.approx(10)


@pytest.mark.parametrize('invalid', [0, -START, -START - 5])
def test_an_invalid_stamp_is_filled_in_from_the_recording(tmp_path, caplog, invalid):
    """It is that of the camera's clock, here 100 s, not the recorder's."""
    rows = []
    for number in range(8):
        stamp = invalid if number in (0, 3, 4) else 100 * START + number * PERIOD
        rows.append((1, STAMPS[number], image_message(number, stamp)))
    source = open_source(write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL], rows))
    assert [frame.stamp for frame in source] == [100 * START + i * PERIOD for i in range(8)]
    assert source.fps == pytest.approx(10)
    assert f'stamped {invalid} ns: the time of recording is used' in caplog.text
    assert len(caplog.messages) == 1


@pytest.mark.parametrize('received', [0, 2**63])
def test_no_time_at_all_is_no_error(tmp_path, received):
    rows = [(1, received, image_message(number, 0)) for number in range(3)]
    frames = list(open_source(write_mcap(tmp_path / 'a.mcap', [CAMERA_CHANNEL], rows)))
    assert len(frames) == 3 and len({frame.name for frame in frames}) == 3
    with BagWriter(tmp_path / 'out') as bag:    # what is written of it can be written
        for frame in frames:
            bag.image('label', frame.image, 'rgb8', frame.stamp)


def test_a_bag_with_a_negative_stamp_can_be_written(tmp_path):
    with BagWriter(tmp_path / 'out') as bag:
        bag.image('/a/image', picture(1), 'rgb8', -1)
    assert numbers(open_source(tmp_path / 'out')) == [1]


# folders

def test_natural_order():
    names = ['a', 'a1', 'a01', 'a2', 'a10', 'a10b', 'b1.9', 'b1.10', '9' * 200 + '.png']
    names.reverse()
    assert sorted(names, key=natural_key) == [
        '9' * 200 + '.png', 'a', 'a01', 'a1', 'a2', 'a10', 'a10b', 'b1.9', 'b1.10']


def test_numbers_of_a_folder_sort_as_numbers(tmp_path):
    for number in (11, 8, 10, 9, 100):
        write_png(tmp_path / f'frame_{number}.png', picture(0))
    assert [frame.name for frame in open_source(tmp_path)] == [
        f'frame_{number}' for number in (8, 9, 10, 11, 100)]


@pytest.mark.parametrize('files', [
    ('a.jpg', 'a.png'), ('a.jpg', 'a.png', 'a.jpg.png'), ('a.png', 'a.PNG', 'b.png')])
def test_no_two_frames_have_one_name(tmp_path, files):
    for file in files:
        (tmp_path / file).write_bytes(png(picture(0)))
    names = [frame.name for frame in open_source(tmp_path)]
    assert len(set(names)) == len(files)
    assert 'b' in names or 'b.png' not in files


@pytest.mark.parametrize('path', ['a\0b.mcap', 'x' * 5000 + '.mcap'])
def test_impossible_paths_are_one_error(path):
    with pytest.raises(MediaError, match='cannot be opened|does not exist'):
        open_source(path)


def test_frames_a_second_are_for_folders(tmp_path):
    write_png(tmp_path / 'f/a.png', picture(0))
    assert open_source(tmp_path / 'f', fps=4).fps == 4
    for fps in (0, -1, float('nan'), float('inf'), 1e-300, 1e-10, 1e300):
        with pytest.raises(MediaError, match='not possible: give 0.001 to 1000000'):
            open_source(tmp_path / 'f', fps=fps)
    with pytest.raises(MediaError, match='has times of its own'):
        open_source(write_drive(tmp_path / 'drive'), fps=4)


def test_folder_whose_last_stamp_would_not_fit(tmp_path, monkeypatch):
    for number in range(3):
        write_png(tmp_path / f'{number}.png', picture(number))
    assert [frame.stamp for frame in open_source(tmp_path, fps=0.001)] == [0, 10**12, 2 * 10**12]
    monkeypatch.setattr(sources, 'LATEST', 2 * 10**12)
    with pytest.raises(MediaError, match='3 images, whose times do not fit into stamps at 0.001'):
        open_source(tmp_path, fps=0.001)


# videos

class Video:
    """A video reader whose clock a test sets."""

    def __init__(self, path, capture=cv2.VideoCapture):
        self.video = capture(path)
        self.set = self.video.set
        self.read, self.grab, self.release = self.video.read, self.video.grab, self.video.release


def test_a_pause_of_a_video_is_a_gap(tmp_path, monkeypatch):
    """No such video can be written here, so its clock is set: 5 s after the third frame."""
    with VideoWriter(tmp_path / 'a.mp4', 10) as video:
        for number in range(6):
            video.write(gradient(number))

    class Paused(Video):
        def get(self, what):
            value = self.video.get(what)
            if what == cv2.CAP_PROP_FPS:
                return 1.0      # the mean that a container tells
            return value + 5000 * (value > 250) if what == cv2.CAP_PROP_POS_MSEC else value

    monkeypatch.setattr(cv2, 'VideoCapture', Paused)
    source = open_source(tmp_path / 'a.mp4')
    stamps = [round(frame.stamp / 1e6) for frame in source]
    assert stamps == [0, 100, 200, 5300, 5400, 5500] and source.fps == pytest.approx(10)


def test_a_video_without_times_is_evenly_spaced(tmp_path, monkeypatch):
    with VideoWriter(tmp_path / 'a.mp4', 20) as video:
        for number in range(4):
            video.write(gradient(number))

    class Timeless(Video):
        def get(self, what):
            return 0.0 if what == cv2.CAP_PROP_POS_MSEC else self.video.get(what)

    monkeypatch.setattr(cv2, 'VideoCapture', Timeless)
    assert [frame.stamp for frame in open_source(tmp_path / 'a.mp4')] == [
        0, 50_000_000, 100_000_000, 150_000_000]


def test_zstd_of_unknown_size():
    packer = zstd_library().ZstdCompressor()
    data = packer.compress(b'abc' * 100) + (packer.flush() if hasattr(packer, 'flush') else b'')
    assert unpack_zstd(data) == b'abc' * 100
