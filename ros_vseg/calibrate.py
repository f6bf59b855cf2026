# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration for int8: the ranges of a bundle's activations on frames of a drive."""
from itertools import islice
from pathlib import Path
from typing import Any, Iterable, Optional, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from ros_vseg.backends import onnxruntime
from ros_vseg.backends.base import Options
from ros_vseg.bundle import Bundle
from ros_vseg.engines import cache
from ros_vseg.engines.engine import calibrated_path, SOURCE
from ros_vseg.engines.precision import quantize
from ros_vseg.errors import EngineError
from ros_vseg.graph import ring_model

MOST, LEAST = 200, 8    # frames; ranges settle soon, and each is held in memory


class Frame(Protocol):
    """What is needed of a media source's frame."""

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """RGB image uint8 [H, W, 3] of any size."""


def calibrate(bundle: Bundle, source: Iterable[Frame], folder: Optional[Path] = None
              ) -> tuple[Path, int]:
    """
    Quantise a bundle for int8 by the frames of a drive, and keep it for ``engine_for``.

    The frames go through the float32 network as a stream, so that the pool has the prototypes
    that it will have. int8 engines of an earlier calibration are removed.

    Args:
        bundle: what to quantise.
        source: frames in their order, such as ``media.sources.open_source`` gives; of more than
            200 the first 200.
        folder: of engines, the user's own cache by default.

    Returns:
        The quantised graph's path, and the number of frames.

    Raises:
        EngineError: There are fewer than 8 frames, or the folder cannot be written.
    """
    folder = Path(folder or cache.default_folder()).expanduser()
    stream = onnxruntime.load(bundle, Options()).stream()
    inputs: list[dict[str, npt.NDArray[Any]]] = []
    for frame in islice(source, MOST):
        image = stream.resize(frame.image)
        inputs.append({'image': image[None], **stream.inputs()})
        stream.step(image)
        stream.remember()
    if len(inputs) < LEAST:
        raise EngineError(f'{len(inputs)} frames are too few to calibrate with: give at least '
                          f'{LEAST}, better 100 of different drives')
    model = quantize(onnx.load_model_from_string(ring_model(bundle)), inputs)
    helper.set_model_props(model, {SOURCE: bundle.sha256})
    path = calibrated_path(bundle, folder)
    cache.keep(path, model.SerializeToString())
    for engine in folder.glob(f'*-{bundle.sha256[:12]}-*-int8-*{cache.SUFFIX}'):
        engine.unlink()     # built from another calibration
    return path, len(inputs)
