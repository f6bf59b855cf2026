# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Networks: MGCNet's student and teacher, and the parts that they are made of."""
