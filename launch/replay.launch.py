# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Label a bag, a video or a folder of images and look at it in RViz.

``ros2 launch ros_vseg replay.launch.py path:=drive.mcap``; takes vseg.launch.py's arguments too.
"""
import os

from ament_index_python.packages import (
    get_package_prefix, get_package_share_directory, PackageNotFoundError)
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument, IncludeLaunchDescription, LogInfo, OpaqueFunction, Shutdown)
from launch.conditions import IfCondition
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = get_package_share_directory('ros_vseg')

ARGUMENTS = (
    ('namespace', '', 'Namespace of the nodes and of the camera topics'),
    ('path', None, 'Bag, video file or folder of images to replay'),
    ('source_topic', '', 'Image topic in the bag; empty: its only one'),
    ('rate', '1.0', 'Speed: 2.0 is twice as fast as recorded'),
    ('loop', 'false', 'Start again at the end'),
    ('use_sim_time', 'false', "Keep the source's stamps, and let them be the time"),
    ('rviz', 'true', 'Show the labels in RViz, where it is installed'),
    ('rviz_config', os.path.join(SHARE, 'config', 'vseg.rviz'), 'Full path to the RViz config'),
)
SHOWN = ('camera/image', 'vseg_node/camera/overlay', 'vseg_node/camera/color')


def has_rviz() -> bool:
    """Return whether RViz can be started."""
    try:
        folder = os.path.join(get_package_prefix('rviz2'), 'lib', 'rviz2')
    except PackageNotFoundError:
        return False
    return os.access(os.path.join(folder, 'rviz2'), os.X_OK)


def check(context: LaunchContext) -> None:
    """Refuse values of the wrong type with the argument's name, before anything is started."""
    for name in ('loop', 'use_sim_time', 'rviz'):
        text = LaunchConfiguration(name).perform(context)
        if text not in ('true', 'false', 'True', 'False'):   # what launch and YAML both read so
            raise RuntimeError(f"argument {name} is '{text}': it must be true or false")
    rate = LaunchConfiguration('rate').perform(context)
    try:
        float(rate)
    except ValueError:
        raise RuntimeError(f"argument rate is '{rate}': it must be a number, such as 1.0"
                           ) from None


def ended(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """End the launch with the replay where nothing is shown, or where it has failed."""
    shown = has_rviz() and IfCondition(LaunchConfiguration('rviz')).evaluate(context)
    if context.is_shutdown or (shown and event.returncode == 0):
        return None
    return Shutdown(reason='the replay has ended')


def generate_launch_description() -> LaunchDescription:
    """Return the node, the replay and RViz; ends with RViz, or without it with the replay."""
    namespace = LaunchConfiguration('namespace')
    use_sim_time = ParameterValue(LaunchConfiguration('use_sim_time'), value_type=bool)
    rviz = LaunchConfiguration('rviz')

    vseg = IncludeLaunchDescription(PythonLaunchDescriptionSource(
        os.path.join(SHARE, 'launch', 'vseg.launch.py')))
    replay = Node(
        package='ros_vseg', executable='replay', name='replay', namespace=namespace,
        output='screen',
        parameters=[{
            'path': ParameterValue(LaunchConfiguration('path'), value_type=str),
            'source_topic': ParameterValue(LaunchConfiguration('source_topic'), value_type=str),
            'rate': ParameterValue(LaunchConfiguration('rate'), value_type=float),
            'loop': ParameterValue(LaunchConfiguration('loop'), value_type=bool),
            'clock': use_sim_time}],
        on_exit=ended)
    if has_rviz():
        show: Node | LogInfo = Node(
            package='rviz2', executable='rviz2', name='rviz2', namespace=namespace,
            arguments=['-d', LaunchConfiguration('rviz_config')],
            parameters=[{'use_sim_time': use_sim_time}],
            remappings=[('/' + topic, topic) for topic in SHOWN],
            condition=IfCondition(rviz),
            on_exit=[Shutdown(reason='RViz was closed')])
    else:
        show = LogInfo(msg='rviz2 is not installed: labels are published, but not shown',
                       condition=IfCondition(rviz))

    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, default, description in ARGUMENTS),
        OpaqueFunction(function=check), vseg, replay, show])
