# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The examples in the docstrings of losses, terms and metrics are run."""
import doctest
import importlib
import inspect
import pkgutil

import pytest

from vseg_training import distill, losses, metrics, terms


PACKAGES = [losses, distill, metrics, terms]
MODULES = ['vseg_training.temperature', 'vseg_training.models.auxiliary',
           'vseg_training.search.controller']
MODULES += [
    f'{package.__name__}.{module.name}'
    for package in PACKAGES for module in pkgutil.iter_modules(package.__path__)]
# these need a network and a clip, and the last one is the runtime's
WITHOUT_EXAMPLE = ('Targets', 'distillation_terms', 'maps_of', 'monte_carlo', 'prepare_terms',
                   'teacher_maps', 'teacher_targets', 'ConfusionMatrix', 'METHODS', 'Maps',
                   'MonteCarlo', 'Widths', 'needs')


def failures(tests):
    told = []
    for test in tests:
        doctest.DocTestRunner().run(test, out=told.append)
    return ''.join(told)


@pytest.mark.parametrize('name', MODULES)
def test_examples_give_what_they_say(name):
    told = failures(doctest.DocTestFinder().find(importlib.import_module(name)))
    assert not told, told


@pytest.mark.parametrize('package', PACKAGES)
def test_every_public_name_has_an_example(package):
    for name in set(package.__all__) - set(WITHOUT_EXAMPLE):
        assert '>>>' in inspect.getdoc(getattr(package, name)), f'{name} has no example'


def test_a_wrong_example_is_found():
    wrong = doctest.DocTestParser().get_doctest('>>> 1 + 1\n3\n', {}, 'wrong', None, None)
    assert 'Expected:' in failures([wrong])
