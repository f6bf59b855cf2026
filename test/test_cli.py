# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The vseg command as its users call it: what it prints, what it writes, how it refuses."""
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from tiny_bundle import PLAIN, write_tiny_bundle

from ros_vseg import backends
from ros_vseg.backends import tensorrt
from ros_vseg.bundle import Bundle
from ros_vseg.commands import cli, doctor
from ros_vseg.labels import load_label_set, overlay
from ros_vseg.media.sources import open_source
from ros_vseg.media.writers import BagWriter
from ros_vseg.stream import Stream

FRAMES, SIZE, STEP = 6, (96, 128), 10**8


def vseg(*arguments):
    """Run the command; a CompletedProcess with text."""
    return subprocess.run(
        [sys.executable, '-m', 'ros_vseg.commands.cli', *map(str, arguments)], capture_output=True,
        text=True, timeout=240, check=False)


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('bundle') / 'tiny.onnx', SIZE)


@pytest.fixture(scope='module')
def images():
    rng = np.random.default_rng(0)
    return [cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), SIZE[::-1])
            for _ in range(FRAMES)]


@pytest.fixture(scope='module')
def expected(bundle, images):
    """Return the labels of a stream in this process."""
    stream = Stream(backends.load(Bundle.load(bundle), 'onnxruntime'))
    return [stream.step(image, number * STEP).labels for number, image in enumerate(images)]


@pytest.fixture(scope='module')
def bag(tmp_path_factory, images, expected):
    """Return a bag whose exact labels are the stream's own, but for one void frame."""
    path = tmp_path_factory.mktemp('bags') / 'drive'
    with BagWriter(path) as writer:
        for number, (image, labels) in enumerate(zip(images, expected)):
            exact = np.full_like(labels, 255) if number == 2 else labels
            writer.image('/front/image', image, 'rgb8', number * STEP + STEP)
            writer.image('/front/label', exact, 'mono8', number * STEP + STEP)
    return path


@pytest.fixture(scope='module')
def labelled(bag, bundle, tmp_path_factory):
    output = tmp_path_factory.mktemp('out')
    done = vseg('run', bag, '-o', output, '--bundle', bundle, '--backend', 'onnxruntime',
                '--save', 'labels', 'color', 'overlay', 'bag')
    assert done.returncode == 0, done.stderr
    return output, done.stdout


def test_run_writes_the_stream_s_labels(labelled, images, expected):
    output, _ = labelled
    label_set = load_label_set('camvid')
    for number, (image, labels) in enumerate(zip(images, expected)):
        name = f'{number * STEP + STEP}.png'
        np.testing.assert_array_equal(
            cv2.imread(str(output / 'labels' / name), cv2.IMREAD_UNCHANGED), labels)
        np.testing.assert_array_equal(
            cv2.imread(str(output / 'color' / name))[:, :, ::-1], label_set.palette[labels])
    kept = list(open_source(output / 'bag', 'overlay'))
    for frame, image, labels in zip(kept, images, expected):
        np.testing.assert_array_equal(frame.image, overlay(image, labels, label_set))
    assert len(list(open_source(output / 'overlay.mp4'))) == FRAMES


def test_run_reports_agreement_with_exact_labels(labelled):
    _, text = labelled
    assert 'frames labelled  6' in text
    assert 'mIoU             100.00 %' in text
    assert 'resets           none' in text
    assert 'held back        0 frames from the pool' in text
    assert 'context          3 frames at the last frame, the oldest 0.' in text


def test_run_is_deterministic(bag, bundle, labelled, tmp_path):
    assert vseg('run', bag, '-o', tmp_path, '--bundle', bundle, '--backend',
                'onnxruntime').returncode == 0
    for file in (labelled[0] / 'labels').iterdir():
        assert file.read_bytes() == (tmp_path / 'labels' / file.name).read_bytes()


