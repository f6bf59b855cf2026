# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Offline labelling of a bag, a video or a folder: the same frames give the same files."""
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from itertools import islice
import logging
import math
from pathlib import Path
import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ros_vseg.commands.journal import Journal, NAME, PICTURES, Replay
from ros_vseg.commands.outputs import DepthPictures, Outputs, prepare
from ros_vseg.errors import MediaError
from ros_vseg.interrupts import until_interrupted
from ros_vseg.labels import remap_table
from ros_vseg.media.frames import Frame, Source
from ros_vseg.media.iou import ConfusionMatrix
from ros_vseg.media.rerun_file import RerunWriter
from ros_vseg.media.writers import holding
from ros_vseg.stream import Result, Stream


# endings of files that a folder is not called by
FILES = ('.mcap', '.db3', '.bag', '.mp4', '.avi', '.mkv', '.mov', '.webm')

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
        self.depth: DepthPictures | None = None
        self._table = remap_table(stream.info.label_set, stream.label_set)
        self.confusion = ConfusionMatrix(len(self.label_set.names))
        self._other_size = 0
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
        if frame.labels is None:
            return
        if frame.labels.shape == labels.shape:
            self.confusion.update(self._table[frame.labels], labels)
        else:
            self._other_size += 1

    def end(self, source: Source) -> None:
        """Add to the problems what exact labels could not be compared with."""
        if self._other_size:
            self.problems.append(f'{self._other_size} exact labels are of another size than their '
                                 'images, and were not compared')
        if source.unpaired_labels:
            self.problems.append(f'{source.unpaired_labels} exact labels have the stamp of no '
                                 'image, and were not compared')

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
        if self.depth:
            tree['depth'] = {'other_size': self.depth.other_size,
                             'without_value': self.depth.without_value}
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
        if self.depth and self.depth.without_value:
            lines.append(f'depth            {100 * self.depth.without_value:.2f} % of the pixels '
                         'with a distance have no value: beyond 65.5 m, or below 0.5 mm')
        if 'miou' in tree:
            lines.append(f'mIoU             {100 * tree["miou"]:.2f} %')
            lines += [f'  {name:<14} {100 * value:.2f}' for name, value in tree['iou'].items()]
        return lines


def run(source: Source, stream: Stream, output: Path | None, save: Collection[str] | None = None,
        *, limit: int | None = None, clear: bool = False, progress: bool = True,
        resume: bool = False, options: Mapping[str, Any] | None = None,
        rerun: Path | None = None, focal: float | None = None) -> Report:
    """
    Label every frame of a source and write what ``save`` names into a folder.

    Beside labels/ a file run.jsonl says which frames are done, for ``resume``.

    Args:
        source: Its frames, in order.
        stream: What labels them; new.
        output: Folder to write to, or a bag (NAME.mcap); None: nothing but ``rerun``.
        save: Of ``labels`` (labels/NAME.png, 8-bit ids), ``color`` (color/NAME.png), ``depth``
            (depth/NAME.png, 16-bit millimetres, 0 where it is far or beyond 65.5 m),
            ``overlay`` (overlay.mp4) and ``bag`` (bag/ with the topics label, color and overlay).
            None: labels and overlay, or the bag where output is one.
        limit: Number of frames after which to end.
        clear: Whether to remove what an earlier run has written to output.
        progress: Whether to show a progress bar on a terminal.
        resume: Whether to go on where an earlier run of the same input and options ended. All
            files are then, to the bit, what one run would have written.
        options: All that labels depend on beside source and stream, as values for JSON.
        rerun: File for the Rerun viewer (.rrd) to write too; not with resume.
        focal: Focal length of the camera in pixels of its first image, for depth; frames of
            another size have none.

    Raises:
        MediaError: The output cannot be written, has results of an earlier run, or of one with
            other options to go on with. Videos and bags are whole or absent.
        NothingLabelledError: No frame could be read.

    """
    save = _chosen(output, save)
    output = output or Path()
    if 'depth' in save:
        _refuse_without_depth(stream, focal)
    if resume and ('labels' not in save or rerun):
        raise MediaError('only a run that saves labels, and no Rerun file, can be resumed: give a '
                         'folder to write to, and labels to --save')
    is_folder = save and output.suffix != '.mcap'
    with holding(output) if is_folder else nullcontext(), \
            RerunWriter(rerun, stream.label_set, source.name) if rerun else nullcontext() as file:
        return _run(source, stream, output, save, file, limit, clear, progress, resume, options,
                    focal)


