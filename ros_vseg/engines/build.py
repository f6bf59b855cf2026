# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
From an ONNX graph to a serialized TensorRT engine, in a process of its own.

A builder that fails leaves state behind that the next build in the process inherits (seen with
TensorRT for RTX 1.7: an engine of 20 times the size); it may also run out of memory or crash.
The parent calls ``build``; the child, ``python -m ros_vseg.engines.build``, prints JSON lines.
"""
from collections import Counter, deque
from functools import lru_cache
import importlib
import json
import logging
import os
from pathlib import Path
import re
import subprocess
import sys
import tempfile
from types import ModuleType
from typing import Any, Callable, Iterable

from tqdm import tqdm

from ros_vseg.engines.cache import keep
from ros_vseg.errors import EngineError, VsegError
from ros_vseg.gpu.cuda import Gpu

MODULES = {'tensorrt': 'tensorrt', 'tensorrt_rtx': 'tensorrt-rtx-cu13'}  # with the pip package
MARK = 'vseg '  # begins the lines of the child that are for the parent
OLDEST = {'tensorrt': 10, 'tensorrt_rtx': 1}    # first to know strongly typed networks
WORKSPACE_SHARE = 0.5   # of the free GPU memory, which on a Jetson is all memory
MEGABYTE = 10**6

log = logging.getLogger(__name__)


def find_module() -> ModuleType:
    """
    Return TensorRT as a Python module: tensorrt (Jetson, data centre) or tensorrt_rtx (desktop).

    Raises:
        EngineError: neither is installed, or it is too old.
    """
    reasons = []
    for name, package in MODULES.items():
        try:
            module = importlib.import_module(name)
            major = int(module.__version__.split('.')[0])
        except (ImportError, OSError, AttributeError, ValueError, RuntimeError) as error:
            # PyPI's tensorrt is a stub where its libraries' index cannot be reached
            reasons.append(f'{name}: {first_line([str(error)])}')
            continue
        if major >= OLDEST[name]:
            return module
        reasons.append(f'{name} {module.__version__} is older than {OLDEST[name]}')
    raise EngineError(f'no TensorRT ({"; ".join(reasons)}): pip install {MODULES["tensorrt_rtx"]} '
                      'on a desktop, apt install python3-libnvinfer on a Jetson')


def parse_targets(text: str) -> list[str]:
    """
    Return the GPUs that a text such as 'sm86,sm_89,12.0' names, as ['sm86', 'sm89', 'sm120'].

    Raises:
        EngineError: one of them is no compute capability, or the TensorRT that is installed does
            not build for it.
    """
    known, targets = _capabilities(find_module()), []
    for word in text.split(','):
        match = re.fullmatch(r'(?:sm_?)?(\d+)\.?(\d)', word.strip().lower())
        if not match:
            raise EngineError(f'GPU {word.strip()!r} is not a compute capability: give one such '
                              'as sm86, sm_86 or 8.6')
        targets.append(f'sm{match[1]}{match[2]}')
    for target in targets:
        if target not in known:
            raise EngineError(_unknown(find_module(), target, known))
    return targets


def build(model: bytes, capability: str, *, timing_cache: Path | None = None,
          progress: bool = True, device: int = 0, workspace: int = 0,
          ) -> tuple[bytes, dict[str, Any]]:
    """
    Build the engine of an ONNX model whose precision is in its graph.

    Args:
        model: the serialised onnx.ModelProto.
        capability: 'sm86' and so on; classic TensorRT builds for the GPU of this machine only.
        timing_cache: file that classic TensorRT reads and writes; one that is damaged is set
            aside, with a warning.
        progress: whether to show it.
        device: index of the GPU that classic TensorRT builds on.
        workspace: MB of GPU memory that classic TensorRT may take to try its ways of computing;
            0: half of what is free.

    Returns:
        The engine, and a report: ``inputs`` and ``outputs`` (name -> [dtype, shape]) and
        ``layers`` ('HALF CONVOLUTION' -> count).

    Raises:
        EngineError: what TensorRT refused.
    """
    with tempfile.TemporaryDirectory(prefix='vseg-') as folder:
        source, target = Path(folder) / 'model.onnx', Path(folder) / 'engine'
        source.write_bytes(model)
        command = [sys.executable, '-m', 'ros_vseg.engines.build', str(source), str(target),
                   capability, str(timing_cache or ''), str(device), str(workspace)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, env=_environment()) as child:
            assert child.stdout is not None
            report, last = _follow(child.stdout, capability, progress)
        if 'error' in report:
            raise EngineError(report['error'])
        if child.returncode or not target.exists():
            advice = ('it may have run out of memory: close other programs and try again'
                      if child.returncode < 0 else 'see the line before')
            raise EngineError(f'the TensorRT build ended with code {child.returncode}: {last}; '
                              f'{advice}')
        return target.read_bytes(), report


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    path = os.environ.get('PYTHONPATH')
    return {**os.environ, 'PYTHONPATH': f'{root}{os.pathsep}{path}' if path else root}


def _follow(lines: Iterable[str], title: str, progress: bool) -> tuple[dict[str, Any], str]:
    """Show the child's progress; return its report, and the last line of anything else."""
    report: dict[str, Any] = {}
    last = 'it said nothing'
    with tqdm(desc=f'build for {title}', ncols=80, disable=None if progress else True) as bar:
        for line in lines:
            if not line.startswith(MARK):   # TensorRT's own words, or a traceback
                last = line.strip() or last
                continue
            message = json.loads(line[len(MARK):])
            if 'step' in message:
                bar.total, bar.n = message['of'], message['step']
                bar.refresh()
            elif 'warning' in message:
                log.warning('%s', message['warning'])
            else:
                report = message
    return report, last


