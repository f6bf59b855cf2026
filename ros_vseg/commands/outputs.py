# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What ``vseg run`` writes into its folder, and what it finds there."""
from collections.abc import Collection
from pathlib import Path
import shutil
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ros_vseg.commands.journal import NAME
from ros_vseg.depth import depth_image, in_millimetres
from ros_vseg.errors import MediaError
from ros_vseg.labels import colorize, overlay
from ros_vseg.media.sources import Frame
from ros_vseg.media.writers import BagWriter, remove_abandoned, VideoWriter, write_png
from ros_vseg.stream import Result, Stream

RESULTS = ('labels', 'color', 'depth', 'overlay.mp4', 'bag', NAME)   # names in the output folder


class Outputs:
    """
    What a run writes. A context manager: bag and video appear when its block succeeds.

    A video that fails is given up with a message in ``problems``; the other outputs go on.
    """

    def __init__(self, output: Path, save: Collection[str], fps: float, stream: Stream,
                 problems: list[str], focal: float | None = None) -> None:
        self._output, self._save, self._label_set = output, save, stream.label_set
        self._problems, self._info, self._focal = problems, stream.info, focal
        self._bag = self._video = None
        for folder in ('labels', 'color', 'depth'):
            remove_abandoned(output / folder)
        if 'bag' in save:
            self._bag = BagWriter(output if output.suffix == '.mcap' else output / 'bag')
        if 'overlay' in save:
            self._video = VideoWriter(output / 'overlay.mp4', fps)

    def write_pictures(self, frame: Frame, result: Result) -> None:
        """Write the labels and depth of a frame as files of its own; MediaError."""
        labels = result.labels
        if 'labels' in self._save:
            write_png(self._output / f'labels/{frame.name}.png', labels)
        if 'color' in self._save:
            write_png(self._output / f'color/{frame.name}.png',
                      colorize(labels, self._label_set))
        if 'depth' in self._save and result.depth is not None and self._focal:
            assert self._info.depth is not None
            metres = depth_image(result.depth, labels.shape, self._info.depth, self._focal,
                                 self._info.height)
            write_png(self._output / f'depth/{frame.name}.png', in_millimetres(metres))

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


def prepare(output: Path, clear: bool) -> None:
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
