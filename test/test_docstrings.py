# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings give what they say."""
import doctest
import importlib

import pytest


@pytest.mark.parametrize('name', ['backends', 'bundle', 'stream'])
def test_examples_of(name):
    found = doctest.testmod(importlib.import_module(f'ros_vseg.{name}'))
    assert found.attempted > 0 and found.failed == 0
