# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""vseg: info, run, build, compare, bench, doctor."""
import argparse
from collections.abc import Sequence
import importlib.metadata
import json
import logging
from pathlib import Path
import sys
from typing import Any

from ros_vseg import interrupts
from ros_vseg.commands.output import printing
from ros_vseg.errors import VsegError

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
        print(json.dumps(tree, indent=2))
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
    from ros_vseg import backends
    from ros_vseg.labels import load_label_set
    from ros_vseg.media.sources import open_source
    from ros_vseg.commands.run import NothingLabelledError, run
    from ros_vseg.stream import Stream
    interrupts.raise_once()
    if options.limit is not None and options.limit < 1:
        raise VsegError(f'limit {options.limit} is too small: give 1 or more')
    if options.resume and options.stabilize:
        raise VsegError('what --stabilize remembers is not kept, so it cannot be resumed: leave '
                        '--resume or --stabilize out')
    source = open_source(options.input, options.topic, options.fps, bit_depth=options.bit_depth,
                         depth_as_grey=options.depth_as_grey)
    backend = backends.load(
        _bundle(options), options.backend, threads=options.threads, precision=options.precision,
        engines=options.engines, may_build=not options.no_build, stabilize=options.stabilize)
    label_set = load_label_set(options.label_set) if options.label_set else None
    stream = Stream(backend, max_gap=options.max_gap,
                    label_set=label_set or backend.bundle.info.label_set)
    try:
        report = run(source, stream, options.output, options.save, limit=options.limit,
                     clear=options.clear, progress=not options.quiet, resume=options.resume,
                     options=_that_labels_depend_on(options, backend))
    except NothingLabelledError as error:
        return _failed(error)
    if options.json:
        print(json.dumps(report.to_dict(source, stream), indent=2))
    elif not options.quiet:
        print('\n'.join(report.lines(source, stream)))
    for problem in report.problems:
        _failed(problem)
    return 1 if report.problems else 0


def _that_labels_depend_on(options: argparse.Namespace, backend: Any) -> dict[str, Any]:
    names = ('topic', 'fps', 'bit_depth', 'depth_as_grey', 'size', 'threads', 'stabilize')
    return {**{name: getattr(options, name) for name in names}, 'version': _version(),
            'bundle': backend.bundle.sha256, 'backend': f'{backend.name}, {backend.device}'}


def _failed(error: object, code: int = 1) -> int:
    print(f'vseg: error: {error}', file=sys.stderr)
    return code


def _bundle(options: argparse.Namespace) -> Any:
    from ros_vseg.bundle import Bundle, default_bundle_path
    from ros_vseg.graph import at_size, parse_size
    bundle = Bundle.load(options.bundle or default_bundle_path())
    return at_size(bundle, parse_size(options.size) if options.size else None)


def _build(options: argparse.Namespace) -> int:
    from ros_vseg.calibrate import calibrate
    from ros_vseg.engines.build import parse_targets
    from ros_vseg.engines.engine import engine_for
    from ros_vseg.gpu.cuda import Gpu
    from ros_vseg.media.sources import open_source
    if options.batch < 1:
        raise VsegError(f'batch {options.batch} is too small: give 1 or more')
    bundle = _bundle(options)
    if options.targets == 'cpu':
        return _build_for_cpu(options, bundle)
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


def _build_for_cpu(options: argparse.Namespace, bundle: Any) -> int:
    from ros_vseg.calibrate import calibrate_for_cpu
    from ros_vseg.media.sources import open_source
    if options.precision != 'int8' or not options.calibrate:
        raise VsegError('for cpu only int8 has something to build: give --precision int8 '
                        '--calibrate PATH')
    path, frames, bits, share = calibrate_for_cpu(
        bundle, open_source(options.calibrate), options.engines)
    print(f'{path}\n  calibrated with {frames} frames, weights of {bits} bits, '
          f'{100 * share:.2f} % of the labels of fp32')
    return 0


def _wrap(options: argparse.Namespace) -> int:
    from ros_vseg.graph import parse_size
    from ros_vseg.labels import load_label_set
    from ros_vseg.wrap import Options, parse_numbers, wrap
    info, kind = wrap(
        options.network, options.output, load_label_set(options.classes),
        Options(parse_numbers(options.mean, '--mean'), parse_numbers(options.std, '--std'),
                options.scale, options.layout, options.scores, options.kind,
                parse_size(options.size) if options.size else None, options.color_order),
        name=options.name, license=options.license)
    print(f'{options.output}: {info.name} at {info.height}x{info.width}, '
          f'{len(info.label_set.names)} classes of {info.label_set.name}, {kind} at stride '
          f'{info.output_stride}')
    return 0


def _compare(options: argparse.Namespace) -> int:
    from ros_vseg.commands.compare import compare, load
    from ros_vseg.media.sources import open_source
    from ros_vseg.processes import demo_clip
    if options.limit < 1:
        raise VsegError(f'limit {options.limit} is too small: give 1 or more')
    bundle, source = _bundle(options), open_source(options.input or demo_clip())
    first, second = (load(bundle, text, engines=options.engines)
                     for text in (options.first, options.second))
    print(f'{first.name}, {first.device}, and {second.name}, {second.device}:')
    images = (frame.image for frame in source)
    print('\n'.join(compare(first, second, images, options.limit).lines()))
    return 0


