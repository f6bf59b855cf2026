# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
From an ONNX graph to a serialized TensorRT engine, in a process of its own.

A builder that fails leaves state behind that the next build in the process inherits (seen with
TensorRT for RTX 1.7: an engine of 20 times the size); it may also run out of memory or crash.
The parent calls ``build``; the child, ``python -m ros_vseg.engines.build``, prints JSON lines.
"""
from collections import Counter
from functools import lru_cache
import importlib
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile

from tqdm import tqdm

from ros_vseg.engines.cache import keep
from ros_vseg.errors import EngineError, VsegError
from ros_vseg.gpu.cuda import Gpu

MODULES = {'tensorrt': 'tensorrt', 'tensorrt_rtx': 'tensorrt-rtx-cu13'}  # with the pip package
MARK = 'vseg '  # begins the lines of the child that are for the parent
OLDEST = {'tensorrt': 10, 'tensorrt_rtx': 1}    # first to know strongly typed networks


def find_module():
    """
    Return TensorRT as a Python module: tensorrt (Jetson, data centre) or tensorrt_rtx (desktop).

    EngineError if neither is installed, or it is too old.
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


def build(model, capability, *, timing_cache=None, progress=True):
    """
    Return (engine bytes, report) of an ONNX model (bytes) whose precision is in its graph.

    capability: 'sm86' and so on; classic TensorRT builds for the GPU of this machine only.
    timing_cache: file that classic TensorRT reads and writes. The report has ``inputs`` and
    ``outputs`` (name -> [dtype, shape]) and ``layers`` ('HALF CONVOLUTION' -> count).
    EngineError says what TensorRT refused.
    """
    with tempfile.TemporaryDirectory(prefix='vseg-') as folder:
        source, target = Path(folder) / 'model.onnx', Path(folder) / 'engine'
        source.write_bytes(model)
        command = [sys.executable, '-m', 'ros_vseg.engines.build', str(source), str(target),
                   capability, str(timing_cache or '')]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, env=_environment()) as child:
            report, last = _follow(child.stdout, capability, progress)
        if 'error' in report:
            raise EngineError(report['error'])
        if child.returncode or not target.exists():
            raise EngineError(f'the TensorRT build ended with code {child.returncode}: {last}; '
                              'free some memory and try again')
        return target.read_bytes(), report


def _environment():
    root = str(Path(__file__).parents[2])
    path = os.environ.get('PYTHONPATH')
    return {**os.environ, 'PYTHONPATH': f'{root}{os.pathsep}{path}' if path else root}


def _follow(lines, title, progress):
    """Show the child's progress; return its report, and the last line that was none of its own."""
    report, last = {}, 'it said nothing'
    with tqdm(desc=f'build for {title}', ncols=80, disable=None if progress else True) as bar:
        for line in lines:
            if not line.startswith(MARK):   # TensorRT's own words, or a traceback
                last = line.strip() or last
                continue
            message = json.loads(line[len(MARK):])
            if 'step' in message:
                bar.total, bar.n = message['of'], message['step']
                bar.refresh()
            else:
                report = message
    return report, last


def _say(**message):
    print(MARK + json.dumps(message), flush=True)


@lru_cache(maxsize=None)
def make_logger(trt):
    """Return the process's TensorRT logger, which keeps errors in its list ``errors``."""
    class Logger(trt.ILogger):
        """Keeps what goes wrong; the rest is TensorRT's own business."""

        def __init__(self):
            super().__init__()
            self.errors = []

        def log(self, severity, text):
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(text)
    return Logger()


def _monitor(trt):
    class Monitor(trt.IProgressMonitor):
        """Passes the steps of the outermost phase on."""

        def __init__(self):
            super().__init__()
            self._outer, self._steps = None, 0

        def phase_start(self, phase_name, parent_phase, num_steps):
            if parent_phase is None:
                self._outer, self._steps = phase_name, num_steps

        def step_complete(self, phase_name, step):
            if phase_name == self._outer:
                _say(step=step + 1, of=self._steps)
            return True

        def phase_finish(self, phase_name):
            pass
    return Monitor()


