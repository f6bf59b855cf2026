# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""vseg-train: every command of training, each imported when it runs."""
import argparse
import json
import logging
from pathlib import Path
import sys

from .recipe import load_recipe


log = logging.getLogger('vseg-train')


def _fit(args):
    from .train import fit, processes
    recipe = load_recipe(args.config, args.set)
    checkpoint = fit(recipe, args.output or Path('runs') / recipe.name)
    if processes()[0] == 0:
        print(checkpoint)


def _check_data(args):
    from .data.check import check_data
    found = check_data(load_recipe(args.config, args.set), Path('runs') / 'cache')
    print(*found.lines(), sep='\n')
    return 1 if found.errors else 0


def _profile(args):
    from .profiling import profile
    print(profile(load_recipe(args.config, args.set), args.steps))


def _load(path, **options):
    """Network of a checkpoint, on the GPU if there is one, and its recipe."""
    import torch

    from .checkpoint import load_network
    network, recipe = load_network(path, **options)
    return network.to('cuda' if torch.cuda.is_available() else 'cpu'), recipe


def _soft_labels(args):
    from ros_vseg.labels import load_label_set

    from .distill.soft_labels import write_soft_labels
    from .train import training_sources
    network, recipe = _load(args.checkpoint, adjust=False)
    names = load_label_set(recipe.data.label_set).names
    sources = training_sources(
        load_recipe(args.config) if args.config else recipe, Path('runs') / 'cache')
    count = write_soft_labels(network, names, sources, args.output, args.scales, args.flip)
    print(f'{args.output}: {count} frames written')


def _ablate(args):
    from .ablate import ablate, load_suite
    for suite in [(Path(path).stem, load_suite(path)) for path in args.suites]:
        print(ablate(*suite, args.output, args.set), end='\n\n')


def _source(recipe, data):
    """Source that --data names, KIND:FOLDER#SPLIT/DRIVE, or the recipe's val."""
    from .data import build_source
    from .recipe import Source
    spec = recipe.data.val
    if data:
        kind, _, place = data.partition(':')
        root, _, part = place.partition('#')
        split, _, drive = part.partition('/')
        spec = Source(kind=kind, root=root, split=split or 'val', drives=[drive] if drive else [])
    if spec is None:
        raise ValueError('the recipe has no data.val: give --data camvid:FOLDER or folder:FOLDER')
    return build_source(spec, recipe, Path('runs') / 'cache')


def _evaluate(args):
    from ros_vseg.labels import load_label_set

    from .evaluate import report_bundle, report_model, tables
    others = [str(path) for path in args.models if path.suffix != '.onnx']
    if args.stabilize and others:
        raise ValueError(f'--stabilize is for bundles, and {others[0]} is none: export it first')
    if args.degrade:
        return _evaluate_degraded(args)
    if args.output:
        raise ValueError('--output is for --degrade: use --json')
    reports = {}
    for path in args.models:
        bundle = path.suffix == '.onnx'
        model, recipe = (None, load_recipe(args.config)) if bundle else _load(path)
        source, label_set = _source(recipe, args.data), load_label_set(recipe.data.label_set)
        reports[str(path)] = (
            report_bundle(path, source, args.backend, label_set, args.stabilize) if bundle
            else report_model(model, source, recipe.data.size, label_set))
    if args.json:
        print(json.dumps([{'model': name, **report} for name, report in reports.items()],
                         indent=2, allow_nan=False))
    else:
        print(tables(reports))


def _evaluate_degraded(args):
    """Tables of ``evaluate --degrade``."""
    from ros_vseg.labels import load_label_set

    from .data import build_source
    from .degraded import plain, report_bundle, report_model, table
    if args.stabilize:
        raise ValueError('--degrade measures the network alone: leave --stabilize out')
    reports = {}
    for path in args.models:
        bundle = path.suffix == '.onnx'
        model, recipe = (None, load_recipe(args.config)) if bundle else _load(path)
        source = _source(recipe, args.data)
        other = build_source(recipe.data.train[0], recipe, Path('runs') / 'cache')
        reports[str(path)] = (
            report_bundle(path, source, other, args.backend,
                          load_label_set(recipe.data.label_set)) if bundle
            else report_model(model, source, other, recipe.data.size))
    text = json.dumps(plain(reports), indent=2, allow_nan=False)
    if args.output:
        args.output.write_text(text + '\n')
    print(text if args.json else table(reports))


def _show(args):
    from ros_vseg.labels import load_label_set

    from .show import show
    model, recipe = _load(args.checkpoint)
    png = show(model, _source(recipe, args.data), recipe.data.size,
               load_label_set(recipe.data.label_set), args.frames, args.prototypes)
    args.output.write_bytes(png)


