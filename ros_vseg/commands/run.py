# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Offline labelling of a bag, a video or a folder: the same frames give the same files."""
from collections import defaultdict
import contextlib
import logging
from pathlib import Path
import time

import numpy as np
from tqdm import tqdm

from ros_vseg.errors import MediaError
from ros_vseg.labels import colorize, overlay, remap_table
from ros_vseg.media.iou import ConfusionMatrix
from ros_vseg.media.writers import BagWriter, VideoWriter, write_png

log = logging.getLogger(__name__)


class Report:
    """Counts, times and agreement with exact labels, which have the bundle's ids, of one run."""

    def __init__(self, stream):
        self.label_set, self.frames = stream.label_set, 0
        self._table = remap_table(stream.info.label_set, stream.label_set)
        self.confusion = ConfusionMatrix(len(self.label_set.names))
        self._times, self._start = defaultdict(list), time.perf_counter()
        self._context_frames, self._oldest = 0, None

    def add(self, frame, result):
        """Count a frame and its stream.Result."""
        self.frames += 1
        self._context_frames, self._oldest = result.context_frames, result.oldest
        for stage, seconds in result.times.items():
            self._times[stage].append(seconds)
        if frame.labels is not None and frame.labels.shape == result.labels.shape:
            self.confusion.update(self._table[frame.labels], result.labels)

    def _context(self) -> str:
        if self._oldest is None:
            return 'none at the last frame'
        return (f'{self._context_frames} frames at the last frame, the oldest '
                f'{self._oldest:.2f} s earlier')

    def lines(self, source, stream):
        """Return the report as lines of text."""
        seconds = time.perf_counter() - self._start
        left_out = ', '.join(f'{n} {cause}' for cause, n in source.refused.items())
        resets = ', '.join(f'{n} {cause}' for cause, n in stream.resets.items())
        stages = ', '.join(f'{stage} {1000 * np.median(values):.1f}'
                           for stage, values in self._times.items())
        lines = [f'frames labelled  {self.frames}', f'left out         {left_out or "none"}',
                 f'resets           {resets or "none"}',
                 f'held back        {stream.held_back} frames from the pool',
                 f'context          {self._context()}',
                 f'frames a second  {self.frames / seconds:.1f}', f'stages, ms       {stages}']
        if self.confusion.counts.any():
            lines.append(f'mIoU             {100 * self.confusion.mean_iou():.2f} %')
            lines += [f'  {name:<14} {100 * value:.2f}'
                      for name, value in zip(self.label_set.names, self.confusion.iou())
                      if np.isfinite(value)]
        return lines


def run(source, stream, output, save=None):
    """
    Label every frame of a source and write what ``save`` names into a folder.

    labels/NAME.png (8-bit ids), color/NAME.png, overlay.mp4, and bag/ with the topics label,
    color and overlay; by default labels and overlay. An output that ends in .mcap is that bag
    alone. Returns a Report. MediaError if the output cannot be written; videos and bags are whole
    or absent.
    """
    output = Path(output)
    is_bag = output.suffix == '.mcap'
    save = save or (['bag'] if is_bag else ['labels', 'overlay'])
    if is_bag and set(save) != {'bag'}:
        raise MediaError(f'{output} is to be a bag, which is no place for {", ".join(save)}: give '
                         'a folder to write to')
    report, warned = Report(stream), False
    with contextlib.ExitStack() as stack:
        video = bag = None
        if 'overlay' in save:
            video = stack.enter_context(VideoWriter(output / 'overlay.mp4', source.fps))
        if 'bag' in save:
            bag = stack.enter_context(BagWriter(output if is_bag else output / 'bag'))
        for frame in tqdm(source, total=source.count, unit=' frames', ncols=80, disable=None):
            result = stream.step(frame.image, frame.stamp, frame.frame_id)
            report.add(frame, result)
            if stream.rate.problem and not warned:
                warned = True
                log.warning('%s: %s', source.name, stream.rate.problem)
            if 'labels' in save:
                write_png(output / f'labels/{frame.name}.png', result.labels)
            if 'color' in save:
                write_png(output / f'color/{frame.name}.png',
                          colorize(result.labels, stream.label_set))
            if video or bag:
                blend = overlay(frame.image, result.labels, stream.label_set)
            if video:
                video.write(blend)
            if bag:
                bag.image('label', result.labels, 'mono8', frame.stamp, frame.frame_id)
                bag.image('color', colorize(result.labels, stream.label_set), 'rgb8',
                          frame.stamp, frame.frame_id)
                bag.image('overlay', blend, 'rgb8', frame.stamp, frame.frame_id)
    return report
