# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What imports ROS: the lifecycle node, its parameters and diagnostics, replay and record."""
