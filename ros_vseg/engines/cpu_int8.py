# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
int8 on the processor: the graph that ``vseg build --for cpu`` calibrated and checked.

Instructions older than VNNI add two products in 16 bits, which saturate where weights have 8 bits;
with 7 bits they cannot.
"""
from pathlib import Path

import onnx
from onnx import helper

from ros_vseg.bundle import Bundle
from ros_vseg.engines import cache
from ros_vseg.engines.engine import SOURCE
from ros_vseg.errors import EngineError

ENOUGH = 0.98       # share of labels that int8 has to keep on the calibration frames
WEIGHT_BITS = 'vseg_weight_bits'
EXACT = {'avx512_vnni', 'avx_vnni', 'amx_int8', 'asimddp', 'i8mm'}     # x86, and ARM


def multiplies_exactly(flags: Path = Path('/proc/cpuinfo')) -> bool:
    """Return whether the processor adds products of 8 bits without saturation."""
    try:
        lines = flags.read_text().splitlines()
    except OSError:
        return False
    words = {word for line in lines if line.lower().startswith(('flags', 'features'))
             for word in line.split()}
    return not EXACT.isdisjoint(words)


def path_for(bundle: Bundle, folder: Path) -> Path:
    """Return where the graph lies that was calibrated for the processor."""
    return folder / cache.file_name(bundle.info.name, bundle.sha256[:12], 'int8-cpu.onnx')


def keep(bundle: Bundle, model: onnx.ModelProto, bits: int, folder: Path) -> Path:
    """Keep a graph whose weights have ``bits`` bits; EngineError if it cannot be written."""
    helper.set_model_props(model, {SOURCE: bundle.sha256, WEIGHT_BITS: str(bits)})
    path = path_for(bundle, folder)
    cache.keep(path, model.SerializeToString())
    return path


def read(bundle: Bundle, folder: Path | None) -> bytes:
    """
    Return the graph of a bundle as ONNX.

    Raises:
        EngineError: there is none, it is of another bundle, or of a processor that multiplies
            otherwise.
    """
    path = path_for(bundle, Path(folder or cache.default_folder()).expanduser())
    command = f'run `vseg build {bundle.path} --precision int8 --for cpu --calibrate FOLDER`'
    try:
        model = onnx.load(path)
    except Exception as error:  # absent, or protobuf's own errors
        raise EngineError(f'{bundle.path} is not calibrated for int8 on the processor ({path}): '
                          f'{command}') from error
    found = {entry.key: entry.value for entry in model.metadata_props}
    if found.get(SOURCE) != bundle.sha256:
        raise EngineError(f'{path} is of another bundle: {command}')
    if found.get(WEIGHT_BITS) != '7' and not multiplies_exactly():
        raise EngineError(f'{path} has weights of 8 bits, whose products saturate on this '
                          f'processor: {command} here')
    return model.SerializeToString()
