# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A teacher's predictions of whole drives, written to disk once for every student."""
import logging

import numpy as np
import torch

from .targets import Targets, teacher_targets
from ..data.soft_labels import Record, SoftLabels
from ..models.layers import resize


CHUNK = 8  # frames at a time
log = logging.getLogger(__name__)


def averaged_targets(network, clip, scales=(1.0,), flip=False):
    """
    Targets of a clip uint8 [B, L, 3, H, W], averaged over views at test time.

    scales: factors of the frame size; flip: see every scale mirrored as well. Probabilities and
    uncertainty are means over the views, on the first view's grid; the projection is the first
    view's.
    """
    first, views = None, [(scale, side) for scale in scales for side in ([0, 1] if flip else [0])]
    for scale, mirrored in views:
        view = clip.flatten(0, 1).float()
        if scale != 1:
            # multiples of 32 keep the grid of features in step with the frame
            size = [max(32, round(side * scale / 32) * 32) for side in view.shape[2:]]
            view = resize(view, size)
        view = (view.flip(-1) if mirrored else view).unflatten(0, clip.shape[:2])
        targets = teacher_targets(network, view)
        maps = [targets.probabilities, targets.uncertainty[:, :, None]]
        maps = [m.flip(-1) if mirrored else m for m in maps]
        if first is None:
            first, sums = targets, [0, 0]
        size = first.uncertainty.shape[2:]
        sums = [total + resize(m.flatten(0, 1), size).unflatten(0, clip.shape[:2]) / len(views)
                for total, m in zip(sums, maps)]
    return Targets(sums[0], sums[1][:, :, 0], first.projection)


def _refuse_namesakes(sources):
    """Soft labels are found by a frame's name: two folders of one name would share them."""
    roots = {}
    for source in sources:
        name = source.frame_name(source.drives[0][0]).partition('/')[0]
        root = getattr(source, 'root', None)
        if roots.setdefault(name, root) != root:
            raise ValueError(f'{roots[name]} and {root} are both called {name}: give the roots of '
                             'two sources different names')


def write_soft_labels(network, names, sources, folder, scales=(1.0,), flip=False):
    """
    Write the targets of every frame of every drive; frames that are there already are kept.

    network: in eval mode; names: its classes; sources: list of ClipSource; folder: one file per
    frame, each written whole or not at all. Returns the number of frames written.
    """
    strides = [s / scales[0] for s in (network.output_stride, network.backbone.strides[-1])]
    store = SoftLabels.create(folder, names, strides)
    written, context = 0, network.context_frames
    _refuse_namesakes(sources)
    for source in sources:
        for drive in source.drives:
            for start in range(0, len(drive), CHUNK):
                keys = drive[start:start + CHUNK]
                if all(store.path(source, key).exists() for key in keys):
                    continue
                before = drive[max(0, start - context):start]
                images = np.stack([source.read(key)[0] for key in before + keys])
                clip = torch.from_numpy(images.transpose(0, 3, 1, 2)[None].copy())
                torch.manual_seed(start)  # of the dropout: the same labels whenever they are made
                targets = averaged_targets(
                    network, clip.to(network.mean.device), scales, flip)
                for index, key in enumerate(keys, len(before)):
                    store.write(source, key, Record(*(
                        None if value is None else value[0, index].cpu().numpy()
                        for value in targets)))
                written += len(keys)
            log.info('%s and the %d frames after it', source.frame_name(drive[0]), len(drive) - 1)
    return written
