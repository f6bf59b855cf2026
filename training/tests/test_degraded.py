# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Clean and degraded drives with right and wrong pools: who sees which frames, and the command."""
import contextlib
import json

import numpy as np
import pytest
from test_train import write_recipe

from folders import write_folder
from networks import tiny
from ros_vseg import backends
from ros_vseg.bundle import Bundle
from vseg_training.cli import main
from vseg_training.data import build_source, ClipSource
from vseg_training.data.degrade import degrade, frame_rng, HELD_OUT, SEEN
from vseg_training.degraded import (
    BundleStream, BURSTS, cases, earlier_frames, measure, ModelStream, report)
from vseg_training.recipe import load_recipe
from vseg_training.train import fit


class Drives(ClipSource):
    """Two drives of 60 frames; a frame's corner tells its drive and number."""

    drives = [[(drive, number) for number in range(60)] for drive in range(2)]

    def read(self, key):
        image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        image[0, 0] = [*key, 77]
        return image, np.zeros((48, 64), np.uint8)

    def frame_name(self, key):
        return f'{key[0]}/{key[1]}'


class Recorder:
    """A LabelStream that is right on clean frames, wrong and unsure on bad ones."""

    def __init__(self):
        self.begun, self.steps, self.pools = 0, [], []

    def begin(self):
        self.begun += 1

    def step(self, image):
        self.steps.append(image)
        clean = np.uint8(np.array_equal(image, Drives().read(tuple(map(int, image[0, 0, :2])))[0]))
        return np.full((48, 64), 1 - clean), np.full((48, 64), 51 + 204 * clean, np.uint8)

    def after(self, earlier, image):
        self.pools.append([tuple(map(int, frame[0, 0, :2])) for frame in earlier])
        return self.step(image)


def case_of(name, pool):
    return next(case for case in cases() if (case.name, case.pool) == (name, pool))


OTHER = [np.full((48, 64, 3), [200, number, 0], np.uint8) for number in range(3)]


def test_cases_are_pools_of_clean_seen_held_out_and_bursts():
    names = [(case.name, case.pool) for case in cases()]
    pools = ('kept', 'emptied', 'earlier', 'other')
    assert names == [(name, pool) for name in ('clean', 'seen kinds', 'held-out kinds')
                     for pool in pools] + [(f'bursts of {length}', pool) for length in (2, 4, 8)
                                           for pool in pools[:2]]
    plan = case_of('held-out kinds', 'kept').plan(30)
    assert [kind for kind in plan if kind] == list(HELD_OUT)
    for length, every in BURSTS.items():
        plan = case_of(f'bursts of {length}', 'kept').plan(4 + every)
        assert plan == [None] * 4 + [SEEN[0]] * length + [None] * (every - length)


