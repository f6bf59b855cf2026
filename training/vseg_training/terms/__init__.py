# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Terms of the loss, one per file: modules that take tensors and return one scalar.

A term resizes the student's map to the teacher's grid, lets no gradient into the teacher, computes
in float32 (float64 stays) and leaves padding out. Its weight is for whoever sums the terms up.
Adapters, which match the student's width to the teacher's, are the term's own: they are trained
with the student and not exported.
"""
from .attention import AttentionTransfer
from .build import Maps, MonteCarlo, Task, Terms, Widths
from .channel import ChannelWise
from .frames import MultiFrame, PairwiseFrames
from .holistic import Holistic
from .inter_class import InterClassDistance
from .intra_class import IntraClassVariation
from .joint import JointAuxiliary, UncertaintyAware
from .local import LocalSimilarity
from .methods import METHODS, needs
from .overparameterised import DeepSupervision, Overparameterised
from .pair import PairWise
from .pixel import PixelWise
from .position import PositionInformation
from .temporal import TemporalConsistencyLoss, visibility


__all__ = ['AttentionTransfer', 'ChannelWise', 'DeepSupervision', 'Holistic',
           'InterClassDistance', 'IntraClassVariation', 'JointAuxiliary', 'LocalSimilarity',
           'METHODS', 'Maps', 'MonteCarlo', 'MultiFrame', 'Overparameterised', 'PairWise',
           'PairwiseFrames', 'PixelWise', 'PositionInformation', 'TemporalConsistencyLoss',
           'Task', 'Terms', 'UncertaintyAware', 'Widths', 'needs', 'visibility']
