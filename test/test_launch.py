# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The launch files under the real launch, on a tree as colcon installs it."""
import importlib.util
import os
from pathlib import Path
import re
import signal
import sys
import time

import numpy as np
import pytest
import ros_helpers as ros
import yaml

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


def node_pid(child):
    """Return the process of the vseg_node that a launch has started last."""
    return int(re.findall(
        r'vseg_node-\d+\]: process started with pid \[(\d+)\]', child.log.read_text())[-1])


def node_arguments(child):
    return Path(f'/proc/{node_pid(child)}/cmdline').read_bytes().decode().split('\0')


def node_environment(child):
    pairs = Path(f'/proc/{node_pid(child)}/environ').read_bytes().decode().split('\0')
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


def test_a_topic_for_each_camera(prefix, bundle, probe, tmp_path):
    arguments = (f'bundle:={bundle}', 'namespace:=many', 'cameras:=[front, rear]', 'threads:=1',
                 'image:=[/f/image_raw, /r/image_raw]', 'backend:=onnxruntime', 'size:=48x64',
                 'precision:=fp32', 'label_set:=camvid')
    picture = np.zeros((48, 64, 3), np.uint8)
    with launch(prefix, 'vseg.launch.py', tmp_path / 'log', *arguments):
        for name in ('front', 'rear'):
            camera = ros.CameraProbe(
                probe, 'many/vseg_node', name, topic=f'/{name[0]}/image_raw', raw=name == 'front')
            camera.label(ros.image(picture, 1) if camera.images
                         else ros.compressed(ros.jpeg(picture), 1))
        values = probe.status('many/vseg_node: node')[2]
    assert (values['backend'], values['device']) == ('onnxruntime', 'CPU fp32')


def test_arguments_override_the_parameters_file_only_where_given(prefix, tmp_path):
    file = tmp_path / 'own.yaml'
    file.write_text('/**:\n  ros__parameters: {autostart: false, use_sim_time: true, threads: 3, '
                    "size: '64x96'}\n")
    arguments = (f'params_file:={file}', 'size:=48x64', 'namespace:=own')
    with launch(prefix, 'vseg.launch.py', tmp_path / 'log', *arguments) as child:
        child.wait_for_line('process started', 60)
        given = node_arguments(child)
    files = [given[i + 1] for i, text in enumerate(given) if text == '--params-file']
    merged = {}
    for path in files:
        tree, = yaml.safe_load(Path(path).read_text()).values()     # of the node, or of all
        merged.update(tree['ros__parameters'])
    assert merged == {'autostart': False, 'use_sim_time': True, 'threads': 3, 'size': '48x64'}


@pytest.mark.parametrize('argument, reason', [
    ('backend:=cuda', "backend is 'cuda': it must be one of auto"),
    ('threads:=two', "threads is 'two': it must be a whole number from 0 to 256"),
    ('autostart:=maybe', "autostart is 'maybe': it must be true or false"),
    ('cameras:=[on, off]', "cameras is '[on, off]': it must be a list of different"),
    ('cameras:=[a, a]', "cameras is '[a, a]': it must be a list of different"),
    ('image:=[/a, /b]', "image is '[/a, /b]': give one topic for each of the cameras camera"),
    ('image:=[/a, 2]', "image is '[/a, 2]': it must be a topic, or a list such as"),
    ('log_level:=loud', 'vseg_node ended with exit code 2'),
    ('params_file:=/gone.yaml', '/gone.yaml')])
def test_a_bad_value_is_one_line_and_ends_the_launch(prefix, tmp_path, argument, reason):
    arguments = (argument, 'respawn:=true', 'namespace:=bad')
    with launch(prefix, 'vseg.launch.py', tmp_path / 'log', *arguments) as child:
        assert child.process.wait(60) == 1
    text = child.log.read_text()
    line, = [line for line in text.splitlines() if '[launch]: Caught' in line]
    assert reason in line and 'Traceback' not in text
    assert text.count('process started') <= 1


def test_a_node_that_dies_comes_back_if_asked_to(prefix, bundle, tmp_path):
    arguments = (f'bundle:={bundle}', 'respawn:=true', 'namespace:=again')
    with launch(prefix, 'vseg.launch.py', tmp_path / 'log', *arguments) as child:
        child.wait_for_line('labels camera', 60)
        os.kill(node_pid(child), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while child.log.read_text().count('labels camera') < 2:
            child.check_alive()
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_node_that_dies_ends_the_launch(prefix, bundle, tmp_path):
    arguments = (f'bundle:={bundle}', 'namespace:=dies')
    with launch(prefix, 'vseg.launch.py', tmp_path / 'log', *arguments) as child:
        child.wait_for_line('labels camera', 60)
        os.kill(node_pid(child), signal.SIGKILL)
        assert child.process.wait(60) == 1


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


@pytest.fixture
def load(prefix, monkeypatch):
    """Return a function that imports a launch file."""
    def load(name):
        for variable, value in environment(prefix).items():
            monkeypatch.setenv(variable, value)
        spec = importlib.util.spec_from_file_location('launch_file', ROOT / 'launch' / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return load


def test_the_images_are_of_the_parameters_files_cameras(load, monkeypatch, tmp_path):
    file = tmp_path / 'own.yaml'
    file.write_text('/car/vseg_node:\n  ros__parameters: {cameras: [front, rear]}')
    module, made = load('vseg.launch.py'), []
    monkeypatch.setattr(module, 'Node', lambda **given: made.append(given))
    context = module.LaunchContext()
    context.launch_configurations.update({
        **{name: default for name, default, _ in module.ARGUMENTS}, 'params_file': str(file),
        'namespace': 'car', 'image': "['/f', \"/r\"]"})
    module.vseg_node(context)
    assert made[0]['remappings'] == [('front/image', '/f'), ('rear/image', '/r')]


@pytest.mark.parametrize('name', ['vseg.launch.py', 'replay.launch.py'])
def test_every_argument_is_described(load, name):
    arguments = load(name).generate_launch_description().get_launch_arguments()
    assert {'namespace', 'params_file', 'use_sim_time', 'autostart', 'log_level'} <= {
        argument.name for argument in arguments}
    for argument in arguments:
        assert argument.description != 'no description given', argument.name
        if argument.name == 'params_file':
            assert Path(argument.default_value[0].text).is_file()
