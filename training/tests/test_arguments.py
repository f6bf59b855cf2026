# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers on the command line that mean nothing are refused before anything is read."""
import pytest

from vseg_training.cli import build_parser, main


EXPORT = ['export', 'a.ckpt', '-o', 'a.onnx']
PROFILE = ['profile', '--config', 'a.yaml']
SOFT = ['soft-labels', 'a.ckpt', '-o', 'a']


@pytest.mark.parametrize('arguments, message', [
    ([*EXPORT, '--size', '0x0'], "--size: '0x0' is no size: both sides have 16..8192 pixels"),
    ([*EXPORT, '--size=-8x8'], "'-8x8' is no size: give height and width"),
    ([*EXPORT, '--size', '-8x8'], '--size'),
    ([*EXPORT, '--size', '99999x99999'], 'both sides have 16..8192'),
    ([*EXPORT, '--size', '9' * 5000 + 'x64'], 'both sides have 16..8192'),
    ([*EXPORT, '--size', 'abc'], "--size: 'abc' is no size: give height and width"),
    ([*EXPORT, '--size', '64x64x3'], 'is no size'), ([*EXPORT, '--size', '64'], 'is no size'),
    ([*PROFILE, '--steps', '0'], "--steps: '0' is not possible: give a whole number of 1.."),
    ([*PROFILE, '--steps', 'many'], "'many' is not possible"),
    (['bench', 'a.ckpt', '--frames', '0'], "--frames: '0' is not possible"),
    (['bench', 'a.ckpt', '--frames', '-1'], "--frames: '-1' is not possible"),
    (['street', 'bag', '--seconds', '0'], 'give a number of 0.1..86400'),
    (['street', 'bag', '--seconds', '-1'], "--seconds: '-1' is not possible"),
    (['street', 'bag', '--seconds', 'nan'], "--seconds: 'nan' is not possible"),
    (['street', 'bag', '--seed', '-1'], "--seed: '-1' is not possible"),
    (['street', 'bag', '--size', '0x480'], 'is no size'),
    ([*SOFT, '--scales', '1', '0'], "--scales: '0' is not possible: give a number of 0.1..8"),
    ([*SOFT, '--scales', '-1'], "'-1' is not possible"),
    ([*SOFT, '--scales', 'inf'], "'inf' is not possible")])
def test_numbers_that_mean_nothing_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_numbers_that_mean_something_are_read():
    parse = build_parser().parse_args
    assert parse([*EXPORT, '--size', '360x480']).size == (360, 480)
    assert parse([*SOFT, '--scales', '1', '1.25']).scales == [1.0, 1.25]
    assert parse([*PROFILE, '--steps', '5']).steps == 5
    street = parse(['street', 'bag', '--seconds', '0.4', '--seed', '7'])
    assert (street.seconds, street.seed, street.size) == (0.4, 7, (360, 480))
