# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Bundles that give depth: metres of the camera at hand, or a refusal, never those of another."""
from contextlib import closing
import json
import re

from bags import write_drive
import cv2
import numpy as np
import onnx
import pytest
import ros_helpers as ros
from ros_helpers import pictures
from sensor_msgs.msg import CameraInfo
from tiny_bundle import CHANNELS, PLAIN, STRIDE, weights, write_tiny_bundle

from ros_vseg import backends
from ros_vseg.bundle import Bundle, KEY
from ros_vseg.commands import cli
from ros_vseg.commands.outputs import Outputs
from ros_vseg.depth import depth_image, DepthRange, FAR, in_millimetres
from ros_vseg.errors import BackendError, BundleError
from ros_vseg.graph import at_size
from ros_vseg.media.frames import Frame
from ros_vseg.media.writers import write_png
from ros_vseg.nodes.outputs import PATIENCE
from ros_vseg.stream import Result, Stream

KNOWN = DepthRange(nearest=1.0, farthest=40.0, focal=100.0)
GOOD = pictures(1, seed=4)[0]


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('depth') / 'depth.onnx', depth=KNOWN)


@pytest.fixture(scope='module')
def stream(path):
    return Stream(backends.load(Bundle.load(path), 'openvino', threads=1, precision='fp32'))


