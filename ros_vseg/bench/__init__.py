# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The project's figures, measured by ``vseg bench``."""
