# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""vseg-train: every command of training, each imported when it runs."""
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
import logging
import os
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

from ros_vseg import interrupts
from ros_vseg.files import to_json, write_whole

from .arguments import named_number, number, size, whole
from .data_option import named_source, title_of
from .recipe import load_recipe, Recipe

if TYPE_CHECKING:
    from .data import ClipSource
    from .evaluate import Network


CACHE = Path('runs') / 'cache'  # of rendered streets
log = logging.getLogger('vseg-train')


def _fit(args: Namespace) -> None:
    from .train import fit, processes
    recipe = load_recipe(args.config, args.set)
    output = args.output or Path('runs') / recipe.name
    try:
        checkpoint = fit(recipe, output)
    except (KeyboardInterrupt, SystemExit):  # the latter is Lightning's answer to the former
        last = output / 'last.ckpt'
        print('vseg-train: interrupted: ' + (
            f'the same command goes on from {last}' if last.exists() else
            f'{output} has no checkpoint yet (optim.checkpoint_every)'), file=sys.stderr)
        raise
    if processes()[0] == 0:
        print(checkpoint)


def _check_data(args: Namespace) -> int:
    from .data.check import check_data
    found = check_data(load_recipe(args.config, args.set), CACHE)
    print(*found.lines(), sep='\n')
    return 1 if found.errors else 0


def _profile(args: Namespace) -> None:
    from .profiling import profile
    print(profile(load_recipe(args.config, args.set), args.steps))


def _load(path: Path, adjust: bool = True) -> tuple['Network', Recipe]:
    """Network of a checkpoint, on the GPU if there is one, and its recipe."""
    import torch

    from .checkpoint import load_network
    network, recipe = load_network(path, adjust)
    return network.to('cuda' if torch.cuda.is_available() else 'cpu'), recipe


def _soft_labels(args: Namespace) -> None:
    from ros_vseg.labels import load_label_set

    from .distill.soft_labels import write_soft_labels
    from .train import training_sources
    network, recipe = _load(args.checkpoint, adjust=False)
    names = load_label_set(recipe.data.label_set).names
    sources = training_sources(
        load_recipe(args.config) if args.config else recipe, CACHE)
    count = write_soft_labels(network, names, sources, args.output, args.scales, args.flip)
    print(f'{args.output}: {count} frames written')


def _ablate(args: Namespace) -> None:
    from .ablate import ablate, load_suite, refuse_seed
    suites = {Path(path).stem: load_suite(path) for path in args.suites}  # errors come first
    if len(suites) < len(args.suites):
        raise ValueError('two of the suites have one name, which their tables would share: rename '
                         'one of the files')
    refuse_seed(args.set, '--set')
    for name, suite in suites.items():
        print(ablate(name, suite, args.output, args.set), end='\n\n')


def _search(args: Namespace) -> None:
    from .search.search import search
    recipe = load_recipe(args.config, args.set)
    print(search(recipe, args.output or Path('runs') / recipe.name, args.samples, args.batch))


def _source(recipe: Recipe, data: str | None) -> 'ClipSource[Any]':
    """Open what --data names, or the recipe's val."""
    from .data import build_source
    return build_source(named_source(recipe, data), recipe, CACHE)


def _evaluate(args: Namespace) -> None:
    from .confusion import draw_confusion
    from .evaluate import tables
    others = [str(path) for path in args.models if path.suffix != '.onnx']
    if args.stabilize and others:
        raise ValueError(
            f'--stabilize is for bundles, and {others[0]} is not a bundle: export it first')
    if args.confusion and (args.degrade or len(args.models) > 1):
        raise ValueError('--confusion draws one model, without --degrade: name one')
    if args.degrade:
        return _evaluate_degraded(args)
    if args.output:
        raise ValueError('--output is for --degrade: use --json')
    reports = {str(path): _report(path, args) for path in args.models}
    for name, report in reports.items():
        if args.confusion:
            draw_confusion(report['confusion'], Path(name).name, args.confusion)
    if args.json:
        print(to_json([{'model': name, **report} for name, report in reports.items()], indent=2))
    else:
        print(tables(reports))


