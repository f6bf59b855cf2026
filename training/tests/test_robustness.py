# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Training that goes wrong: one clear error, and the last good checkpoint is kept."""
import errno
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from test_train import write_recipe
import torch

from folders import write_folder
from vseg_training.cli import main
from vseg_training.recipe import load_recipe, to_dict
from vseg_training.resume import resume_step, WholeCheckpoints
from vseg_training.task import SegmentationTask
from vseg_training.train import fit, load_teacher


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp('robust')
    return write_recipe(folder, write_folder(folder / 'data', drives=1, frames=4), 8)


def fit_errors(recipe, output, capsys, *overrides):
    """Last line that ``vseg-train fit`` prints when it fails."""
    sets = [part for each in overrides for part in ('--set', each)]
    assert main(['fit', '--config', str(recipe), '--output', str(output), *sets]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_loss_that_is_not_finite_keeps_the_last_checkpoint(recipe, tmp_path, capsys, monkeypatch):
    losses = SegmentationTask.losses

    def spoilt(self, output, labels):
        terms = losses(self, output, labels)
        if self.global_step == 6:
            terms['auxiliary'] = terms['auxiliary'] * float('inf')
        return terms

    monkeypatch.setattr(SegmentationTask, 'losses', spoilt)
    error = fit_errors(recipe, tmp_path, capsys)
    assert 'auxiliary is not finite at step 6, clips ' in error
    assert 'drive0/' in error and 'optim.lr' in error
    last = torch.load(tmp_path / 'last.ckpt', weights_only=True)
    assert last['global_step'] == 5
    assert all(torch.isfinite(value).all() for value in last['state_dict'].values())


def test_a_sum_of_finite_terms_that_is_not_finite_is_told_as_such(
        recipe, tmp_path, capsys, monkeypatch):
    losses = SegmentationTask.losses

    def large(self, output, labels):
        terms = losses(self, output, labels)
        return terms | {'scores': terms['scores'] * 0 + 3e38}

    monkeypatch.setattr(SegmentationTask, 'losses', large)
    error = fit_errors(recipe, tmp_path, capsys, 'loss.segmentation=10', 'optim.max_steps=1')
    assert 'the weighted sum of the loss terms is not finite at step 0: lower the weights' in error


def state(value):
    return {'global_step': 3, 'state_dict': {'weight': torch.full((100_000,), value)}}


def weight(path):
    return torch.load(path, weights_only=True)['state_dict']['weight'][0].item()


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    path = tmp_path / 'last.ckpt'
    WholeCheckpoints().save_checkpoint(state(1.0), path)
    with pytest.raises(ValueError, match='weight is not finite after step 3.*optim.lr'):
        WholeCheckpoints().save_checkpoint(state(float('nan')), path)
    assert weight(path) == 1


def test_full_disk_keeps_the_last_whole_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / 'last.ckpt'
    WholeCheckpoints().save_checkpoint(state(1.0), path)

    def half(checkpoint, file):
        file.write(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(torch, 'save', half)
    with pytest.raises(OSError, match='last.ckpt could not be written.*No space.*make room'):
        WholeCheckpoints().save_checkpoint(state(2.0), path)
    assert weight(path) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_may_not_grow_keeps_the_last_whole_checkpoint(tmp_path):
    path = tmp_path / 'last.ckpt'
    WholeCheckpoints().save_checkpoint(state(1.0), path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match='last.ckpt could not be written.*File too large'):
            WholeCheckpoints().save_checkpoint(state(2.0), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert weight(path) == 1
    assert list(tmp_path.iterdir()) == [path]


def write_checkpoint(path, recipe):
    """Write what ``fit`` looks at of a checkpoint."""
    torch.save({'global_step': 5, 'hyper_parameters': {'recipe': to_dict(recipe)},
                'weight': torch.zeros(100_000)}, path)


def test_truncated_last_checkpoint_is_named(recipe, tmp_path, capsys):
    path = tmp_path / 'last.ckpt'
    write_checkpoint(path, load_recipe(recipe))
    path.write_bytes(path.read_bytes()[:50_000])
    error = fit_errors(recipe, tmp_path, capsys)
    assert f'{path} is damaged' in error and 'remove it to start anew' in error


def test_checkpoint_of_another_recipe_names_the_key(recipe, tmp_path, capsys):
    write_checkpoint(tmp_path / 'last.ckpt', load_recipe(recipe))
    error = fit_errors(recipe, tmp_path, capsys, 'optim.lr=0.5')
    assert 'optim.lr 0.003, but the recipe has 0.5: give another --output' in error


def test_keys_that_train_nothing_may_change(recipe, tmp_path):
    path = tmp_path / 'last.ckpt'
    write_checkpoint(path, load_recipe(recipe))
    changed = ['data.workers=3', 'optim.validate_every=7', 'optim.checkpoint_every=9']
    assert resume_step(path, load_recipe(recipe, changed)) == 5


def test_teacher_that_is_missing_or_truncated_is_named(recipe, tmp_path):
    path = tmp_path / 'teacher.ckpt'
    with pytest.raises(ValueError, match='teacher.ckpt does not exist'):
        load_teacher(load_recipe(recipe, [f'distill.teacher={path}']))
    write_checkpoint(path, load_recipe(recipe))
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(ValueError, match='teacher.ckpt.*damaged'):
        load_teacher(load_recipe(recipe, [f'distill.teacher={path}']))


def test_teacher_of_other_classes_is_named(recipe, tmp_path):
    path, other = tmp_path / 'teacher.ckpt', load_recipe(recipe, ['data.label_set=cityscapes'])
    task = SegmentationTask(to_dict(other))
    torch.save({'hyper_parameters': {'recipe': to_dict(other)},
                'state_dict': task.state_dict()}, path)
    with pytest.raises(ValueError, match='teacher.ckpt knows the classes road.*same label set'):
        load_teacher(load_recipe(recipe, [f'distill.teacher={path}']))


def test_run_reports_its_speed(recipe, tmp_path, caplog):
    caplog.set_level('INFO')
    fit(load_recipe(recipe), tmp_path)
    assert 'images/s over 3 steps' in caplog.text and 'peak memory' in caplog.text


def test_a_resumed_run_keeps_total_and_metrics(recipe, tmp_path, caplog, capsys, monkeypatch):
    step = SegmentationTask.training_step

    def broken(self, batch, batch_idx):
        if self.global_step == 6:
            raise RuntimeError('power cut')
        return step(self, batch, batch_idx)

    caplog.set_level('INFO')
    monkeypatch.setattr(SegmentationTask, 'training_step', broken)
    with pytest.raises(RuntimeError, match='power cut'):
        fit(load_recipe(recipe), tmp_path)
    monkeypatch.undo()
    capsys.readouterr()
    fit(load_recipe(recipe), tmp_path)
    assert 'resuming' in caplog.text and '8/8' in capsys.readouterr().out
    assert (tmp_path / 'metrics' / 'metrics-before-5.csv').exists()


def test_profile_is_a_table(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['profile', '--config', str(recipe), '--steps', '2']) == 0
    out = capsys.readouterr().out
    assert '| images per second |' in out and 'ms of CPU to decode' in out


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(number, recipe, tmp_path):
    """A script that goes on with export must not take it for one that has ended."""
    overrides = ('optim.max_steps=100000', 'optim.checkpoint_every=1')
    process = subprocess.Popen(
        [sys.executable, '-m', 'vseg_training.cli', 'fit', '--config', str(recipe), '--output',
         str(tmp_path / 'run'), *(part for each in overrides for part in ('--set', each))],
        env={**os.environ, 'OMP_NUM_THREADS': '1'}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True)
    last, end = tmp_path / 'run' / 'last.ckpt', time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors[-2000:]
    assert f'interrupted: the same command goes on from {last}' in errors
    assert 'Traceback' not in errors


@pytest.mark.parametrize('change', ['flip', 'empty'])
def test_a_checkpoint_with_a_wrong_bit_is_refused(change, recipe, tmp_path, capsys):
    path = fit(load_recipe(recipe, ['optim.max_steps=1', 'data.val=null']), tmp_path)
    data = bytearray(path.read_bytes() if change == 'flip' else b'')
    if change == 'flip':
        weight = torch.load(path, weights_only=True)['state_dict']['network.reduce.0.weight']
        place = data.index(weight.numpy().tobytes()[:64])
        data[place + 40] ^= 1
    path.write_bytes(data)
    for command in (['export', str(path), '-o', str(tmp_path / 'b.onnx')],
                    ['fit', '--config', str(recipe), '--output', str(tmp_path), '--set',
                     'optim.max_steps=1', '--set', 'data.val=null']):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert 'is damaged' in error or 'or is damaged' in error
    assert not (tmp_path / 'b.onnx').exists()


def test_a_checkpoint_is_not_overwritten_by_what_is_made_of_it(recipe, tmp_path, capsys):
    path = fit(load_recipe(recipe, ['optim.max_steps=1', 'data.val=null']), tmp_path)
    before = path.read_bytes()
    for command in ('export', 'show'):
        assert main([command, str(path), '-o', str(path)]) == 2
        assert 'is the checkpoint itself' in capsys.readouterr().err
    assert path.read_bytes() == before