def coarse_depth(image):
    """Metres of the tiny bundle by plain loops: its first feature, tanh, from 0 to farthest."""
    kernel = weights(11)['stem'][0].astype(float)
    pixels = cv2.resize(image, (128, 96), interpolation=cv2.INTER_AREA)
    pixels = (pixels.astype(float) - 127.5) / 64
    result = np.zeros((96 // STRIDE, 128 // STRIDE))
    for i in range(result.shape[0]):
        for j in range(result.shape[1]):
            patch = pixels[i * STRIDE:(i + 1) * STRIDE, j * STRIDE:(j + 1) * STRIDE]
            result[i, j] = np.tanh((patch.transpose(2, 0, 1) * kernel).sum())
    return KNOWN.farthest / 2 * (1 + result)


@pytest.mark.parametrize('backend', ['openvino', 'onnxruntime'])
@pytest.mark.parametrize('changes', [{}, PLAIN])
def test_every_backend_on_the_processor_gives_the_networks_depth(backend, changes, tmp_path):
    bundle = Bundle.load(write_tiny_bundle(tmp_path / 'b.onnx', depth=KNOWN, **changes))
    stream = Stream(backends.load(bundle, backend, threads=1, precision='fp32'))
    image = cv2.resize(GOOD, (128, 96))     # the network's size: nothing is resized
    for stamp in (0, 10**8):    # with a pool the second frame has another slot
        depth = stream.step(image, stamp).depth
        np.testing.assert_allclose(depth, coarse_depth(image), atol=1e-3)
    assert depth.std() > 1 and CHANNELS > 1


def test_bundles_without_depth_give_none(backend):
    assert backend.bundle.info.depth is None
    assert Stream(backend).step(GOOD, 0).depth is None


def test_depth_image_against_loops():
    coarse = np.random.default_rng(0).uniform(1, 40, (3, 4))
    found = depth_image(coarse, (7, 9), KNOWN, focal=230.0, input_height=96)
    for i in range(7):
        for j in range(9):
            cell = coarse[int(i * 3 / 7), int(j * 4 / 9)]
            # 230 pixels of 7 rows are 230 * 96 / 7 of the network's 96
            metres = np.inf if cell >= FAR * 40 else cell * 230 * 96 / 7 / 100
            assert found[i, j] == pytest.approx(metres, rel=1e-6)
    assert found.dtype == np.float32 and np.isinf(found).any() and not np.isinf(found).all()


def test_millimetres_are_whole_and_far_is_none():
    metres = np.array([[1.2345, np.inf, 65.4, 66, np.nan, -1, -np.inf]], np.float32)
    assert in_millimetres(metres).tolist() == [[1234, 0, 65400, 0, 0, 0, 0]]


def test_another_size_of_the_network_keeps_the_meaning(path):
    smaller = at_size(Bundle.load(path), (48, 64))
    assert smaller.info.depth == KNOWN and smaller.info.shapes()['depth'] == [1, 6, 8]
    stream = Stream(backends.load(smaller, 'openvino', threads=1, precision='fp32'))
    assert stream.step(GOOD, 0).depth.shape == (6, 8)


def infos(focal, height=120, rectified=0.0):
    k = [2 * focal, 0.0, 80.0, 0.0, focal, 60.0, 0.0, 0.0, 1.0]
    p = [2 * rectified, 0.0, 80.0, 0.0, 0.0, rectified, 60.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return CameraInfo(header=ros.header(5), width=160, height=height, k=k, p=p)


def binned():
    info = infos(500.0, 240)
    info.width, info.binning_x, info.binning_y = 320, 2, 2
    return info


@pytest.mark.parametrize('info', [infos(250.0), infos(900.0, rectified=250.0), binned()])
def test_node_publishes_metres_of_the_camera(probe, stream, info):
    """By the focal length along the height, which the network's scale is along as well."""
    with ros.inner_camera(probe, stream, stream.label_set), \
            closing(ros.CameraProbe(probe, 'inner', 'inner', ('label', 'depth'))) as seen:
        seen.label(ros.image(GOOD, 1))
        probe.spin(0.3)
        assert not seen.received['depth']   # no metres without a focal length
        seen.info.publish(info)
        probe.wait(lambda: seen.info.wait_for_all_acked(), 'camera_info to be sent')
        probe.spin(0.3)
        seen.label(ros.image(GOOD, 2))
        message = seen.wait_for(2, 'depth')
    coarse = stream.step(GOOD, 3).depth
    expected = depth_image(coarse, (120, 160), KNOWN, 250.0, 96)
    assert (message.encoding, message.step) == ('32FC1', 640)
    assert (message.header.frame_id, message.width, message.height) == ('camera', 160, 120)
    values = np.frombuffer(message.data, np.float32).reshape(120, 160)
    np.testing.assert_array_equal(values, expected)
    assert np.isfinite(values).any()


@pytest.mark.parametrize('info, reason', [
    (None, 'there is no camera_info'), (infos(0.0), r'has none \(k\[4\]\)'),
    (infos(np.inf), r'has none \(k\[4\]\)'), (infos(np.nan), r'has none \(k\[4\]\)'),
    (infos(100.0, 240), 'camera_info is of 240x160, the image 120x160')])
def test_node_says_once_that_the_focal_length_is_missing(probe, stream, info, reason, capfd):
    with ros.inner_camera(probe, stream, stream.label_set) as camera, \
            closing(ros.CameraProbe(probe, 'inner', 'inner', ('label', 'depth'))) as seen:
        if info:
            seen.info.publish(info)
        for stamp in range(1, PATIENCE + 4):
            seen.label(ros.image(GOOD, stamp))
        assert not seen.received['depth']
        values = camera.statistics.report()[0]
        assert int(values['depth_without_focal_length']) >= PATIENCE
    said = [line for line in capfd.readouterr().err.splitlines() if 'focal length' in line]
    assert len(said) == 1 and '/inner/inner/depth is not published' in said[0]
    assert re.search(reason, said[0])


def test_camera_info_of_another_size_is_not_passed_on(probe, stream, capfd):
    with ros.inner_camera(probe, stream, stream.label_set) as camera, \
            closing(ros.CameraProbe(probe, 'inner', 'inner', ('label', 'camera_info'))) as seen:
        for stamp, info, passes in ((1, infos(100.0, 240), False), (2, infos(100.0, 240), False),
                                    (3, infos(100.0, 120), True), (4, CameraInfo(), True),
                                    (5, binned(), True)):
            seen.info.publish(info)
            probe.wait(lambda: seen.info.wait_for_all_acked(), 'camera_info to be sent')
            probe.spin(0.3)
            seen.label(ros.image(GOOD, stamp))
            if passes:
                assert seen.wait_for(stamp, 'camera_info').height == info.height
        assert {ros.stamp_of(message) for message in seen.received['camera_info']} == {3, 4, 5}
        assert camera.statistics.report()[0]['camera_info_of_other_size'] in ('2', '3')
        # 3: the first image may have been sent twice
    said = [line for line in capfd.readouterr().err.splitlines() if 'is not published' in line]
    assert len(said) == 1 and 'camera_info is of 240x160, the image 120x160; remap' in said[0]


def test_a_bundle_without_depth_has_no_such_topic(probe, backend):
    with ros.inner_camera(probe, Stream(backend), backend.bundle.info.label_set) as camera:
        assert 'depth' not in camera.outputs._publishers


def vseg(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_run_saves_millimetres(path, stream, tmp_path):
    drive, out = tmp_path / 'drive', tmp_path / 'out'
    for number, image in enumerate(pictures(2, seed=4)):
        write_png(drive / f'{number}.png', image)
    options = ('--bundle', path, '--backend', 'openvino', '--precision', 'fp32', '--threads', 1)
    assert vseg('run', drive, '-o', out, '--save', 'labels', 'depth', '--focal', 20,
                *options) == 0
    files = sorted((out / 'depth').iterdir())
    assert [file.name for file in files] == sorted(f.name for f in (out / 'labels').iterdir())
    found = cv2.imread(str(files[0]), cv2.IMREAD_UNCHANGED)
    stream.reset()
    expected = in_millimetres(
        depth_image(stream.step(GOOD, 0).depth, GOOD.shape[:2], KNOWN, 20, 96))
    assert found.dtype == np.uint16 and expected.any()
    np.testing.assert_array_equal(found, expected)


OFFLINE = ('--backend', 'openvino', '--precision', 'fp32', '--threads', 1, '--json', '--quiet')


def test_run_saves_no_depth_of_another_size(path, tmp_path, capsys):
    """--focal is that of the first image: of another size it would be wrong without a word."""
    drive, out = tmp_path / 'drive', tmp_path / 'out'
    for number, height in enumerate((120, 120, 240, 240)):
        write_png(drive / f'{number}.png', pictures(1, height, height * 4 // 3, seed=4)[0])
    assert vseg('run', drive, '-o', out, '--save', 'labels', 'depth', '--focal', 20,
                '--bundle', path, *OFFLINE) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)['depth']['other_size'] == 2
    assert '2 frames have no depth' in told.err and 'the first image, 120x160' in told.err
    assert sorted(file.name for file in (out / 'depth').iterdir()) == ['0.png', '1.png']
    assert len(list((out / 'labels').iterdir())) == 4


def test_run_tells_distances_that_have_no_value(path, stream, tmp_path, capsys):
    drive = tmp_path / 'drive'
    write_png(drive / '0.png', GOOD)
    options = ('--save', 'depth', '--bundle', path, '--clear')
    stream.reset()
    coarse = stream.step(GOOD, 0).depth
    command = ('run', drive, '-o', tmp_path / 'out', *options)
    for focal in (20, 500):
        metres = depth_image(coarse, GOOD.shape[:2], KNOWN, focal, 96)
        metres = metres[np.isfinite(metres)]
        share = float(((metres >= 65.5) | (metres <= 0.0005)).mean())
        assert (metres >= 65.5).any() == (focal == 500)
        assert vseg(*command, '--focal', focal, *OFFLINE) == 0
        report = json.loads(capsys.readouterr().out)
        assert report['depth']['without_value'] == pytest.approx(share)
    assert vseg(*command, '--focal', 500, *OFFLINE[:-2]) == 0
    assert (f'{100 * share:.2f} % of the pixels with a distance have no value: beyond 65.5 m'
            in capsys.readouterr().out)


@pytest.mark.parametrize('coarse, without, reason', [
    (29.0, 1.0, 'all lies beyond 65.5 m'), (39.0, None, 'all is far')])
def test_a_run_that_saves_no_depth_at_all_says_so(stream, tmp_path, coarse, without, reason):
    problems = []
    with Outputs(tmp_path, ['depth'], 10, stream, problems, focal=900) as outputs:
        for number in range(2):
            result = Result(np.zeros((120, 160), np.uint8), None, 0, None, {}, True, False,
                            None, depth=np.full((12, 16), coarse, np.float32))
            outputs.write_pictures(Frame(GOOD, number, 'camera', f'{number}'), result)
    assert outputs.depth.without_value == without
    problem, = problems
    assert f'no pixel of 2 depth images has a value, since {reason}: is --focal 900' in problem


@pytest.mark.parametrize('more, reason', [
    ([], 'give it by --focal'), (['--focal', 0], '--focal 0.0 is too small'),
    (['--focal', 'nan'], '--focal nan is not a number')])
def test_run_refuses_depth_without_a_focal_length(path, more, reason, tmp_path, capsys):
    drive = write_drive(tmp_path / 'drive', 1)
    assert vseg('run', drive, '-o', tmp_path / 'out', '--save', 'depth', '--bundle', path,
                '--backend', 'openvino', *more) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_run_refuses_depth_of_a_bundle_without(bundle, tmp_path, capsys):
    drive = write_drive(tmp_path / 'drive', 1)
    assert vseg('run', drive, '-o', tmp_path / 'out', '--save', 'depth', '--focal', 100,
                '--bundle', bundle, '--backend', 'openvino') == 2
    assert 'tiny gives no depth' in capsys.readouterr().err


def test_nothing_is_built_of_a_bundle_with_depth(path, capsys):
    for more, reason in ((['--for', 'sm_87'], 'no engine brings'),
                         (['--for', 'cpu', '--precision', 'int8'], '8 bits are checked')):
        assert vseg('build', path, *more) == 2
        assert f'gives depth too, and {reason}' in capsys.readouterr().err


def test_tensorrt_is_refused_and_left_out_by_auto(path, monkeypatch):
    bundle = Bundle.load(path)
    with pytest.raises(BackendError, match='backend tensorrt does not bring to the host'):
        backends.load(bundle, 'tensorrt')
    tried = []
    monkeypatch.setattr(backends, 'why_not', lambda name: tried.append(name))   # all are there
    assert backends._first_usable(backends.Options(), bundle) == 'onnxruntime_tensorrt'
    assert 'tensorrt' not in tried


@pytest.mark.parametrize('key, value, reason', [
    ('nearest', 0, 'depth.nearest'), ('focal', -1, 'depth.focal'),
    ('farthest', 0.5, 'nearest 1.0 is not below farthest 0.5'), ('focal', 'x', 'depth.focal')])
def test_wrong_metadata_is_named(path, key, value, reason, tmp_path):
    model = onnx.load(path)
    tree = json.loads(next(entry.value for entry in model.metadata_props if entry.key == KEY))
    tree['depth'][key] = value
    tree['format_version'] = 1      # without a hash
    onnx.helper.set_model_props(model, {KEY: json.dumps(tree)})
    onnx.save(model, tmp_path / 'wrong.onnx')
    with pytest.raises(BundleError, match=reason):
        Bundle.load(tmp_path / 'wrong.onnx')


def test_depth_that_only_graph_or_metadata_have_is_refused(path, bundle, tmp_path):
    model = onnx.load(path)
    tree = json.loads(next(entry.value for entry in model.metadata_props if entry.key == KEY))
    del tree['depth']
    tree['format_version'] = 1
    onnx.helper.set_model_props(model, {KEY: json.dumps(tree)})
    onnx.save(model, tmp_path / 'wrong.onnx')
    with pytest.raises(BundleError, match='differ in depth'):
        Bundle.load(tmp_path / 'wrong.onnx')
