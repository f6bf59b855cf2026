# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How right depth and normals are, of a network or of a bundle."""
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg import backends
from ros_vseg.bundle import Bundle
from ros_vseg.depth import DepthRange
from ros_vseg.resize import resize_image
from ros_vseg.stream import Stream

from .data.clips import ClipSource, FRAME_NS, Pixels
from .metrics import DepthMetrics, NormalsMetrics
from .models.kinds import Network
from .models.tasks import metres, range_of


class Seen(NamedTuple):
    """
    What is said of a frame.

    Attributes:
        depth: Float32 [h, w], metres at the range's focal length; None: nothing.
        normals: Float32 [h, w, 3] of any length; None: nothing.
    """

    depth: npt.NDArray[np.float32] | None = None
    normals: npt.NDArray[np.float32] | None = None


Step = Callable[[Pixels, int], Seen]  # of an image and its number in the drive


def _measure(source: ClipSource[Any], start: Callable[[], Step], known: DepthRange | None,
             has_normals: bool, input_height: int) -> dict[str, float]:
    """Stream every drive; depths are made those of each camera, by its focal length."""
    depths, angles = DepthMetrics(), NormalsMetrics()
    for drive in source.drives:
        step = start()
        for number, key in enumerate(drive):
            image, shape = source.read_image(key), source.geometry(key)
            seen = step(image, number)
            if shape is None:
                continue
            height, width = image.shape[:2]
            if known and seen.depth is not None:
                scale = known.scale(shape.focal, height, input_height)
                near = np.where(shape.depth < scale * known.farthest, shape.depth, 0)
                depths.update(near, scale * cv2.resize(
                    seen.depth, (width, height), interpolation=cv2.INTER_NEAREST))
            if seen.normals is not None:
                angles.update(shape.normals, cv2.resize(seen.normals, (width, height)))
    return {**(depths.summary() if known else {}), **(angles.summary() if has_normals else {})}


def evaluate_geometry(model: Network, source: ClipSource[Any], size: Sequence[int]
                      ) -> dict[str, float]:
    """
    Stream every drive through a network that has further tasks.

    Counted is depth that is nearer than the task's ``farthest``, at the task's ``focal``.

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

    def start() -> Step:
        stream: Any = model.stream()

        def step(image: Pixels, number: int) -> Seen:
            stream.step(np.ascontiguousarray(resize_image(image, size)))
            parts = stream.parts
            return Seen(
                metres(parts['depth'], tasks.depth).cpu().numpy() if tasks.depth else None,
                parts['normals'].float().permute(1, 2, 0).cpu().numpy() if tasks.normals else None)

        return step

    training = model.training
    model.eval()
    found = _measure(source, start, range_of(tasks.depth) if tasks.depth else None,
                     tasks.normals is not None, size[0])
    model.train(training)
    return found


def evaluate_bundle_geometry(bundle: Bundle, source: ClipSource[Any], backend: str
                             ) -> dict[str, float]:
    """
    Stream every drive through a bundle by the runtime.

    Args:
        bundle: Of which the depth is looked at.
        source: As in ``evaluate_geometry``.
        backend: As in ``backends.load``.

    Returns:
        ``DepthMetrics.summary``; empty where the bundle gives no depth.
    """
    if bundle.info.depth is None:
        return {}
    loaded = backends.load(bundle, backend)

    def start() -> Step:
        stream = Stream(loaded)
        return lambda image, number: Seen(stream.step(image, number * FRAME_NS).depth)

    return _measure(source, start, bundle.info.depth, False, bundle.info.height)
