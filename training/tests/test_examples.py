# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The examples in the docstrings of losses, distillation terms and metrics are run."""
import doctest
import importlib
import inspect
import pkgutil

import pytest

from vseg_training import distill, losses, metrics


def modules_of(*packages):
    """Import every module inside some packages."""
    return [importlib.import_module(f'{package.__name__}.{module.name}')
            for package in packages for module in pkgutil.iter_modules(package.__path__)]


MODULES = [*modules_of(losses, distill, metrics),
           importlib.import_module('vseg_training.temperature')]
# they need a network, a clip and a folder: their tests are the example
WITHOUT_EXAMPLE = {'averaged_targets', 'calibrate', 'dis_flow', 'distillation_terms',
                   'teacher_targets', 'warp_labels_legacy', 'write_soft_labels', 'Targets'}


def examples_of(name, public, module):
    tests = doctest.DocTestFinder().find(public, name, module, vars(module).copy())
    return [test for test in tests if test.examples]


PUBLIC = [pytest.param(name, public, module, id=f'{module.__name__}.{name}')
          for module in MODULES for name, public in vars(module).items()
          if getattr(public, '__module__', None) == module.__name__
          and (inspect.isfunction(public) or inspect.isclass(public))
          and not name.startswith('_') and name not in WITHOUT_EXAMPLE]


@pytest.mark.parametrize('name, public, module', PUBLIC)
def test_examples_of_docstrings(name, public, module):
    tests = examples_of(name, public, module)
    assert tests, f'{module.__name__}.{name} has no example'
    for test in tests:
        told = []
        doctest.DocTestRunner().run(test, out=told.append)
        assert not told, ''.join(told)


def test_a_wrong_example_is_found():
    """Whatever runs the examples compares them too."""
    def wrong():
        """
        Count wrongly.

        Examples:
            >>> 1 + 1
            3
        """
    told = []
    for test in examples_of('wrong', wrong, inspect.getmodule(wrong)):
        doctest.DocTestRunner().run(test, out=told.append)
    assert 'Expected:' in ''.join(told)
