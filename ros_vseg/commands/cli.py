# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""vseg: info, run, build, bench, doctor."""
import argparse
import importlib.metadata
import json
import logging
from pathlib import Path
import sys

from ros_vseg.errors import VsegError


EXAMPLES = """examples:
  vseg run drive.mcap -o labelled
  vseg run drive.mcap -o labelled.mcap
  vseg run frames/ -o labelled --save labels bag --backend onnxruntime
  vseg info bundle.onnx
  vseg build bundle.onnx --precision fp16 --for sm86,sm89
  vseg build bundle.onnx --precision int8 --calibrate frames/
  vseg doctor"""


def _info(options):
    from ros_vseg.bundle import Bundle, default_bundle_path
    bundle = Bundle.load(options.bundle or default_bundle_path())
    tree = {**bundle.info.to_dict(), 'sha256': bundle.sha256, 'bytes': len(bundle.model)}
    if options.json:
        print(json.dumps(tree, indent=2))
        return 0
    tree.setdefault('prototypes', 'none')
    classes = tree['label_set'].pop('classes')
    for key, value in tree.items():
        print(f'{key:<15} {_flat(value)}')
    for entry in classes:
        print(f'{"class":<15} {entry["id"]:>3} {entry["name"]:<16} {tuple(entry["color"])}')
    return 0


def _flat(value):
    if isinstance(value, dict):
        return ', '.join(f'{key}: {_flat(one)}' for key, one in value.items()) or '-'
    return str(value)


def _run(options):
    from ros_vseg import backends
    from ros_vseg.labels import load_label_set
    from ros_vseg.media.sources import open_source
    from ros_vseg.commands.run import run
    from ros_vseg.stream import Stream
    source = open_source(options.input, options.topic)
    backend = backends.load(
        _bundle(options), options.backend, threads=options.threads, precision=options.precision,
        engines=options.engines, may_build=not options.no_build, stabilize=options.stabilize)
    label_set = load_label_set(options.label_set) if options.label_set else None
    stream = Stream(backend, max_gap=options.max_gap,
                    label_set=label_set or backend.bundle.info.label_set)
    report = run(source, stream, options.output, options.save)
    print('\n'.join(report.lines(source, stream)))
    return 0


def _bundle(options):
    from ros_vseg.bundle import Bundle, default_bundle_path
    from ros_vseg.graph import at_size, parse_size
    bundle = Bundle.load(options.bundle or default_bundle_path())
    return at_size(bundle, parse_size(options.size) if options.size else None)


def _build(options):
    from ros_vseg.calibrate import calibrate
    from ros_vseg.engines.build import parse_targets
    from ros_vseg.engines.engine import engine_for
    from ros_vseg.gpu.cuda import Gpu
    from ros_vseg.media.sources import open_source
    if options.batch < 1:
        raise VsegError(f'batch {options.batch} is too small: give 1 or more')
    bundle = _bundle(options)
    if options.targets is None:
        targets = [Gpu(options.device).capability]
    else:
        targets = parse_targets(options.targets)
    if options.calibrate:
        path, frames = calibrate(bundle, open_source(options.calibrate), options.engines)
        print(f'{path}: calibrated with {frames} frames')
    for target in targets:
        path, header, engine = engine_for(
            bundle, target, options.precision, folder=options.engines, batch=options.batch,
            progress=True, device=options.device, workspace=options.workspace)
        layers = ', '.join(f'{count} {kind}' for kind, count in header['layers'].items())
        print(f'{path}\n  {len(engine) / 1e6:.1f} MB, {len(engine) / len(bundle.model):.1f} x the '
              f'bundle, built in {header["seconds"]:.1f} s\n  {layers}')
    return 0


def _doctor(options):
    from ros_vseg.commands.doctor import examine, MISSING
    findings = examine(options.bundle)
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f'{finding.state:<8} {finding.what:<{width}}  {finding.text}')
    return int(any(finding.state == MISSING for finding in findings))


def _bench(options):
    from ros_vseg.bench import table as bench
    from ros_vseg.bench.tools import Context
    from ros_vseg.graph import parse_size
    known = {**bench.NAMES, **bench.ON_GPU}
    names = options.names or (bench.ON_GPU if options.backend == 'tensorrt' else bench.NAMES)
    unknown = set(names) - set(known)
    if unknown:
        raise VsegError(f'no benchmark {", ".join(sorted(unknown))}: choose of '
                        f'{", ".join(known)}')
    size = parse_size(options.size) if options.size else None
    return bench.run(
        Context(options.bundle, options.rounds, options.backend, size), names)