def test_run_relabels(bag, bundle, expected, tmp_path):
    names = load_label_set('camvid').names
    target = tmp_path / 'drivable.yaml'
    target.write_text(f"""
name: drivable
void_from: [sky]
classes:
  - {{id: 0, name: obstacle, color: [255, 0, 0],
      from: {json.dumps([n for n in names if n not in ('road', 'sky')])}}}
  - {{id: 1, name: road, color: [0, 255, 0]}}
""")
    done = vseg('run', bag, '-o', tmp_path / 'out', '--bundle', bundle, '--label-set', target,
                '--backend', 'onnxruntime', '--save', 'labels')
    assert done.returncode == 0, done.stderr
    assert 'mIoU             100.00 %' in done.stdout   # exact labels are relabelled too
    table = np.zeros(256, np.uint8)
    table[names.index('road')], table[names.index('sky')] = 1, 255
    for number, labels in enumerate(expected):
        kept = cv2.imread(str(tmp_path / f'out/labels/{number * STEP + STEP}.png'), -1)
        np.testing.assert_array_equal(kept, table[labels])


def test_run_writes_one_bag_file(bag, bundle, images, expected, tmp_path):
    output = tmp_path / 'labelled.mcap'
    done = vseg('run', bag, '-o', output, '--bundle', bundle, '--backend', 'onnxruntime')
    assert done.returncode == 0, done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ['labelled.mcap']
    label_set = load_label_set('camvid')
    wanted = {
        'label': lambda image, labels: np.repeat(labels[..., None], 3, axis=2),
        'color': lambda image, labels: label_set.palette[labels],
        'overlay': lambda image, labels: overlay(image, labels, label_set)}
    for topic, picture in wanted.items():
        frames = list(open_source(output, topic))
        assert [frame.stamp for frame in frames] == [(i + 1) * STEP for i in range(FRAMES)]
        for frame, image, labels in zip(frames, images, expected):
            np.testing.assert_array_equal(frame.image, picture(image, labels))


def test_run_goes_on_after_an_unreadable_frame(bundle, images, tmp_path):
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f'{number}.png'), image)
    (tmp_path / '3.png').write_bytes(b'nothing')
    done = vseg('run', tmp_path, '-o', tmp_path / 'out', '--bundle', bundle)
    assert done.returncode == 0
    assert 'frames labelled  5' in done.stdout and '1 decode' in done.stdout
    assert '3.png is left out' in done.stderr


def test_info_tells_all(bundle):
    tree = json.loads(vseg('info', bundle, '--json').stdout)
    assert tree['sha256'] == Bundle.load(bundle).sha256
    assert tree['label_set']['classes'][3]['name'] == 'road'
    text = vseg('info', bundle).stdout
    assert 'N: 4, C: 8, T: 3, D: 14' in text and 'bicyclist' in text


def test_network_without_prototypes_is_shown_and_run(bag, tmp_path):
    plain = write_tiny_bundle(tmp_path / 'plain.onnx', SIZE, rates=(5, 30), **PLAIN)
    text = vseg('info', plain).stdout
    assert 'prototypes      none\n' in text and 'rates           min: 5.0, max: 30.0\n' in text
    assert 'prototypes' not in json.loads(vseg('info', plain, '--json').stdout)
    done = vseg('run', bag, '-o', tmp_path / 'out', '--bundle', plain, '--size', '64x96')
    assert done.returncode == 0, done.stderr
    assert f'frames labelled  {FRAMES}' in done.stdout
    assert len(list((tmp_path / 'out/labels').iterdir())) == FRAMES