def _say(**message: Any) -> None:
    print(MARK + json.dumps(message), flush=True)


@lru_cache(maxsize=None)
def make_logger(trt: ModuleType) -> Any:
    """Return the process's TensorRT logger, which keeps the last errors in ``errors``."""
    class Logger(trt.ILogger):  # type: ignore[name-defined]
        """Keeps what goes wrong; the rest is TensorRT's own business."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: deque[str] = deque(maxlen=32)

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(text)
    return Logger()


def make_profiler(trt: ModuleType) -> Any:
    """Return an IProfiler, which keeps the seconds of each run in ``seconds``, by layer."""
    class Profiler(trt.IProfiler):  # type: ignore[name-defined]
        """Keeps what it is told."""

        def __init__(self) -> None:
            super().__init__()
            self.seconds: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.seconds.setdefault(layer_name, []).append(1e-3 * ms)
    return Profiler()


def _monitor(trt: ModuleType) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
        """Passes the steps of the outermost phase on."""

        def __init__(self) -> None:
            super().__init__()
            self._outer, self._steps = '', 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._outer, self._steps = phase_name, num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._outer:
                _say(step=step + 1, of=self._steps)
            return True

        def phase_finish(self, phase_name: str) -> None:
            pass
    return Monitor()


def _parse(trt: ModuleType, builder: Any, logger: Any, model: bytes) -> Any:
    """Return a strongly typed network; EngineError names the operator that is refused."""
    strongly = getattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)
    network = builder.create_network(0 if strongly is None else 1 << int(strongly))
    parser = trt.OnnxParser(network, logger)
    if parser.parse(model):
        return network
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    first = next((error for error in errors if error.node_operator()), errors[0])
    # its own words of an unsupported operator are "false"
    raise EngineError(
        f'{trt.__name__} {trt.__version__} refuses operator {first.node_operator()!r} '
        f'(node {first.node_name()!r}, {first_line([str(first)])}): export the bundle '
        'without it, or use backend onnxruntime')


def first_line(texts: Iterable[str]) -> str:
    """Return the first line that says something, of a logger's errors."""
    return next((text.strip().splitlines()[0] for text in texts if text.strip()),
                'no reason given')


def _capabilities(trt: ModuleType, device: int = 0) -> list[str]:
    """Return what TensorRT builds for: that for RTX some GPUs anywhere, the other its own."""
    if trt.__name__ == 'tensorrt':
        return [Gpu(device).capability]
    return [name.lower() for name in dir(trt.ComputeCapability) if name.startswith('SM')]


def _unknown(trt: ModuleType, capability: str, known: list[str]) -> str:
    return (f'{trt.__name__} {trt.__version__} does not build for {capability} here: it knows '
            f'{", ".join(known)}; tensorrt-rtx builds for desktop GPUs anywhere, tensorrt for the '
            'GPU that is there')


