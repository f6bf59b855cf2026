# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Bags, videos and folders, read and written without ROS, and pictures that sum a run up."""
