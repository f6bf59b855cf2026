# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A rendered street with exact labels and exact motion."""
from .street import Street, StreetFrame

__all__ = ['Street', 'StreetFrame']