def _configure(trt: ModuleType, builder: Any, capability: str, timing_cache: str,
               workspace: int) -> Any:
    """Return a builder configuration; ``workspace`` in bytes."""
    config = builder.create_builder_config()
    config.progress_monitor = _monitor(trt)
    if hasattr(trt.BuilderFlag, 'TF32'):
        config.clear_flag(trt.BuilderFlag.TF32)     # fp32 is to be float32
    if hasattr(trt.BuilderFlag, 'REQUIRE_USER_ALLOCATION'):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)    # for capture in CUDA graphs
    if workspace:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if trt.__name__ == 'tensorrt_rtx':
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, capability.upper()), 0)
    elif timing_cache:
        _use_timing_cache(config, Path(timing_cache))
    return config


def _use_timing_cache(config: Any, path: Path) -> None:
    """Give a configuration the timing cache in a file; one that is not taken is set aside."""
    if path.exists() and _takes(config, path.read_bytes()):
        return
    if path.exists():
        aside = path.with_suffix('.refused')
        path.replace(aside)
        _say(warning=f'timing cache {path} is damaged or of another TensorRT or GPU: it is set '
                     f'aside as {aside.name}, and a new one is begun')
    _takes(config, b'')


def _takes(config: Any, known: bytes) -> bool:
    cache = config.create_timing_cache(known)
    return cache is not None and bool(config.set_timing_cache(cache, ignore_mismatch=False))


def describe(network: Any) -> dict[str, Any]:
    """Return the report of a parsed network: see ``build``."""
    def ends(count: int, get: Callable[[int], Any]) -> dict[str, list[Any]]:
        tensors = [get(number) for number in range(count)]
        return {tensor.name: [tensor.dtype.name, list(tensor.shape)] for tensor in tensors}

    layers: Counter[str] = Counter()
    for layer in map(network.get_layer, range(network.num_layers)):
        if layer.num_outputs:
            layers[f'{layer.get_output(0).dtype.name} {layer.type.name}'] += 1
    return {'inputs': ends(network.num_inputs, network.get_input),
            'outputs': ends(network.num_outputs, network.get_output),
            'layers': dict(layers.most_common())}


def _reason(errors: Iterable[str]) -> str:
    # a build for another GPU needs no driver, but TensorRT complains of none
    errors = [text for text in errors if 'cudaError 35' not in text]
    text = ' '.join(errors)
    if 'out of memory' in text.lower() or 'cudaErrorMemoryAllocation' in text:
        return 'the GPU has too little free memory: end other programs, or give a smaller --size'
    return first_line(errors)


def main(arguments: list[str] | None = None) -> int:
    """
    Build as a child process.

    Args:
        arguments: model, target, capability, timing cache, device and workspace: see ``build``.
    """
    try:
        source, target, capability, timing_cache, device, workspace = arguments or sys.argv[1:]
        _say(**_build(Path(source), Path(target), capability, timing_cache, int(device),
                      int(workspace)))
        return 0
    except VsegError as error:
        _say(error=str(error))
        return 1


def _build(source: Path, target: Path, capability: str, timing_cache: str, device: int,
           workspace: int) -> dict[str, Any]:
    """Write the engine and return the report; ``workspace`` in MB."""
    trt = find_module()
    logger = make_logger(trt)
    known = _capabilities(trt, device)
    if capability not in known:
        raise EngineError(_unknown(trt, capability, known))
    limit = workspace * MEGABYTE
    if trt.__name__ == 'tensorrt':      # it times on the GPU that is the thread's
        gpu = Gpu(device)
        gpu.use()
        limit = limit or int(WORKSPACE_SHARE * gpu.memory()[0])
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:
        raise EngineError(f'{trt.__name__} {trt.__version__} finds no GPU: install the NVIDIA '
                          'driver') from error
    network = _parse(trt, builder, logger, source.read_bytes())
    report = describe(network)
    config = _configure(trt, builder, capability, timing_cache, limit)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError(f'{trt.__name__} {trt.__version__} cannot build for {capability}: '
                          f'{_reason(logger.errors)}')
    target.write_bytes(engine)
    if timing_cache and trt.__name__ == 'tensorrt':
        _keep_timing_cache(config, Path(timing_cache))
    return report


def _keep_timing_cache(config: Any, path: Path) -> None:
    """Save what was timed: the next build is faster. The engine does not depend on it."""
    try:
        keep(path, bytes(config.get_timing_cache().serialize()))
    except EngineError as error:
        _say(warning=str(error))


if __name__ == '__main__':
    sys.exit(main())
