# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""TensorRT's ONNX parser takes every student and teacher that can be exported; no GPU needed."""
import gc

from omegaconf import OmegaConf
import pytest

from vseg_training.backbones import BACKBONES
from vseg_training.export import export_bundle
from vseg_training.recipe import from_dict, RECIPES, to_dict, VERSION
from vseg_training.task import build_network

trt = pytest.importorskip('tensorrt_rtx')

SIZE = (65, 94)  # a multiple of no stride
FULL, SKIPS = {'output_stride': 8, 'head_widths': []}, {}
# with the recipes every backbone, and every form x T x decoder: an export takes seconds
VARIANTS = [
    {'backbone': 'efficientnet_lite1', 'context_frames': 0, **SKIPS},
    {'backbone': 'mobilenet_v2', 'non_local': 'pixel', **FULL},
    {'backbone': 'resnet18', 'context_frames': 0, **FULL},
    {'backbone': 'resnet18', 'non_local': 'pixel', **SKIPS},
    {'backbone': 'resnet18', 'non_local': 'pixel', 'context_frames': 0, **SKIPS},
    {'backbone': 'resnet50', 'non_local': 'pixel', 'context_frames': 0, **FULL},
    {'backbone': 'resnet18', 'short_term': 'msc', 'non_local': 'pixel'},
    {'backbone': 'resnet18', 'non_local': 'none', 'context_frames': 0, **SKIPS},
]
PER_FRAME = {  # kinds beside MGCNet; the recipes have a PSPNet
    'deeplab': {'width': 0.125, 'channels': 16, 'rates': [2, 4]},
    'espnet': {'alpha_2': 1, 'alpha_3': 1}, 'hrnet': {'width': 0.25},
    'mobilenetv2plus': {'channels': 16}, 'nfs': {'width': 0.25, 'decoder': 8}}


def recipe_of(model):
    return from_dict({'version': VERSION, 'model': model})


def shipped_networks():
    """Recipes whose networks differ, by name; their data need not be there."""
    found = {}
    for path in sorted(RECIPES.glob('*.yaml')):
        model = to_dict(recipe_of(OmegaConf.load(path).model))['model']
        model.update(weights=None, init=None)
        for of_training in ('hide_own', 'wrong_pool', 'frozen_backbone', 'dropout'):
            model.pop(of_training, None)
        if model not in found.values():
            found[path.stem] = model
    return found


SHIPPED = shipped_networks()
ENGINES = ['camvid_ablation', 'camvid_teacher']  # a student and a teacher; a build takes 0.4 s


@pytest.fixture(autouse=True)
def no_collection():
    """Tracing makes millions of objects: collecting amid it takes a fifth of the time."""
    gc.disable()
    yield
    gc.enable()


def as_student(teacher):
    """
    Let ``Teacher.step`` take a student's pool, newest frame first and full, and give one score.

    The frames' memories are slices of the pool; what leaves is the log of the mean prediction.
    """
    step = teacher.step

    def pooled(image, pool, pool_mask, codes):    # the teacher makes its own
        streams, memory, _ = step(image, pool.chunk(teacher.context_frames, 1))
        return streams.softmax(2).mean(0).log(), memory

    teacher.step = pooled
    return teacher


def export(model, folder):
    """Bytes of a bundle with random weights, and its BundleInfo."""
    recipe = recipe_of(model)
    network = build_network(recipe)
    if model.get('short_term') == 'msc':
        network = as_student(network)
    path = folder / 'network.onnx'
    info = export_bundle(network, recipe, path, SIZE)
    data = path.read_bytes()
    path.unlink()  # pytest keeps its folders, and a ResNet-101 is large
    return data, info


def parse(data):
    """Builder, network and parser of a graph; the network's weights live in the parser."""
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(data)
    assert parsed, '\n'.join(str(parser.get_error(i)) for i in range(parser.num_errors))
    return builder, network, parser


def assert_fits(network, info):
    """Inputs and outputs have the names, shapes and types that the metadata promises."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    assert {value.name: list(value.shape) for value in [*inputs, *outputs]} == info.shapes()
    assert [value.name for value in inputs] == ['image', 'pool', 'pool_mask'][:len(inputs)]
    assert [value.name for value in outputs] == ['scores', 'prototypes', 'confidence'][
        :1 + bool(info.num_prototypes) + bool(info.pool_frames)]
    for value in [*inputs, *outputs]:
        assert value.dtype == (trt.uint8 if value.name == 'image' else trt.float32), value.name


@pytest.mark.parametrize('name', SHIPPED)
def test_every_recipes_network_is_parsed(name, tmp_path):
    data, info = export(SHIPPED[name], tmp_path)
    builder, network, parser = parse(data)
    assert_fits(network, info)
    if name in ENGINES:
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        engine = builder.build_serialized_network(network, config)
        assert engine is not None and engine.nbytes <= 4 * len(data)


@pytest.mark.parametrize('model', VARIANTS, ids=lambda model: '-'.join(map(str, model.values())))
def test_every_variant_is_parsed(model, tmp_path):
    small = {'channels': 16, 'key_channels': 8, 'num_prototypes': 4}
    data, info = export({**small, **model}, tmp_path)
    builder, network, parser = parse(data)
    assert_fits(network, info)


@pytest.mark.parametrize('kind', PER_FRAME)
def test_every_kind_beside_mgcnet_is_parsed(kind, tmp_path):
    data, info = export({'kind': kind, **PER_FRAME[kind]}, tmp_path)
    builder, network, parser = parse(data)
    assert_fits(network, info)


def test_every_backbone_and_both_kinds_of_engine_are_tried():
    tried = {model['backbone'] for model in [*SHIPPED.values(), *VARIANTS] if 'backbone' in model}
    assert tried == set(BACKBONES)
    assert [SHIPPED[name]['short_term'] for name in ENGINES] == ['ssc', 'msc']
