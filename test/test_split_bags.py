# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Bags of several files, files with a log beside them, and names that are not as usual."""
from contextlib import closing
import shutil
import sqlite3

from bags import image_message, PERIOD, picture, write_drive, write_foreign_drive
import numpy as np
import pytest
import yaml

from ros_vseg.errors import MediaError
from ros_vseg.media.sources import open_source
from ros_vseg.media.writers import BagWriter

START = 10**9


def values(source):
    """Return what tells the pictures of a source apart, in the order of reading."""
    return [(frame.stamp - START) // PERIOD for frame in source]


def split_drive(folder, names, ending='.mcap', stated=None):
    """Write a bag of two pictures per file, in the order of names; return its folder."""
    folder.mkdir()
    for part, name in enumerate(names):
        if ending == '.mcap':
            drive = write_drive(folder / 'one', 2, start=START + 2 * part * PERIOD)
        else:
            drive = write_foreign_drive(folder / 'one', 'sqlite3', 2)
            with closing(sqlite3.connect(drive / 'one.db3')) as database, database:
                for number in range(2):
                    stamp = START + (2 * part + number) * PERIOD
                    database.execute('UPDATE messages SET timestamp = ?, data = ? WHERE id = ?',
                                     (stamp, image_message(number, stamp), number + 1))
        (drive / f'one{ending}').rename(folder / f'{name}{ending}')
        tree = yaml.safe_load((drive / 'metadata.yaml').read_text())
        shutil.rmtree(drive)
    tree['rosbag2_bagfile_information']['relative_file_paths'] = [
        f'{name}{ending}' for name in stated or names]
    (folder / 'metadata.yaml').write_text(yaml.safe_dump(tree))
    return folder


NAMES = ['b_0', 'b_1', 'b_2']
DAMAGES = {'empty': lambda data: b'', 'head only': lambda data: data[:60],
           'zeros': lambda data: bytes(len(data)), 'text': lambda data: b'notes\n' * 50}


@pytest.mark.parametrize('bad', [0, 1, 2])
@pytest.mark.parametrize('ending', ['.mcap', '.db3'])
@pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
def test_a_bad_file_costs_its_own_messages(tmp_path, caplog, damage, ending, bad):
    path = split_drive(tmp_path / 'drive', NAMES, ending)
    file = path / f'b_{bad}{ending}'
    file.write_bytes(damage(file.read_bytes()))
    for metadata in (True, False):
        caplog.clear()
        if not metadata:
            (path / 'metadata.yaml').unlink()
        source = open_source(path)
        assert values(source) == [n for n in range(6) if n // 2 != bad] and source.count == 4
        [told] = [text for text in caplog.messages if 'metadata.yaml is missing' not in text]
        assert f'{file} is not a readable bag' in told and told.endswith('without this file')


def test_a_database_that_is_cut_costs_its_own_messages(tmp_path, caplog):
    path = split_drive(tmp_path / 'drive', NAMES, '.db3')
    file = path / 'b_2.db3'
    file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])
    assert values(open_source(path)) == [0, 1, 2, 3]
    assert 'b_2.db3 is not a readable bag' in caplog.text


def test_where_no_file_is_left_there_is_one_error(tmp_path, caplog):
    path = split_drive(tmp_path / 'drive', NAMES)
    for file in path.glob('*.mcap'):
        file.write_bytes(b'')
    with pytest.raises(MediaError, match='none of its 3 files can be read: .*b_0.mcap is not a '):
        open_source(path)
    assert not caplog.messages


def test_metadata_tells_the_order(tmp_path, caplog):
    path = split_drive(tmp_path / 'drive', ['late', 'early'])
    assert values(open_source(path)) == [0, 1, 2, 3] and not caplog.messages


def test_a_file_that_metadata_does_not_have_is_said(tmp_path, caplog):
    path = split_drive(tmp_path / 'drive', NAMES, stated=NAMES[:2])
    assert values(open_source(path)) == [0, 1, 2, 3]
    [told] = caplog.messages
    assert 'b_2.mcap is left out: metadata.yaml does not have it' in told
    assert 'ros2 bag reindex' in told


# a log beside a database