def test_kept_pool_streams_drives_and_degrades_every_fifth_frame():
    stream = Recorder()
    result = measure(stream, case_of('seen kinds', 'kept'), Drives(), 3, 2, OTHER)
    assert stream.begun == 2 and len(stream.steps) == 120 and not stream.pools
    for index, image in enumerate(stream.steps[60:]):
        expected = Drives().read((1, index))[0]
        if index % 5 == 4:
            expected = degrade(expected, frame_rng(0, index), SEEN[index // 5 % 6])
        np.testing.assert_array_equal(image, expected)
    assert result['mIoU'] == 100 * 0.8 / 2  # class 1 is never right
    assert result['bad'] == 0
    assert result['VC8'] == 0  # every window of 8 has a bad frame
    assert result['ECE'] == 0
    assert np.isnan(result['AUROC'])  # no pixel of a bad frame is right


def test_other_pools_are_filled_anew_for_every_frame():
    pools = {}
    for pool in ('emptied', 'earlier', 'other'):
        stream = Recorder()
        result = measure(stream, case_of('clean', pool), Drives(), 3, 2, OTHER)
        assert result['mIoU'] == result['VC8'] == 100
        assert np.isnan(result['bad']) and np.isnan(result['AUROC'])
        pools[pool] = stream.pools
    assert pools['emptied'] == [[]] * 120
    assert pools['other'] == [[(200, 0), (200, 1), (200, 2)]] * 120
    assert pools['earlier'][60 + 55] == [(1, 2), (1, 3), (1, 4)]
    assert pools['earlier'][60 + 5] == [(1, 52), (1, 53), (1, 54)]
    assert pools['earlier'][60 + 50] == [(1, 0)] * 3  # nothing lies before the drive


@pytest.mark.parametrize('count, measured', [(53, False), (54, True)])
def test_drives_too_short_for_an_earlier_pool_are_not_measured(count, measured):
    source = Drives()
    source.drives = [source.drives[0], source.drives[1][:count]]
    found = {pool: measure(Recorder(), case_of('clean', pool), source, 3, 2, OTHER)
             for pool in ('emptied', 'earlier')}
    assert found['emptied']['mIoU'] == 100
    assert {bool(np.isfinite(found['earlier'][name])) for name in (
        'mIoU', 'TC', 'VC8', 'ECE')} == {measured}


@pytest.mark.parametrize('count', [1, 9, 60, 200])
def test_earlier_frames_lie_in_the_drive(count):
    for index in range(count):
        places = earlier_frames(count, index, 3)
        assert len(places) == 3 and 0 <= min(places) and max(places) < count
        if 53 <= index:
            assert places == [index - 53, index - 52, index - 51]


def test_a_network_without_pool_runs_the_kept_cases_alone():
    chosen = [case_of('clean', pool) for pool in ('kept', 'emptied')]
    found = report(Recorder(), Drives(), Drives(), 0, 2, chosen)
    assert list(found) == ['clean, kept']


def test_model_stream_sees_the_pool_that_it_is_given():
    stream = ModelStream(tiny().eval(), (48, 64))
    rng = np.random.default_rng(1)
    first, second, third = rng.integers(0, 256, (3, 48, 64, 3), np.uint8)
    stream.begin()
    alone = stream.step(second)[1]
    stream.begin()
    stream.step(first)
    context = stream.step(second)[1]
    assert (alone != context).any()
    np.testing.assert_array_equal(stream.after([], second)[1], alone)
    np.testing.assert_array_equal(stream.after([first], second)[1], context)
    stream.after([third, third], first)  # leaves nothing behind, in the drive neither
    np.testing.assert_array_equal(stream.after([first], second)[1], context)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Recipe, checkpoint and calibrated bundle of a short training."""
    folder = tmp_path_factory.mktemp('degraded')
    recipe = write_recipe(folder, write_folder(folder / 'data', drives=1, frames=9), 12)
    checkpoint, bundle = fit(load_recipe(recipe), folder / 'run'), folder / 'student.onnx'
    assert main(['export', str(checkpoint), '-o', str(bundle), '--no-evaluate',
                 '--calibrate', f'folder:{folder / "data"}']) == 0
    return recipe, checkpoint, bundle


def test_export_writes_the_temperature(trained):
    info = Bundle.load(trained[2]).info
    assert 0.05 < info.temperature < 20 and info.temperature != 1


def test_export_shifts_the_scores_of_classes(trained, tmp_path, capsys):
    """By as much at each pixel, in every frame; all others stay."""
    _, checkpoint, _ = trained
    plain, shifted = tmp_path / 'plain.onnx', tmp_path / 'shifted.onnx'
    export = ['export', str(checkpoint), '--no-evaluate', '-o']
    assert main([*export, str(plain)]) == 0
    assert main([*export, str(shifted), '--shift', 'pole=0.75', 'car=-0.5']) == 0
    assert Bundle.load(shifted).info.trained_on['shift'] == {'pole': 0.75, 'car': -0.5}
    assert 'shift' not in Bundle.load(plain).info.trained_on
    streams = [backends.load(Bundle.load(path), 'onnxruntime').stream()
               for path in (plain, shifted)]
    names = list(Bundle.load(plain).info.label_set.names)
    expected = np.zeros(len(names), np.float32)
    expected[names.index('pole')], expected[names.index('car')] = 0.75, -0.5
    info = Bundle.load(plain).info
    image = np.random.default_rng(0).integers(0, 256, (info.height, info.width, 3), np.uint8)
    for _ in range(2):
        before, after = (np.array(stream.step(image)) for stream in streams)
        np.testing.assert_allclose(
            after - before, np.broadcast_to(expected[:, None, None], before.shape), atol=1e-4)
        for stream in streams:
            stream.remember()
    capsys.readouterr()
    for wrong, reason in [('lorry=1', "--shift names the class 'lorry', which label set"),
                          ('pole', "'pole' is not possible: give NAME=NUMBER"),
                          ('pole=nan', "'nan' is not possible: give a number of -20..20")]:
        with contextlib.suppress(SystemExit):   # argparse's way
            assert main([*export, str(plain), '--shift', wrong]) != 0
        assert reason in capsys.readouterr().err
    assert main([*export, str(plain), '--shift', 'pole=1', 'pole=2']) != 0
    assert "--shift names the class 'pole' twice" in capsys.readouterr().err


def test_bundle_stream_sees_the_pool_that_it_is_given(trained):
    stream = BundleStream(backends.load(Bundle.load(trained[2]), 'onnxruntime'))
    source = load_source(trained[0])
    first, second = (source.read_image(key) for key in source.drives[0][:2])
    stream.begin()
    alone = np.array(stream.step(second)[1])
    stream.begin()
    stream.step(first)
    context = np.array(stream.step(second)[1])
    np.testing.assert_array_equal(stream.after([], second)[1], alone)
    np.testing.assert_array_equal(stream.after([first], second)[1], context)
    assert (alone != context).any()


def load_source(recipe):
    recipe = load_recipe(recipe)
    return build_source(recipe.data.train[0], recipe, None)


def test_command_reports_checkpoint_and_bundle(trained, tmp_path, capsys):
    recipe, checkpoint, bundle = trained
    data = load_recipe(recipe).data.train[0].root
    arguments = ['evaluate', str(checkpoint), str(bundle), '--config', str(recipe), '--degrade',
                 '--backend', 'onnxruntime', '--data', f'folder:{data}']
    assert main([*arguments, '-o', str(tmp_path / 'out.json')]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * 18
    assert lines[2].startswith(f'| {checkpoint} | clean, kept | ')
    assert {line.count('|') for line in lines} == {10}
    ours, theirs = json.loads((tmp_path / 'out.json').read_text())
    assert ours['model'] == str(checkpoint) and theirs['model'] == str(bundle)
    for case, values in ours['cases'].items():
        assert values['mIoU'] == pytest.approx(theirs['cases'][case]['mIoU'], abs=1), case
    assert ours['cases']['clean, kept']['AUROC'] is None
    assert ours['cases']['clean, kept']['VC16'] is None  # the drive has 9 frames
    assert 0 <= ours['cases']['seen kinds, kept']['bad'] <= 100


def test_command_refuses_what_it_cannot_measure(trained, tmp_path, capsys):
    recipe, _, bundle = trained
    labels = tmp_path / 'two.yaml'
    labels.write_text('name: two\nclasses: [{id: 0, name: a, color: [0, 0, 0]}, '
                      '{id: 1, name: b, color: [9, 9, 9]}]\n')
    other = tmp_path / 'other.yaml'
    other.write_text(recipe.read_text().replace('data:', f'data:\n  label_set: {labels}', 1))
    data = load_recipe(recipe).data.train[0].root
    arguments = ['evaluate', str(bundle), '--degrade', '--data', f'folder:{data}']
    assert main([*arguments, '--config', str(other)]) == 2
    assert 'has the classes of' in capsys.readouterr().err
    assert main([*arguments, '--config', str(recipe), '--stabilize']) == 2
    assert 'leave --stabilize out' in capsys.readouterr().err