def build_parser():
    """Return the argument parser of vseg."""
    parser = argparse.ArgumentParser(
        'vseg', description='Semantic segmentation of video, with the context of earlier frames.',
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='version',
                        version=importlib.metadata.version('ros_vseg'))
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    run = commands.add_parser('run', help='label a bag, a video or a folder of images')
    run.add_argument('input', type=Path, help='bag, video file or folder of images')
    run.add_argument('-o', '--output', type=Path, required=True,
                     help='folder to write to, or a bag to write (NAME.mcap)')
    run.add_argument('--save', nargs='+', choices=['labels', 'color', 'overlay', 'bag'],
                     help='what to write into the folder (default: labels overlay)')
    run.add_argument('--bundle', type=Path, help='student to run (default: the shipped one)')
    run.add_argument('--backend', default='auto',
                     help='auto, tensorrt, onnxruntime_tensorrt, onnxruntime_cuda, openvino or '
                     'onnxruntime')
    run.add_argument('--precision', default='auto', help='auto, fp32, fp16, bf16 or int8')
    run.add_argument('--size', metavar='HxW', help="the network's size (default: the bundle's)")
    run.add_argument('--engines', type=Path, help='folder of engines (default: ~/.cache/ros_vseg)')
    run.add_argument('--no-build', action='store_true', help='refuse if there is no engine yet')
    run.add_argument('--threads', type=int, default=0, help='threads per step (0: all)')
    run.add_argument('--stabilize', action='store_true',
                     help='steady labels by those of earlier frames, moved by optical flow')
    run.add_argument('--topic', help='image topic of a bag with several')
    run.add_argument('--label-set', help='YAML that renames, merges or recolours the classes')
    run.add_argument('--max-gap', type=float, default=1.0,
                     help='seconds between two frames after which context is dropped, and age at '
                     'which a frame leaves it (default: 1.0)')
    run.set_defaults(call=_run)
    info = commands.add_parser('info', help='say what a bundle is')
    info.add_argument('bundle', nargs='?', type=Path, help='default: the shipped one')
    info.add_argument('--json', action='store_true', help='print JSON')
    info.set_defaults(call=_info)
    _add_build(commands)
    doctor = commands.add_parser('doctor', help='say what is there, what is missing, and the mend')
    doctor.add_argument('--bundle', type=Path, help='default: the shipped one')
    doctor.set_defaults(call=_doctor)
    bench = commands.add_parser('bench', help='measure the figures of this project here')
    bench.add_argument('names', nargs='*', metavar='NAME',
                       help='stream, decoder, backends, latency, dds, memory (default: all), or '
                       'device (default with --backend tensorrt)')
    bench.add_argument('--backend', default='auto', help='backend to measure (default: auto)')
    bench.add_argument('--bundle', type=Path, help='student to measure (default: the shipped one)')
    bench.add_argument('--size', metavar='HxW', help="the network's size (default: the bundle's)")
    bench.add_argument('--rounds', type=int, default=40, help='rounds of interleaved timing')
    bench.set_defaults(call=_bench)
    return parser


def _add_build(commands):
    build = commands.add_parser('build', help="build a bundle's TensorRT engine")
    build.add_argument('bundle', nargs='?', type=Path, help='default: the shipped one')
    build.add_argument('--precision', default='auto', choices=['auto', 'fp32', 'fp16', 'bf16',
                                                               'int8'], help='default: fp16')
    build.add_argument('--batch', type=int, default=1, help='images at once (default: 1)')
    build.add_argument('--size', metavar='HxW', help="the network's size (default: the bundle's)")
    build.add_argument('--for', dest='targets', metavar='sm86,...',
                       help='GPUs to build for, by compute capability (default: the one here)')
    build.add_argument('--calibrate', type=Path, metavar='PATH',
                       help='frames for int8: a folder of images, a video or a bag')
    build.add_argument('--engines', type=Path,
                       help='folder to keep engines in (default: ~/.cache/ros_vseg)')
    build.add_argument('--device', type=int, default=0, help='index of the GPU (default: 0)')
    build.add_argument('--workspace', type=int, default=0, metavar='MB',
                       help='GPU memory that a build may take (default: half of what is free)')
    build.set_defaults(call=_build)


def main(arguments=None):
    """Run a command and return the exit code: 2 for a mistake of the user, told in one line."""
    logging.basicConfig(level=logging.WARNING, format='vseg: %(message)s')
    options = build_parser().parse_args(arguments)
    try:
        return options.call(options)
    except VsegError as error:
        print(f'vseg: error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == '__main__':
    sys.exit(main())
