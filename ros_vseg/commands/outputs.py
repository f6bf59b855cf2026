# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What ``vseg run`` writes into its folder, and what it finds there."""
from collections.abc import Collection
from pathlib import Path
import shutil
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ros_vseg.bundle import BundleInfo
from ros_vseg.commands.journal import NAME, PICTURES
from ros_vseg.depth import depth_image, in_millimetres
from ros_vseg.errors import MediaError
from ros_vseg.files import remove_abandoned
from ros_vseg.labels import colorize, overlay
from ros_vseg.media.bags import Bag
from ros_vseg.media.frames import Frame
from ros_vseg.media.writers import BagWriter, VideoWriter, write_png
from ros_vseg.stream import Result, Stream

TOPICS = {'label', 'color', 'overlay'}   # of the bag
RESULTS = ('labels', 'color', 'depth', 'overlay.mp4', 'bag', NAME)   # names in the output folder


class DepthPictures:
    """
    Depth as PNGs, of frames of one size: that of the first frame, which the focal length is for.

    Args:
        folder: to write to.
        info: of the bundle, with depth.
        focal: of the camera, in pixels of the first frame.

    Attributes:
        other_size: frames of another size, which have no depth.
        without_value: share of the pixels with a distance that 16 bits do not hold; None: no
            pixel has one.
    """

    def __init__(self, folder: Path, info: BundleInfo, focal: float) -> None:
        self._folder, self._info, self._focal = folder, info, focal
        self._size: tuple[int, int] | None = None
        self._frames = self._finite = self._saved = self.other_size = 0

    def see(self, size: tuple[int, int]) -> None:
        """Take the (H, W) of a frame, of an earlier run too: the first one's counts."""
        self._size = self._size or size

    def write(self, name: str, coarse: npt.NDArray[np.float32], size: tuple[int, int]) -> None:
        """Write the coarse depth of a frame of (H, W) as NAME.png; MediaError."""
        self.see(size)
        if size != self._size:
            self.other_size += 1
            return
        assert self._info.depth is not None
        metres = depth_image(coarse, size, self._info.depth, self._focal, self._info.height)
        stored = in_millimetres(metres)
        write_png(self._folder / f'{name}.png', stored)
        self._frames += 1
        self._finite += int(np.count_nonzero(np.isfinite(metres)))
        self._saved += int(np.count_nonzero(stored))

    @property
    def without_value(self) -> float | None:
        """Share in 0..1, see above."""
        return 1 - self._saved / self._finite if self._finite else None

    def problems(self) -> list[str]:
        """Return in words what is missing."""
        found = []
        if self.other_size and self._size:
            found.append('{} frames have no depth: --focal is for the size of the first image, '
                         '{}x{}, and they have another'.format(self.other_size, *self._size))
        if self._frames and not self._saved:
            reason = 'all is far' if not self._finite else 'all lies beyond 65.5 m'
            found.append(f'no pixel of {self._frames} depth images has a value, since {reason}: '
                         f'is --focal {self._focal:g} the focal length, in pixels of the images?')
        return found


class Outputs:
    """
    What a run writes. A context manager: bag and video appear when its block succeeds.

    A video that fails is given up with a message in ``problems``; the other outputs go on. What
    of depth is missing is told there at the end.
    """

    def __init__(self, output: Path, save: Collection[str], fps: float, stream: Stream,
                 problems: list[str], focal: float | None = None) -> None:
        self._output, self._save, self._label_set = output, save, stream.label_set
        self._problems = problems
        self.depth: DepthPictures | None = None
        if 'depth' in save and focal:
            self.depth = DepthPictures(output / 'depth', stream.info, focal)
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
        if self.depth and result.depth is not None:
            self.depth.write(frame.name, result.depth, labels.shape)

    def append(self, frame: Frame, labels: npt.NDArray[np.uint8]) -> None:
        """Append the labels uint8 [H, W] of a frame to bag and video; MediaError."""
        if self.depth:
            self.depth.see(labels.shape)
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
        if self.depth:
            self._problems += self.depth.problems()
        try:
            if self._bag:
                self._bag.__exit__(kind, value, trace)
        finally:
            if self._video:
                try:
                    self._video.__exit__(kind, value, trace)
                except MediaError as error:
                    self._give_up_video(error)


def prepare(output: Path, clear: bool, source: Path | None = None) -> None:
    """
    Make the output folder; refuse or remove the results of an earlier run in it.

    Args:
        output: The folder.
        clear: Whether to remove results, never those that are no run's.
        source: What is to be labelled, which no result may replace.

    Raises:
        MediaError: There are results, or the folder cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in RESULTS if source else ():
            place, own = (output / name).resolve(), Path(str(source)).resolve()
            if place == own or place in own.parents:
                raise MediaError(f'{source} is the input, and a run writes {name} there: choose '
                                 'another output')
        found = [name for name in RESULTS if _has_results(output / name)]
        if clear and NAME not in found and set(found) & set(PICTURES):
            raise MediaError(f'{output} has {", ".join(found)}, but no {NAME} that says which '
                             'of it is of vseg run: remove them yourself, or choose another '
                             'output')
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
        if not {channel.topic for channel in Bag(path).counts} <= TOPICS:
            raise MediaError(f'{path} is a bag of your own, with other topics than a run writes: '
                             'remove it yourself, or choose another output')
        shutil.rmtree(path)
    else:
        for file in path.glob('*.png'):
            file.unlink()
        if any(path.iterdir()):
            raise MediaError(f'{path} has files that are not of an earlier run: remove them '
                             'yourself, or choose another output')
