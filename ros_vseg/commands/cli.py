# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
# PYTHON_ARGCOMPLETE_OK
"""vseg: info, run, wrap, build, compare, bench, doctor."""
import argparse
from collections.abc import Sequence
import hashlib
import importlib.metadata
import logging
from pathlib import Path
import sys
from typing import Any

from ros_vseg import interrupts
from ros_vseg.commands.bundles import add_build, add_wrap, Commands, load
from ros_vseg.commands.completion import backends, benchmarks, completed, offer, precisions
from ros_vseg.commands.limits import check_numbers
from ros_vseg.commands.output import printing
from ros_vseg.commands.reading import add_reading, open_frames, path_with_name
from ros_vseg.errors import VsegError
from ros_vseg.files import to_json

EXAMPLES = """examples:
  vseg run drive.mcap -o labelled
  vseg run drive.mcap -o labelled.mcap
  vseg run frames/ -o labelled --save labels bag --backend onnxruntime
  vseg info bundle.onnx
  vseg build bundle.onnx --precision fp16 --for sm86,sm89
  vseg build bundle.onnx --precision int8 --calibrate frames/
  vseg compare onnxruntime openvino --input drive.mcap
  vseg wrap network.onnx --classes labels.yaml --mean 0.485 0.456 0.406 \\
      --std 0.229 0.224 0.225 --size 512x1024 -o bundle.onnx
  vseg doctor"""


def _info(options: argparse.Namespace) -> int:
    from ros_vseg.bundle import Bundle, default_bundle_path
    bundle = Bundle.load(options.bundle or default_bundle_path())
    tree = {**bundle.info.to_dict(), 'sha256': bundle.sha256, 'bytes': len(bundle.model)}
    if options.json:
        print(to_json(tree, indent=2))
        return 0
    tree.setdefault('prototypes', 'none')
    classes = tree['label_set'].pop('classes')
    for key, value in tree.items():
        print(f'{key:<15} {_flat(value)}')
    for entry in classes:
        print(f'{"class":<15} {entry["id"]:>3} {entry["name"]:<16} {tuple(entry["color"])}')
    return 0


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{key}: {_flat(entry)}' for key, entry in value.items()) or '-'
    return str(value)


def _run(options: argparse.Namespace) -> int:
    interrupts.end_at_once()    # imports are cut short without a traceback
    from ros_vseg.backends import load as load_backend
    from ros_vseg.labels import load_label_set
    from ros_vseg.commands.run import NothingLabelledError, run
    from ros_vseg.stream import Stream
    interrupts.defer()
    if options.output is None and options.rerun is None:
        raise VsegError('there is nothing to write: give -o FOLDER, -o NAME.mcap or --rerun '
                        'NAME.rrd')
    if options.resume and options.stabilize:
        raise VsegError('what --stabilize remembers is not kept, so it cannot be resumed: leave '
                        '--resume or --stabilize out')
    source = open_frames(options.input, options, options.fps)
    with interrupts.interruptible():    # an engine takes minutes
        backend = load_backend(
            load(options), options.backend, threads=options.threads, precision=options.precision,
            engines=options.engines, may_build=not options.no_build, stabilize=options.stabilize)
    label_set = load_label_set(options.label_set) if options.label_set else None
    stream = Stream(backend, max_gap=options.max_gap,
                    label_set=label_set or backend.bundle.info.label_set)
    try:
        report = run(source, stream, options.output, options.save, limit=options.limit,
                     clear=options.clear, progress=not options.quiet, resume=options.resume,
                     options=_that_labels_depend_on(options, backend), rerun=options.rerun,
                     focal=options.focal)
    except NothingLabelledError as error:
        return _failed(error)
    if options.json:
        print(to_json(report.to_dict(source, stream), indent=2))
    elif not options.quiet:
        print('\n'.join(report.lines(source, stream)))
    for problem in report.problems:
        _failed(problem)
    return 1 if report.problems else 0


def _that_labels_depend_on(options: argparse.Namespace, backend: Any) -> dict[str, Any]:
    names = ('topic', 'fps', 'bit_depth', 'depth_as_grey', 'size', 'threads', 'stabilize')
    graph = getattr(backend, 'graph', b'')      # of int8 it is another after each calibration
    return {**{name: getattr(options, name) for name in names}, 'version': _version(),
            'bundle': backend.bundle.sha256, 'backend': f'{backend.name}, {backend.device}',
            'graph': hashlib.sha256(graph).hexdigest()}


