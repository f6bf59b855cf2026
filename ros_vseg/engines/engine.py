# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The engine of a bundle: which graph it is built from, and where it lies."""
from pathlib import Path
from typing import Any

import onnx

from ros_vseg.bundle import Bundle
from ros_vseg.engines import build, cache
from ros_vseg.engines.precision import lower
from ros_vseg.errors import EngineError
from ros_vseg.gpu.cuda import Gpu
from ros_vseg.graph import group_by_eight, ring_model, with_batch

PRECISIONS = ('fp32', 'fp16', 'bf16', 'int8')
TURING = 'sm75'
SOURCE = 'vseg_bundle'      # metadata of a calibrated graph: the bundle's hash


def engine_for(bundle: Bundle, capability: str, precision: str = 'auto', *,
               folder: Path | str | None = None, may_build: bool = True, batch: int = 1,
               progress: bool = False, device: int = 0, workspace: int = 0,
               ) -> tuple[Path, dict[str, Any], bytes]:
    """
    Return a bundle's engine, from the cache or built now.

    Args:
        bundle: what to build it from.
        capability: of the GPU, such as 'sm86'.
        precision: 'auto' (fp16) or of PRECISIONS.
        folder: of the cache; None: the user's own.
        may_build: whether a missing engine may be built.
        batch: images at once.
        progress: whether to show a build's progress.
        device: index of the GPU, which counts for classic TensorRT alone.
        workspace: MB of GPU memory for the build; 0: half of what is free.

    Returns:
        The path of the file, its header, and the engine itself.

    Raises:
        EngineError: no TensorRT, an operator that it refuses, a damaged or foreign engine that
            may not be built again.
    """
    trt = build.find_module()
    precision = 'fp16' if precision == 'auto' else precision
    folder = Path(folder or cache.default_folder()).expanduser()
    gpu = Gpu(device).model if trt.__name__ == 'tensorrt' else ''
    key = cache.EngineKey(
        bundle.sha256, trt.__name__, trt.__version__, capability, precision, batch, gpu=gpu)
    timing_cache = folder / cache.file_name(trt.__version__, f'{gpu}.timing')

    def make() -> tuple[bytes, dict[str, Any]]:
        model = graph_for(bundle, precision, capability, folder, batch)
        return build.build(model.SerializeToString(), capability, progress=progress,
                           timing_cache=timing_cache, device=device, workspace=workspace)

    return cache.obtain(folder, bundle.info.name, key, make if may_build else None)


def graph_for(bundle: Bundle, precision: str, capability: str, folder: Path,
              batch: int = 1) -> onnx.ModelProto:
    """
    Return the onnx.ModelProto that an engine is built from.

    The pool has a slot more than the bundle says, which the frame at work writes: see Ring.
    """
    if precision not in PRECISIONS:
        raise EngineError(f'precision {precision!r} is not one of TensorRT: use '
                          f'{", ".join(PRECISIONS)}')
    if capability == TURING and precision in ('fp32', 'bf16'):
        raise EngineError(f'GPUs of {TURING} have no {precision} matrix products in TensorRT for '
                          'RTX: use precision fp16 or int8')
    if precision == 'int8':
        model = _calibrated(bundle, folder)
    else:
        model = onnx.load_model_from_string(ring_model(bundle))
    model = with_batch(model, bundle.info, batch, bundle.path)
    if precision != 'fp32':
        model = lower(model, 'fp16' if precision == 'int8' else precision)
    if capability == TURING:
        group_by_eight(model)
    return model


def calibrated_path(bundle: Bundle, folder: Path) -> Path:
    """Return where the graph lies that ``calibrate`` made of a bundle."""
    return folder / cache.file_name(bundle.info.name, bundle.sha256[:12], 'int8.onnx')


def _calibrated(bundle: Bundle, folder: Path) -> onnx.ModelProto:
    path = calibrated_path(bundle, folder)
    try:
        model = onnx.load(path)
    except Exception as error:  # absent, or protobuf's own errors
        raise EngineError(f'{bundle.path} is not calibrated for int8 ({path}): run `vseg build '
                          f'{bundle.path} --precision int8 --calibrate FOLDER`') from error
    found = {entry.key: entry.value for entry in model.metadata_props}.get(SOURCE)
    if found != bundle.sha256:
        raise EngineError(f'{path} is of another bundle: remove it and calibrate again')
    return model
