# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How right a network's depth and normals are."""
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ros_vseg.resize import resize_image

from .data.clips import ClipSource
from .metrics import DepthMetrics, NormalsMetrics
from .models.kinds import Network
from .models.tasks import metres


def evaluate_geometry(model: Network, source: ClipSource[Any], size: Sequence[int]
                      ) -> dict[str, float]:
    """
    Stream every drive through a network that has further tasks.

    Depths are those of each camera, by its focal length; counted is what is nearer than the task's
    ``farthest``, measured for the task's ``focal``.

    Args:
        model: In eval mode meanwhile, and afterwards in the mode that it was in.
        source: Frames without geometry do not count.
        size: (height, width) of the network's input.

    Returns:
        ``DepthMetrics.summary`` and ``NormalsMetrics.summary`` of the tasks that it has; empty
        where it has none, as a teacher with several streams.
    """
    tasks = getattr(model, 'tasks', None)
    if tasks is None or not tasks.channels:
        return {}
    depths, angles, training = DepthMetrics(), NormalsMetrics(), model.training
    model.eval()
    for drive in source.drives:
        stream: Any = model.stream()
        for key in drive:
            image, shape = source.read_image(key), source.geometry(key)
            stream.step(np.ascontiguousarray(resize_image(image, size)))
            if shape is None:
                continue
            full = shape.depth.shape[::-1]
            if tasks.depth:
                # focal length in pixels of the network's input
                own = shape.focal * size[0] / image.shape[0] / tasks.depth.focal
                near = shape.depth < own * tasks.depth.farthest
                coarse = own * metres(stream.parts['depth'], tasks.depth).cpu().numpy()
                depths.update(np.where(near, shape.depth, 0),
                              cv2.resize(coarse, full, interpolation=cv2.INTER_NEAREST))
            if tasks.normals:
                coarse = stream.parts['normals'].float().permute(1, 2, 0).cpu().numpy()
                angles.update(shape.normals, cv2.resize(coarse, full))
    model.train(training)
    return {**(depths.summary() if tasks.depth else {}),
            **(angles.summary() if tasks.normals else {})}
