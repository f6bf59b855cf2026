# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Two processes that share every step train as one does, and end together when one fails."""
import csv
import os
import socket
import subprocess
import sys

import pytest
from test_train import write_recipe
import torch

from folders import write_folder
from vseg_training.data import build_loader, ClipDataset, FolderFrames
from vseg_training.recipe import load_recipe
from vseg_training.train import fit


# in double precision, as round-off grows from step to step; each process draws what is hidden
SET = ['model.hide_own=0', 'model.wrong_pool=0',
       'data.frames_per_step=8', 'optim.precision=64-true', 'optim.checkpoint_every=1',
       'optim.validate_every=3', 'terms.overparameterised={weight: 1, channels: 8}',
       'terms.deep_supervision={weight: 0.1}']
FAILING = """
import sys
from vseg_training.cli import main
from vseg_training.task import SegmentationTask
losses = SegmentationTask.losses
def bad(self, output, labels):
    terms = losses(self, output, labels)
    if self.global_rank == 1 and self.global_step == 2:
        terms['scores'] = terms['scores'] * float('nan')
    return terms
SegmentationTask.losses = bad
sys.exit(main())
"""


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp('distributed')
    return write_recipe(folder, write_folder(folder / 'data', drives=2, frames=4), 3)


def torchrun(program, recipe, output):
    """Start ``vseg-train fit`` as two processes on the CPU."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    overrides = [part for each in SET for part in ('--set', each)]
    return subprocess.Popen(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-addr',
         '127.0.0.1', '--master-port', port, *program, 'fit', '--config', str(recipe), '--output',
         str(output), *overrides],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def losses(output):
    with (output / 'metrics' / 'metrics.csv').open() as file:
        return {int(row['step']): float(row['loss']) for row in csv.DictReader(file)
                if row['loss']}


def test_two_processes_equal_one(recipe, tmp_path):
    process = torchrun(['-m', 'vseg_training.cli'], recipe, tmp_path / 'two')
    fit(load_recipe(recipe, SET), tmp_path / 'one')
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]
    assert out.count('best.ckpt') == 1
    curve = losses(tmp_path / 'one')
    assert len(curve) == 3
    assert losses(tmp_path / 'two') == pytest.approx(curve, rel=1e-3)
    for name in ('last', 'best'):
        one, two = (torch.load(tmp_path / folder / f'{name}.ckpt', weights_only=True)
                    for folder in ('one', 'two'))
        assert two['global_step'] == one['global_step']
        for part in ('state_dict', 'current_model_state'):
            for key, value in one[part].items():
                torch.testing.assert_close(two[part][key], value, rtol=1e-3, atol=1e-3, msg=key)


def test_all_processes_end_when_the_loss_of_one_is_not_finite(recipe, tmp_path):
    (tmp_path / 'failing.py').write_text(FAILING)
    process = torchrun([str(tmp_path / 'failing.py')], recipe, tmp_path / 'out')
    _, errors = process.communicate(timeout=240)
    assert process.returncode
    assert 'vseg-train: error: loss term scores is not finite at step 2, clips ' in errors
    assert 'Traceback' not in errors.split('ChildFailedError')[0].split('vseg-train: error')[0]
    last = torch.load(tmp_path / 'out' / 'last.ckpt', weights_only=True)
    assert last['global_step'] == 2
    assert not list((tmp_path / 'out').glob('*.tmp'))


def dataset(root, frames, lengths):
    return ClipDataset([FolderFrames(root, 11)], [1.0], lengths, frames, None, 0, 20)


def test_processes_share_the_clips_of_every_step(tmp_path):
    clips = dataset(write_folder(tmp_path), 8, [1, 2, 4])
    whole = list(build_loader(clips, 3, 0).batch_sampler)
    halves = [list(build_loader(clips, 3, 0, rank, 2).batch_sampler) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*halves)] == whole
    assert all(len(a) == len(b) for a, b in zip(*halves))


def test_clips_that_cannot_be_shared_are_named(tmp_path):
    clips = dataset(write_folder(tmp_path), 4, [4])
    with pytest.raises(ValueError, match='4 frames has 1 clips of 4, which 2 processes.*'
                                         'frames_per_step, clip_lengths'):
        build_loader(clips, 0, 0, 0, 2)


TOGETHER = """
import sys
import torch
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group(
    'gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2)
%s
# without it, gloo's threads now and then outlive the interpreter, which then aborts
torch.distributed.destroy_process_group()
"""


def start_two(program, folder):
    """Run a program as two processes of one group, which know ``rank`` and ``folder``."""
    started = [subprocess.Popen([sys.executable, '-c', TOGETHER % program, str(rank), str(folder)],
                                env={**os.environ, 'OMP_NUM_THREADS': '1'}) for rank in (0, 1)]
    assert [process.wait(120) for process in started] == [0, 0]


LEARN = """
from vseg_training.terms import critic
critic.WIDTHS = (8, 8, 16, 16)
torch.manual_seed(0)
opponent = critic.Opponent(3)
torch.manual_seed(1 + rank)
opponent.learn(*(torch.rand(1, 3, 32, 32) for _ in range(3)))
torch.save(opponent.critic.state_dict(), f'{folder}/{rank}.pt')
"""


WEIGH = """
from vseg_training.losses.geometry import KendallWeights
weights = KendallWeights(['depth', 'normals'])
# of depth one process has all that there is to say, of normals neither has anything
weights({'depth': torch.tensor(4.0 * (rank == 0)), 'normals': torch.tensor(0.0)}).backward()
torch.save([each.grad for each in weights.log_variances.values()], f'{folder}/{rank}.pt')
"""


def test_a_task_counts_in_all_processes_where_one_has_it(tmp_path):
    start_two(WEIGH, tmp_path)
    of_depth, of_normals = (torch.stack(each).mean() for each in zip(*(
        torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in (0, 1))))
    assert (of_depth, of_normals) == (-2 + 0.5, 0)  # as in one process, with a loss of 2


def test_processes_that_train_together_keep_one_critic(tmp_path):
    """Each sees maps of its own; the critic's gradients are none of the network's."""
    start_two(LEARN, tmp_path)
    first, second = (torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
