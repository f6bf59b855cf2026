# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Offline labelling of a bag, a video or a folder: the same frames give the same files."""
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from itertools import islice
import logging
from pathlib import Path
import shutil
import time
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ros_vseg.commands.journal import Journal, NAME, Replay
from ros_vseg.errors import MediaError
from ros_vseg.labels import colorize, LabelSet, overlay, remap_table
from ros_vseg.media.iou import ConfusionMatrix
from ros_vseg.media.sources import Frame, Source
from ros_vseg.media.writers import BagWriter, VideoWriter, write_png
from ros_vseg.stream import Result, Stream

RESULTS = ('labels', 'color', 'overlay.mp4', 'bag', NAME)   # names in the output folder

log = logging.getLogger(__name__)


class NothingLabelledError(MediaError):
    """A source none of whose frames could be labelled; the message says why."""


class Report:
    """
    Counts, times and agreement with exact labels, which have the bundle's ids, of one run.

    ``kept`` frames were labelled by an earlier run, ``frames`` by this one. ``problems`` are the
    outputs that could not be written while others were.
    """

    def __init__(self, stream: Stream) -> None:
        self.label_set, self.frames, self.kept = stream.label_set, 0, 0
        self.problems: list[str] = []
        self._table = remap_table(stream.info.label_set, stream.label_set)
        self.confusion = ConfusionMatrix(len(self.label_set.names))
        self._times: defaultdict[str, list[float]] = defaultdict(list)
        self._start = time.perf_counter()
        self._context_frames = 0
        self._oldest: float | None = None

    def add(self, frame: Frame, result: Result) -> None:
        """Count a frame and what the stream made of it."""
        self.frames += 1
        self._context_frames, self._oldest = result.context_frames, result.oldest
        for stage, seconds in result.times.items():
            self._times[stage].append(seconds)
        self._compare(frame, result.labels)

    def keep(self, frame: Frame, labels: npt.NDArray[np.uint8]) -> None:
        """Count a frame whose labels uint8 [H, W] are of an earlier run."""
        self.kept += 1
        self._compare(frame, labels)

    def _compare(self, frame: Frame, labels: npt.NDArray[np.uint8]) -> None:
        if frame.labels is not None and frame.labels.shape == labels.shape:
            self.confusion.update(self._table[frame.labels], labels)

    def to_dict(self, source: Source, stream: Stream) -> dict[str, Any]:
        """Return the report as values for JSON; shares are in 0..1, times in ms."""
        seconds = time.perf_counter() - self._start
        tree = {
            'source': source.name, 'frames': self.frames, 'kept': self.kept,
            'left_out': dict(source.refused), 'resets': dict(stream.resets),
            'held_back': stream.held_back, 'context_frames': self._context_frames,
            'context_seconds': self._oldest,
            'frames_per_second': self.frames / seconds,
            'stages_ms': {stage: 1000 * float(np.median(values))
                          for stage, values in self._times.items()},
            'problems': self.problems}
        if self.confusion.counts.any():
            tree['miou'] = self.confusion.mean_iou()
            tree['iou'] = {name: float(value)
                           for name, value in zip(self.label_set.names, self.confusion.iou())
                           if np.isfinite(value)}
        return tree

    def lines(self, source: Source, stream: Stream) -> list[str]:
        """Return the report as lines of text."""
        tree = self.to_dict(source, stream)
        context = 'none at the last frame'
        if self._oldest is not None:
            context = (f'{self._context_frames} frames at the last frame, the oldest '
                       f'{self._oldest:.2f} s earlier')
        stages = ', '.join(f'{stage} {value:.1f}' for stage, value in tree['stages_ms'].items())
        resets = ', '.join(f'{count} {cause}' for cause, count in stream.resets.items())
        lines = [f'frames labelled  {self.frames}',
                 *([f'of earlier runs  {self.kept}'] if self.kept else []),
                 f'left out         {source.left_out() or "none"}',
                 f'resets           {resets or "none"}',
                 f'held back        {stream.held_back} frames from the pool',
                 f'context          {context}',
                 f'frames a second  {tree["frames_per_second"]:.1f}',
                 f'stages, ms       {stages}']
        if 'miou' in tree:
            lines.append(f'mIoU             {100 * tree["miou"]:.2f} %')
            lines += [f'  {name:<14} {100 * value:.2f}' for name, value in tree['iou'].items()]
        return lines


class Outputs:
    """
    What a run writes. A context manager: bag and video appear when its block succeeds.

    A video that fails is given up with a message in ``problems``; the other outputs go on.
    """

    def __init__(self, output: Path, save: Collection[str], fps: float, label_set: LabelSet,
                 problems: list[str]) -> None:
        self._output, self._save, self._label_set = output, save, label_set
        self._problems = problems
        self._bag = self._video = None
        if 'bag' in save:
            self._bag = BagWriter(output if output.suffix == '.mcap' else output / 'bag')
        if 'overlay' in save:
            self._video = VideoWriter(output / 'overlay.mp4', fps)

    def write_pictures(self, frame: Frame, labels: npt.NDArray[np.uint8]) -> None:
        """Write the labels uint8 [H, W] of a frame as files of its own; MediaError."""
        if 'labels' in self._save:
            write_png(self._output / f'labels/{frame.name}.png', labels)
        if 'color' in self._save:
            write_png(self._output / f'color/{frame.name}.png',
                      colorize(labels, self._label_set))

    def append(self, frame: Frame, labels: npt.NDArray[np.uint8]) -> None:
        """Append the labels uint8 [H, W] of a frame to bag and video; MediaError."""
        if not self._bag and not self._video:
            return
        blend = overlay(frame.image, labels, self._label_set)
        if self._bag:
            for topic, pixels, encoding in (
                    ('label', labels, 'mono8'),
                    ('color', colorize(labels, self._label_set), 'rgb8'),
                    ('overlay', blend, 'rgb8')):
                self._bag.image(topic, pixels, encoding, frame.stamp, frame.frame_id)
        if self._video:
            try:
                self._video.write(blend)
            except MediaError as error:
                self._give_up_video(error)

    def _give_up_video(self, error: MediaError) -> None:
        self._video = None
        self._problems.append(str(error))

    def __enter__(self) -> 'Outputs':
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if self._bag:
                self._bag.__exit__(kind, value, trace)
        finally:
            if self._video:
                try:
                    self._video.__exit__(kind, value, trace)
                except MediaError as error:
                    self._give_up_video(error)


