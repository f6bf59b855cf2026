# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Training end to end on small data: it learns, it resumes exactly, it exports what it learned."""
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
import torch

from folders import write_folder
from ros_vseg import backends
from ros_vseg.bench.tools import advance
from ros_vseg.bundle import Bundle
from ros_vseg.stream import Stream
from vseg_training.checkpoint import load_student
from vseg_training.cli import main
from vseg_training.data import FolderFrames
from vseg_training.evaluate import evaluate_stream, predict
from vseg_training.export import export_bundle
from vseg_training.models.stream import StudentStream
from vseg_training.recipe import load_recipe, RECIPES
from vseg_training.task import build_network
from vseg_training.train import fit


RECIPE = """
name: blocks
model: {{backbone: efficientnet_lite0, weights: null, output_stride: 16, channels: 32,
        key_channels: 16, num_prototypes: 8, head_widths: [16, 16], dropout: 0.0}}
data:
  train: [{{kind: folder, root: {root}}}]
  val: {{kind: folder, root: {root}}}
  crop: [64, 96]
  scale: [1.0, 1.2]
  frames_per_step: 4
  size: [64, 96]
  workers: 0
optim: {{max_steps: {steps}, warmup_steps: 2, ema: 0.5, lr: 0.003, validate_every: 10000,
        checkpoint_every: 5, precision: 32-true}}
"""