def _add_compare(commands: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    compare = commands.add_parser('compare', help='say how far two backends or precisions agree')
    compare.add_argument('first', metavar='A', help='backend, or backend:precision')
    compare.add_argument('second', metavar='B', help='the other, such as tensorrt:int8')
    compare.add_argument('--input', type=Path, metavar='PATH',
                         help='bag, video file or folder of images (default: the demo clip)')
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
    run = commands.add_parser('run', help='label a bag, a video or a folder of images')
    run.add_argument('input', type=Path, help='bag, video file or folder of images')
    run.add_argument('-o', '--output', type=Path, required=True,
                     help='folder to write to, or a bag to write (NAME.mcap)')
    run.add_argument('--save', nargs='+', choices=['labels', 'color', 'overlay', 'bag'],
                     help='what to write into the folder (default: labels overlay)')
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
    run.add_argument('--bit-depth', type=int, default=16, choices=range(8, 17), metavar='N',
                     help='bits that the values of 16-bit images use (default: 16)')
    run.add_argument('--depth-as-grey', action='store_true',
                     help='take 16UC1 and 32FC1 images as grey pictures instead of depth')
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
    _add_compare(commands)
    _add_wrap(commands)
    doctor = commands.add_parser(
        'doctor', help='say what is there, what is missing, and how to fix it')
    doctor.add_argument('--bundle', type=Path, help='default: the shipped one')
    doctor.add_argument('--dds', metavar='HxW', nargs='?', const='1024x2048',
                        help='send images of this size (default: 1024x2048) from one process to '
                        'another, and those of four cameras of 480x640, and count what arrives')
    doctor.set_defaults(call=_doctor)
    bench = commands.add_parser('bench', help='measure the figures of this project here')
    bench.add_argument('names', nargs='*', metavar='NAME',
                       help='stream, decoder, backends, latency, dds, memory, cameras '
                       '(default: all), or device (default with --backend tensorrt)')
    bench.add_argument('--backend', default='auto', help='backend to measure (default: auto)')
    bench.add_argument('--bundle', type=Path, help='student to measure (default: the shipped one)')
    bench.add_argument('--size', metavar='HxW', help="the network's size (default: the bundle's)")
    bench.add_argument('--rounds', type=int, default=40, help='rounds of interleaved timing')
    bench.set_defaults(call=_bench)
    return parser


def _add_build(commands: Any) -> None:
    build = commands.add_parser('build', help="build a bundle's TensorRT engine")
    build.add_argument('bundle', nargs='?', type=Path, help='default: the shipped one')
    build.add_argument('--precision', default='auto', choices=['auto', 'fp32', 'fp16', 'bf16',
                                                               'int8'], help='default: fp16')
    build.add_argument('--batch', type=int, default=1, help='images at once (default: 1)')
    build.add_argument('--size', metavar='HxW', help="the network's size (default: the bundle's)")
    build.add_argument('--for', dest='targets', metavar='sm86,...',
                       help='GPUs to build for, by compute capability (default: the one here), or '
                       'cpu for int8 in OpenVINO')
    build.add_argument('--calibrate', type=Path, metavar='PATH',
                       help='frames for int8: a folder of images, a video or a bag')
    build.add_argument('--engines', type=Path,
                       help='folder to keep engines in (default: ~/.cache/ros_vseg)')
    build.add_argument('--device', type=int, default=0, help='index of the GPU (default: 0)')
    build.add_argument('--workspace', type=int, default=0, metavar='MB',
                       help='GPU memory that a build may take (default: half of what is free)')
    build.set_defaults(call=_build)


def _add_wrap(commands: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    wrap = commands.add_parser('wrap', help='make a bundle of any segmentation network in ONNX')
    wrap.add_argument('network', type=Path, help='ONNX file: an image in, scores or labels out')
    wrap.add_argument('-o', '--output', type=Path, required=True, help='bundle to write')
    wrap.add_argument('--classes', required=True, metavar='YAML',
                      help="label set with the network's classes in their order, or a name")
    wrap.add_argument('--mean', nargs='+', metavar='M',
                      help='what is subtracted from each channel, as in training')
    wrap.add_argument('--std', nargs='+', metavar='S', help='what it is then divided by')
    wrap.add_argument('--scale', type=int, choices=[1, 255],
                      help='largest pixel value that mean and std are for (default: 255 if one of '
                      'them is above 1, else 1)')
    wrap.add_argument('--layout', default='nchw', choices=['nchw', 'nhwc'],
                      help='axes of the image (default: nchw)')
    wrap.add_argument('--color-order', default='rgb', choices=['rgb', 'bgr'],
                      help='as in training (default: rgb)')
    wrap.add_argument('--scores', metavar='NAME', help='output to use, if there are several')
    wrap.add_argument('--kind', choices=['logits', 'probabilities', 'labels'],
                      help='what the output is (default: found by trying)')
    wrap.add_argument('--size', metavar='HxW', help='for a network whose size is open')
    wrap.add_argument('--name', help="of the bundle (default: the file's)")
    wrap.add_argument('--license', default='unknown', help="of the network's weights")
    wrap.set_defaults(call=_wrap)


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
        options = build_parser().parse_args(arguments)
        return int(options.call(options))
    except VsegError as error:
        return _failed(error, 2)
    except interrupts.Interrupted as error:
        return error.exit_code
    finally:
        interrupts.end_at_once()


if __name__ == '__main__':
    sys.exit(main())
