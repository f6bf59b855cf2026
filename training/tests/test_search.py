# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Search for an auxiliary module: controller, PPO, and the command on small data."""
from dataclasses import replace
import itertools
import json

import numpy as np
import pytest
import torch

from folders import write_folder
from vseg_training.cli import main
from vseg_training.models.auxiliary import basic_cells, read_cells, SEARCHED
from vseg_training.recipe import load_recipe
from vseg_training.search.controller import cells_of, Controller, Ppo, ppo_loss
from vseg_training.search.search import Candidate, search, table

RECIPE = """
model: {{weights: null, channels: 16, key_channels: 8, num_prototypes: 4, head_widths: [8, 8]}}
data:
  train: [{{kind: folder, root: {root}, drives: [blocks/images/drive0]}}]
  val: {{kind: folder, root: {root}, drives: [blocks/images/drive1]}}
  crop: [64, 96]
  frames_per_step: 4
  size: [64, 96]
  workers: 0
loss: {{long_term: 0, auxiliary: 0}}
optim: {{max_steps: 1, warmup_steps: 1, validate_every: 1, precision: 32-true}}
"""


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp('search')
    path = folder / 'recipe.yaml'
    path.write_text(RECIPE.format(root=write_folder(folder / 'blocks', drives=2, frames=2)))
    return path


def test_probabilities_of_all_sequences_sum_to_one():
    torch.manual_seed(0)
    controller = Controller(2, 1)
    every = torch.tensor(list(itertools.product(*map(range, controller.choices))))
    assert controller.choices == [2, 2, 5, 5, 2] and len(every) == 200
    with torch.no_grad():
        walk = controller(every)
    logs = walk.log_probability.sum(1)
    probabilities = logs.exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    # chain rule: the entropy of a sequence is the mean of those of its choices, summed up
    assert (probabilities * walk.entropy.sum(1)).sum().item() == pytest.approx(
        -(probabilities * logs).sum().item(), rel=1e-5)


def test_what_it_draws_is_valid_and_of_the_probability_that_it_says():
    torch.manual_seed(0)
    controller = Controller(4, 4)
    walk = controller.sample(64, torch.Generator().manual_seed(1))
    torch.testing.assert_close(controller(walk.tokens).log_probability, walk.log_probability)
    inputs = set()
    for tokens in walk.tokens:
        cells = [list(cell) for cell in cells_of(tokens)]
        assert read_cells(cells, 4) == cells_of(tokens)
        inputs |= {(number, cell[0]) for number, cell in enumerate(cells)}
    assert {number for number, source in inputs if source == 3 + number} == {0, 1, 2, 3}


def test_a_choice_depends_on_those_before_it_alone():
    torch.manual_seed(0)
    controller = Controller(4, 2)
    tokens = torch.zeros(1, 10, dtype=torch.int64)
    before = controller(tokens).log_probability
    tokens[0, 3] = 2
    same = (controller(tokens).log_probability == before)[0]
    assert same[:3].all() and not same[3:].any()


def test_modules_are_ranked_by_the_geometric_mean_of_their_metrics():
    """40 and 90 have 60, which a plain mean of 65 would put before 62 and 62."""
    cells = [[cell] for cell in basic_cells(2, '3x3') + basic_cells(2, '1x1')]
    found = [Candidate([], 5.0, 5.0), Candidate(cells[0], 40.0, 90.0),
             Candidate(cells[1], 62.0, 62.0)]
    assert found[1].reward == pytest.approx(60)
    lines = table(found).splitlines()
    assert lines[2] == '| basic | 5.00 | 5.00 | 5.00 |'
    assert lines[3] == '| [[0, 1, 1x1, 1x1, concat]] | 62.00 | 62.00 | 62.00 |'
    assert lines[-1] == 'terms.overparameterised={weight: 1, cells: [[0, 1, 1x1, 1x1, concat]]}'


def test_the_basic_module_is_in_the_search_space():
    """Said by the thesis; its three cells, and a fourth that hands the third on."""
    cells = [*basic_cells(4), (6, 6, 'skip', 'skip', 'concat')]
    assert all(kind in SEARCHED for cell in cells for kind in cell[2:4])
    assert len(read_cells(cells, 4)) == 4 == len(Controller(4, 4).choices) // 5


def test_ppo_is_its_equation():
    random = torch.Generator().manual_seed(0)
    now, before = torch.randn(2, 6, 5, generator=random, dtype=torch.float64)
    advantage = torch.randn(6, generator=random, dtype=torch.float64)
    values = []
    for b, t in np.ndindex(6, 5):
        ratio, gain = np.exp((now - before)[b, t].item()), advantage[b].item()
        values.append(min(ratio * gain, min(max(ratio, 0.8), 1.2) * gain))
    now.requires_grad_()
    loss = ppo_loss(now, before, advantage, 0.2)
    assert loss.item() == pytest.approx(-np.mean(values))
    loss.backward()
    # what has moved far enough in the right direction is pushed no further
    ratio, up = (now - before).exp().detach(), advantage[:, None] > 0
    done = torch.where(up, ratio > 1.2, ratio < 0.8)
    assert done.any() and (~done).any()
    assert torch.equal(now.grad == 0, done)