KILLED = """
import os, signal, sys
from vseg_training.cli import main
from vseg_training.task import SegmentationTask
losses = SegmentationTask.losses
def kill(self, output, labels):
    if self.global_step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return losses(self, output, labels)
SegmentationTask.losses = kill
sys.exit(main())
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('blocks'), drives=1, frames=4)


def write_recipe(folder, root, steps):
    path = folder / 'recipe.yaml'
    path.write_text(RECIPE.format(root=root, steps=steps))
    return path


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """Checkpoint of a short run that overfits one clip."""
    folder = tmp_path_factory.mktemp('run')
    return fit(load_recipe(write_recipe(folder, data, 60)), folder / 'out')


def test_overfits_one_clip(trained, data):
    student, _ = load_student(trained)
    confusion, _ = evaluate_stream(student, FolderFrames(data, 11))
    assert confusion.mean_iou() > 0.8


def weights_of(path):
    return torch.load(path, map_location='cpu', weights_only=True)['state_dict']


def test_killed_and_resumed_equals_uninterrupted(data, tmp_path):
    """A run killed by SIGKILL and run again ends with the weights of one that was not."""
    recipe = write_recipe(tmp_path, data, 12)
    command = [sys.executable, '-m', 'vseg_training.cli', 'fit', '--config', str(recipe)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    killed = tmp_path / 'killed'
    (tmp_path / 'killed.py').write_text(KILLED)
    done = subprocess.run([sys.executable, str(tmp_path / 'killed.py'), *command[3:], '--output',
                           str(killed)], env=environment, capture_output=True, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    step = torch.load(killed / 'last.ckpt', map_location='cpu', weights_only=True)['global_step']
    assert step == 5
    subprocess.run([*command, '--output', str(killed)], env=environment, check=True,
                   capture_output=True, timeout=240)
    subprocess.run([*command, '--output', str(tmp_path / 'whole')], env=environment, check=True,
                   capture_output=True, timeout=240)
    resumed, whole = (weights_of(tmp_path / name / 'last.ckpt') for name in ('killed', 'whole'))
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key


def test_the_end_of_a_run_is_kept(data, tmp_path):
    """Also where max_steps is no multiple of checkpoint_every."""
    last = fit(load_recipe(write_recipe(tmp_path, data, 7), ['data.val=null']), tmp_path / 'out')
    assert last.name == 'last.ckpt'
    assert torch.load(last, map_location='cpu', weights_only=True)['global_step'] == 7


def test_logit_adjustment_takes_back_its_share_of_the_class_weights(trained, tmp_path):
    checkpoint = torch.load(trained, map_location='cpu', weights_only=True)
    bias = checkpoint['state_dict']['network.head.classify.bias'].clone()
    checkpoint['state_dict']['class_weights'] = torch.arange(1.0, 12.0)
    checkpoint['hyper_parameters']['recipe']['loss']['logit_adjustment'] = 0.5
    torch.save(checkpoint, tmp_path / 'adjusted.ckpt')
    student, _ = load_student(tmp_path / 'adjusted.ckpt')
    expected = bias - 0.5 * torch.arange(1.0, 12.0).log()
    torch.testing.assert_close(student.head.classify.bias.data, expected)


def test_checkpoint_errors_are_one_line(tmp_path, trained):
    (tmp_path / 'text.ckpt').write_text('no checkpoint')
    (tmp_path / 'cut.ckpt').write_bytes(trained.read_bytes()[:5000])
    for name in ('text', 'cut', 'missing'):
        with pytest.raises(ValueError, match=f'{name}.ckpt'):
            load_student(tmp_path / f'{name}.ckpt')


@pytest.mark.parametrize('override, message', [
    ('data.train.0.seeds=[0,1]', 'a list is given as a whole'),
    ('optim.lr=fast', 'lr'), ('model.banana=1', 'banana'),
    ('data.crop=[1,2,3]', 'give a list of 2 whole'),
    ('terms.pair=3', 'key terms.pair: .*: write NAME: {weight: 3'),
    ('terms.channel={weight: 3, on: scores}', 'key terms.channel: .*of: scores.*of, not on'),
])
def test_recipe_errors_name_the_key(tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(write_recipe(tmp_path, tmp_path, 1), [override])


def test_unset_variable_and_unknown_recipe_are_named(monkeypatch):
    monkeypatch.delenv('CAMVID', raising=False)
    with pytest.raises(ValueError, match='CAMVID'):
        load_recipe('camvid_lite0')
    with pytest.raises(ValueError, match='camvid_lite0'):
        load_recipe('nothing')


def test_shipped_recipes_are_valid(monkeypatch):
    for name in ('CAMVID', 'CITYSCAPES'):
        monkeypatch.setenv(name, 'somewhere')
    for path in RECIPES.glob('*.yaml'):
        assert load_recipe(path.stem).name == path.stem


@pytest.fixture(scope='module')
def bundle(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp('bundle') / 'blocks.onnx'
    assert main(['export', str(trained), '-o', str(path)]) == 0
    return Bundle.load(path)


def test_export_carries_its_metrics(bundle, trained, data):
    student, _ = load_student(trained)
    confusion, _ = evaluate_stream(student, FolderFrames(data, 11))
    assert bundle.info.metrics['folder train']['mIoU'] == pytest.approx(
        100 * confusion.mean_iou(), abs=0.01)
    assert bundle.info.trained_on['recipe'] == 'blocks'


def test_bundle_gives_the_mean_confidence_of_torchs_scores(bundle, trained, data):
    student, _ = load_student(trained)
    reference, source = StudentStream(student, admit=False), FolderFrames(data, 11)
    stream = backends.load(bundle, 'onnxruntime').stream()
    assert bundle.info.format_version == 2 and bundle.has_confidence
    for key in source.drives[0]:
        image = source.read(key)[0]
        expected = reference.step(image).softmax(0).amax(0).mean().item()
        assert stream.label(image).mean_confidence == pytest.approx(expected, abs=1e-4)
        stream.remember()
        assert 0.2 < expected < 1


@pytest.mark.parametrize('changes, outputs', [
    ({'non_local': 'none', 'context_frames': 0}, ['scores']),
    ({'context_frames': 0}, ['scores', 'prototypes'])])
def test_network_without_pool_or_prototypes_is_exported(
        data, tmp_path, changes, outputs):
    recipe = load_recipe(write_recipe(tmp_path, data, 1), [
        f'model.{key}={value}' for key, value in changes.items()])
    network = build_network(recipe).eval()
    with torch.no_grad():
        network.head.classify.weight *= 50
    written = export_bundle(network, recipe, tmp_path / 'b.onnx')
    bundle = Bundle.load(tmp_path / 'b.onnx')
    assert bundle.info == written and not bundle.has_confidence
    graph = onnx.load_model_from_string(bundle.model).graph
    assert [value.name for value in graph.output] == outputs
    assert bool(bundle.info.num_prototypes) == ('prototypes' in outputs)
    reference, source = StudentStream(network), FolderFrames(data, 11)
    stream = backends.load(bundle, 'onnxruntime').stream()
    for key in source.drives[0][:2]:
        image = source.read(key)[0]
        np.testing.assert_allclose(stream.step(image), reference.step(image).numpy(), atol=1e-3)


def test_metrics_of_data_without_labels_are_left_out(trained, tmp_path):
    unlabelled = write_folder(tmp_path / 'blocks', drives=1, frames=2)
    for path in unlabelled.glob('labels/*/*.png'):
        path.write_bytes(cv2.imencode('.png', np.full((64, 96), 255, np.uint8))[1].tobytes())
    path = tmp_path / 'b.onnx'
    assert main(['export', str(trained), '-o', str(path), '--data', f'folder:{unlabelled}']) == 0
    assert Bundle.load(path).info.metrics == {}


def test_metrics_of_a_bundle_name_the_data_that_were_measured(trained, tmp_path):
    other = write_folder(tmp_path / 'night', drives=2, frames=1)
    path = tmp_path / 'b.onnx'
    assert main(['export', str(trained), '-o', str(path), '--data', f'folder:{other}']) == 0
    assert list(Bundle.load(path).info.metrics) == ['folder night val']


def test_metrics_of_a_bundle_are_at_its_own_size(trained, data, tmp_path):
    path = tmp_path / 'small.onnx'
    assert main(['export', str(trained), '-o', str(path), '--size', '32x48']) == 0
    student, _ = load_student(trained)
    confusion, _ = evaluate_stream(student, FolderFrames(data, 11), (32, 48))
    stated = Bundle.load(path).info.metrics['folder train']['mIoU']
    assert stated == pytest.approx(100 * confusion.mean_iou(), abs=0.01)


@pytest.mark.parametrize('name', [n for n, why in backends.available().items() if why is None])
def test_golden_clip_agrees_with_torch(bundle, trained, data, name):
    """12 frames with warm-up, a reset in the middle and a missing frame, float32 within 1e-3."""
    student, _ = load_student(trained)
    source = FolderFrames(data, 11)
    frames = [source.read(key)[0] for key in source.drives[0]] * 3
    del frames[8]
    reference = StudentStream(student, admit=False)
    stream = backends.load(bundle, name, precision='fp32').stream()
    for number, frame in enumerate(frames):
        if number == 5:
            reference.reset()
            stream.reset()
        expected = reference.step(frame).numpy()
        np.testing.assert_allclose(advance(stream, frame), expected, atol=1e-3)
        since = number - 5 if number >= 5 else number
        assert stream.context_frames == min(3, since)


def test_runtime_labels_are_torchs(bundle, trained, data):
    student, _ = load_student(trained)
    source = FolderFrames(data, 11)
    reference = StudentStream(student)
    stream = Stream(backends.load(bundle, 'onnxruntime'))
    for number, key in enumerate(source.drives[0]):
        image, _ = source.read(key)
        labels = stream.step(image, number * 10**8).labels
        assert (labels == predict(reference, image)).mean() > 0.999


def test_evaluate_prints_the_same_for_checkpoint_and_bundle(bundle, trained, data, capsys):
    assert main(['evaluate', str(trained), '--json', '--data', f'folder:{data}']) == 0
    by_checkpoint = capsys.readouterr().out
    assert main(['bench', str(trained), '--frames', '2']) == 0
    assert 'torch eager' in capsys.readouterr().out
    assert '"mIoU"' in by_checkpoint
