# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Every number of a recipe has limits, and a file that is no recipe is told in one line."""
from dataclasses import is_dataclass
import math
import re

import pytest

from vseg_training.ablate import load_suite
from vseg_training.cli import main
from vseg_training.models.options import DepthTask, KINDS, NormalsTask, Tasks
from vseg_training.recipe import Data, load_recipe, Loss, Recipe, Source
from vseg_training.recipe_limits import check_limits, LIMITS, numbers
from vseg_training.train import fit

SOURCES = 'data.train=[{{kind: camvid, root: x, {}}}, {{kind: camvid, root: x, {}}}]'


def recipe_of(kind='mgcnet'):
    """Recipe with a value for every key of its kind."""
    source = Source(root='somewhere', focal=500.0)
    return Recipe(
        model=KINDS[kind](), tasks=Tasks(DepthTask(), NormalsTask()), loss=Loss(
            class_gain={'car': 2.0}),
        data=Data(train=[source], val=Source(focal=500.0), rates=(5.0, 60.0)))


def put(tree, names, value):
    """Set a value of a tree of dataclasses, or the first one of a list or a mapping there."""
    old = getattr(tree, names[0])
    if isinstance(old, list) and is_dataclass(old[0]):
        put(old[0], names[1:], value)
    elif len(names) > 1:
        put(old, names[1:], value)
    elif isinstance(old, dict):
        old[next(iter(old))] = value
    else:
        setattr(tree, names[0],
                [value, *old[1:]] if isinstance(old, (list, tuple)) else value)


def keys_of(kind):
    return {key for key, _, _ in numbers(recipe_of(kind))}


def test_every_number_has_limits_and_every_default_is_within():
    for kind in KINDS:
        check_limits(recipe_of(kind))
    assert set().union(*map(keys_of, KINDS)) == set(LIMITS)


@pytest.mark.parametrize('key', LIMITS)
def test_numbers_outside_their_limits_are_named(key):
    limit, kind = LIMITS[key], next(kind for kind in KINDS if key in keys_of(kind))
    wrong = [math.nan, math.inf, -math.inf, limit.least - 1, limit.most * 2]
    wrong += [limit.least] if limit.above and not limit.or_zero else []
    wrong += [limit.most] if limit.below else []
    for value in wrong:
        if limit.or_zero and value == 0:
            continue
        recipe = recipe_of(kind)
        put(recipe, key.split('.'), value)
        with pytest.raises(ValueError) as caught:
            check_limits(recipe)
        shown = str(caught.value).replace('[0]', '').replace('.car', '')
        assert shown == f'recipe {key} is {value}: give {limit}'


@pytest.mark.parametrize('override, message', [
    ('data.brightness=nan', 'recipe data.brightness is nan: give a number of 0..255'),
    ('data.saturation=.inf', 'data.saturation is inf'), ('data.crop=[0,0]', 'data.crop[0] is 0'),
    ('data.crop=[64,-3]', 'data.crop[1] is -3: give a number of 32..8192'),
    ('data.size=[0,96]', 'data.size[0] is 0'), ('data.scale=[0,2]', 'data.scale[0] is 0'),
    ('data.scale=[1,inf]', 'data.scale[1] is inf: give a number above 0 and of at most 100'),
    ('data.scale=[2,1]', 'data.scale is [2.0, 1.0]: give the smaller number first'),
    ('data.rates=[10,5]', 'data.rates is [10.0, 5.0]: give the smaller number first'),
    ('data.rates=[nan,1]', 'data.rates[0] is nan'), ('data.rates=[-1,inf]', 'data.rates[0] is -1'),
    ('data.clip_lengths=[]', 'data.clip_lengths is []: give at least one length'),
    ('data.clip_lengths=[1,0]', 'data.clip_lengths[1] is 0'),
    (SOURCES.format('weight: 0', 'weight: 0'), 'weight 0 for every source'),
    (SOURCES.format('weight: 1', 'weight: -1'), 'data.train[1].weight is -1'),
    (SOURCES.format('stills: 3', 'stills: 0'), 'data.train[0].stills is 3'),
    (SOURCES.format('seeds: [5, 5]', 'stills: 0'), 'data.train[0].seeds is [5, 5]: give the'),
    ('loss.class_balance=0.5', 'give 0 or a number above 1 and of at most 1000'),
    ('loss.class_gain.car=-2', 'loss.class_gain.car is -2'),
    ('loss.segmentation=nan', 'loss.segmentation is nan'),
    ('optim.max_steps=0', 'optim.max_steps is 0'), ('optim.ema=1', 'optim.ema is 1.0'),
    ('model.head_widths=[96,-3]', 'model.head_widths[1] is -3')])
