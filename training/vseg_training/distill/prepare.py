# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What terms learn of a teacher before the first step."""
import logging

import torch
from torch import Tensor

from .targets import teacher_maps
from ..data import ClipDataset, PADDING
from ..models.kinds import Network
from ..terms import PositionInformation, Terms


CROPS, CHUNK = 64, 8  # that a head is trained on, and how many the teacher sees at a time
log = logging.getLogger(__name__)


def prepare_terms(terms: Terms, teacher: Network | None, dataset: ClipDataset,
                  device: torch.device) -> None:
    """
    Train the heads that terms fix before the first step; without such terms nothing is done.

    Args:
        terms: Of the task.
        teacher: At work.
        dataset: Whose first samples the teacher sees.
        device: To compute on; the teacher and the terms stay there.
    """
    for name, term in terms.modules_by_name.items():
        if isinstance(term, PositionInformation) and teacher is not None:
            features, counted = _features(teacher.to(device), dataset, device)
            error = term.to(device).prepare(features, counted)
            log.info('terms.%s: its head finds places in features of the teacher to %.3f of '
                     'a crop (0.289 is chance)', name, error)


def _features(teacher: Network, dataset: ClipDataset, device: torch.device
              ) -> tuple[Tensor, Tensor]:
    """Features [B, C, h, w] of crops of one frame each, and which of their pixels count."""
    features, counted = [], []
    for start in range(0, min(CROPS, len(dataset)), CHUNK):
        numbers = range(start, min(start + CHUNK, CROPS, len(dataset)))
        items = [dataset[number, 1] for number in numbers]
        images, places, labels = (torch.stack([item[key] for item in items]).to(device)
                                  for key in ('images', 'places', 'labels'))
        found = teacher_maps(teacher, images, places).features
        assert found is not None
        features.append(found[:, 0])
        counted.append(labels[:, 0] != PADDING)
    return torch.cat(features), torch.cat(counted)
