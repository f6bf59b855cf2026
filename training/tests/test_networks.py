# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Networks beside MGCNet: sizes, options, training, distillation and export."""
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from folders import write_folder
from ros_vseg import backends
from ros_vseg.bundle import Bundle
from ros_vseg.errors import BundleError
from ros_vseg.graph import at_size
from ros_vseg.stream import Stream
from vseg_training.checkpoint import load_student
from vseg_training.cli import main
from vseg_training.data.folders import FolderFrames
from vseg_training.distill.targets import maps_of, teacher_maps
from vseg_training.evaluate import predict
from vseg_training.export import export_bundle
from vseg_training.metrics import parameters
from vseg_training.models.kinds import build, PER_FRAME, refuse_single_values
from vseg_training.models.nfs import NfSNet
from vseg_training.models.options import KINDS, Model
from vseg_training.models.pspnet import PyramidPooling
from vseg_training.recipe import from_dict, load_recipe, Recipe, to_dict
from vseg_training.task import build_network, SegmentationTask
from vseg_training.temperature import calibrate
from vseg_training.terms import METHODS, Terms, Widths
from vseg_training.train import fit, load_teacher

RECIPE = """
model: {{kind: pspnet, width: 0.125, deep_stem: false, channels: 16, dropout: 0.0}}
data:
  train: [{{kind: folder, root: {root}}}]
  val: {{kind: folder, root: {root}}}
  crop: [64, 96]
  scale: [1.0, 1.2]
  brightness: 0
  clip_lengths: [2]
  frames_per_step: 4
  size: [64, 96]
  workers: 0
loss: {{long_term: 0.1, logit_adjustment: 0.5}}
optim: {{max_steps: 4, warmup_steps: 2, ema: 0.5, lr: 0.003, checkpoint_every: 2,
        validate_every: 4, precision: 32-true}}
"""
SMALL = {  # options of a small network of each kind
    'pspnet': {'width': 0.125, 'deep_stem': False, 'channels': 16},
    'deeplab': {'width': 0.125, 'channels': 16, 'rates': [2, 4]},
    'espnet': {'alpha_2': 1, 'alpha_3': 1},
    'espnet_c': {'alpha_2': 1, 'alpha_3': 1},
    'hrnet': {'width': 0.25},
    'mobilenetv2plus': {'channels': 16},
    'nfs': {'width': 0.25, 'decoder': 8},
}
# bundles of these run at other sizes as well; a pyramid's bins and NfS-SegNet's cuts would change
ANY_SIZE = [kind for kind in SMALL if kind not in ('pspnet', 'nfs')]
# kind, options, size, in training: parameters (M) and multiply-adds (G) of the papers. A ResNet of
# theirs has 65x129 cells at 512x1024, as their pooling rounds up; ours has as many at 513x1025.
# They count no transposed convolutions.
LARGE = {
    'PSPNet-R18': ('pspnet', {}, (513, 1025), True, 13.07, 125.8),
    'PSPNet-R18 (0.5)': ('pspnet', {'width': 0.5, 'channels': 64}, (513, 1025), True,
                         3.271, 31.53),
    'PSPNet-R101': ('pspnet', {'backbone': 'resnet101', 'channels': 512}, (513, 1025), True,
                    70.43, 574.9),
    'PSPNet-MBV2': ('pspnet', {'backbone': 'mobilenet_v2', 'channels': 32}, (512, 1024), False,
                    1.98, 16.40),
    'DeepLab-R18': ('deeplab', {}, (513, 1025), True, 12.62, 123.9),
    'DeepLab-R18 (0.5)': ('deeplab', {'width': 0.5, 'channels': 32}, (513, 1025), True,
                          3.15, 31.06),
    'ESPNet': ('espnet', {}, (512, 1024), False, 0.3635, 4.422),
    'ESPNet-C': ('espnet_c', {}, (512, 1024), False, 0.3492, 3.468),
    'HRNet-W18-Small-v2': ('hrnet', {}, (512, 1024), False, 3.92, None),
    'MobileNetV2Plus': ('mobilenetv2plus', {}, (512, 1024), False, 8.301, 86.14),
    'DeepLab-MBV2': ('deeplab', {'backbone': 'mobilenet_v2'}, (512, 1024), False, 2.45, 20.39),
    # 24.3 GFLOPs, two for each multiply-add; no parameters are given, nor the widths
    'NfS-SegNet': ('nfs', {}, (1024, 2048), False, None, 12.15),
}


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(kind, **changes):
    """Network of 5 classes whose batch norms have seen one clip, so that inputs matter."""
    torch.manual_seed(0)
    network = PER_FRAME[kind](5, **{**SMALL[kind], **changes})
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(255 * torch.rand(1, 4, 3, 96, 128))
        for parameter in network.head.get_submodule('classify').parameters():
            parameter *= 20
    return network.eval()


