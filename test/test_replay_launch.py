# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""replay.launch.py without RViz and with wrong values: it ends, and leaves no process behind."""
import os
from pathlib import Path

from bags import write_drive
import pytest

pytest.importorskip('launch_ros', reason='needs launch and launch_ros of a ROS distribution')

from test_launch import launch, prefix  # noqa: E402, F401, I100


def processes(marker):
    """Return the processes that have ``marker`` in their environment: the launch's own."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if marker.encode() in (folder / 'environ').read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize('change, message', [
    ({}, 'rviz2 is not installed: labels are published, but not shown'),
    ({'rate': 'fast'}, "argument rate is 'fast': it must be a number"),
    ({'loop': 'maybe'}, "argument loop is 'maybe': it must be true or false"),
    ({'loop': '1'}, "argument loop is '1': it must be true or false"),
    ({'path': '/nowhere.mcap'}, '/nowhere.mcap does not exist'),
], ids=['no RViz', 'rate', 'loop', 'loop 1', 'path'])
def test_it_ends_and_leaves_nothing(prefix, bundle, tmp_path, change, message):  # noqa: F811
    arguments = {'path': write_drive(tmp_path / 'drive'), 'bundle': bundle, 'rate': '10.0',
                 **change}
    marker = f'test_{os.getpid()}_{tmp_path.name}'
    with launch(prefix, 'replay.launch.py', tmp_path / 'log',
                *(f'{name}:={value}' for name, value in arguments.items()), MARKER=marker,
                ) as child:
        child.process.wait(200)
        text = child.log.read_text()
        assert message in text, text
        assert not processes(marker)
    assert 'Traceback' not in text
