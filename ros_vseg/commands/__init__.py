# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The command ``vseg`` and the demo."""
