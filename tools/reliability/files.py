# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Damaged files: whatever is in them, one clear error or a result, never a crash.

``python tools/reliability/files.py [--count 20000] [--seed 0]``: bundles, label sets, bags, videos
and images, each with a few bytes changed, cut, doubled or left out, read by processes of their
own. Exit code 1 if one ended otherwise than with a result or a VsegError.
"""
import argparse
from collections import Counter
from collections.abc import Callable
from itertools import islice
import json
import multiprocessing
from pathlib import Path
import shutil
import sys
import tempfile
import time
import traceback

import cv2
import numpy as np

from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.errors import VsegError
from ros_vseg.labels import load_label_set
from ros_vseg.media.sources import open_source
from ros_vseg.processes import demo_clip

BATCH = 200     # files of one process
LIMIT = 20.0    # seconds that a file may take
FRAMES = 3      # read of a bag, a video or a folder
SHARES = {'bundle': 0.05, 'label set': 0.25, 'bag': 0.3, 'video': 0.1, 'image': 0.3}


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with one to eight of them, or a stretch, changed in one of six ways."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        place = int(rng.integers(0, max(1, len(changed))))
        length = int(rng.integers(1, max(2, min(len(changed) // 4, 4096))))
        way = rng.integers(0, 6)
        if way == 0:
            changed[place:place + 1] = bytes([rng.integers(0, 256)])
        elif way == 1:
            changed[place:place + length] = rng.bytes(length)
        elif way == 2:
            del changed[place:place + length]
        elif way == 3:
            changed[place:place] = changed[place:place + length]
        elif way == 4:
            del changed[place:]
        else:
            changed[place:place + length] = bytes(length)
    return bytes(changed)


def originals(folder: Path) -> dict[str, Path]:
    """Write a small whole file of each kind and return their paths."""
    folder.mkdir()
    frames = [frame.image for frame in islice(open_source(demo_clip()), FRAMES)]
    cv2.imwrite(str(folder / 'image.jpg'), frames[0])
    writer = cv2.VideoWriter(
        str(folder / 'video.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 15, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    names = ['road', 'car', 'person']
    classes = [{'id': number, 'name': name, 'color': [60 * number, 10, 20]}
               for number, name in enumerate(names)]
    (folder / 'labels.yaml').write_text(json.dumps({'name': 'three', 'classes': classes}))
    bag = next(demo_clip().glob('*.mcap'), None) or next(demo_clip().glob('*.db3'))
    return {'bundle': default_bundle_path(), 'label set': folder / 'labels.yaml', 'bag': bag,
            'video': folder / 'video.mp4', 'image': folder / 'image.jpg'}


def _read_source(path: Path) -> None:
    for _ in islice(open_source(path), FRAMES):
        pass


READERS: dict[str, Callable[[Path], object]] = {
    'bundle': Bundle.load, 'label set': lambda path: load_label_set(str(path)),
    'bag': _read_source, 'video': _read_source,
    'image': lambda path: _read_source(path.parent)}


def read_batch(kind: str, original: Path, seeds: range, folder: Path, results: Path) -> None:
    """Read damaged copies of a file; write one line of JSON for each."""
    data = original.read_bytes()
    folder.mkdir()
    with results.open('w') as lines:
        for seed in seeds:
            path = folder / f'{seed}' / original.name
            path.parent.mkdir()
            path.write_bytes(mutate(data, np.random.default_rng(seed)))
            lines.write(json.dumps({'seed': seed, 'begin': time.time()}) + '\n')
            lines.flush()
            lines.write(json.dumps({'seed': seed, 'end': _outcome(kind, path)}) + '\n')
            shutil.rmtree(path.parent)


def _outcome(kind: str, path: Path) -> str:
    try:
        READERS[kind](path)
    except VsegError as error:
        return 'refused' if '\n' not in str(error) else f'error of several lines: {error}'
    except BaseException:
        return traceback.format_exc()
    return 'read'


def run(count: int, seed: int) -> dict[str, Counter[str]]:
    """Read ``count`` damaged files; return outcomes by kind, each fault under its own text."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in SHARES}
    with tempfile.TemporaryDirectory() as work:
        files = originals(Path(work, 'originals'))
        for kind, share in SHARES.items():
            numbers = range(seed, seed + round(count * share))
            for first in range(0, len(numbers), BATCH):
                found[kind] += _batch(kind, files[kind], numbers[first:first + BATCH], Path(work))
            print(f'{kind}: {dict(found[kind].most_common(6))}', flush=True)
    return found


def _batch(kind: str, original: Path, seeds: range, work: Path) -> Counter[str]:
    folder, results = work / 'copies', work / 'results'
    child = multiprocessing.get_context('fork').Process(
        target=read_batch, args=(kind, original, seeds, folder, results))
    child.start()
    child.join(LIMIT * len(seeds))
    if child.exitcode is None:
        child.kill()
        child.join()
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    found = Counter(line['end'] for line in lines if 'end' in line)
    if child.exitcode:
        found[f'the process ended with {child.exitcode} at seed {lines[-1]["seed"]}'] += 1
    shutil.rmtree(folder, ignore_errors=True)
    return found


def main() -> int:
    """Print outcomes; return 1 if a file did more than be read or refused."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--count', type=int, default=20000)
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    faults = 0
    for kind, outcomes in run(options.count, options.seed).items():
        for outcome, number in outcomes.items():
            if outcome not in ('read', 'refused'):
                faults += number
                print(f'--- {kind}, {number} times:\n{outcome}')
    print(f'{options.count} files, {faults} faults')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
