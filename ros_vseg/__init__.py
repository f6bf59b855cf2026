# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Streaming semantic segmentation for ROS 2."""