def macs(network, size, training):
    """
    Multiply-adds of one frame in units of 10^9, with the auxiliary head or as exported.

    Those of transposed convolutions are left out, as in the papers.
    """
    transposed = []
    for module in network.modules():
        if isinstance(module, torch.nn.ConvTranspose2d):
            module.register_forward_hook(lambda module, inputs, output: transposed.append(
                inputs[0].numel() * module.weight[0].numel()))
    with torch.device('meta'), FlopCounterMode(display=False) as counter:
        if training:
            network.train()(torch.zeros(1, 2, 3, *size))
        else:
            network.eval().step(torch.zeros(2, *size, 3))
    return (counter.get_total_flops() / 2 - sum(transposed)) / 2 / 1e9    # two frames


@pytest.mark.parametrize('name', LARGE)
def test_sizes_are_the_papers(name):
    kind, options, size, training, millions, billions = LARGE[name]
    with torch.device('meta'):
        network = PER_FRAME[kind](19, **options)
    count = sum(value.numel() for value in network.parameters())
    count = count if training else parameters(network)
    if millions:
        assert count / 1e6 == pytest.approx(millions, rel=0.02)
    if billions:
        rel = 0.05 if kind == 'nfs' else 0.02
        assert macs(network, size, training) == pytest.approx(billions, rel=rel)


def test_nfs_nets_encoder_is_the_papers():
    with torch.device('meta'), FlopCounterMode(display=False) as counter:
        NfSNet(further=False).eval()(torch.zeros(1, 3, 1024, 2048))
    assert counter.get_total_flops() / 1e9 == pytest.approx(21.3, rel=0.05)


