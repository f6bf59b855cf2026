# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""From a bundle to a TensorRT engine: graph edits, precision, build, cache."""