def test_the_controller_learns_what_is_rewarded():
    torch.manual_seed(0)
    controller, chance = Controller(3, 3), torch.Generator().manual_seed(0)
    ppo, means = Ppo(controller), []
    for _ in range(40):
        walk = controller.sample(8, chance)
        rewards = torch.tensor([
            sum(kind == 'sep3' for cell in cells_of(tokens) for kind in cell[2:4]) / 6
            for tokens in walk.tokens])
        means.append(rewards.mean().item())
        ppo.learn(walk, rewards)
    assert np.mean(means[:5]) < 0.4 and np.mean(means[-5:]) > 0.7  # chance is 0.2


def test_equal_rewards_teach_nothing_but_entropy():
    torch.manual_seed(0)
    controller = Controller(3, 2)
    walk = controller.sample(4, torch.Generator().manual_seed(0))
    Ppo(controller).learn(walk, torch.full((4,), 50.0))
    assert all(torch.isfinite(parameter).all() for parameter in controller.parameters())
    assert controller(walk.tokens).entropy.mean() >= walk.entropy.mean()


def test_a_search_gives_a_recipe_and_goes_on_where_it_ended(recipe, tmp_path, capsys):
    command = ['search', '--config', str(recipe), '-o', str(tmp_path), '--batch', '2']
    assert main([*command, '--samples', '2']) == 0
    first = json.loads((tmp_path / 'search.json').read_text())
    assert len(first) == 3 and first[0]['cells'] == [list(cell) for cell in basic_cells(4)]
    assert not list(tmp_path.glob('candidates/*/*.ckpt'))
    # a network of one step knows nothing: give each module a result of its own
    results = {}
    for number, path in enumerate(tmp_path.glob('candidates/*/report.json')):
        stored = json.loads(path.read_text())
        cells = json.dumps(stored['recipe']['terms']['overparameterised']['cells'])
        results[cells] = 10 + number
        stored['report'].update(mIoU=results[cells], accuracy=90)
        path.write_text(json.dumps(stored))
    assert len(results) == 3
    capsys.readouterr()
    assert main([*command, '--samples', '4']) == 0
    again = json.loads((tmp_path / 'search.json').read_text())
    assert [row['cells'] for row in again[:3]] == [row['cells'] for row in first]
    assert [row['mean_iou'] for row in again[:3]] == [
        results[json.dumps(row['cells'])] for row in first]  # read back, not trained again
    assert len(again) == 5
    # the best of those drawn, as --set takes it
    best = max(again[1:], key=lambda row: row['reward'])
    found = load_recipe(recipe, [capsys.readouterr().out.strip().splitlines()[-1]])
    assert found.terms == {'overparameterised': {'weight': 1, 'cells': best['cells']}}


@pytest.mark.parametrize('override, message', [
    ('samples=3', '3 samples in batches of 2: give batches of 2 or more, and samples for one'),
    ('terms.overparameterised={weight: 1}', 'terms.overparameterised, which is searched for'),
    ('data.val=null', 'the recipe has no data.val: name frames'),
    ('data.val.drives=[blocks/images/drive0]', 'data.val has frames of data.train'),
    ('data.val.drives=[]', 'data.val has frames of data.train (folder train)'),
    # a folder without splits is the same under every name of a split
    ('data.val={kind: folder, root: ROOT/images/.., split: val, drives: []}',
     'has frames of data.train')])
def test_searches_that_would_be_wrong_are_refused(recipe, tmp_path, capsys, override, message):
    samples = override.partition('=')[2] if override.startswith('samples') else '2'
    override = override.replace('ROOT', load_recipe(recipe).data.val.root)
    settings = [] if override.startswith('samples') else ['--set', override]
    assert main(['search', '--config', str(recipe), '-o', str(tmp_path), '--batch', '2',
                 '--samples', samples, *settings]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_shipped_recipe_leaves_val_alone(monkeypatch, tmp_path):
    """Its meta-val is a drive of train that it does not train on; it is measured in no other."""
    monkeypatch.setenv('CAMVID', str(tmp_path))
    shipped = load_recipe('camvid_search')
    assert {source.split for source in (*shipped.data.train, shipped.data.val)} == {'train'}
    assert shipped.data.train[0].drives == ['0001TP', '0016E5']  # unquoted, a number
    with pytest.raises(ValueError, match=str(tmp_path)):  # past all that is wrong with a recipe
        search(replace(shipped, model=replace(shipped.model, weights=None)), tmp_path, 2, 2)
