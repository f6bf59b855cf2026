# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What features hold in padding enters neither prototypes nor the long-term context."""
import pytest
from test_train import write_recipe
import torch

from folders import write_folder
from vseg_training.data import PADDING
from vseg_training.losses import diversity
from vseg_training.models.long_term import LongTermContext
from vseg_training.models.prototypes import PrototypeGeneration
from vseg_training.recipe import load_recipe, to_dict
from vseg_training.task import SegmentationTask
from vseg_training.train import build_data


def test_prototypes_are_those_of_the_frame_without_its_padding():
    module, features = PrototypeGeneration(6, 4), torch.randn(2, 6, 5, 8)
    counted = torch.ones(2, 5, 8, dtype=torch.bool)
    counted[:, :, 5:] = False
    expected, projection = module(features[..., :5])
    features[..., 5:] = 1e3 * torch.randn(2, 6, 5, 3)
    found, whole = module(features, counted)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        whole.unflatten(2, (5, 8))[..., :5], projection.unflatten(2, (5, 5)))
    assert diversity(whole).tolist() == pytest.approx(diversity(projection).tolist())
    assert module(features, counted & False)[0].isfinite().all()  # a frame of padding alone


def test_long_term_context_is_the_mean_of_what_is_not_padding():
    module = LongTermContext(6, 3)
    clip, far = torch.randn(2, 4, 6, 5, 8), torch.randn(2, 4, 6, 5, 8)
    counted = torch.ones(2, 4, 10, 16, dtype=torch.bool)
    counted[:, 1, :, 10:] = False  # of one frame, at twice the features' size
    pooled = far.mean((1, 3, 4)) / 2
    for t in range(4):
        pooled += clip[:, t, :, :, :5 if t == 1 else 8].mean((2, 3)) / 8
    for value in (0.0, 1e3, float('inf')):
        clip[:, 1, :, :, 5:] = value
        found = module(clip, far, counted, torch.ones_like(counted))
        torch.testing.assert_close(found, module.perceptron(pooled))
    for kind in (torch.float64, torch.bfloat16):  # optim.precision 64-true and bf16-true
        maps, wide = far.to(kind), module.to(kind)
        assert wide(maps, maps, counted, counted).dtype == kind


@pytest.mark.parametrize('short_term', ['ssc', 'msc'])
def test_terms_of_a_step_do_not_see_padding(tmp_path, short_term):
    """Neither in the clip, of which the stills' earlier frames have other padding, nor far off."""
    data = write_folder(tmp_path / 'data', drives=2, frames=4)
    recipe = load_recipe(write_recipe(tmp_path, data, 2), [
        'data.scale=[0.5,0.6]', f'model.short_term={short_term}', 'loss.long_term=0.4',
        'loss.diversity=0.1', 'loss.diversity_threshold=1', 'data.clip_lengths=[2]',
        f'data.train=[{{kind: folder, root: {data}, stills: 0.5}}]', 'model.output_stride=8',
        'model.head_widths=[16]'])
    loader, _ = build_data(recipe, tmp_path, 0)
    batch = next(iter(loader))
    assert (batch['labels'] == PADDING).float().mean() > 0.3
    assert not batch['distant_counted'].all()
    task = SegmentationTask(to_dict(recipe), loader.dataset.num_videos).eval()
    padding = [batch['labels'] == PADDING, ~batch['distant_counted']]  # as they are encoded

    def fill(layer, given, features, turn=[0]):
        where = padding[turn[0] % 2].flatten(0, 1)
        cells = torch.nn.functional.interpolate(
            where[:, None].float(), features.shape[2:], mode='nearest-exact') > 0
        turn[0] += 1
        return torch.where(cells, 100 * torch.rand_like(features), features)

    task.network.reduce.register_forward_hook(fill)
    found, memory = [], []
    task.network.attention.register_forward_pre_hook(lambda layer, given: memory.append(given[1]))
    for _ in range(2):
        output = task.network(batch['images'], batch['places'], batch['labels'] != PADDING)
        terms = task.losses(output, batch['labels']) | task._context_terms(batch, output)
        found.append([terms['diversity'], terms['long_term'], *memory])
        memory.clear()
    torch.testing.assert_close(*found)
    assert found[0][0] > 0
