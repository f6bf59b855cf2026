# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
The demo: node, replay and recorder as three processes that meet over DDS, and their results.

``python -m ros_vseg.commands.demo [INPUT]``; without INPUT the embedded drive, which has exact
labels.
"""
import argparse
from collections.abc import Sequence
from functools import partial
import json
from pathlib import Path
import re
import signal
import sys
import time
from typing import Any, TYPE_CHECKING

from ros_vseg import interrupts
from ros_vseg.commands.output import printing
from ros_vseg.errors import VsegError
from ros_vseg.processes import Child, ChildError, demo_clip, ros_environment

if TYPE_CHECKING:
    from ros_vseg.bundle import Bundle
    from ros_vseg.media.frames import Source

CAMERA = '/vseg_node/camera'
REMAPS = {'label': f'{CAMERA}/label', 'overlay': f'{CAMERA}/overlay', 'image': '/camera/image',
          'exact_label': '/camera/exact_label', 'ended': '/camera/ended',
          'label_info_json': '/vseg_node/label_info_json'}
BAD_FRAMES_OF = 40  # frames that are labelled again
START = 240.0   # seconds for a slow machine to compile the decoder and the network, once
DEAF = 15.0     # seconds after which a recorder that missed the player's last word is ended
STAGES = ('image', 'resize', 'network', 'decode', 'publish')


def run(path: Path, topic: str | None, bundle: Path | None, output: Path,
        size: str | None = None) -> dict[str, Any]:
    """
    Label the images of a source over DDS.

    Args:
        path: Of the bag, video or folder.
        topic: Image topic of a bag; None: its only one.
        bundle: None: the shipped student.
        output: Folder for logs, bag, pictures and summary.json.
        size: Of the network's input; None: one that keeps up with the images on this machine.

    Returns:
        The summary, with ``sent``, the number of frames.

    Raises:
        VsegError: The input has no images, a process dies, or nothing is labelled.
    """
    from ros_vseg.bundle import Bundle, default_bundle_path
    from ros_vseg.media.sources import open_source
    interrupts.raise_once()     # children are stopped, then the exit code tells the signal
    source, student = open_source(path, topic), Bundle.load(bundle or default_bundle_path())
    _prepare(output)
    chosen_size = _network_size(student, source, size)
    start = partial(_start, output, ros_environment())
    print(f'demo: starting vseg_node with {student.info.name}', flush=True)
    sized = {'size': '{}x{}'.format(*chosen_size)} if chosen_size else {}
    with start('vseg_node', parameters={'bundle': student.path, **sized}) as node, \
            start('record', '--', str(output), remaps=REMAPS,
                  parameters={'clear': 'true', 'patience': 2 * START,
                              'title': f'{student.info.name} on {source.name}'}) as record:
        record.wait_for_line('recording to', START, others=[node])
        print(f'demo: replaying {source.name}', flush=True)
        chosen = {'source_topic': topic} if topic else {}
        with start('replay', '--', str(path), parameters=chosen) as replay:
            _follow(node, record, replay, source.count)
            sent = _last_number(replay, 'sent (\\d+) frames')
    summary: dict[str, Any] = json.loads((output / 'summary.json').read_text())
    summary['sent'] = sent
    return summary


def _prepare(output: Path) -> None:
    """Make the output folder; VsegError where it cannot be written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / 'context.png').unlink(missing_ok=True)     # the recorder clears the others
    except (OSError, ValueError) as error:
        raise VsegError(f'{output} cannot be written ({error}): choose another --output'
                        ) from error


def _network_size(student: 'Bundle', source: 'Source', size: str | None) -> tuple[int, int] | None:
    """Return (H, W) of the network's input, None for the bundle's own; it is said if chosen."""
    from ros_vseg.commands import pace
    from ros_vseg.graph import at_size, parse_size
    if size is None:
        chosen, reason = pace.choose(student, source.fps, pace.measured(source))
        if reason:
            print(f'demo: {reason}', flush=True)
        return chosen
    given = parse_size(size)
    at_size(student, given)   # refuses what the node would refuse
    return given


def _start(output: Path, environment: dict[str, str], name: str, *plain: str,
           parameters: dict[str, Any] | None = None, remaps: dict[str, str] | None = None
           ) -> Child:
    """Start a node of this package, whose log lies in the output folder."""
    arguments = []
    for option, rules in (('-p', parameters or {}), ('-r', remaps or {})):
        for key, value in rules.items():
            arguments += [option, f'{key}:={value}']
    if not environment.get('ROS_LOG_DIR'):  # the home folder may be read-only
        environment = {**environment, 'ROS_LOG_DIR': str(output.absolute() / 'log')}
    argv = [sys.executable, '-m', f'ros_vseg.nodes.{name}', *plain, '--ros-args', *arguments]
    return Child(name, argv, environment, output / f'{name}.log')


