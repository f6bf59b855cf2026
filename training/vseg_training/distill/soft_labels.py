# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A teacher's predictions of whole drives, written to disk once for every student."""
from collections.abc import Sequence
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .targets import Targets, teacher_targets
from ..data.clips import ClipSource
from ..data.soft_labels import Record, SoftLabels
from ..models.kinds import Network
from ..models.layers import resize


CHUNK = 8  # frames at a time
log = logging.getLogger(__name__)


def _view(clip: Tensor, scale: float, mirrored: bool) -> Tensor:
    """A clip [B, L, 3, H, W] as float, scaled and mirrored."""
    frames = clip.flatten(0, 1).float()
    if scale != 1:
        # multiples of 32 keep the grid of features in step with the frame
        size = [max(32, round(side * scale / 32) * 32) for side in frames.shape[2:]]
        frames = resize(frames, size)
    if mirrored:
        frames = frames.flip(-1)
    return frames.unflatten(0, clip.shape[:2])


def _resize_clip(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps [B, L, C, h, w] to (height, width)."""
    return resize(maps.flatten(0, 1), size).unflatten(0, maps.shape[:2])


def averaged_targets(network: Network, clip: Tensor, scales: Sequence[float] = (1.0,),
                     flip: bool = False) -> Targets:
    """
    Targets of a clip, averaged over views at test time.

    Args:
        network: Put into eval mode.
        clip: uint8 [B, L, 3, H, W].
        scales: Factors of the frame size.
        flip: Whether every scale is seen mirrored as well.

    Returns:
        Probabilities and uncertainty are means over the views, on the first view's grid; the
        projection is the first view's.
    """
    sides = [False, True] if flip else [False]
    views = [(scale, mirrored) for scale in scales for mirrored in sides]
    first = teacher_targets(network, _view(clip, *views[0]))
    size = first.uncertainty.shape[2:]
    probabilities: Any = 0
    uncertainty: Any = 0
    for number, (scale, mirrored) in enumerate(views):
        targets = first
        if number:
            targets = teacher_targets(network, _view(clip, scale, mirrored))
        maps = [targets.probabilities, targets.uncertainty[:, :, None]]
        if mirrored:
            maps = [each.flip(-1) for each in maps]
        probabilities = probabilities + _resize_clip(maps[0], size) / len(views)
        uncertainty = uncertainty + _resize_clip(maps[1], size) / len(views)
    return Targets(probabilities, uncertainty[:, :, 0], first.projection)


def _refuse_namesakes(sources: Sequence[ClipSource]) -> None:
    """Soft labels are found by a frame's name: two folders of one name would share them."""
    roots: dict[str, Any] = {}
    for source in sources:
        name = source.frame_name(source.drives[0][0]).partition('/')[0]
        root = getattr(source, 'root', None)
        root = root and os.path.abspath(root)
        if roots.setdefault(name, root) != root:
            raise ValueError(f'{roots[name]} and {root} are both called {name}: give the roots of '
                             'two sources different names')


def write_soft_labels(network: Network, names: Sequence[str],
                      sources: Sequence[ClipSource], folder: str | Path,
                      scales: Sequence[float] = (1.0,), flip: bool = False) -> int:
    """
    Write the targets of every frame of every drive; frames that are there already are kept.

    Args:
        network: In eval mode.
        names: Its classes.
        sources: Where the frames come from.
        folder: Gets one file per frame, each written whole or not at all.
        scales: As in ``averaged_targets``.
        flip: As in ``averaged_targets``.

    Returns:
        The number of frames written.

    Raises:
        ValueError: The folder holds soft labels of other classes, of another teacher or of other
            views, or two sources share a name.
    """
    strides = [s / scales[0] for s in (network.output_stride, network.backbone.strides[-1])]
    store = SoftLabels.create(folder, names, strides, {
        'weights': _fingerprint(network), 'scales': list(scales), 'flip': flip})
    written = 0
    _refuse_namesakes(sources)
    for source in sources:
        for drive in source.drives:
            for start in range(0, len(drive), CHUNK):
                keys = drive[start:start + CHUNK]
                if all(store.path(source, key).exists() for key in keys):
                    continue
                before = drive[max(0, start - network.context_frames):start]
                torch.manual_seed(start)  # of the dropout: the same labels whenever they are made
                targets = averaged_targets(
                    network, _clip(network, source, [*before, *keys]), scales, flip)
                for index, key in enumerate(keys, len(before)):
                    store.write(source, key, _record(targets, index))
                written += len(keys)
            log.info('%s and the %d frames after it', source.frame_name(drive[0]), len(drive) - 1)
    return written


def _fingerprint(network: Network) -> str:
    """SHA-256 of all weights."""
    found = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        found.update(key.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _clip(network: Network, source: ClipSource, keys: Sequence[Any]) -> Tensor:
    """Frames of a drive as uint8 [1, L, 3, H, W] on the network's device."""
    images = source.load_images(keys)
    clip = torch.from_numpy(images.transpose(0, 3, 1, 2)[None].copy())
    return clip.to(network.mean.device)


def _record(targets: Targets, index: int) -> Record:
    """Targets of one frame of a batch of one clip."""
    projection = targets.projection
    return Record(
        targets.probabilities[0, index].cpu().numpy(),
        targets.uncertainty[0, index].cpu().numpy(),
        None if projection is None else projection[0, index].cpu().numpy())
