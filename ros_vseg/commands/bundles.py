# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""``vseg build`` and ``vseg wrap``: engines of bundles, and bundles of other networks."""
import argparse
from pathlib import Path
from typing import Any

from ros_vseg.commands.reading import add_reading, open_frames
from ros_vseg.errors import VsegError

Commands = Any      # what argparse's add_subparsers returns, which has no public name


def load(options: argparse.Namespace) -> Any:
    """Return the bundle that a command's --bundle and --size, or its argument, ask for."""
    from ros_vseg.bundle import Bundle, default_bundle_path
    from ros_vseg.graph import at_size, parse_size
    bundle = Bundle.load(options.bundle or default_bundle_path())
    return at_size(bundle, parse_size(options.size) if options.size else None)


def _build(options: argparse.Namespace) -> int:
    from ros_vseg.calibrate import calibrate
    from ros_vseg.engines.build import parse_targets
    from ros_vseg.engines.engine import engine_for
    from ros_vseg.gpu.cuda import Gpu
    bundle = load(options)
    if bundle.info.depth:
        reason = ('8 bits are checked by their labels alone' if options.targets == 'cpu' else
                  'no engine brings that to the host')
        raise VsegError(f'{bundle.path} gives depth too, and {reason}: run it as it is by backend '
                        'openvino or onnxruntime')
    if options.targets == 'cpu':
        return _build_for_cpu(options, bundle)
    if options.targets is None:
        targets = [Gpu(options.device).capability]
    else:
        targets = parse_targets(options.targets)
    if options.calibrate:
        path, frames = calibrate(bundle, open_frames(options.calibrate, options),
                                 options.engines)
        print(f'{path}: calibrated with {frames} frames')
    for target in targets:
        path, header, engine = engine_for(
            bundle, target, options.precision, folder=options.engines, progress=True,
            device=options.device, workspace=options.workspace)
        layers = ', '.join(f'{count} {kind}' for kind, count in header['layers'].items())
        print(f'{path}\n  {len(engine) / 1e6:.1f} MB, {len(engine) / len(bundle.model):.1f} x the '
              f'bundle, built in {header["seconds"]:.1f} s\n  {layers}')
    return 0


def _build_for_cpu(options: argparse.Namespace, bundle: Any) -> int:
    from ros_vseg.calibrate import calibrate_for_cpu
    if options.precision != 'int8' or not options.calibrate:
        raise VsegError('for cpu only int8 has something to build: give --precision int8 '
                        '--calibrate PATH')
    path, frames, bits, share = calibrate_for_cpu(
        bundle, open_frames(options.calibrate, options), options.engines)
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


def add_build(commands: Commands) -> None:
    """Add ``vseg build`` to the commands."""
    build = commands.add_parser('build', help="build a bundle's TensorRT engine")
    build.add_argument('bundle', nargs='?', type=Path, help='default: the shipped one')
    build.add_argument('--precision', default='auto', choices=['auto', 'fp32', 'fp16', 'bf16',
                                                               'int8'], help='default: fp16')
    build.add_argument('--size', metavar='HxW', help="the network's size (default: the bundle's)")
    build.add_argument('--for', dest='targets', metavar='sm86,...',
                       help='GPUs to build for, by compute capability (default: the one here), or '
                       'cpu for int8 in OpenVINO')
    build.add_argument('--calibrate', type=Path, metavar='PATH',
                       help='frames for int8: a folder of images, a video or a bag')
    add_reading(build)
    build.add_argument('--engines', type=Path,
                       help='folder to keep engines in (default: ~/.cache/ros_vseg)')
    build.add_argument('--device', type=int, default=0, help='index of the GPU (default: 0)')
    build.add_argument('--workspace', type=int, default=0, metavar='MB',
                       help='GPU memory that a build may take (default: half of what is free)')
    build.set_defaults(call=_build)


def add_wrap(commands: Commands) -> None:
    """Add ``vseg wrap`` to the commands."""
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
