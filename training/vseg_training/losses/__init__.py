# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Losses: functions of tensors that return one scalar, a float32 mean over elements."""
from .co_training import co_training_loss
from .diversity import diversity, diversity_loss
from .geometry import KendallWeights, normals_loss, weighted_cross_entropy
from .long_term import video_id_loss
from .ohem import ohem_cross_entropy


__all__ = ['KendallWeights', 'co_training_loss', 'diversity', 'diversity_loss', 'normals_loss',
           'ohem_cross_entropy', 'video_id_loss', 'weighted_cross_entropy']