def _report(path: Path, args: Namespace) -> dict[str, Any]:
    """Report of a checkpoint or a bundle."""
    from ros_vseg.labels import load_label_set

    from .evaluate import report_bundle, report_model
    if path.suffix == '.onnx':
        recipe = load_recipe(args.config)
        return report_bundle(path, _source(recipe, args.data), args.backend,
                             load_label_set(recipe.data.label_set), args.stabilize)
    model, recipe = _load(path)
    return report_model(model, _source(recipe, args.data), recipe.data.size,
                        load_label_set(recipe.data.label_set))


def _evaluate_degraded(args: Namespace) -> None:
    """Tables of ``evaluate --degrade``."""
    from .degraded import plain, table
    if args.stabilize:
        raise ValueError('--degrade measures the network alone: leave --stabilize out')
    reports = {str(path): _report_degraded(path, args) for path in args.models}
    text = to_json(plain(reports), indent=2)
    if args.output:
        write_whole(args.output, f'{text}\n'.encode())
    print(text if args.json else table(reports))


def _report_degraded(path: Path, args: Namespace) -> dict[str, dict[str, float]]:
    """Report of a checkpoint or a bundle on degraded frames."""
    from ros_vseg.labels import load_label_set

    from .degraded import report_bundle, report_model
    if path.suffix == '.onnx':
        recipe = load_recipe(args.config)
        source, other = _source(recipe, args.data), _first_train(recipe)
        return report_bundle(path, source, other, args.backend,
                             load_label_set(recipe.data.label_set))
    model, recipe = _load(path)
    source, other = _source(recipe, args.data), _first_train(recipe)
    return report_model(model, source, other, recipe.data.size)


def _first_train(recipe: Recipe) -> 'ClipSource[Any]':
    """Source whose frames make a pool that does not fit."""
    from .data import build_source
    if not recipe.data.train:
        raise ValueError('the recipe has no data.train, whose frames --degrade puts into the '
                         'pool: list a source')
    return build_source(recipe.data.train[0], recipe, CACHE)


def _show(args: Namespace) -> None:
    from ros_vseg.labels import load_label_set

    from .show import show
    _refuse_its_own(args)
    model, recipe = _load(args.checkpoint)
    png = show(model, _source(recipe, args.data), recipe.data.size,
               load_label_set(recipe.data.label_set), args.frames, args.prototypes)
    write_whole(args.output, png)


def _refuse_its_own(args: Namespace) -> None:
    if args.output.exists() and args.checkpoint.exists() and args.output.samefile(args.checkpoint):
        raise ValueError(f'--output {args.output} is the checkpoint itself: give another file')


def _export(args: Namespace) -> None:
    from ros_vseg.labels import load_label_set

    from .checkpoint import load_student, shift_scores, untrained_student
    from .evaluate import evaluate_stream
    from .export import export_bundle, shift_of, summary
    from .temperature import calibrate
    _refuse_its_own(args)
    load = untrained_student if args.untrained else load_student
    student, recipe = load(args.checkpoint)
    if args.shift:
        shift_scores(student, shift_of(args.shift, recipe.data.label_set))
    metrics: dict[str, Any] = {}
    height_width = args.size or tuple(recipe.data.size)
    temperature = None
    if args.calibrate is not None:
        temperature = calibrate(student, _source(recipe, args.calibrate or args.data),
                                height_width)
        log.info('temperature of the confidence: %.3f', temperature)
    if (args.data or recipe.data.val) and not args.no_evaluate and not args.untrained:
        confusion, _ = evaluate_stream(student, _source(recipe, args.data), height_width)
        if confusion.counts.any():      # else there is no number to give
            metrics[title_of(recipe, args.data)] = summary(
                confusion, load_label_set(recipe.data.label_set))
    export_bundle(student, recipe, args.output, height_width, metrics, temperature,
                  dict(args.shift))
    print(f'{args.output}: {args.output.stat().st_size / 1e6:.1f} MB')