def _failed(error: object, code: int = 1) -> int:
    print(f'vseg: error: {error}', file=sys.stderr)
    return code


def _compare(options: argparse.Namespace) -> int:
    from ros_vseg.commands.compare import compare, load as load_backend
    from ros_vseg.processes import demo_clip
    bundle = load(options)
    source = open_frames(options.input or demo_clip(), options)
    first, second = (load_backend(bundle, text, engines=options.engines)
                     for text in (options.first, options.second))
    interrupts.defer()
    print(f'{first.name}, {first.device}, and {second.name}, {second.device}:')
    images = (frame.image for frame in source)
    print('\n'.join(compare(first, second, images, options.limit).lines()))
    return 0


def _add_run(commands: Commands) -> None:
    run = commands.add_parser('run', help='label a bag, a video or a folder of images')
    run.add_argument('input', type=Path, help='bag, video file or folder of images')
    run.add_argument('-o', '--output', type=path_with_name,
                     help='folder to write to, or a bag to write (NAME.mcap)')
    run.add_argument('--rerun', type=Path, metavar='FILE.rrd',
                     help='write images, labels and confidence for the Rerun viewer, too')
    run.add_argument('--save', nargs='+', choices=['labels', 'color', 'depth', 'overlay', 'bag'],
                     help='what to write into the folder (default: labels overlay)')
    run.add_argument('--focal', type=float, metavar='PIXELS',
                     help="the camera's focal length in pixels of its images, for depth")
    earlier = run.add_mutually_exclusive_group()
    earlier.add_argument('--clear', action='store_true',
                         help='remove what an earlier run has written to the output folder; '
                         'without it such a folder is refused')
    earlier.add_argument('--resume', action='store_true',
                         help='go on where an earlier run of the same input and options ended: '
                         'labels are those of a run that was never interrupted')
    run.add_argument('--limit', type=int, metavar='N', help='end after N frames')
    run.add_argument('--fps', type=float,
                     help='frames a second of a folder of images (default: 15)')
    run.add_argument('--json', action='store_true', help='print the report as JSON')
    run.add_argument('-q', '--quiet', action='store_true',
                     help='print neither progress nor report, only what goes wrong')
    run.add_argument('--bundle', type=Path, help='student to run (default: the shipped one)')
    offer(run.add_argument('--backend', default='auto',
                           help='auto, tensorrt, onnxruntime_tensorrt, onnxruntime_cuda, openvino '
                           'or onnxruntime'), backends)
    offer(run.add_argument('--precision', default='auto',
                           help='auto, fp32, fp16, bf16 or int8'), precisions)
    run.add_argument('--size', metavar='HxW', help="the network's size (default: the bundle's)")
    run.add_argument('--engines', type=Path, help='folder of engines (default: ~/.cache/ros_vseg)')
    run.add_argument('--no-build', action='store_true', help='refuse if there is no engine yet')
    run.add_argument('--threads', type=int, default=0, help='threads per step (0: all)')
    run.add_argument('--stabilize', action='store_true',
                     help='steady labels by those of earlier frames, moved by optical flow')
    add_reading(run)
    run.add_argument('--label-set', help='YAML that renames, merges or recolours the classes')
    run.add_argument('--max-gap', type=float, default=1.0,
                     help='seconds between two frames after which context is dropped, and age at '
                     'which a frame leaves it (default: 1.0)')
    run.set_defaults(call=_run)


def _add_compare(commands: Commands) -> None:
    compare = commands.add_parser('compare', help='say how far two backends or precisions agree')
    offer(compare.add_argument('first', metavar='A', help='backend, or backend:precision'),
          backends)
    offer(compare.add_argument('second', metavar='B', help='the other, such as tensorrt:int8'),
          backends)
    compare.add_argument('--input', type=Path, metavar='PATH',
                         help='bag, video file or folder of images (default: the demo clip)')
    add_reading(compare)
    compare.add_argument('--limit', type=int, default=50, metavar='N',
                         help='end after N frames (default: 50)')
    compare.add_argument('--bundle', type=Path, help='student to run (default: the shipped one)')
    compare.add_argument('--size', metavar='HxW',
                         help="the network's size (default: the bundle's)")
    compare.add_argument('--engines', type=Path,
                         help='folder of engines (default: ~/.cache/ros_vseg)')
    compare.set_defaults(call=_compare)