def test_load_recipe_checks(override, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_recipe('street_tasks', ['model.kind=mgcnet', override])
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('override, message', [
    ('data.crop=[400]', 'data.crop is [400]: give a list of 2 whole numbers, such as [320, 320]'),
    ('data.crop=[400,400,3]', 'data.crop is [400, 400, 3]: give a list of 2 whole numbers'),
    ('data.crop=400', 'data.crop is 400: give a list of 2 whole numbers'),
    ('data.crop=null', 'data.crop is None: give a list of 2 whole numbers'),
    ('data.crop=[400.5,3]', 'data.crop is [400.5, 3]: give a list of 2 whole numbers'),
    ('data.crop=[[400],3]', 'data.crop is [[400], 3]: give a list of 2 whole numbers'),
    ('data.scale=[1]', 'data.scale is [1]: give a list of 2 numbers, such as [0.5, 2.0]'),
    ('data.rates=[1,2,3]', 'data.rates is [1, 2, 3]: give a list of 2 numbers'),
    ('data.clip_lengths=3', 'clip_lengths is 3: give a list of whole numbers, such as [1, 2, 4]'),
    ('data.clip_lengths=[yes]', 'data.clip_lengths is [True]: give a list of whole numbers'),
    ('data.focus=car', 'data.focus is car: give a list of names'),
    ('model.head_widths=[a]', "model.head_widths is ['a']: give a list of whole numbers"),
    ('model={kind: deeplab, rates: 3}', 'model.rates is 3: give a list of whole numbers, such as'),
    (SOURCES.format('seeds: 0', 'seeds: [0, 1]'), 'train[0].seeds is 0: give a list of 2 whole'),
    (SOURCES.format('split: a', 'drives: a'), 'data.train[1].drives is a: give a list of names'),
    ('data.val={kind: street, seeds: [1]}', 'data.val.seeds is [1]: give a list of 2 whole'),
    ('data.train={kind: street}', "data.train is {'kind': 'street'}: give a list, of keys and"),
    ('data.train=[street]', "data.train is ['street']: give a list, of keys and values each")])
def test_lists_of_a_wrong_form_are_named(tmp_path, override, message):
    path = tmp_path / 'recipe.yaml'
    path.write_text('name: mine\n')
    with pytest.raises(ValueError) as caught:
        load_recipe(path, [override])
    assert f'recipe {path}: ' in str(caught.value) and message in str(caught.value)
    assert '\n' not in str(caught.value)


def test_lists_may_be_texts_of_numbers_and_interpolations(tmp_path, monkeypatch):
    path = tmp_path / 'recipe.yaml'
    path.write_text("data: {crop: ['64', '${oc.env:CROP}'], scale: [1, '2'], size: '${data.crop}',"
                    ' rates: null, focus: [1, car]}\n')
    monkeypatch.setenv('CROP', '96')
    data = load_recipe(path).data
    assert (data.crop, tuple(data.size), data.scale, data.rates, data.focus) == (
        (64, 96), (64, 96), (1, 2), None, ['1', 'car'])


def test_no_pixel_may_count_by_two_zeros():
    load_recipe('street_tasks', ['loss.ohem_threshold=0'])
    load_recipe('street_tasks', ['loss.ohem_min_kept=0'])
    with pytest.raises(ValueError, match='are both 0, so that no pixel counts'):
        load_recipe('street_tasks', ['loss.ohem_threshold=0', 'loss.ohem_min_kept=0'])


@pytest.mark.parametrize('override', [
    'loss.class_balance=0', 'data.workers=0', 'optim.lr=0', 'optim.warmup_steps=0',
    'data.degrade=1', 'model.head_widths=[]', 'data.scale=[1,1]',
    SOURCES.format('weight: 0', 'weight: 2')])
def test_numbers_that_mean_off_are_allowed(override):
    load_recipe('street_tasks', ['model.kind=mgcnet', override])


def test_fit_checks_recipes_that_come_from_no_file(tmp_path):
    recipe = recipe_of()
    recipe.optim.lr = math.nan
    with pytest.raises(ValueError, match='recipe optim.lr is nan'):
        fit(recipe, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


BROKEN = {
    'bracket': (b'name: a\ntitle: [1\n', 'line 3: '), 'tab': (b'name:\n\t- 1\n', 'line 2: '),
    'twice': (b'set: []\nset: []\n', 'line 2: found duplicate key set'),
    'bytes': (b'name: a\ntitle: \xb1\n', 'line 2: it has bytes that are no UTF-8 text'),
    'zero': (b'name: \x00\n', 'not readable YAML'),
    'deep': (b'name: ' + 5000 * b'[', 'not readable YAML'),
    'blocks': (b''.join(b' ' * n + b'a:\n' for n in range(900)), 'not readable YAML'),
    'tag': (b'name: !!python/none x\n', 'line 1: could not determine a constructor'),
    'list': (b'- 1\n', 'holds a list: give keys'), 'number': (b'5\n', 'holds a single value')}


@pytest.mark.parametrize('name', BROKEN)
@pytest.mark.parametrize('load, what', [(load_recipe, 'recipe'), (load_suite, 'suite')])
def test_files_that_are_no_yaml_are_told_in_one_line(tmp_path, name, load, what):
    content, message = BROKEN[name]
    path = tmp_path / 'broken.yaml'
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        load(path)
    told = str(caught.value)
    assert told.startswith(f'{what} {path} ') and message in told and '\n' not in told


@pytest.mark.parametrize('override', ['optim.lr=[1', 'data.crop=\t- 1', 'optim.lr=${',
                                      'optim.lr=!!int x', 'name="a'])
def test_overrides_that_are_no_yaml_are_named(override):
    with pytest.raises(ValueError) as caught:
        load_recipe('street_tasks', ['seed=1', override])
    assert repr(override) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('command', [['fit', '--config'], ['check-data', '--config'], ['ablate']])
def test_commands_end_with_one_line_and_status_2(tmp_path, capsys, command):
    path = tmp_path / 'broken.yaml'
    path.write_text('a: [1\n')
    assert main([*command, str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'line 2' in error


def test_suites_of_the_wrong_form_name_their_keys(tmp_path):
    (tmp_path / 'suite.yaml').write_text('rows: 3\n')
    with pytest.raises(ValueError, match='suite .*suite.yaml'):
        load_suite(tmp_path / 'suite.yaml')
