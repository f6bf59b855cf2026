# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The hand-over from a backend that fails to its standby, with stand-ins for both."""
from types import SimpleNamespace

import pytest

from ros_vseg.backends.fallback import FallbackBackend


class StandIn:
    """Stands for a backend; ``fail`` names what it cannot do."""

    def __init__(self, name, fail=()):
        self.name, self.device, self.fail = name, 'a device', set(fail)

    def stream(self, table=None):
        if 'stream' in self.fail:
            raise MemoryError(self.name)
        return SimpleNamespace(label=self._label, context_frames=0)

    def _label(self, image, confidence=False):
        if 'label' in self.fail:
            raise ValueError(self.name)
        return self.name


def test_a_camera_whose_standby_fails_at_first_goes_on_with_it_later():
    """Two cameras: one finds the fault, and for the other there is no memory at that moment."""
    first, standby = StandIn('first'), StandIn('standby')
    backend = FallbackBackend(first, standby)
    one, other = backend.stream(), backend.stream()
    assert (one.label(None), other.label(None)) == ('first', 'first')
    first.fail.add('label')
    assert one.label(None) == 'standby'
    standby.fail.add('stream')
    with pytest.raises(MemoryError):
        other.label(None)
    standby.fail.clear()
    assert other.label(None) == 'standby'