@pytest.mark.parametrize('arguments, message', [
    (['run', 'nowhere.mcap', '-o', '{out}'], 'nowhere.mcap does not exist'),
    (['run', '{bag}', '-o', '{out}', '--bundle', '{text}'], 'is not an ONNX file'),
    (['run', '{bag}', '-o', '{out}', '--bundle', '{cut}'], 'truncated'),
    (['run', '{bag}', '-o', '{text}/out', '--bundle', '{bundle}'], 'cannot be written'),
    (['run', '{labels}', '-o', '{out}', '--bundle', '{bundle}'], 'has no images'),
    (['run', '{bag}', '-o', '{out}', '--bundle', '{bundle}', '--backend', 'gpu'],
     "backend 'gpu' is unknown"),
    (['run', '{bag}', '-o', '{out}', '--bundle', '{bundle}', '--label-set', 'cityscapes'],
     'does not fit'),
    (['run', '{bag}', '-o', '{out}', '--bundle', '{bundle}', '--topic', '/rear'],
     'choose one of /front/image'),
    (['run', '{bag}', '-o', '{bag}/drive.mcap', '--bundle', '{bundle}'],
     'drive.mcap exists: remove it or choose another output'),
    (['run', '{bag}', '-o', '{out}.mcap', '--bundle', '{bundle}', '--save', 'labels'],
     'is to be a bag'),
    (['info', '{text}'], 'is not an ONNX file'),
    (['bench', 'everything'], 'no benchmark everything'),
])
def test_mistakes_are_one_line(arguments, message, bag, bundle, tmp_path):
    places = {'bag': bag, 'bundle': bundle, 'out': tmp_path / 'out'}
    for name, data in (('text', b'some text'), ('cut', bundle.read_bytes()[:4000])):
        places[name] = tmp_path / f'{name}.file'
        places[name].write_bytes(data)
    places['labels'] = tmp_path / 'labels'
    with BagWriter(places['labels']) as writer:
        writer.image('/front/label', np.zeros((4, 4), np.uint8), 'mono8', STEP)
    done = vseg(*[part.format(**places) for part in arguments])
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count('\n') == 1 and 'Traceback' not in done.stderr
    assert not list(tmp_path.glob('out/*.mp4')) + list(tmp_path.glob('**/.*.mp4'))


def test_doctor_finds_this_machine_fit(bundle):
    done = vseg('doctor', '--bundle', bundle)
    assert done.returncode == 0, done.stdout
    assert 'rmw_fastrtps_cpp' in done.stdout and 'runs on' in done.stdout


def test_doctor_goes_on_with_a_broken_gpu_driver(tmp_path, monkeypatch):
    tool = tmp_path / 'nvidia-smi'
    tool.write_text('#!/bin/sh\necho no driver\nexit 9\n')
    tool.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    finding = doctor._gpu()
    assert finding.state == doctor.HINT and 'check the driver' in finding.text
    tool.write_text('#!/bin/sh\necho NVIDIA Orin, 540.4\n')
    assert doctor._gpu() == (doctor.OK, 'NVIDIA GPU', 'NVIDIA Orin, 540.4')


def test_doctor_names_what_is_missing(tmp_path, monkeypatch):
    assert doctor._bundle(tmp_path / 'none.onnx').state == doctor.MISSING
    monkeypatch.setattr(backends, 'available', lambda: {'openvino': 'no module'})
    assert [finding.state for finding in doctor._backends()] == [doctor.HINT, doctor.MISSING]
    monkeypatch.setattr(doctor, 'SHARED_MEMORY', 2**60)
    assert 'make it larger' in doctor._shared_memory().text
    for variable in doctor.PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert 'fastdds.xml' in doctor._profile().text
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', str(tmp_path / 'gone.xml'))
    assert 'not there' in doctor._profile().text


