# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A backend with another one standing by, for the GPU that fails in mid-drive."""
import logging
import threading
from typing import Callable, Collection, TypeVar

import numpy as np
import numpy.typing as npt

from ros_vseg.backends.base import Backend, BackendStream, Labels
from ros_vseg.bundle import Bundle
from ros_vseg.encoding import Picture
from ros_vseg.gpu import failures

Made = TypeVar('Made')

log = logging.getLogger(__name__)


class FallbackBackend:
    """
    Backend that goes on with ``standby``, loaded already, once ``backend`` fails.

    ``problem`` says in words what failed, or is None. It does not go back: a device that came back
    would fail again.
    """

    def __init__(self, backend: Backend, standby: Backend | None,
                 problem: str | None = None) -> None:
        self.current, self.standby, self.problem = backend, standby, problem
        self._lock = threading.Lock()

    @property
    def bundle(self) -> Bundle:
        """See Backend."""
        bundle = self.current.bundle
        assert isinstance(bundle, Bundle)
        return bundle

    @property
    def name(self) -> str:
        """See Backend."""
        return self.current.name

    @property
    def device(self) -> str:
        """See Backend."""
        return self.current.device

    @property
    def raw_encodings(self) -> Collection[str]:
        """See Backend."""
        return getattr(self.current, 'raw_encodings', ())

    def report(self) -> dict[str, str]:
        """Return what /diagnostics shows of the backend at work."""
        return getattr(self.current, 'report', dict)()

    def stream(self, table: npt.NDArray[np.uint8] | None = None) -> 'FallbackStream':
        """See Backend."""
        return FallbackStream(self, table)

    def give_up(self, failed: Backend, error: Exception) -> None:
        """Go on with the standby, if ``failed`` is still at work."""
        with self._lock:
            if self.current is failed and self.standby is not None:
                self.problem = (f'{failed.name} on {failed.device} failed ({error}): going on '
                                f'with {self.standby.name}')
                log.error('%s', self.problem)
                self.current, self.standby = self.standby, None


class FallbackStream:
    """
    BackendStream of whichever backend is at work; the frame at which it fails is done again.

    The standby's pool is empty at first: its ``context_frames`` says so.
    """

    def __init__(self, owner: FallbackBackend, table: npt.NDArray[np.uint8] | None) -> None:
        self._owner, self._table = owner, table
        self._backend = owner.current
        try:
            self._stream: BackendStream = self._backend.stream(table)
        except Exception as error:
            self._go_on(error, lambda stream: None)

    @property
    def context_frames(self) -> int:
        """See BackendStream."""
        return self._stream.context_frames

    def label(self, image: Picture, confidence: bool = False) -> Labels:
        """See BackendStream."""
        return self._do(lambda stream: stream.label(image, confidence))

    def step(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See BackendStream."""
        return self._do(lambda stream: stream.step(image))

    def remember(self) -> None:
        """See BackendStream."""
        self._stream.remember()     # of the backend that labelled the frame

    def forget_oldest(self) -> None:
        """See BackendStream."""
        self._stream.forget_oldest()

    def reset(self) -> None:
        """See BackendStream."""
        self._stream.reset()

    def _do(self, work: Callable[[BackendStream], Made]) -> Made:
        current = self._owner.current
        if self._backend is not current:    # another camera found it out
            self._stream = current.stream(self._table)
            self._backend = current
        try:
            return work(self._stream)
        except Exception as error:  # the libraries' errors have no common base
            return self._go_on(error, work)

    def _go_on(self, error: Exception, work: Callable[[BackendStream], Made]) -> Made:
        """
        Do what failed by the standby, and give the failed backend up.

        What fails there as well is the frame's fault: the backend at work then stays, unless its
        GPU is lost.
        """
        other = self._owner.standby
        if other is None or self._backend is not self._owner.current:
            other = self._owner.current
        if other is self._backend:
            raise error
        stream = other.stream(self._table)
        if not failures.lost() and failures.find(str(error)):
            error = failures.from_library(f'{self._backend.name} failed', str(error))
        made = work(stream)
        self._owner.give_up(self._backend, error)
        self._backend, self._stream = other, stream
        return made
