# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""A backend with another one standing by, for the GPU that is lost in mid-drive."""
import logging
import threading

from ros_vseg.errors import DeviceError

log = logging.getLogger(__name__)


class FallbackBackend:
    """
    Backend that goes on with ``standby``, loaded already, once ``backend``'s device fails.

    ``problem`` says in words what failed, or is None. It does not go back: a device that came back
    would fail again.
    """

    def __init__(self, backend, standby, problem=None):
        self.current, self._standby, self.problem = backend, standby, problem
        self._lock = threading.Lock()

    @property
    def bundle(self):
        """See Backend."""
        return self.current.bundle

    @property
    def name(self):
        """See Backend."""
        return self.current.name

    @property
    def device(self):
        """See Backend."""
        return self.current.device

    def stream(self, table=None):
        """See Backend."""
        return FallbackStream(self, table)

    def give_up(self, failed, error):
        """Go on with the standby if ``failed`` is at work; whether there is anything to go to."""
        with self._lock:
            if self.current is failed and self._standby is not None:
                self.problem = (f'{failed.name} on {failed.device} failed ({error}): going on '
                                f'with {self._standby.name}')
                log.error('%s', self.problem)
                self.current, self._standby = self._standby, None
            return self.current is not failed


class FallbackStream:
    """
    BackendStream of whichever backend is at work; the frame at which it fails is done again.

    The standby's pool is empty at first: its ``context_frames`` says so.
    """

    def __init__(self, owner, table):
        self._owner, self._table = owner, table
        self._open()

    def _open(self):
        self._backend = self._owner.current
        self._stream = self._backend.stream(self._table)

    @property
    def context_frames(self):
        """See BackendStream."""
        return self._stream.context_frames

    def label(self, image, confidence=False):
        """See BackendStream."""
        return self._again(lambda stream: stream.label(image, confidence))

    def step(self, image):
        """See BackendStream."""
        return self._again(lambda stream: stream.step(image))

    def remember(self) -> None:
        """See BackendStream."""
        self._stream.remember()     # of the backend that labelled the frame

    def forget_oldest(self) -> None:
        """See BackendStream."""
        self._stream.forget_oldest()

    def _again(self, work):
        if self._backend is not self._owner.current:    # another camera found it out
            self._open()
        try:
            return work(self._stream)
        except DeviceError as error:
            if not self._owner.give_up(self._backend, error):
                raise
            self._open()
            return work(self._stream)

    def reset(self):
        """See BackendStream."""
        self._stream.reset()
