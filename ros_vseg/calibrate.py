# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration for int8: the ranges of a bundle's activations on frames of a drive."""
from itertools import islice
from pathlib import Path
from typing import Any, Iterable, NamedTuple, Optional, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from ros_vseg.backends import onnxruntime
from ros_vseg.backends.base import Options
from ros_vseg.bundle import Bundle
from ros_vseg.decode import decode
from ros_vseg.engines import cache, cpu_int8
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
    recording = _record(bundle, source)
    model = quantize(onnx.load_model_from_string(ring_model(bundle)), recording.inputs)
    helper.set_model_props(model, {SOURCE: bundle.sha256})
    path = calibrated_path(bundle, folder)
    cache.keep(path, model.SerializeToString())
    for engine in folder.glob(f'*-{bundle.sha256[:12]}-*-int8-*{cache.SUFFIX}'):
        engine.unlink()     # built from another calibration
    return path, len(recording.inputs)


def calibrate_for_cpu(bundle: Bundle, source: Iterable[Frame], folder: Optional[Path] = None
                      ) -> tuple[Path, int, int, float]:
    """
    Quantise a bundle for int8 in OpenVINO on this processor, and keep it if it keeps the labels.

    Weights have 8 bits where the processor multiplies these exactly; else, or if too few labels
    are kept with them, 7.

    Args:
        bundle: what to quantise.
        source: frames in their order, as for ``calibrate``.
        folder: where the graph is kept, the user's own cache by default.

    Returns:
        The graph's path, the number of frames, the bits of its weights, and the share of the
        frames' labels that are those of float32, at the network's size.

    Raises:
        EngineError: There are fewer than 8 frames, too few labels are kept, or the folder cannot
            be written.
    """
    recording, share = _record(bundle, source), 0.0
    for bits in (8, 7) if cpu_int8.multiplies_exactly() else (7,):
        model = quantize(onnx.load_model_from_string(ring_model(bundle)), recording.inputs,
                         weight_bits=bits)
        share = _share_kept(bundle, model.SerializeToString(), recording)
        if share >= cpu_int8.ENOUGH:
            place = Path(folder or cache.default_folder()).expanduser()
            path = cpu_int8.keep(bundle, model, bits, place)
            return path, len(recording.inputs), bits, share
    raise EngineError(f'int8 keeps {100 * share:.1f} % of the labels on this processor, where '
                      f'{100 * cpu_int8.ENOUGH:.0f} % are asked for: use precision auto')


class Recording(NamedTuple):
    """The float32 network's inputs by name, and its labels, for each frame."""

    inputs: list[dict[str, npt.NDArray[Any]]]
    labels: list[npt.NDArray[np.uint8]]


def _record(bundle: Bundle, source: Iterable[Frame]) -> Recording:
    """Run the float32 network as a stream; EngineError if there are too few frames."""
    stream, recording = onnxruntime.load(bundle, Options()).stream(), Recording([], [])
    for frame in islice(source, MOST):
        image = stream.resize(frame.image)
        recording.inputs.append({'image': image[None], **stream.inputs()})
        recording.labels.append(decode(stream.step(image), image.shape[:2])[0])
        stream.remember()
    count = len(recording.inputs)
    if count < LEAST:
        raise EngineError(f'{count} frames are too few to calibrate with: give at least '
                          f'{LEAST}, better 100 of different drives')
    return recording


def _share_kept(bundle: Bundle, graph: bytes, recording: Recording) -> float:
    """Return the share of a recording's labels that a graph gives in OpenVINO, as a stream."""
    from ros_vseg.backends.openvino import OpenVinoBackend
    stream, kept = OpenVinoBackend(bundle, graph, 'int8').stream(), []
    for inputs, labels in zip(recording.inputs, recording.labels):
        found = decode(stream.step(inputs['image'][0]), labels.shape)[0]
        stream.remember()
        kept.append(float((found == labels).mean()))
    return float(np.mean(kept))
