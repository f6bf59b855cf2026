# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Terms with a state of their own in real runs: critic, position head, ConvLSTM, passes."""
import pytest
from test_methods import logged, plain, RECIPE, stop_at_step_2
import torch

from folders import write_folder
from vseg_training.checkpoint import load_student
from vseg_training.recipe import load_recipe
from vseg_training.train import fit


TERMS = ['terms.holistic={weight: 0.1}', 'terms.position={weight: 1, steps: 20}',
         'terms.multi_frame={weight: 0.1, clip: 0.02}', 'terms.pair_frames={weight: 0.1}',
         'terms.joint_auxiliary={weight: 1}', 'terms.uncertainty_aware={weight: 1, rate: 0.5}']


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp('opponents')
    path = folder / 'recipe.yaml'
    text = RECIPE.format(root=write_folder(folder / 'blocks', drives=2), stills=0.0)
    path.write_text(text.replace('crop: [64, 96]', 'crop: [128, 128]')
                    .replace('scale: [1.0, 1.2]', 'scale: [2.0, 2.2]'))
    return path


@pytest.fixture(scope='module')
def teacher(recipe):
    """Teacher of another width."""
    return fit(load_recipe(recipe, ['model.channels=24', 'optim.max_steps=2']),
               recipe.parent / 'teacher')


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A critic of the same form, but fast."""
    monkeypatch.setattr('vseg_training.terms.critic.WIDTHS', (8, 8, 16, 16))


def flat(tree, prefix=''):
    """Tensors of nested dicts and lists, by their places."""
    if isinstance(tree, torch.Tensor):
        return {prefix: tree}
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = {}
    for key, value in pairs:
        if isinstance(value, (torch.Tensor, dict, list, tuple)):
            found |= flat(value, f'{prefix}.{key}')
    return found


def test_terms_with_a_state_resume_exactly_and_stay_out_of_the_network(
        recipe, teacher, tmp_path, monkeypatch):
    settings = load_recipe(recipe, [*plain(teacher), *TERMS])
    whole = torch.load(fit(settings, tmp_path / 'whole'), weights_only=True)
    values = logged(tmp_path / 'whole')
    assert all(f'loss/{name}' in values for name in settings.terms)
    stopped = stop_at_step_2(settings, tmp_path / 'broken', monkeypatch)
    again = torch.load(fit(settings, tmp_path / 'broken'), weights_only=True)
    assert stopped['global_step'] == 2 and again['global_step'] == 4
    for part in ('state_dict', 'current_model_state', 'opponents', 'optimizer_states'):
        first, second = flat(whole[part]), flat(again[part])
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert torch.equal(second[key], value), key
    check_opponent(whole, stopped)
    head = [key for key in whole['state_dict'] if '.position.head.' in key]
    for key in head:  # fixed, and so the same in the averaged weights
        assert torch.equal(whole['state_dict'][key], stopped['current_model_state'][key])
    assert len(head) == 4
    memory = [value for key, value in whole['current_model_state'].items()
              if '.multi_frame.memory.' in key]
    assert len(memory) == 3 and max(x.abs().max() for x in memory) < 0.04  # 0.15 at the start
    load_student(tmp_path / 'whole' / 'last.ckpt')


def check_opponent(whole, stopped):
    """The critic learns by its own Adam, without weight decay, beside the averaged weights."""
    opponent, before = whole['opponents']['holistic'], stopped['opponents']['holistic']
    assert any(not torch.equal(value, before['critic'][key])
               for key, value in opponent['critic'].items())
    group, = opponent['optimizer']['param_groups']
    assert (group['lr'], group['weight_decay']) == (4e-4, 0)
    assert opponent['optimizer']['state'][0]['step'] == 4
    shapes = {value.shape for value in opponent['critic'].values() if value.shape[2:] == (4, 4)}
    trained = {value.shape for value in flat(whole['optimizer_states']).values()}
    assert len(shapes) == 5 and not shapes & trained
    for part in ('state_dict', 'current_model_state'):
        assert not any('critic' in key or 'opponent' in key for key in whole[part])


@pytest.mark.parametrize('terms, message', [
    (['terms.holistic={weight: 0.1}', 'data.crop=[64,128]'],
     'terms.holistic has a critic for maps of 32 x 32 cells or more, but the teacher makes '
     '16 x 32 of data.crop'),
    (['terms.uncertainty_aware={weight: 1, passes: 1}'],
     'terms.uncertainty_aware.passes is 1: the variance takes 2 or more'),
    (['terms.multi_frame={weight: 1}', 'data.clip_lengths=[1]'],
     'terms.multi_frame compares frames, but data.clip_lengths is'),
    (['terms.position={weight: 1}', 'distill.teacher=null'],
     'terms.position compares with a teacher at work'),
    (['terms.joint_auxiliary={weight: 1}', 'distill.teacher=null'],
     'terms.joint_auxiliary needs a teacher')])
def test_needs_that_cannot_be_met_are_refused_before_the_first_step(
        recipe, teacher, tmp_path, terms, message):
    with pytest.raises(ValueError, match=message):
        fit(load_recipe(recipe, [*plain(teacher), *terms]), tmp_path / 'out')
    assert not list((tmp_path / 'out').glob('*.ckpt'))
