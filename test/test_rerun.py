# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""vseg run --rerun: the file holds what the run made, as the Rerun SDK reads it back."""
import sys

from bags import PERIOD, picture, write_drive
import cv2
import numpy as np
import pytest

from ros_vseg.backends import load
from ros_vseg.bundle import Bundle
from ros_vseg.commands import cli
from ros_vseg.errors import MediaError
from ros_vseg.labels import load_label_set
from ros_vseg.media.rerun_file import CLOCK, RerunWriter
from ros_vseg.media.sources import open_source
from ros_vseg.stream import Stream

CAMVID = load_label_set('camvid')


@pytest.fixture
def read():
    """Return a function that reads a file: {entity: ([stamps], {component: [rows]})}."""
    pytest.importorskip('rerun', reason='rerun-sdk (extra rerun) is not installed')
    from rerun.chunk import RrdReader

    def call(path):
        found = {}
        for chunk in RrdReader(str(path)).stream():
            batch = chunk.to_record_batch()
            stamps, parts = found.setdefault(str(chunk.entity_path), ([], {}))
            for name, column in zip(batch.schema.names, batch.columns):
                if name == 'stamp':
                    stamps += column.to_numpy(zero_copy_only=False).tolist()
                    parts['clock'] = column.type
                elif ':' in name:
                    parts.setdefault(name.rpartition(':')[2], []).extend(column.to_pylist())
        return found
    return call


def test_what_a_run_made_is_in_the_file(read, bundle, tmp_path, capsys):
    drive, path = write_drive(tmp_path / 'drive', start=CLOCK), tmp_path / 'out.rrd'
    arguments = ('run', drive, '--rerun', path, '--bundle', bundle, '--backend', 'onnxruntime',
                 '--threads', 1)
    assert cli.main([str(part) for part in arguments]) == 0
    assert 'frames labelled  4' in capsys.readouterr().out
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ['drive', 'out.rrd']
    found = read(path)
    stream = Stream(load(Bundle.load(bundle), 'onnxruntime', threads=1))
    stamps, parts = found['/camera/image/label']
    assert str(parts['clock']) == 'timestamp[ns]'
    assert stamps == [CLOCK + i * PERIOD for i in range(4)]
    for number, frame in enumerate(open_source(drive)):
        result = stream.step(frame.image, frame.stamp, frame.frame_id, confidence=True)
        for entity, pixels in (('image/label', result.labels), ('confidence', result.confidence)):
            kept = np.array(found[f'/camera/{entity}'][1]['buffer'][number], np.uint8)
            np.testing.assert_array_equal(kept.reshape(pixels.shape), pixels)
        jpeg = np.array(found['/camera/image'][1]['blob'][number], np.uint8).reshape(-1)
        image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(image.astype(int) - picture(number)).max() <= 8


def test_classes_have_their_names_and_colours(read, tmp_path):
    with RerunWriter(tmp_path / 'a.rrd', CAMVID, 'a') as writer:
        writer.write(picture(0), np.zeros((24, 32), np.uint8), None, 0)
    context = read(tmp_path / 'a.rrd')['/camera'][1]['context'][0][0]
    classes = {entry['class_id']: entry['class_description']['info'] for entry in context}
    assert [classes[index]['label'] for index in range(11)] == list(CAMVID.names)
    road = CAMVID.names.index('road')
    red, green, blue = CAMVID.colors[road]
    assert classes[road]['color'] >> 8 == red << 16 | green << 8 | blue
    assert classes[CAMVID.void_id]['label'] == 'void'


def test_stamps_that_are_no_time_of_day_are_durations(read, tmp_path):
    with RerunWriter(tmp_path / 'a.rrd', CAMVID, 'a') as writer:
        for stamp in (0, PERIOD):
            writer.write(picture(0), np.zeros((24, 32), np.uint8), None, stamp)
    stamps, parts = read(tmp_path / 'a.rrd')['/camera/image/label']
    assert stamps == [0, PERIOD] and str(parts['clock']) == 'duration[ns]'


def test_a_file_that_fails_is_one_line_and_leaves_nothing(tmp_path):
    pytest.importorskip('rerun', reason='rerun-sdk (extra rerun) is not installed')
    (tmp_path / 'a.rrd').write_text('dear')
    with pytest.raises(MediaError, match='a.rrd exists: remove it'):
        RerunWriter(tmp_path / 'a.rrd', CAMVID, 'a')
    with pytest.raises(RuntimeError, match='mine'):
        with RerunWriter(tmp_path / 'b.rrd', CAMVID, 'b'):
            raise RuntimeError('mine')
    writer = RerunWriter(tmp_path / 'c.rrd', CAMVID, 'c')
    (tmp_path / 'c.rrd').mkdir()
    with pytest.raises(MediaError, match='c.rrd.* cannot be written'):
        writer.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ['a.rrd', 'c.rrd']


def test_without_the_sdk_nothing_is_cleared(bundle, tmp_path, monkeypatch, capsys):
    drive = write_drive(tmp_path / 'drive')
    (tmp_path / 'out/labels').mkdir(parents=True)
    (tmp_path / 'out/labels/1.png').write_text('dear')
    monkeypatch.setitem(sys.modules, 'rerun', None)
    for more in ((), ('-o', tmp_path / 'out', '--clear')):
        arguments = ('run', drive, '--bundle', bundle, '--rerun', tmp_path / 'a.rrd', *more)
        assert cli.main([str(part) for part in arguments]) == 2
        error = capsys.readouterr().err
        assert 'pip install rerun-sdk' in error and error.count('\n') == 1
    assert (tmp_path / 'out/labels/1.png').read_text() == 'dear'


def test_a_run_without_any_output_is_refused(bundle, tmp_path, capsys):
    assert cli.main(['run', str(tmp_path), '--bundle', str(bundle)]) == 2
    assert 'give -o FOLDER, -o NAME.mcap or --rerun' in capsys.readouterr().err