def _export(args):
    from ros_vseg.labels import load_label_set

    from .checkpoint import load_student, untrained_student
    from .evaluate import evaluate_stream
    from .export import export_bundle, summary
    from .temperature import calibrate
    load = untrained_student if args.untrained else load_student
    student, recipe = load(args.checkpoint)
    metrics, size = {}, args.size or tuple(recipe.data.size)
    temperature = None
    if args.calibrate is not None:
        temperature = calibrate(student, _source(recipe, args.calibrate or args.data), size)
        log.info('temperature of the confidence: %.3f', temperature)
    if recipe.data.val is not None and not args.no_evaluate and not args.untrained:
        confusion, _ = evaluate_stream(student, _source(recipe, args.data), size)
        if confusion.counts.any():      # else there is no number to give
            metrics[f'{recipe.data.val.kind} {recipe.data.val.split}'] = summary(
                confusion, load_label_set(recipe.data.label_set))
    export_bundle(student, recipe, args.output, size, metrics, temperature)
    print(f'{args.output}: {args.output.stat().st_size / 1e6:.1f} MB')


def _bench(args):
    from .bench import bench
    print(bench(args.checkpoint, args.frames))


def _street(args):
    from .data.street.write_bag import write_street_bag
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
    check = commands.add_parser(
        'check-data', help="look through a recipe's data; exit status 1 if there are errors")
    check.add_argument('--config', required=True, help='as in fit')
    check.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                       help='as in fit')
    check.set_defaults(run=_check_data)
    profile = commands.add_parser(
        'profile', help='what a training step of a recipe spends its time on, as Markdown')
    profile.add_argument('--config', required=True, help='as in fit')
    profile.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                         help='as in fit')
    profile.add_argument('--steps', type=int, default=20, help='steps to measure')
    profile.set_defaults(run=_profile)
    soft_labels = commands.add_parser(
        'soft-labels', help="write a teacher's predictions of the training frames to disk")
    soft_labels.add_argument('checkpoint', type=Path, help='checkpoint of the teacher')
    soft_labels.add_argument('-o', '--output', type=Path, required=True, help='folder to write')
    soft_labels.add_argument('--config', help="recipe with the frames (default: the teacher's)")
    soft_labels.add_argument('--scales', type=float, nargs='+', default=[1.0],
                             help='frame sizes to average over, e.g. 1 1.5')
    soft_labels.add_argument('--flip', action='store_true', help='average over mirrored frames')
    soft_labels.set_defaults(run=_soft_labels)
    ablate = commands.add_parser(
        'ablate', help='train and measure a suite of recipes; run again to go on')
    ablate.add_argument('suites', nargs='+', metavar='suite',
                        help='suite YAML, or the name of a shipped one')
    ablate.add_argument('-o', '--output', type=Path, default=Path('runs/ablation'),
                        help='folder of runs, tables and plots (default %(default)s)')
    ablate.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                        help='override one key of every recipe')
    ablate.set_defaults(run=_ablate)
    evaluate = commands.add_parser(
        'evaluate', help='accuracy, consistency over time and cost of models, as Markdown')
    evaluate.add_argument('models', type=Path, nargs='+', metavar='model',
                          help='checkpoint, or bundle (.onnx)')
    evaluate.add_argument(
        '--data', help='camvid:FOLDER#SPLIT, or #SPLIT/DRIVE for a drive of it, or folder:FOLDER '
        '(default: the recipe)')
    evaluate.add_argument(
        '--config', default='camvid_lite0', help="recipe that names a bundle's data")
    evaluate.add_argument('--backend', default='auto', help='backend that runs a bundle')
    evaluate.add_argument('--stabilize', action='store_true',
                          help="steady a bundle's labels by those of earlier frames")
    evaluate.add_argument(
        '--degrade', action='store_true',
        help='measure what the pool is worth on bad frames, and what a wrong one costs')
    evaluate.add_argument('-o', '--output', type=Path,
                          help='file for the JSON of --degrade, beside what is printed')
    evaluate.add_argument('--json', action='store_true', help='print JSON')
    evaluate.set_defaults(run=_evaluate)
    show = commands.add_parser('show', help='draw what prototypes look at (MGCNet, Fig. 6)')
    show.add_argument('checkpoint', type=Path)
    show.add_argument('-o', '--output', type=Path, required=True, help='picture to write (.png)')
    show.add_argument('--data', help='as in evaluate')
    show.add_argument('--frames', type=int, default=4, help='rows, spread over the split')
    show.add_argument('--prototypes', type=int, default=4, help='how many of them')
    show.set_defaults(run=_show)
    export = commands.add_parser('export', help='write the student of a checkpoint as a bundle')
    export.add_argument('checkpoint', type=Path, help='or, with --untrained, a recipe')
    export.add_argument('-o', '--output', type=Path, required=True, help='bundle to write (.onnx)')
    export.add_argument(
        '--size', type=_size, help='HxW of the network input (default: the recipe)')
    export.add_argument('--data', help='as in evaluate')
    export.add_argument('--untrained', action='store_true',
                        help='random weights of a recipe instead, to measure its speed')
    export.add_argument('--calibrate', nargs='?', const='', metavar='DATA',
                        help="fit the confidence's temperature on data with labels, named as in "
                             '--data (default: the data that is evaluated on)')
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
        return args.run(args) or 0
    except (ValueError, OSError) as error:
        print(f'vseg-train: error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