def _bench(args: Namespace) -> None:
    from .bench import bench
    print(bench(args.checkpoint, args.frames))


def _street(args: Namespace) -> None:
    from .data.street.write_bag import write_street_bag
    write_street_bag(args.output, args.seed, args.seconds, args.size)


def _add_recipe(command: ArgumentParser) -> None:
    command.add_argument('--config', required=True, help='recipe YAML, or the name of a shipped '
                         'one')
    command.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                         help='override one key of the recipe, e.g. optim.max_steps=100')


def _add_fit(command: ArgumentParser) -> None:
    _add_recipe(command)
    command.add_argument('--output', type=Path, help='folder of the run (default runs/NAME)')


def _add_profile(command: ArgumentParser) -> None:
    _add_recipe(command)
    command.add_argument('--steps', type=whole(1, 10**6), default=20, help='steps to measure')


def _add_soft_labels(command: ArgumentParser) -> None:
    command.add_argument('checkpoint', type=Path, help='checkpoint of the teacher')
    command.add_argument('-o', '--output', type=Path, required=True, help='folder to write')
    command.add_argument('--config', help="recipe with the frames (default: the teacher's)")
    command.add_argument('--scales', type=number(0.1, 8), nargs='+', default=[1.0],
                         help='frame sizes to average over, e.g. 1 1.5')
    command.add_argument('--flip', action='store_true', help='average over mirrored frames')


def _add_ablate(command: ArgumentParser) -> None:
    command.add_argument('suites', nargs='+', metavar='suite',
                         help='suite YAML, or the name of a shipped one')
    command.add_argument('-o', '--output', type=Path, default=Path('runs/ablation'),
                         help='folder of runs, tables and plots (default %(default)s)')
    command.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                         help='override one key of every recipe')


def _add_search(command: ArgumentParser) -> None:
    _add_recipe(command)
    command.add_argument('-o', '--output', type=Path, help='folder (default runs/NAME)')
    command.add_argument('--samples', type=int, default=24,
                         help='modules to train and measure (default %(default)s)')
    command.add_argument('--batch', type=int, default=4,
                         help='modules per update of the controller (default %(default)s)')


def _add_evaluate(command: ArgumentParser) -> None:
    command.add_argument('models', type=Path, nargs='+', metavar='model',
                         help='checkpoint, or bundle (.onnx)')
    command.add_argument(
        '--data', help='camvid:FOLDER#SPLIT, or #SPLIT/DRIVE for a drive of it, or folder:FOLDER '
        '(default: the recipe)')
    command.add_argument(
        '--config', default='camvid_lite0', help="recipe that names a bundle's data")
    command.add_argument('--backend', default='auto', help='backend that runs a bundle')
    command.add_argument('--stabilize', action='store_true',
                         help="steady a bundle's labels by those of earlier frames")
    command.add_argument(
        '--degrade', action='store_true',
        help='measure what the pool is worth on bad frames, and what a wrong one costs')
    command.add_argument('-o', '--output', type=Path,
                         help='file for the JSON of --degrade, beside what is printed')
    command.add_argument('--confusion', type=Path, metavar='FILE.png',
                         help='draw which classes are taken for which; --json has the numbers')
    command.add_argument('--json', action='store_true', help='print JSON')


def _add_show(command: ArgumentParser) -> None:
    command.add_argument('checkpoint', type=Path)
    command.add_argument('-o', '--output', type=Path, required=True,
                         help='picture to write (.png)')
    command.add_argument('--data', help='as in evaluate')
    command.add_argument('--frames', type=int, default=4, help='rows, spread over the split')
    command.add_argument('--prototypes', type=int, default=4, help='how many of them')


