# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What runs on an NVIDIA GPU beside the network: memory, streams, graphs, and our kernels."""
