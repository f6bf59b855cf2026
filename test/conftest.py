# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Every test run is a DDS domain of its own, on this machine only, with the shipped profile."""
import os

from ros_vseg.processes import ros_environment

os.environ.update(ros_environment())
