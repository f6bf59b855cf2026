# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Clips of consecutive frames: the common form of all training data."""
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ros_vseg.labels import LabelSet


VOID = 255  # a pixel that no one labelled
PADDING = 254  # a pixel outside the frame, which augmentation filled in
FRAME_NS = 66_666_667  # from a frame of a drive to the next, where it is streamed: 15 Hz
Pixels = npt.NDArray[np.uint8]
Key = TypeVar('Key', bound=Hashable)


class Clip(NamedTuple):
    """Consecutive frames, oldest first: images uint8 [L, H, W, 3] RGB, labels uint8 [L, H, W]."""

    images: Pixels
    labels: Pixels


class Geometry(NamedTuple):
    """
    Shape of what a frame shows.

    Attributes:
        depth: Float32 [H, W], metres along the optical axis; 0 where it is not known.
        normals: Float32 [H, W, 3], unit vectors towards the camera in its axes (x right, y down,
            z ahead); 0 where they are not known.
        focal: Of the camera, in pixels.
    """

    depth: npt.NDArray[np.float32]
    normals: npt.NDArray[np.float32]
    focal: float


class ClipSource(Generic[Key]):
    """
    Labelled frames of one kind, grouped into drives.

    A subclass sets ``drives``, a list of lists of frame keys in order of time, and implements
    ``read`` and ``frame_name``.
    """

    drives: Sequence[Sequence[Key]] = ()
    snippet_frames = 30  # frames of a drive that make one "video" of MGCNet's long-term context
    unlabelled = False  # whether training clips may end at frames without labels

    def read(self, key: Key) -> tuple[Pixels, Pixels]:
        """Image uint8 [H, W, 3] RGB and labels uint8 [H, W], 255 = void, of one frame."""
        raise NotImplementedError

    def frame_name(self, key: Key) -> str:
        """Name of a frame in messages and on disk, unique among sources: a relative path."""
        raise NotImplementedError

    def read_image(self, key: Key) -> Pixels:
        """Image of one frame."""
        return self.read(key)[0]

    def geometry(self, key: Key) -> Geometry | None:
        """Geometry of one frame; None where the source has none."""
        return None

    def instances(self, key: Key) -> npt.NDArray[np.int32] | None:
        """Instances of one frame as ``InstanceIoU`` takes them; None where there are none."""
        return None

    def has_labels(self, key: Key) -> bool:
        """Whether a frame has labels, without reading them."""
        return True

    def problems(self) -> Iterable[str]:
        """Tell what is wrong with the source as a whole, a line for each mistake."""
        return ()

    def frames(self) -> list[tuple[int, int]]:
        """Every (drive index, position) at which a training clip may end, in order."""
        return [(number, position) for number, drive in enumerate(self.drives)
                for position, key in enumerate(drive) if self.unlabelled or self.has_labels(key)]

    def clip_keys(self, drive: int, position: int, length: int) -> list[Key]:
        """Keys of a clip that ends at a frame; at a drive's start the first is repeated."""
        return [self.drives[drive][max(0, position - back)] for back in range(length - 1, -1, -1)]

    def drive_name(self, drive: int) -> str:
        """Name of a drive, by its index, as ``data.train[].drives`` gives it."""
        return self.frame_name(self.drives[drive][0]).rpartition('/')[0]

    def keep_drives(self, names: Sequence[str]) -> None:
        """Leave out all drives but those of some names; ValueError for a name of none."""
        known = [self.drive_name(drive) for drive in range(len(self.drives))]
        for name in names:
            if name not in known:
                raise ValueError(f'there is no drive {name!r}: use '
                                 f'{", ".join(dict.fromkeys(known))}')
        self.drives = [drive for drive, name in zip(self.drives, known) if name in names]

    def snippets(self) -> list[int]:
        """First snippet number of each drive, and the number of all."""
        counts = [-(-len(drive) // self.snippet_frames) for drive in self.drives]
        return np.cumsum([0, *counts]).tolist()

    def distant_keys(self, drive: int, position: int, length: int, interval: int) -> list[Key]:
        """
        Keys of the distant frames of a clip: interval, 2 * interval ... before its end.

        Where that leaves the drive, the walk turns back at its ends (MGCNet Sec. III-C, R).

        Args:
            drive: Index of the drive.
            position: Of the clip's last frame in the drive.
            length: How many distant frames.
            interval: In frames.

        Returns:
            Keys, the most distant first.
        """
        last = len(self.drives[drive]) - 1
        keys = []
        for step in range(length, 0, -1):
            # there and back again is 2 * last frames
            place = (position - interval * step) % (2 * last) if last else 0
            keys.append(self.drives[drive][min(place, 2 * last - place)])
        return keys

    def load(self, keys: Sequence[Key]) -> Clip:
        """Clip of some frames; ValueError if they are not of one size."""
        images, labels = zip(*(self.read(key) for key in keys))
        return Clip(self._stack(keys, images), np.stack(labels))

    def load_images(self, keys: Sequence[Key]) -> Pixels:
        """Images uint8 [L, H, W, 3] of some frames; ValueError if they are not of one size."""
        return self._stack(keys, [self.read_image(key) for key in keys])

    def _stack(self, keys: Sequence[Key], images: Sequence[Pixels]) -> Pixels:
        for key, image in zip(keys, images):
            if image.shape != images[0].shape:
                raise two_sizes(self.frame_name(keys[0]), images[0].shape[:2],
                                self.frame_name(key), image.shape[:2])
        return np.stack(images)


def two_sizes(first: str, size: tuple[int, ...], other: str, other_size: tuple[int, ...]
              ) -> ValueError:
    """Error of two frames of one drive whose sizes (height, width) differ."""
    return ValueError(f'{first} is {size}, but {other} of the same drive is {other_size}: put '
                      'frames of one size into a drive')


def refuse_padding_as_class(label_set: LabelSet) -> None:
    """Raise ValueError for a label set in which the id of padding is a class."""
    count = len(label_set.names)
    if count > PADDING:
        raise ValueError(f'label set {label_set.name} has {count} classes: at most {PADDING} can '
                         f'be trained, as {PADDING} stands for padding')


def not_measured() -> str:
    """Error of a val of which no frame has labels."""
    return ('no frame of data.val has labels to measure by: give it some, or set data.val to null')


def all_void(part: str) -> str:
    """Error of labels of train or val in which no pixel has a class."""
    return (f'all labels of {part} are void: no pixel of them has a class: correct the files, or '
            f'the label_map of the source; {VOID} is void, as are the ids that a map calls so')


def only_void(sources: Iterable[ClipSource[Any]]) -> bool:
    """Whether there are labels, but none with a class; as a rule, the first one answers."""
    found = False
    for source in sources:
        for key in (key for drive in source.drives for key in drive if source.has_labels(key)):
            found = True
            if (source.read(key)[1] != VOID).any():
                return False
    return found


def class_frequency(source: ClipSource[Any], num_classes: int, most: int = 400
                    ) -> npt.NDArray[np.float64]:
    """Share of labelled pixels per class, float64 [K], of about ``most`` labelled frames."""
    keys = [key for drive in source.drives for key in drive if source.has_labels(key)]
    counts = np.zeros(256, np.int64)
    for key in keys[::max(1, len(keys) // most)]:
        counts += np.bincount(source.read(key)[1].ravel(), minlength=256)
    return counts[:num_classes] / max(1, counts[:num_classes].sum())