def test_build_writes_engines_for_gpus_that_are_not_here(bundle, images, tmp_path):
    pytest.importorskip('tensorrt_rtx')
    done = vseg('build', bundle, '--for', 'sm86,SM89', '--engines', tmp_path)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in tmp_path.glob('*.engine'))
    assert [name.split('-')[4] for name in names] == ['sm86', 'sm89']
    assert all(name in done.stdout for name in names) and 'HALF CONVOLUTION' in done.stdout
    frames = tmp_path / 'frames'
    frames.mkdir()
    for number in range(9):
        cv2.imwrite(str(frames / f'{number}.png'), images[number % FRAMES])
    options = ('--precision', 'int8', '--for', 'sm86', '--engines', tmp_path)
    assert '--calibrate FOLDER' in vseg('build', bundle, *options).stderr
    done = vseg('build', bundle, *options, '--calibrate', frames)
    assert done.returncode == 0 and 'calibrated with 9 frames' in done.stdout
    engine, = tmp_path.glob('*int8*.engine')
    before = engine.stat().st_mtime_ns
    assert vseg('build', bundle, *options).returncode == 0
    assert engine.stat().st_mtime_ns == before
    vseg('build', bundle, *options, '--calibrate', frames)
    assert engine.stat().st_mtime_ns > before      # another calibration, another engine


@pytest.mark.parametrize('command, option, value, reason', [
    ('run', '--max-gap', '-1', 'is too small: give 0.001 or more'),
    ('run', '--max-gap', '0', 'is too small: give 0.001 or more'),
    ('run', '--max-gap', 'nan', 'is not a number: give 0.001 to 3600'),
    ('run', '--max-gap', 'inf', 'is too large: give 3600 or less'),
    ('run', '--fps', '1e-300', 'frames a second are not possible: give 0.001 to 1000000'),
    ('run', '--fps', '1e-10', 'frames a second are not possible: give 0.001 to 1000000'),
    ('run', '--focal', 'nan', 'is not a number: give 1 to 1000000'),
    ('run', '--limit', '0', 'is too small: give 1 or more'),
    ('run', '--limit', str(10**30), 'is too large: give 1000000000 or less'),
    ('run', '--threads', '-3', 'is too small: give 0 or more'),
    ('run', '--threads', '100000', 'is too large: give 256 or less'),
    ('run', '--size', '99999x99999', 'is too large: give at most 8192 a side'),
    ('build', '--device', '-1', 'is too small: give 0 or more'),
    ('build', '--workspace', '-5', 'is too small: give 0 or more'),
    ('build', '--size', '99999x99999', 'is too large: give at most 8192 a side'),
    ('compare', '--limit', '0', 'is too small: give 1 or more'),
    ('bench', '--rounds', '0', 'is too small: give 1 or more'),
    ('bench', '--size', '20000x20000', 'is too large: give at most 8192 a side'),
    ('doctor', '--dds', '99999x99999', 'is too large: give at most 8192 a side')])
def test_numbers_out_of_range_are_one_line(bundle, images, tmp_path, capfd, command, option,
                                           value, reason):
    cv2.imwrite(str(tmp_path / '1.png'), images[0])
    given = {'run': (str(tmp_path), '-o', str(tmp_path / 'out')), 'compare': ('a', 'b')}
    model = () if command == 'build' else ('--bundle', str(bundle))
    assert cli.main([command, *given.get(command, ()), *model, f'{option}={value}']) == 2
    line, = capfd.readouterr().err.splitlines()
    assert line.startswith('vseg: error: ') and reason in line and value in line
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('arguments, reason', [
    (['--for', 'sm33'], 'does not build for sm33'),
    (['--for', 'sm86', '--size', '96'], "size '96' is not HxW"),
    (['--for', 'sm86', '--size', '100x128'], 'export it at that size'),
    (['--for', 'sm86', '--workspace', '-1'], '--workspace -1 is too small'),
    (['--for', 'sm86', '--precision', 'int8', '--calibrate', '/does/not/exist'],
     '/does/not/exist'),
    (['--for', 'sm75', '--precision', 'fp32'], 'use precision fp16 or int8'),
    (['--for', 'sm86', '--engines', '/dev/null/engines'], 'cannot be written')])
def test_build_refuses_in_one_line(bundle, tmp_path, arguments, reason):
    pytest.importorskip('tensorrt_rtx')
    done = vseg('build', bundle, '--engines', tmp_path, *arguments)
    assert done.returncode == 2 and reason in done.stderr
    assert 'Traceback' not in done.stderr and not list(tmp_path.glob('*.engine'))