def _run(source: Source, stream: Stream, output: Path, save: Collection[str],
         file: RerunWriter | None, limit: int | None, clear: bool, progress: bool, resume: bool,
         options: Mapping[str, Any] | None, focal: float | None) -> Report:
    earlier = resume and (output / NAME).is_file()
    if save and output.suffix != '.mcap' and not earlier:
        prepare(output, clear, source.path)
    report, journal, replay = Report(stream), None, None
    if set(PICTURES) & set(save):
        journal = Journal(output, {
            **(options or {}), **({'focal': focal} if focal else {}),
            'input': source.name, 'save': sorted(save),
            'max_gap': stream.max_gap, 'label_set': stream.label_set.to_dict()})
        if earlier:
            journal.read(save)
            replay = Replay(output, journal.entries, stream)
            if limit is not None and limit < len(replay):
                raise MediaError(f'{output} has {len(replay)} labelled frames, which --limit '
                                 f'{limit} would cut: give {len(replay)} or more')
    total = source.count if limit is None else min(limit, source.count or limit)
    frames = tqdm(islice(source, limit), total=total, unit=' frames', ncols=80,
                  disable=None if progress else True)
    with Outputs(output, save, source.fps, stream, report.problems, focal) as outputs, \
            journal or nullcontext():
        report.depth = outputs.depth
        _label(frames, stream, report, _Sinks(outputs, journal, file), replay, source.name)
        count = report.kept + report.frames
        if replay and count != limit:
            replay.missing(count)
        if not count:
            raise NothingLabelledError(
                f'nothing was labelled: {source.name} has no readable frame (left out: '
                f'{source.left_out() or "none"})')
        report.end(source)
    return report


def _refuse_without_depth(stream: Stream, focal: float | None) -> None:
    if stream.info.depth is None:
        raise MediaError(f'{stream.info.name} gives no depth: leave depth out of --save, or take '
                         'a bundle that was trained for it (tasks.depth)')
    if focal is None or not 0 < focal < math.inf:
        raise MediaError("depth in metres follows from the camera's focal length: give it by "
                         '--focal, in pixels of its images (k[4] of camera_info)')


def _chosen(output: Path | None, save: Collection[str] | None) -> Collection[str]:
    """Return what is to be written into the output; MediaError if it cannot be there."""
    if output is None:
        return []
    if output.suffix != '.mcap':
        if output.suffix.lower() in FILES and not output.is_dir():
            raise MediaError(f'{output} would be a folder: give NAME.mcap to write a bag, or a '
                             'folder, where --save overlay writes overlay.mp4')
        return save or ['labels', 'overlay']
    if set(save or ['bag']) != {'bag'}:
        raise MediaError(f'{output} is to be a bag, which cannot hold {", ".join(save or [])}: '
                         'give a folder to write to')
    return ['bag']


class _Sinks(NamedTuple):
    """Where labels go."""

    outputs: Outputs
    journal: Journal | None
    rerun: RerunWriter | None


def _label(frames: Iterable[Frame], stream: Stream, report: Report, sinks: _Sinks,
           replay: Replay | None, name: str) -> None:
    """Take what an earlier run has made of the first frames, and label the others."""
    warned = False
    for number, frame in enumerate(until_interrupted(frames)):
        if replay and number < len(replay):
            labels = replay.labels(number, frame)
            report.keep(frame, labels)
        else:
            result = stream.step(frame.image, frame.stamp, frame.frame_id,
                                 confidence=sinks.rerun is not None)
            labels = result.labels
            report.add(frame, result)
            _write(frame, result, sinks)
        if stream.rate.problem and not warned:
            warned = True
            log.warning('%s: %s', name, stream.rate.problem)
        sinks.outputs.append(frame, labels)


def _write(frame: Frame, result: Result, sinks: _Sinks) -> None:
    """Write what a frame that was labelled now has of its own."""
    if sinks.journal:
        sinks.journal.start()
    sinks.outputs.write_pictures(frame, result)
    if sinks.journal:
        sinks.journal.add(frame, result)
    if sinks.rerun:
        sinks.rerun.write(frame.image, result.labels, result.confidence, frame.stamp)
