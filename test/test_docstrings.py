# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The examples in the docstrings of what people import are run."""
import doctest
import importlib

import pytest

MODULES = ['backends', 'bundle', 'decode', 'files', 'labels', 'media.sources', 'stream']


@pytest.mark.parametrize('name', MODULES)
def test_examples_give_what_they_say(name):
    result = doctest.testmod(importlib.import_module(f'ros_vseg.{name}'))
    assert result.attempted and not result.failed
