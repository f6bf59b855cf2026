# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Losses: functions of tensors that return one scalar, a float32 mean over elements."""
from .diversity import diversity, diversity_loss
from .ohem import ohem_cross_entropy


__all__ = ['diversity', 'diversity_loss', 'ohem_cross_entropy']
