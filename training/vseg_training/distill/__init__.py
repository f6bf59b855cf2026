# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Distillation methods; teacher and student meet only here."""
from .passes import monte_carlo
from .prepare import prepare_terms
from .structure import structural_loss
from .targets import (
    distillation_terms, maps_of, stored_maps, Targets, teacher_maps, teacher_targets)
from .uncertainty import uncertainty_loss, uncertainty_map


__all__ = ['Targets', 'distillation_terms', 'maps_of', 'monte_carlo', 'prepare_terms',
           'stored_maps', 'structural_loss', 'teacher_maps', 'teacher_targets',
           'uncertainty_loss', 'uncertainty_map']
