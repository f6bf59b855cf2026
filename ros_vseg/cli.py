# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""vseg: info, run, bench, doctor."""
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
  vseg doctor"""


def _info(options):
    from ros_vseg.bundle import Bundle, default_bundle_path
    bundle = Bundle.load(options.bundle or default_bundle_path())
    tree = {**bundle.info.to_dict(), 'sha256': bundle.sha256, 'bytes': len(bundle.model)}
    if options.json:
        print(json.dumps(tree, indent=2))
        return 0
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
    from ros_vseg.bundle import Bundle, default_bundle_path
    from ros_vseg.labels import load_label_set
    from ros_vseg.media import open_source
    from ros_vseg.run import run
    from ros_vseg.stream import Stream
    source = open_source(options.input, options.topic)
    backend = backends.load(
        Bundle.load(options.bundle or default_bundle_path()), options.backend,
        threads=options.threads, precision=options.precision)
    label_set = load_label_set(options.label_set) if options.label_set else None
    stream = Stream(backend, max_gap=options.max_gap,
                    label_set=label_set or backend.bundle.info.label_set)
    report = run(source, stream, options.output, options.save)
    print('\n'.join(report.lines(source, stream)))
    return 0


def _doctor(options):
    from ros_vseg.doctor import examine, MISSING
    findings = examine(options.bundle)
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f'{finding.state:<8} {finding.what:<{width}}  {finding.text}')
    return int(any(finding.state == MISSING for finding in findings))


def _bench(options):
    from ros_vseg import bench
    from ros_vseg.bench_tools import Context
    unknown = set(options.names) - set(bench.NAMES)
    if unknown:
        raise VsegError(f'no benchmark {", ".join(sorted(unknown))}: choose of '
                        f'{", ".join(bench.NAMES)}')
    return bench.run(Context(options.bundle, options.rounds), options.names)


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
    run.add_argument('--backend', default='auto', help='auto, openvino or onnxruntime')
    run.add_argument('--precision', default='auto', help='auto, fp32 or bf16')
    run.add_argument('--threads', type=int, default=0, help='threads per step (0: all)')
    run.add_argument('--topic', help='image topic of a bag with several')
    run.add_argument('--label-set', help='YAML that renames, merges or recolours the classes')
    run.add_argument('--max-gap', type=float, default=1.0,
                     help='seconds between two frames after which context is dropped')
    run.set_defaults(call=_run)
    info = commands.add_parser('info', help='say what a bundle is')
    info.add_argument('bundle', nargs='?', type=Path, help='default: the shipped one')
    info.add_argument('--json', action='store_true', help='print JSON')
    info.set_defaults(call=_info)
    doctor = commands.add_parser('doctor', help='say what is there, what is missing, and the mend')
    doctor.add_argument('--bundle', type=Path, help='default: the shipped one')
    doctor.set_defaults(call=_doctor)
    bench = commands.add_parser('bench', help='measure the figures of this project here')
    bench.add_argument('names', nargs='*', metavar='NAME',
                       help='stream, decoder, backends, latency, dds, memory (default: all)')
    bench.add_argument('--bundle', type=Path, help='student to measure (default: the shipped one)')
    bench.add_argument('--rounds', type=int, default=40, help='rounds of interleaved timing')
    bench.set_defaults(call=_bench)
    return parser


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