def _doctor(options: argparse.Namespace) -> int:
    from ros_vseg.commands.doctor import examine, MISSING
    from ros_vseg.graph import parse_size
    images = parse_size(options.dds) if options.dds else None
    if images and not min(images):
        raise VsegError(f'images of {options.dds} have no pixels: give HxW, such as 1024x2048')
    findings = examine(options.bundle, images)
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f'{finding.state:<8} {finding.what:<{width}}  {finding.text}')
    return int(any(finding.state == MISSING for finding in findings))


def _bench(options: argparse.Namespace) -> int:
    from ros_vseg.bench import table as bench
    from ros_vseg.bench.tools import Context
    from ros_vseg.graph import parse_size
    known = {**bench.NAMES, **bench.ON_GPU, **bench.ON_REQUEST}
    names = options.names or (bench.ON_GPU if options.backend == 'tensorrt' else bench.NAMES)
    unknown = set(names) - set(known)
    if unknown:
        raise VsegError(f'no benchmark {", ".join(sorted(unknown))}: choose of '
                        f'{", ".join(known)}')
    size = parse_size(options.size) if options.size else None
    return bench.run(
        Context(options.bundle, options.rounds, options.backend, size), names)


def _version() -> str:
    try:
        return importlib.metadata.version('ros_vseg')
    except importlib.metadata.PackageNotFoundError:
        return 'unknown: ros_vseg is not installed, but run from its sources'


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser of vseg."""
    parser = argparse.ArgumentParser(
        'vseg', description='Semantic segmentation of video, with the context of earlier frames.',
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='version',
                        version=_version())
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    _add_run(commands)
    info = commands.add_parser('info', help='say what a bundle is')
    info.add_argument('bundle', nargs='?', type=Path, help='default: the shipped one')
    info.add_argument('--json', action='store_true', help='print JSON')
    info.set_defaults(call=_info)
    add_build(commands)
    _add_compare(commands)
    add_wrap(commands)
    doctor = commands.add_parser(
        'doctor', help='say what is there, what is missing, and how to fix it')
    doctor.add_argument('--bundle', type=Path, help='default: the shipped one')
    doctor.add_argument('--dds', metavar='HxW', nargs='?', const='1024x2048',
                        help='send images of this size (default: 1024x2048) from one process to '
                        'another, and those of four cameras of 480x640, and count what arrives')
    doctor.set_defaults(call=_doctor)
    bench = commands.add_parser('bench', help='measure the figures of this project here')
    offer(bench.add_argument('names', nargs='*', metavar='NAME',
                             help='stream, decoder, backends, latency, dds, memory, cameras '
                             '(default: all), or device (default with --backend tensorrt)'),
          benchmarks)
    offer(bench.add_argument('--backend', default='auto',
                             help='backend to measure (default: auto)'), backends)
    bench.add_argument('--bundle', type=Path, help='student to measure (default: the shipped one)')
    bench.add_argument('--size', metavar='HxW', help="the network's size (default: the bundle's)")
    bench.add_argument('--rounds', type=int, default=40, help='rounds of interleaved timing')
    bench.set_defaults(call=_bench)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command and return the exit code.

    2 for a mistake of the user, told in one line; 1 where nothing could be labelled or an output
    failed; 130 and 143 after Ctrl-C and SIGTERM; 141 where what reads the output has ended.
    """
    return printing(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    interrupts.raise_once()
    logging.basicConfig(level=logging.WARNING, format='vseg: %(message)s')
    try:
        options = completed(build_parser()).parse_args(arguments)
        check_numbers(options)
        return int(options.call(options))
    except VsegError as error:
        return _failed(error, 2)
    except interrupts.Interrupted as error:
        return error.exit_code
    finally:
        interrupts.end_at_once()


if __name__ == '__main__':
    sys.exit(main())