def _parse(trt, builder, logger, model):
    """Return a strongly typed network, or None with an error said."""
    strongly = getattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)
    network = builder.create_network(0 if strongly is None else 1 << int(strongly))
    parser = trt.OnnxParser(network, logger)
    if parser.parse(model):
        return network
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    first = next((one for one in errors if one.node_operator()), errors[0])
    # its own words of an unsupported operator are "false"
    _say(error=f'{trt.__name__} {trt.__version__} refuses operator {first.node_operator()!r} '
               f'(node {first.node_name()!r}, {first_line([str(first)])}): export the bundle '
               'without it, or use backend onnxruntime')
    return None


def first_line(texts):
    """Return the first line that says something, of a logger's errors."""
    return next((text.strip().splitlines()[0] for text in texts if text.strip()),
                'no reason given')


def _capabilities(trt):
    """Return what TensorRT builds for: that for RTX some GPUs anywhere, the other its own."""
    if trt.__name__ == 'tensorrt':
        return [Gpu().capability]
    return [name.lower() for name in dir(trt.ComputeCapability) if name.startswith('SM')]


def _configure(trt, builder, capability, timing_cache):
    config = builder.create_builder_config()
    config.progress_monitor = _monitor(trt)
    if hasattr(trt.BuilderFlag, 'TF32'):
        config.clear_flag(trt.BuilderFlag.TF32)     # fp32 is to be float32
    if trt.__name__ == 'tensorrt_rtx':
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, capability.upper()), 0)
    elif timing_cache:
        path = Path(timing_cache)
        for known in (path.read_bytes() if path.exists() else b'', b''):
            if config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False):
                break       # a cache of another version is begun anew
    return config


def describe(network):
    """Return the report of a parsed network: see ``build``."""
    def ends(count, get):
        return {one.name: [one.dtype.name, list(one.shape)] for one in map(get, range(count))}

    layers = Counter()
    for layer in map(network.get_layer, range(network.num_layers)):
        if layer.num_outputs:
            layers[f'{layer.get_output(0).dtype.name} {layer.type.name}'] += 1
    return {'inputs': ends(network.num_inputs, network.get_input),
            'outputs': ends(network.num_outputs, network.get_output),
            'layers': dict(layers.most_common())}


def _reason(errors):
    # a build for another GPU needs no driver, but TensorRT complains of none
    errors = [text for text in errors if 'cudaError 35' not in text]
    text = ' '.join(errors)
    if 'out of memory' in text.lower() or 'cudaErrorMemoryAllocation' in text:
        return 'the GPU has too little free memory: end other programs, or give a smaller --size'
    return first_line(errors)


def main(arguments=None):
    """Build as a child process: model, target, capability and timing cache are the arguments."""
    try:
        return _build(*(arguments or sys.argv[1:]))
    except VsegError as error:
        _say(error=str(error))
        return 1


def _build(source, target, capability, timing_cache):
    trt = find_module()
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError):
        _say(error=f'{trt.__name__} {trt.__version__} finds no GPU: install the NVIDIA driver')
        return 1
    known = _capabilities(trt)
    if capability not in known:
        _say(error=f'{trt.__name__} {trt.__version__} does not build for {capability} here: it '
                   f'knows {", ".join(known)}; tensorrt-rtx builds for desktop GPUs anywhere, '
                   'tensorrt for the GPU that is there')
        return 1
    network = _parse(trt, builder, logger, Path(source).read_bytes())
    if network is None:
        return 1
    report = describe(network)
    config = _configure(trt, builder, capability, timing_cache)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        _say(error=f'{trt.__name__} {trt.__version__} cannot build for {capability}: '
                   f'{_reason(logger.errors)}')
        return 1
    Path(target).write_bytes(engine)
    if timing_cache and trt.__name__ == 'tensorrt':
        keep(Path(timing_cache), bytes(config.get_timing_cache().serialize()))
    _say(**report)
    return 0


if __name__ == '__main__':
    sys.exit(main())
