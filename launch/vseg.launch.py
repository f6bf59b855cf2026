# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Label the images of one or more cameras: ``ros2 launch ros_vseg vseg.launch.py``."""
import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
import yaml

from ros_vseg.processes import PROFILE_VARIABLES

SHARE = get_package_share_directory('ros_vseg')

ARGUMENTS = (
    ('namespace', '', 'Namespace of the node and of the camera topics'),
    ('params_file', os.path.join(SHARE, 'config', 'vseg.yaml'),
     'Full path to the ROS 2 parameters file'),
    ('use_sim_time', 'false', 'Use the clock of a simulation or a replay if true'),
    ('autostart', 'true', 'Configure and activate the node at start'),
    ('log_level', 'info', 'Log level'),
    ('build_only', 'false', 'Build the TensorRT engine that the parameters need, and end'),
    ('bundle', '', 'Path of the bundle (.onnx) to run; empty: as in params_file'),
    ('cameras', '', "Names of the cameras, such as '[front, rear]'; empty: as in params_file"),
    ('image', 'camera/image',
     'Topic of the images of the camera named camera; its compressed images are looked for at '
     '<image>/compressed'),
    ('camera_info', 'camera/camera_info', 'Topic of the camera_info of the camera named camera'),
)


def fast_dds_profile():
    """
    Return the actions that give image-sized shared memory to Fast DDS.

    Empty if the environment names a profile already: the user's own is kept, and Fast DDS 2
    loads it twice and complains when both variables are set.
    """
    if any(name in os.environ for name in PROFILE_VARIABLES):
        return []
    prefixes = os.environ['AMENT_PREFIX_PATH'].split(os.pathsep)
    # Fast DDS 3 (Kilted and later) is installed by this name, 2 (Humble, Jazzy) as fastrtps.
    fast_dds_3 = any(os.path.isdir(os.path.join(prefix, 'share/fastdds')) for prefix in prefixes)
    variable = PROFILE_VARIABLES[0 if fast_dds_3 else 1]
    return [SetEnvironmentVariable(variable, os.path.join(SHARE, 'config', 'fastdds.xml'))]


def vseg_node(context):
    """Return the node; arguments left empty do not override the parameters file."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=bool)
        for name in ('use_sim_time', 'autostart', 'build_only')}
    if value['bundle']:
        overrides['bundle'] = ParameterValue(LaunchConfiguration('bundle'), value_type=str)
    if value['cameras']:
        overrides['cameras'] = yaml.safe_load(value['cameras'])
    return [Node(
        package='ros_vseg', executable='vseg_node', name='vseg_node',
        namespace=value['namespace'], output='screen',
        parameters=[value['params_file'], overrides],
        remappings=[
            ('camera/image', value['image']),
            ('camera/image/compressed', value['image'] + '/compressed'),
            ('camera/camera_info', value['camera_info'])],
        arguments=['--ros-args', '--log-level', value['log_level']])]


def generate_launch_description():
    """Return the launch arguments, the Fast DDS profile and the node."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, default, description in ARGUMENTS),
        *fast_dds_profile(),
        OpaqueFunction(function=vseg_node)])
