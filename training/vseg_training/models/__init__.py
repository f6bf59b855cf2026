# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Networks: what student and teacher share, and each of them."""