def _add_export(command: ArgumentParser) -> None:
    command.add_argument('checkpoint', type=Path, help='or, with --untrained, a recipe')
    command.add_argument('-o', '--output', type=Path, required=True,
                         help='bundle to write (.onnx)')
    command.add_argument(
        '--size', type=size, help='HxW of the network input (default: the recipe)')
    command.add_argument('--data', help='as in evaluate')
    command.add_argument('--untrained', action='store_true',
                         help='random weights of a recipe instead, to measure its speed')
    command.add_argument('--calibrate', nargs='?', const='', metavar='DATA',
                         help="fit the confidence's temperature on data with labels, named as in "
                              '--data (default: the data that is evaluated on)')
    command.add_argument('--shift', nargs='+', default=[], metavar='CLASS=NUMBER',
                         type=named_number(-20, 20),
                         help='add to the scores of a class, e.g. pole=0.35: more of it is found, '
                              'and more is taken for it')
    command.add_argument('--no-evaluate', action='store_true', help='leave the metrics empty')


def _add_bench(command: ArgumentParser) -> None:
    command.add_argument('checkpoint', type=Path)
    command.add_argument('--frames', type=whole(1, 10**6), default=50)


def _add_street(command: ArgumentParser) -> None:
    command.add_argument('output', type=Path, help='bag folder to write')
    command.add_argument('--seed', type=whole(0, 2**32 - 1), default=0)
    command.add_argument('--seconds', type=number(0.1, 86400), default=10.0)
    command.add_argument('--size', type=size, default=(360, 480), metavar='HxW')


# name, what it does, its arguments, what runs it
COMMANDS: list[tuple[str, str, Callable[[ArgumentParser], None],
                     Callable[[Namespace], int | None]]] = [
    ('fit', 'train a recipe; run again to resume', _add_fit, _fit),
    ('check-data', "look through a recipe's data; exit status 1 if there are errors",
     _add_recipe, _check_data),
    ('profile', 'what a training step of a recipe spends its time on, as Markdown',
     _add_profile, _profile),
    ('soft-labels', "write a teacher's predictions of the training frames to disk",
     _add_soft_labels, _soft_labels),
    ('ablate', 'train and measure a suite of recipes; run again to go on', _add_ablate, _ablate),
    ('search', 'search for an auxiliary module (thesis, Sec. 6.3.4); run again to go on',
     _add_search, _search),
    ('evaluate', 'accuracy, consistency over time and cost of models, as Markdown',
     _add_evaluate, _evaluate),
    ('show', 'draw what prototypes look at (MGCNet, Fig. 6)', _add_show, _show),
    ('export', 'write the student of a checkpoint as a bundle', _add_export, _export),
    ('bench', 'torch eager against the runtime backends, one run', _add_bench, _bench),
    ('street', 'render a street as a bag with exact labels', _add_street, _street)]


def build_parser() -> ArgumentParser:
    """Argument parser of vseg-train."""
    parser = ArgumentParser('vseg-train', description='Train, measure and export students.')
    commands = parser.add_subparsers(required=True)
    for name, purpose, add_arguments, run in COMMANDS:
        command = commands.add_parser(name, help=purpose)
        add_arguments(command)
        command.set_defaults(run=run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; a user's mistake is one line and exit status 2; 130 or 143 if interrupted."""
    logging.basicConfig(level=logging.WARNING, format='%(message)s')
    logging.getLogger('vseg_training').setLevel(logging.INFO)
    args = build_parser().parse_args(argv)
    if argv is None and os.environ.get('WORLD_SIZE', '1') == '1':  # torchrun ends its own
        interrupts.raise_once()
    try:
        return args.run(args) or 0
    except (ValueError, OSError) as error:
        print(f'vseg-train: error: {error}', file=sys.stderr)
        return 2
    except (interrupts.Interrupted, SystemExit) as error:
        cause = error if isinstance(error, interrupts.Interrupted) else error.__context__
        if not isinstance(cause, interrupts.Interrupted):
            raise
        return cause.exit_code


if __name__ == '__main__':
    sys.exit(main())