@pytest.mark.parametrize('stride', [4, 16, 128])
def test_a_longer_decoder_gives_finer_scores(stride):
    network = small('nfs', output_stride=stride)
    with torch.no_grad():
        scores = network(torch.zeros(1, 1, 3, 200, 300))['scores']
    assert scores.shape[3:] == (-(-200 // stride), -(-300 // stride))
    assert len(network.head.doublings) == {4: 6, 16: 4, 128: 1}[stride]
    with pytest.raises(ValueError, match='output_stride is 256: NfS-SegNet has 4, 8'):
        small('nfs', output_stride=256)


def test_nfs_segnet_has_a_class_head_at_every_resolution_of_its_decoder():
    clip = torch.randint(0, 256, (1, 2, 3, 256, 512), dtype=torch.uint8)
    output = small('nfs', output_stride=16)(clip)
    assert output['scores'].shape[2:] == (5, 16, 32)
    assert [each.shape for each in output['auxiliary']] == [
        (1, 2, 5, 2 ** number, 2 ** (number + 1)) for number in range(4)]


@pytest.mark.parametrize('kind', SMALL)
def test_clip_equals_stream_at_odd_sizes(kind):
    network = small(kind)
    clip = torch.randint(0, 256, (2, 2, 3, 51, 70), dtype=torch.uint8)
    with torch.no_grad():
        output = network(clip)
    stride = network.output_stride
    assert output['scores'].shape == (2, 2, 5, -(-51 // stride), -(-70 // stride))
    assert output['features'].shape[:3] == (2, 2, network.channels)
    shapes = [stage.shape[2:] for stage in output['stages']]
    assert shapes == [(width, -(-51 // step), -(-70 // step)) for width, step in zip(
        network.backbone.channels, network.backbone.strides)]
    stream = network.stream()
    for batch, frame in ((0, 1), (1, 0)):
        scores = stream.step(clip[batch, frame].permute(1, 2, 0).numpy())
        torch.testing.assert_close(scores, output['scores'][batch, frame], atol=1e-3, rtol=1e-3)
    assert output['scores'].argmax(2).unique().numel() > 1


@pytest.mark.parametrize('kind', SMALL)
def test_gradients_reach_every_parameter(kind):
    network = small(kind).train()
    output = network(torch.randint(0, 256, (1, 2, 3, 64, 64), dtype=torch.uint8))
    maps = [output['scores'], *output.get('auxiliary', [])]
    sum(each.square().sum() for each in maps).backward()
    assert not [name for name, value in network.named_parameters() if value.grad is None]


@pytest.mark.parametrize('kind', SMALL)
def test_the_runtime_gives_torchs_labels(kind, tmp_path):
    network, recipe = small(kind), Recipe(model=KINDS[kind]())
    recipe.data.label_set = str(tmp_path / 'five.yaml')
    rows = [f'- {{id: {number}, name: c{number}, color: [{number}, 0, 0]}}' for number in range(5)]
    (tmp_path / 'five.yaml').write_text(
        '\n'.join(['name: five', 'void_id: 255', 'classes:', *rows]))
    info = export_bundle(network, recipe, tmp_path / 'b.onnx', (64, 96))
    bundle = Bundle.load(tmp_path / 'b.onnx')
    assert (info.num_prototypes, info.pool_frames, info.has_confidence) == (0, 0, False)
    graph = onnx.load_from_string(bundle.model).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ['image', 'scores']
    backend = backends.load(bundle, 'onnxruntime')
    rng, seen, agreed = np.random.default_rng(0), set(), []
    runtime, reference = Stream(backend), network.stream()
    for number in range(3):
        image = np.kron(rng.integers(0, 256, (8, 12, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        labels = runtime.step(image, number * 10**8).labels
        expected = predict(reference, image)
        agreed.append((labels == expected).mean())
        seen |= set(np.unique(labels))
    assert min(agreed) > 0.999 and len(seen) > 1  # ties are cut as the processor rounds
    if kind in ANY_SIZE:
        image = rng.integers(0, 256, (96, 128, 3), np.uint8)
        scores = backends.load(at_size(bundle, (96, 128)), 'onnxruntime').stream().step(image)
        torch.testing.assert_close(torch.from_numpy(np.array(scores)), reference.step(image),
                                   atol=1e-3, rtol=1e-3)
    else:  # refused, not computed otherwise
        with pytest.raises(BundleError, match='export it at that size'):
            at_size(bundle, (96, 128))


def test_pyramid_pools_as_adaptive_pooling_does():
    torch.manual_seed(0)
    module = PyramidPooling(6, 4).eval()
    x = torch.randn(2, 6, 7, 11)
    parts = [x]
    for bins, level in zip((1, 2, 3, 6), module.levels):
        pooled = level(F.adaptive_avg_pool2d(x, bins))
        parts.append(F.interpolate(pooled, (7, 11), mode='bilinear', align_corners=False))
    torch.testing.assert_close(module(x), module.fuse(torch.cat(parts, 1)))


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp('networks')
    path = folder / 'recipe.yaml'
    path.write_text(RECIPE.format(root=write_folder(folder / 'blocks', drives=2)))
    return path


@pytest.fixture(scope='module')
def trained(recipe):
    return fit(load_recipe(recipe), recipe.parent / 'pspnet')


def test_a_kind_is_trained_exported_and_evaluated(recipe, trained, tmp_path, capsys):
    student, its_recipe = load_student(trained)
    assert its_recipe == load_recipe(recipe)
    path = tmp_path / 'student.onnx'
    assert main(['export', str(trained), '-o', str(path)]) == 0
    capsys.readouterr()
    assert main(['evaluate', str(trained), str(path), '--config', str(recipe)]) == 0
    rows = [line.split('|')[2:6] for line in capsys.readouterr().out.splitlines()[2:4]]
    checkpoint, bundle = ([float(figure) for figure in row] for row in rows)
    assert bundle == pytest.approx(checkpoint, abs=0.1)  # mIoU, accuracy, TC, VC8 in per cent
    source = FolderFrames(load_recipe(recipe).data.train[0].root, 11)
    image = source.read(source.drives[0][0])[0]
    before = student.stream().step(image)
    temperature = calibrate(student, source, (64, 96))
    torch.testing.assert_close(student.stream().step(image), before / temperature)
    assert main(['show', str(trained), '-o', str(tmp_path / 'show.png')]) != 0
    assert 'give one of kind mgcnet' in capsys.readouterr().err


@pytest.mark.parametrize('override, message', [
    ('model.kind=unet', "recipe .*: model.kind 'unet' is unknown: use mgcnet, pspnet"),
    ('model.num_prototypes=8', 'key model.num_prototypes'),
    ('model.width=0', 'recipe model.width is 0.0: give a number above 0'),
    ('model.backbone=vgg', "backbone 'vgg' is unknown"),
    ('model.weights=imagenet', 'model.width to 1, or set model.weights to null'),
])
def test_mistakes_are_named_before_the_first_step(recipe, override, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_network(load_recipe(recipe, [override]), pretrained=True)
    assert '\n' not in str(caught.value)


def test_weights_that_do_not_exist_are_not_looked_for():
    for options, fix in (
            (replace(KINDS['pspnet'](), weights='imagenet'), 'model.deep_stem to false'),
            (replace(KINDS['deeplab'](), weights='imagenet', width=0.5), 'model.width to 1')):
        with pytest.raises(ValueError, match=fix):
            build(options, 5, pretrained=True)


def test_stored_recipes_without_a_kind_are_mgcnets():
    stored = to_dict(Recipe())
    del stored['model']['kind']
    recipe = from_dict(stored)
    assert recipe == Recipe() and type(recipe.model) is Model
    other = Recipe(model=KINDS['deeplab'](rates=[1, 2]))
    assert from_dict(to_dict(other)) == other


def test_structural_distillation_is_refused(recipe, trained):
    changed = load_recipe(recipe, [f'distill.teacher={trained}'])
    with pytest.raises(ValueError, match='a PSPNet has not: set distill.structural to 0'):
        SegmentationTask(to_dict(changed), teacher=load_teacher(changed))


@pytest.mark.parametrize('name', [
    name for name in METHODS if not {'flow', 'stages'} & set(METHODS[name].needs)
    and name not in ('holistic', 'uncertainty_aware')])   # tested with what they need
def test_terms_compare_networks_of_two_kinds(name):
    """Student and teacher differ in kind, width and stride; no gradient reaches the teacher."""
    student, teacher = small('deeplab').train(), small('pspnet', channels=24, output_stride=16)
    teacher.requires_grad_(False)
    clip = torch.randint(0, 256, (1, 2, 3, 64, 96), dtype=torch.uint8)
    labels = torch.arange(64 * 96).view(1, 1, 64, 96).expand(1, 2, -1, -1) // 1536
    for of in set(METHODS[name].of) - {'depth'}:    # which these have not
        terms = Terms({name: {'weight': 1, 'of': of}}, Widths(5, student.channels),
                      Widths(5, teacher.channels))
        found = terms(maps_of(student(clip)), teacher_maps(teacher, clip), {'labels': labels},
                      labels >= 0)[name]
        student.zero_grad()
        found.backward()
        assert torch.isfinite(found) and found > 0
        assert student.backbone.conv1[0].weight.grad.abs().sum() > 0


def test_a_pspnet_learns_from_an_mgcnet_and_the_other_way_round(recipe, trained, tmp_path):
    other = tmp_path / 'mgcnet.yaml'
    model = '{weights: null, channels: 24, key_channels: 8, head_widths: []}'
    own = recipe.read_text()
    other.write_text(own.replace(own[own.index('{'):own.index('}') + 1], model))
    once = ['optim.max_steps=1', 'optim.validate_every=1', 'distill.structural=0']
    terms = ['terms.channel={weight: 3, of: features}', 'terms.pixel={weight: 1}']
    teacher = fit(load_recipe(other, once), tmp_path / 'mgcnet')
    for path, taught in ((recipe, teacher), (other, trained)):
        checkpoint = fit(load_recipe(path, [*once, *terms, f'distill.teacher={taught}']),
                         tmp_path / path.stem / 'taught')
        network, _ = load_student(checkpoint)
        assert all(torch.isfinite(value).all() for value in network.state_dict().values())


@pytest.mark.parametrize('kind', PER_FRAME)
def test_a_step_of_one_frame_is_refused_where_batch_norm_fails(kind):
    """And only there: pyramid pooling at any crop, NfS-SegNet's last stages up to 256 pixels."""
    for crop in ((64, 96), (64, 320)):
        network = PER_FRAME[kind](5, **SMALL[kind]).train()
        try:
            network(torch.zeros(1, 1, 3, *crop))
        except ValueError:
            assert kind == 'pspnet' or (kind, crop[1]) == ('nfs', 96)
            with pytest.raises(ValueError, match='is 1, .*: set data.frames_per_step to 2'):
                refuse_single_values(network, crop)
        else:
            refuse_single_values(network, crop)
            assert not any(value.is_meta for value in network.state_dict().values())


def test_a_recipe_of_one_frame_per_step_is_refused_before_it(recipe, tmp_path):
    settings = load_recipe(recipe, ['data.clip_lengths=[1]', 'data.frames_per_step=1'])
    with pytest.raises(ValueError, match='of one frame 64x96 a map of PSPNet keeps one value'):
        fit(settings, tmp_path / 'out')
    assert not list((tmp_path / 'out').glob('*.ckpt'))
