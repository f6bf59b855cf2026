# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""vseg-train: fit, evaluate, export, bench, street."""
import argparse
import json
import logging
from pathlib import Path
import sys

from .recipe import load_recipe


log = logging.getLogger('vseg-train')


def _fit(args):
    from .train import fit
    recipe = load_recipe(args.config, args.set)
    print(fit(recipe, args.output or Path('runs') / recipe.name))


def _source(recipe, args):
    """Source to evaluate on: --data, or the recipe's val."""
    from .data import build_source
    from .recipe import Source
    spec = recipe.data.val
    if args.data:
        kind, _, place = args.data.partition(':')
        root, _, split = place.partition('#')
        spec = Source(kind=kind, root=root, split=split or 'val')
    if spec is None:
        raise ValueError('the recipe has no data.val: give --data camvid:FOLDER or folder:FOLDER')
    return build_source(spec, _num_classes(recipe), recipe.model.context_frames + 1,
                        Path('runs') / 'cache', recipe.data.size)


def _num_classes(recipe):
    from ros_vseg.labels import load_label_set
    return len(load_label_set(recipe.data.label_set).names)


def _evaluate(args):
    from ros_vseg.labels import load_label_set

    from .evaluate import evaluate_bundle, evaluate_stream
    from .export import summary
    if args.model.suffix == '.onnx':
        recipe = load_recipe(args.config)
        confusion, seconds = evaluate_bundle(args.model, _source(recipe, args), args.backend)
    else:
        from .checkpoint import load_student
        student, recipe = load_student(args.model)
        confusion, seconds = evaluate_stream(student, _source(recipe, args), recipe.data.size)
    report = summary(confusion, load_label_set(recipe.data.label_set))
    report['ms_per_frame'] = round(1000 * seconds, 1)
    if args.json:
        print(json.dumps(report, indent=2))
        return
    for name, value in report.pop('IoU').items():
        print(f'{name:>14} {value:6.2f}')
    for name, value in report.items():
        print(f'{name:>14} {value:6.2f}')


def _export(args):
    from ros_vseg.labels import load_label_set

    from .checkpoint import load_student
    from .evaluate import evaluate_stream
    from .export import export_bundle, summary
    student, recipe = load_student(args.checkpoint)
    metrics = {}
    if recipe.data.val is not None and not args.no_evaluate:
        confusion, _ = evaluate_stream(student, _source(recipe, args), args.size)
        metrics[f'{recipe.data.val.kind} {recipe.data.val.split}'] = summary(
            confusion, load_label_set(recipe.data.label_set))
    export_bundle(student, recipe, args.output, args.size, metrics)
    print(f'{args.output}: {args.output.stat().st_size / 1e6:.1f} MB')


def _bench(args):
    from .bench import bench
    print(bench(args.checkpoint, args.frames))


def _street(args):
    from .data.write_street_bag import write_street_bag
    write_street_bag(args.output, args.seed, args.seconds, args.size)


def _size(text):
    height, _, width = text.partition('x')
    return int(height), int(width)


def build_parser():
    """Argument parser of vseg-train."""
    parser = argparse.ArgumentParser(
        'vseg-train', description='Train, measure and export students.')
    commands = parser.add_subparsers(required=True)
    fit = commands.add_parser('fit', help='train a recipe; run again to resume')
    fit.add_argument('--config', required=True, help='recipe YAML, or the name of a shipped one')
    fit.add_argument('--output', type=Path, help='folder of the run (default runs/NAME)')
    fit.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                     help='override one key of the recipe, e.g. optim.max_steps=100')
    fit.set_defaults(run=_fit)
    evaluate = commands.add_parser(
        'evaluate', help='mIoU and IoU per class of a checkpoint or bundle')
    evaluate.add_argument('model', type=Path, help='checkpoint, or bundle (.onnx)')
    evaluate.add_argument(
        '--data', help='camvid:FOLDER#SPLIT or folder:FOLDER (default: the recipe)')
    evaluate.add_argument(
        '--config', default='camvid_lite0', help="recipe that names a bundle's data")
    evaluate.add_argument('--backend', default='auto', help='backend that runs a bundle')
    evaluate.add_argument('--json', action='store_true', help='print JSON')
    evaluate.set_defaults(run=_evaluate)
    export = commands.add_parser('export', help='write the student of a checkpoint as a bundle')
    export.add_argument('checkpoint', type=Path)
    export.add_argument('-o', '--output', type=Path, required=True, help='bundle to write (.onnx)')
    export.add_argument(
        '--size', type=_size, help='HxW of the network input (default: the recipe)')
    export.add_argument('--data', help='as in evaluate')
    export.add_argument('--no-evaluate', action='store_true', help='leave the metrics empty')
    export.set_defaults(run=_export)
    bench = commands.add_parser('bench', help='torch eager against the runtime backends, one run')
    bench.add_argument('checkpoint', type=Path)
    bench.add_argument('--frames', type=int, default=50)
    bench.set_defaults(run=_bench)
    street = commands.add_parser('street', help='render a street as a bag with exact labels')
    street.add_argument('output', type=Path, help='bag folder to write')
    street.add_argument('--seed', type=int, default=0)
    street.add_argument('--seconds', type=float, default=10.0)
    street.add_argument('--size', type=_size, default=(360, 480), metavar='HxW')
    street.set_defaults(run=_street)
    return parser


def main(argv=None):
    """Run a command; a user's mistake is one line and exit status 2."""
    logging.basicConfig(level=logging.WARNING, format='%(message)s')
    logging.getLogger('vseg_training').setLevel(logging.INFO)
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f'vseg-train: error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