def run(source: Source, stream: Stream, output: Path, save: Collection[str] | None = None, *,
        limit: int | None = None, clear: bool = False, progress: bool = True,
        resume: bool = False, options: Mapping[str, Any] | None = None) -> Report:
    """
    Label every frame of a source and write what ``save`` names into a folder.

    Beside labels/ a file run.jsonl says which frames are done, for ``resume``.

    Args:
        source: Its frames, in order.
        stream: What labels them; new.
        output: Folder to write to, or a bag (NAME.mcap).
        save: Of ``labels`` (labels/NAME.png, 8-bit ids), ``color`` (color/NAME.png), ``overlay``
            (overlay.mp4) and ``bag`` (bag/ with the topics label, color and overlay). None:
            labels and overlay, or the bag where output is one.
        limit: Number of frames after which to end.
        clear: Whether to remove what an earlier run has written to output.
        progress: Whether to show a progress bar on a terminal.
        resume: Whether to go on where an earlier run of the same input and options ended. All
            files are then, to the bit, what one run would have written.
        options: All that labels depend on beside source and stream, as values for JSON.

    Raises:
        MediaError: The output cannot be written, has results of an earlier run, or of one with
            other options to go on with. Videos and bags are whole or absent.
        NothingLabelledError: No frame could be read.

    """
    is_bag = output.suffix == '.mcap'
    save = save or (['bag'] if is_bag else ['labels', 'overlay'])
    if is_bag and set(save) != {'bag'}:
        raise MediaError(f'{output} is to be a bag, which cannot hold {", ".join(save)}: give a '
                         'folder to write to')
    if resume and 'labels' not in save:
        raise MediaError('only a run that saves labels can be resumed: give a folder to write to, '
                         'and labels to --save')
    report, earlier = Report(stream), resume and (output / NAME).is_file()
    if not is_bag and not earlier:
        _prepare(output, clear)
    journal = Journal(output, {
        **(options or {}), 'input': source.name, 'save': sorted(save), 'max_gap': stream.max_gap,
        'label_set': stream.label_set.to_dict()}) if 'labels' in save else None
    if journal and earlier:
        journal.read(save)
    replay = Replay(output, journal.entries if journal else [], stream)
    total = source.count if limit is None else min(limit, source.count or limit)
    with Outputs(output, save, source.fps, stream.label_set, report.problems) as outputs, \
            journal or nullcontext():
        _label(tqdm(islice(source, limit), total=total, unit=' frames', ncols=80,
                    disable=None if progress else True),
               stream, outputs, report, replay, journal, source.name)
        count = report.kept + report.frames
        if count != limit:
            replay.missing(count)
        if not count:
            raise NothingLabelledError(
                f'nothing was labelled: {source.name} has no readable frame (left out: '
                f'{source.left_out() or "none"})')
    return report


def _label(frames: Iterable[Frame], stream: Stream, outputs: Outputs, report: Report,
           replay: Replay, journal: Journal | None, name: str) -> None:
    """Take what an earlier run has made of the first frames, and label the others."""
    warned = False
    for number, frame in enumerate(frames):
        if number < len(replay):
            labels = replay.labels(number, frame)
            report.keep(frame, labels)
        else:
            result = stream.step(frame.image, frame.stamp, frame.frame_id)
            labels = result.labels
            report.add(frame, result)
            if journal:
                journal.start()
            outputs.write_pictures(frame, labels)
            if journal:
                journal.add(frame, result)
        if stream.rate.problem and not warned:
            warned = True
            log.warning('%s: %s', name, stream.rate.problem)
        outputs.append(frame, labels)


def _prepare(output: Path, clear: bool) -> None:
    """Make the output folder; refuse or remove the results of an earlier run in it."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        found = [name for name in RESULTS if _has_results(output / name)]
        if found and not clear:
            raise MediaError(f'{output} has {", ".join(found)} of an earlier run: choose another '
                             'output, or have them removed with --clear')
        for name in found:
            _remove(output / name)
    except (OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f'{str(output)!r} cannot be written ({error}): choose another output'
                         ) from error


def _has_results(path: Path) -> bool:
    return path.is_file() or path.is_dir() and any(path.iterdir())


def _remove(path: Path) -> None:
    """Remove a video, the PNGs of a folder, or a bag: nothing that a run has not written."""
    if path.is_file():
        path.unlink()
    elif (path / 'metadata.yaml').exists():
        shutil.rmtree(path)
    else:
        for file in path.glob('*.png'):
            file.unlink()
        if any(path.iterdir()):
            raise MediaError(f'{path} has files that are not of an earlier run: remove them '
                             'yourself, or choose another output')
