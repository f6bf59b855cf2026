# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The launch files under the real launch, on a tree as colcon installs it."""
import importlib.util
import os
from pathlib import Path
import re
import signal
import sys

import numpy as np
import pytest
import ros_helpers as ros

from ros_vseg.processes import Child, demo_clip, PROFILE_VARIABLES

pytest.importorskip('launch_ros', reason='needs launch and launch_ros of a ROS distribution')
ROOT = Path(__file__).parents[1]
EXECUTABLES = {'vseg_node': 'vseg_node', 'replay': 'replay'}
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
arguments = [argument.split(':=') for argument in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    AnyLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)]))
sys.exit(service.run())
"""


@pytest.fixture(scope='module')
def prefix(tmp_path_factory):
    """Return an install prefix with what launch looks for."""
    prefix = tmp_path_factory.mktemp('install')
    share = prefix / 'share/ros_vseg'
    index = prefix / 'share/ament_index/resource_index/packages'
    for folder in (share, index, prefix / 'lib/ros_vseg'):
        folder.mkdir(parents=True)
    (index / 'ros_vseg').touch()
    for name in ('launch', 'config', 'package.xml'):
        (share / name).symlink_to(ROOT / name)
    for name, module in EXECUTABLES.items():
        script = prefix / 'lib/ros_vseg' / name
        script.write_text(f'#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n'
                          f'from ros_vseg.nodes.{module} import main\nsys.exit(main())\n')
        script.chmod(0o755)
    return prefix


def environment(prefix, **changes):
    """Return an environment as a user has it who has sourced the tree: without a profile."""
    variables = {k: v for k, v in os.environ.items() if k not in PROFILE_VARIABLES}
    path = (str(prefix), os.environ.get('AMENT_PREFIX_PATH'), sys.prefix)
    variables['AMENT_PREFIX_PATH'] = os.pathsep.join(filter(None, path))
    return {**variables, 'ROS_LOG_DIR': str(prefix / 'log'), **changes}


def launch(prefix, name, log, *arguments, **changes):
    argv = [sys.executable, '-c', RUN, str(ROOT / 'launch' / name), *arguments]
    return Child(name, argv, environment(prefix, **changes), log)


def node_environment(child):
    """Return the environment of the vseg_node that a launch has started."""
    pid = re.search(r'vseg_node-1\]: process started with pid \[(\d+)\]', child.log.read_text())[1]
    pairs = Path(f'/proc/{pid}/environ').read_bytes().decode().split('\0')
    return dict(pair.split('=', 1) for pair in pairs if pair)


def test_node_with_arguments(prefix, bundle, probe, tmp_path):
    arguments = ('namespace:=car', f'bundle:={bundle}', 'cameras:=[camera, rear]',
                 'image:=/usb/image_raw', 'autostart:=true')
    with launch(prefix, 'vseg.launch.py', tmp_path / 'log', *arguments) as child:
        rear = ros.CameraProbe(probe, 'car/vseg_node', 'rear', topic='/car/rear/image')
        rear.label(ros.image(np.zeros((48, 64, 3), np.uint8), 10**9))
        usb = ros.CameraProbe(probe, 'car/vseg_node', 'camera', topic='/usb/image_raw')
        usb.label(ros.image(np.zeros((48, 64, 3), np.uint8), 10**9))
        variables = node_environment(child)
        named = [variables[name] for name in PROFILE_VARIABLES if name in variables]
        assert [Path(path).resolve() for path in named] == [ROOT / 'config/fastdds.xml']
        os.killpg(child.process.pid, signal.SIGINT)
        assert child.process.wait(60) == 0
    assert 'process has finished cleanly' in child.log.read_text()
    assert 'deprecated' not in child.log.read_text()


def test_the_users_own_profile_is_kept(prefix, bundle, tmp_path):
    own = {PROFILE_VARIABLES[1]: '/my/profile.xml'}
    with launch(prefix, 'vseg.launch.py', tmp_path / 'log', 'autostart:=false', **own) as child:
        child.wait_for_line('process started', 60)
        variables = node_environment(child)
    assert variables[PROFILE_VARIABLES[1]] == '/my/profile.xml'
    assert PROFILE_VARIABLES[0] not in variables


def test_replay_labels_and_ends_by_itself(prefix, bundle, probe, tmp_path):
    labels = probe.collect('/play/vseg_node/camera/label')
    arguments = (f'path:={demo_clip()}', 'rviz:=false', f'bundle:={bundle}', 'rate:=10.0',
                 'use_sim_time:=true', 'namespace:=play')
    with launch(prefix, 'replay.launch.py', tmp_path / 'log', *arguments) as child:
        probe.wait(lambda: child.process.poll() is not None, 'the launch to end', 90)
        assert child.process.returncode == 0
    assert 'replay: sent 150 frames' in child.log.read_text()
    assert 5 < len(labels) <= 150 and labels[0].encoding == 'mono8'


@pytest.mark.parametrize('name', ['vseg.launch.py', 'replay.launch.py'])
def test_every_argument_is_described(prefix, monkeypatch, name):
    for variable, value in environment(prefix).items():
        monkeypatch.setenv(variable, value)
    spec = importlib.util.spec_from_file_location('launch_file', ROOT / 'launch' / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = module.generate_launch_description().get_launch_arguments()
    assert {'namespace', 'params_file', 'use_sim_time', 'autostart', 'log_level'} <= {
        argument.name for argument in arguments}
    for argument in arguments:
        assert argument.description != 'no description given', argument.name
        if argument.name == 'params_file':
            assert Path(argument.default_value[0].text).is_file()
