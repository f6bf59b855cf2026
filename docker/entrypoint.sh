#!/bin/bash
# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
#
# Both images start here: source ROS and the workspace, then become the command.
set -e
source "/opt/ros/$ROS_DISTRO/setup.bash"
source /ws/install/setup.bash
exec "$@"