@pytest.mark.skipif(tensorrt.missing() is None, reason='there is a GPU here')
def test_commands_that_need_a_gpu_say_so(bundle, tmp_path, images):
    cv2.imwrite(str(tmp_path / '1.png'), images[0])
    run = ('run', tmp_path, '-o', tmp_path / 'out', '--bundle', bundle, '--backend')
    for done in (vseg('build', bundle), vseg(*run, 'tensorrt'),
                 vseg('bench', '--backend', 'tensorrt', '--bundle', bundle)):
        assert done.returncode == 2 and 'Traceback' not in done.stderr
        assert 'NVIDIA' in done.stderr or 'pip install' in done.stderr
    for backend in ('onnxruntime_cuda', 'onnxruntime_tensorrt'):
        done = vseg(*run, backend)
        assert done.returncode == 2 and 'pip install onnxruntime-gpu' in done.stderr


def test_run_at_another_size(bundle, images, tmp_path):
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f'{number}.png'), image)
    sizes = {}
    for size in ('96x128', '48x64'):
        done = vseg('run', tmp_path, '-o', tmp_path / size, '--bundle', bundle, '--size', size,
                    '--save', 'labels')
        assert done.returncode == 0, done.stderr
        sizes[size] = cv2.imread(str(tmp_path / size / 'labels/0.png'), cv2.IMREAD_UNCHANGED)
    assert sizes['96x128'].shape == sizes['48x64'].shape == SIZE
    assert (sizes['96x128'] != sizes['48x64']).any()


@pytest.mark.parametrize('arguments', [
    ['--help'], ['--version'], ['info'], ['doctor'], ['run', '{bag}', '-o', '{out}'],
    ['compare', 'onnxruntime', 'onnxruntime', '--input', '{bag}', '--bundle', '{bundle}']])
def test_a_reader_that_ends_early_is_no_error(arguments, bag, bundle, tmp_path):
    arguments = [part.format(bag=bag, bundle=bundle, out=tmp_path / 'out') for part in arguments]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, '-m', 'ros_vseg.commands.cli', *arguments], stdout=writing,
        stderr=subprocess.PIPE, text=True, timeout=240, check=False,
        env={**os.environ, 'PYTHONUNBUFFERED': ''})     # argparse keeps what it cannot write
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, '')


def test_compare_reads_frames_as_run_does(bundle, tmp_path):
    two = tmp_path / 'two'
    with BagWriter(two) as writer:
        for topic in ('/left/image', '/right/image'):
            writer.image(topic, np.zeros((*SIZE, 3), np.uint8), 'rgb8', 10**9)
    arguments = ('compare', 'onnxruntime', 'onnxruntime', '--input', two, '--bundle', bundle)
    refused = vseg(*arguments)
    assert refused.returncode == 2
    assert 'several image topics: choose one of /left/image, /right/image' in refused.stderr
    done = vseg(*arguments, '--topic', '/left/image', '--bit-depth', '12')
    assert done.returncode == 0 and '100.000 % of 1 frames' in done.stdout


def test_output_that_is_closed_or_full(bundle):
    command = f'{sys.executable} -m ros_vseg.commands.cli info {bundle}'
    closed, full = (subprocess.run(['sh', '-c', command + to], capture_output=True, text=True,
                                   timeout=240, check=False) for to in ('>&-', '>/dev/full'))
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, '', '')
    assert full.returncode == 1 and full.stderr.count('\n') == 1
    assert 'the output cannot be written (No space left on device)' in full.stderr


def test_commands_work_from_sources_that_are_not_installed(monkeypatch, capsys):
    def missing(name):
        raise cli.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(cli.importlib.metadata, 'version', missing)
    with pytest.raises(SystemExit) as ended:
        cli.build_parser().parse_args(['--version'])
    assert ended.value.code == 0 and 'not installed' in capsys.readouterr().out