def _follow(node: Child, record: Child, replay: Child, frames: int | None) -> None:
    """Show how many frames are labelled until the recorder has ended; ChildError if it fails."""
    from tqdm import tqdm
    with tqdm(total=frames, unit=' frames', ncols=80, disable=None) as bar:
        shown, last = 0, time.monotonic()
        while record.process.poll() is None:    # it ends by itself, after the last label
            node.check_alive()
            replay.check()
            count = _last_number(record, 'labels (\\d+)')
            bar.update(count - shown)
            if count > shown or replay.process.poll() is None:
                last = time.monotonic()
            elif time.monotonic() - last > DEAF:
                record.process.send_signal(signal.SIGINT)
                last = time.monotonic()
            shown = count
            time.sleep(0.2)
    if record.process.returncode:
        raise ChildError(f'nothing was labelled:\n{record.last_lines()}\n{node.last_lines()}')


def with_bad_frames(path: Path, bundle: Path | None, output: Path) -> tuple[str, str]:
    """
    Label a part of the embedded drive again, offline, with a glare in every fifth frame.

    Writes context.png and returns a row of the table: what earlier frames are worth there.
    """
    from ros_vseg import backends
    from ros_vseg.bundle import Bundle, default_bundle_path
    from ros_vseg.commands.bad_frames import compare, write_picture
    from ros_vseg.media.sources import open_source
    from ros_vseg.stream import Stream
    print('demo: the same with a glare in every fifth frame', flush=True)
    backend = backends.load(Bundle.load(bundle or default_bundle_path()), fallback=True)
    stream = Stream(backend)
    result = compare(stream, Stream(backend), open_source(path), BAD_FRAMES_OF)
    write_picture(output / 'context.png', result.best, stream.label_set)
    return (f'mIoU on {result.frames} frames with glare',
            f'{100 * result.kept:.1f} %, without earlier frames {100 * result.emptied:.1f} %')


def _last_number(child: Child, pattern: str) -> int:
    found = re.findall(pattern, child.log.read_text(errors='replace'))
    return int(found[-1]) if found else 0


def _superseded(summary: dict[str, Any]) -> int:
    camera = summary['diagnostics'].get('vseg_node: camera', {})
    return int(camera.get('dropped_superseded', 0))


def table(summary: dict[str, Any], more: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Return the lines of the table that sums up the run; more: further rows (name, value)."""
    camera = summary['diagnostics'].get('vseg_node: camera', {})
    dropped = {key.removeprefix('dropped_'): int(value) for key, value in camera.items()
               if key.startswith('dropped_') and int(value)}
    received = int(camera.get('received', 0))
    latency, stages = summary['latency_ms'], []
    for name in STAGES:
        if f'stage_{name}_ms' in camera:
            stages.append(f'{name} {float(camera[f"stage_{name}_ms"]):.1f}')
    rows = [
        ('frames sent', summary['sent']),
        ('received by the node', received),
        ('labelled and recorded', summary['labels']),
        ('dropped', ', '.join(f'{n} {cause}' for cause, n in dropped.items()) or 'none'),
        ('lost on the way in', max(0, summary['sent'] - received)),
        ('label images a second', f'{summary["fps"]:.1f}'),
        ('latency, now - stamp, ms',
         summary['latency'] if latency is None else
         ', '.join(f'{name} {value:.1f}' for name, value in latency.items())),
        ('stages in the node, ms', ', '.join(stages)),
        ('earlier frames attended to', camera.get('context_frames', '?')),
        ('backend', f'{camera.get("backend", "?")}, {camera.get("device", "?")}'),
    ]
    if 'miou' in summary:
        rows.append(('mIoU against exact labels',
                     f'{100 * summary["miou"]:.1f} % over {summary["compared"]} frames'))
    rows += more
    width = max(len(name) for name, _ in rows)
    return [f'  {name:<{width}}  {value}' for name, value in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit code: 0 only when frames were labelled."""
    return printing(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    interrupts.end_at_once()    # imports are cut short without a traceback
    parser = argparse.ArgumentParser(
        prog='ros_vseg.commands.demo', description=__doc__.split('\n\n')[0])
    parser.add_argument('input', nargs='?', default=demo_clip(), type=Path,
                        help='bag, video or folder of images (default: the embedded drive)')
    parser.add_argument('--topic', help='image topic of a bag with several')
    parser.add_argument('-o', '--output', default=Path('demo_output'), type=Path)
    parser.add_argument('--size', metavar='HxW', help="the network's size (default: the bundle's, "
                        'or a smaller one that keeps up with the clip)')
    parser.add_argument('--bundle', type=Path,
                        help='the student to run (default: the shipped one)')
    options = parser.parse_args(arguments)
    try:
        summary = run(options.input, options.topic, options.bundle, options.output,
                      options.size)
        embedded = options.input == demo_clip()
        more = [with_bad_frames(options.input, options.bundle, options.output)] if embedded else []
    except interrupts.Interrupted as error:
        print('demo: interrupted', file=sys.stderr)
        return error.exit_code
    except VsegError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    finally:
        interrupts.end_at_once()
    print('\n'.join(table(summary, more)))
    if late := _superseded(summary):
        print('demo: superseded: the network was busy, and a newer frame took the place of '
              f'{late}; a smaller --size is faster')
    pictures = 'contact_sheet.png, ' + ('context.png, ' if embedded else '')
    print(f'demo: see {options.output}/: {pictures}overlay.mp4, labels (bag)')
    return 0


if __name__ == '__main__':
    sys.exit(main())
