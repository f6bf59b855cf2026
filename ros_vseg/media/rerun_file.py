# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings (.rrd) for the Rerun viewer; its SDK (extra ``rerun``) is imported on demand."""
from contextlib import suppress
import glob
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ros_vseg.errors import MediaError
from ros_vseg.files import remove_abandoned
from ros_vseg.labels import LabelSet
from ros_vseg.media.writers import begin, not_written

QUALITY = 90        # of the images' JPEG: whole ones would take gigabytes
CLOCK = 10**18      # ns from which a stamp is a time of day (2001 and later), not of a drive


class RerunWriter:
    """
    Image, labels and confidence of each frame on the timeline ``stamp``.

    Below the entity ``camera``: ``image``, ``image/label`` with the classes' names and colours,
    and ``confidence``. The file appears when ``close`` is called. A context manager.

    Args:
        path: of the file, .rrd.
        label_set: of the labels.
        name: of the recording in the viewer.

    Raises:
        MediaError: the SDK is not installed, or the file cannot be written.
    """

    def __init__(self, path: Path, label_set: LabelSet, name: str) -> None:
        try:
            import rerun
        except ImportError as error:
            raise MediaError(f'the Rerun SDK is not installed ({error}): pip install rerun-sdk'
                             ) from error
        if path.exists():   # perhaps a recording of one's own: never replaced
            raise MediaError(f'{path} exists: remove it or choose another file')
        self._sdk, self._path, self._partial = rerun, path, begin(path)
        remove_abandoned(path.parent, glob.escape(path.name))
        self._recording = rerun.RecordingStream('ros_vseg')
        self._first: int | None = None
        classes = [(index, text, tuple(color)) for index, (text, color) in enumerate(
            zip(label_set.names, label_set.colors))]
        classes.append((label_set.void_id, 'void', (0, 0, 0)))
        try:
            self._recording.save(str(self._partial))
            self._recording.send_recording_name(name)
            self._recording.log('camera', rerun.AnnotationContext(classes), static=True)
        except RuntimeError as error:
            raise self._failed(error) from error

    def write(self, image: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8],
              confidence: npt.NDArray[np.uint8] | None, stamp: int) -> None:
        """
        Append a frame.

        Args:
            image: uint8 [H, W, 3] RGB.
            labels: uint8 [H, W].
            confidence: uint8 [H, W], 255 times the largest class probability, or None.
            stamp: nanoseconds.
        """
        self._first = stamp if self._first is None else self._first
        if self._first >= CLOCK:
            self._recording.set_time('stamp', timestamp=np.datetime64(stamp, 'ns'))
        else:
            self._recording.set_time('stamp', duration=np.timedelta64(stamp, 'ns'))
        jpeg = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                            [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        self._log('image', self._sdk.EncodedImage(contents=jpeg, media_type='image/jpeg'))
        self._log('image/label', self._sdk.SegmentationImage(labels, opacity=0.5))
        if confidence is not None:
            self._log('confidence', self._sdk.Image(confidence, color_model='L'))

    def _log(self, name: str, content: Any) -> None:
        self._recording.log(f'camera/{name}', content)

    def close(self) -> None:
        """Complete the file and give it its name."""
        try:
            self._recording.flush()
            self._recording.disconnect()
            os.replace(self._partial, self._path)
        except (OSError, RuntimeError) as error:
            raise self._failed(error) from error

    def discard(self) -> None:
        """Leave nothing behind."""
        self._recording.disconnect()
        with suppress(OSError):     # of a file that could not even be made
            self._partial.unlink(missing_ok=True)

    def _failed(self, error: Exception) -> MediaError:
        self.discard()
        return not_written(self._path, error)

    def __enter__(self) -> 'RerunWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
