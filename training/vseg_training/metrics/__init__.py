# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics of label images; the mIoU is the runtime's own."""
from ros_vseg.iou import ConfusionMatrix


__all__ = ['ConfusionMatrix']
