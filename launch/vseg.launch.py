# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Label the images of one or more cameras: ``ros2 launch ros_vseg vseg.launch.py``."""
import os
from typing import Any, Callable

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown)
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.utilities import make_namespace_absolute, prefix_namespace
import yaml

from ros_vseg.nodes.parameter_files import cameras_of
from ros_vseg.nodes.parameters import Parameter, VSEG_NODE
from ros_vseg.processes import fast_dds_profile

SHARE = get_package_share_directory('ros_vseg')
REFUSED = 2     # exit code of a node whose arguments are wrong

# launch arguments that are the node's parameters, and override params_file where they are given
PARAMETERS = {
    'use_sim_time': Parameter('use_sim_time', False, 'Use the clock of a simulation or a replay.'),
    **{parameter.name: parameter for parameter in VSEG_NODE if parameter.name in (
        'autostart', 'build_only', 'bundle', 'cameras', 'label_set', 'size', 'backend',
        'precision', 'threads')}}
ARGUMENTS = (
    ('namespace', '', 'Namespace of the node and of the camera topics'),
    ('params_file', os.path.join(SHARE, 'config', 'vseg.yaml'),
     'Full path to the ROS 2 parameters file'),
    ('log_level', 'info', 'Log level'),
    ('respawn', 'false', 'Start the node again when it dies'),
    ('image', '',
     "Topic of the camera's images, or a list with one for each of cameras, such as "
     "'[/front/image_raw, /rear/image_raw]'; compressed images are looked for at "
     '<topic>/compressed; empty: <camera>/image'),
    ('camera_info', '', 'The same of camera_info; empty: <camera>/camera_info'),
    *((name, '', f'{parameter.description} Not given: as in params_file.')
      for name, parameter in PARAMETERS.items()),
)


def value_of(parameter: Parameter, text: str) -> Any:
    """Return what an argument means; RuntimeError says what it must be."""
    if isinstance(parameter.default, str):
        value: Any = text
    else:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = None
    if not parameter.accepts(value):
        raise RuntimeError(f"argument {parameter.name} is '{text}': it must be "
                           f'{parameter.constraint()}')
    return value


def topics(argument: str, text: str, cameras: list[str]) -> dict[str, str]:
    """Return the topic of each camera, by the camera's name; RuntimeError if they do not fit."""
    try:
        names = yaml.safe_load(f'[{text.strip("[] ")}]')
    except yaml.YAMLError:
        names = [None]
    if not all(isinstance(name, str) and name for name in names):
        raise RuntimeError(f"argument {argument} is '{text}': it must be a topic, or a list such "
                           'as [/front/image_raw, /rear/image_raw]')
    if len(names) == 1 and 'camera' in cameras:     # the only one, or the one of that name
        return {'camera': names[0]}
    if names and len(names) != len(cameras):
        raise RuntimeError(
            f"argument {argument} is '{text}': give one topic for each of the cameras "
            f'{", ".join(cameras)}, in this order')
    return dict(zip(cameras, names))


def vseg_node(context: LaunchContext) -> list[Node]:
    """Return the node; arguments left empty do not override the parameters file."""
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    if not os.path.isfile(given['params_file']):
        raise RuntimeError(f"argument params_file is '{given['params_file']}', which is not there")
    values = {name: value_of(parameter, given[name])
              for name, parameter in PARAMETERS.items() if given[name]}
    namespace = make_namespace_absolute(prefix_namespace(
        context.launch_configurations.get('ros_namespace'), given['namespace'])) or ''
    cameras = values.get('cameras') or cameras_of(
        given['params_file'], f'{namespace.rstrip("/")}/vseg_node')
    remaps = [(f'{camera}/{topic}', name)
              for argument, topic in (('image', 'image'), ('camera_info', 'camera_info'))
              for camera, name in topics(argument, given[argument], cameras).items()]
    respawn = value_of(Parameter('respawn', False, ''), given['respawn'])
    overrides = {name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
                 for name, value in values.items()}
    return [Node(
        package='ros_vseg', executable='vseg_node', name='vseg_node',
        namespace=given['namespace'], output='screen',
        parameters=[given['params_file'], *([overrides] if overrides else [])],
        remappings=remaps, arguments=['--ros-args', '--log-level', given['log_level']],
        respawn=respawn, respawn_delay=1.0, on_exit=end_of_launch(respawn))]


def end_of_launch(respawn: bool) -> Callable[[ProcessExited, LaunchContext], Shutdown | None]:
    """Return what to do when the node ends: the launch ends too, unless the node comes back."""
    def ended(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
        if context.is_shutdown or (respawn and event.returncode != REFUSED):
            return None
        if event.returncode:
            raise RuntimeError(f'vseg_node ended with exit code {event.returncode}')
        return Shutdown(reason='vseg_node has ended')
    return ended


def generate_launch_description() -> LaunchDescription:
    """Return the launch arguments, the Fast DDS profile and the node."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, default, description in ARGUMENTS),
        *(SetEnvironmentVariable(*item) for item in fast_dds_profile(os.environ).items()),
        OpaqueFunction(function=vseg_node)])