def grown_drive(path):
    """Write a bag of 4 pictures with 4 more in the log of a recorder that was killed."""
    write_foreign_drive(path / 'first', 'sqlite3')
    with closing(sqlite3.connect(path / 'first/first.db3')) as database:
        database.execute('PRAGMA journal_mode=WAL')
        database.execute('PRAGMA wal_autocheckpoint=0')
        database.execute(
            'INSERT INTO messages (topic_id, timestamp, data) '
            'SELECT topic_id, timestamp + 1000000000, data FROM messages')
        database.commit()
        (path / 'killed').mkdir()
        for end in ('', '-wal'):
            shutil.copyfile(path / f'first/first.db3{end}', path / f'killed/killed.db3{end}')
    # keeps SQLite from making its file there, as a read-only disk does
    (path / 'killed/killed.db3-shm').symlink_to(path / 'none/x')
    return path / 'killed/killed.db3'


def test_a_log_that_sqlite_cannot_open_in_place_is_read(tmp_path):
    path = grown_drive(tmp_path)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    source = open_source(path)
    assert source.count == len(list(source)) == len(list(source)) == 8
    after = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    assert before == after


def test_a_transaction_that_a_recorder_did_not_end_is_undone(tmp_path):
    """Only writing undoes it, so it is done to a copy; the recording stays as it is."""
    drive = write_foreign_drive(tmp_path / 'first', 'sqlite3') / 'first.db3'
    (tmp_path / 'killed').mkdir()
    path = tmp_path / 'killed/killed.db3'
    with closing(sqlite3.connect(drive)) as database:
        database.execute('PRAGMA cache_size=1')     # pages that do not fit are written early
        for number in range(1, 5):
            database.execute('UPDATE messages SET data = zeroblob(90000) WHERE id = ?', (number,))
        for end in ('', '-journal'):
            shutil.copyfile(f'{drive}{end}', f'{path}{end}')
    before = path.read_bytes()
    frames = list(open_source(path))
    assert len(frames) == 4
    for number, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, picture(number))
    assert path.read_bytes() == before


def test_a_copy_that_does_not_fit_is_said(tmp_path, monkeypatch):
    path = grown_drive(tmp_path)

    def full(source, target):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(shutil, 'copyfile', full)
    with pytest.raises(MediaError, match='still in killed.db3-wal.*No space left.*copy the bag'):
        open_source(path)


# names of files and topics

@pytest.mark.parametrize('name', ['drive.MCAP', 'Drive.Mcap'])
def test_endings_in_capitals(tmp_path, name):
    path = write_drive(tmp_path / 'one') / 'one.mcap'
    source = open_source(path.rename(tmp_path / name))
    assert values(source) == [0, 1, 2, 3] and source.name == name[:5]


def test_endings_of_other_bags_in_capitals(tmp_path):
    path = write_foreign_drive(tmp_path / 'one', 'sqlite3') / 'one.db3'
    assert len(list(open_source(path.rename(tmp_path / 'one/ONE.DB3')))) == 4
    path = write_foreign_drive(tmp_path / 'one.bag', 'ros1')
    assert len(list(open_source(path.rename(tmp_path / 'ONE.BAG')))) == 4


def test_an_active_bag_is_read_once_it_has_an_index(tmp_path):
    """That is what "rosbag reindex" leaves."""
    path = write_foreign_drive(tmp_path / 'x.bag', 'ros1').rename(tmp_path / 'x.bag.active')
    source = open_source(path)
    assert len(list(source)) == 4 and source.name == 'x'


def test_an_active_bag_without_an_index_says_what_to_do(tmp_path):
    data = write_foreign_drive(tmp_path / 'x.bag', 'ros1').read_bytes()
    path = tmp_path / 'y.bag.active'
    place = data.index(b'index_pos=') + len(b'index_pos=')
    path.write_bytes(data[:place] + bytes(8) + data[place + 8:])
    with pytest.raises(MediaError, match='not indexed.*run "rosbag reindex y.bag.active"'):
        open_source(path)


def test_labels_alone_are_read_if_they_are_asked_for(tmp_path):
    with BagWriter(tmp_path / 'drive') as bag:
        for number in range(3):
            bag.image('/a/label', picture(number), 'rgb8', START + number * PERIOD)
    assert values(open_source(tmp_path / 'drive', '/a/label')) == [0, 1, 2]
    with pytest.raises(MediaError, match='has no images but labels: choose one of /a/label$'):
        open_source(tmp_path / 'drive')
    with pytest.raises(MediaError, match='no image topic /b: choose one of /a/label$'):
        open_source(tmp_path / 'drive', '/b')
