# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics of label images and of models; the mIoU is the runtime's own."""
from ros_vseg.media.iou import ConfusionMatrix

from .calibration import ConfidenceMetrics
from .categories import by_category
from .cost import flops, parameters
from .geometry import DepthMetrics, NormalsMetrics
from .instances import InstanceIoU
from .temporal import TemporalConsistency, VideoConsistency


__all__ = ['ConfidenceMetrics', 'ConfusionMatrix', 'DepthMetrics', 'InstanceIoU', 'NormalsMetrics',
           'TemporalConsistency', 'VideoConsistency', 'by_category', 'flops', 'parameters']
