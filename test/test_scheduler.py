# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: least recently served first, newest frame, priorities, rates; no clock."""
from collections import Counter
import threading

import pytest

from ros_vseg.nodes.scheduler import Arrival, RateLimit, Scheduler

PATIENCE = 30.0


class Stand:
    """A camera whose frames take as long as the test says."""

    def __init__(self, name, priority=1.0):
        self.name, self.priority = name, priority
        self.turned_away = []

    def turn_away(self, frame):
        self.turned_away.append(frame.message)


class Device:
    """Serves one frame at a time, each when the test asks for it."""

    def __init__(self, *cameras, **options):
        self.log, self._step, self._done = [], threading.Semaphore(0), threading.Semaphore(0)
        self.scheduler = Scheduler(**options)
        for camera in cameras:
            camera.serve = lambda frame, camera=camera: self._serve(camera, frame)

    def _serve(self, camera, frame):
        self.log.append((camera.name, frame.message))
        self._done.release()
        assert self._step.acquire(timeout=PATIENCE)

    def wait_for_turn(self):
        assert self._done.acquire(timeout=PATIENCE)

    def finish(self):
        """End the frame at work; return the turn after it."""
        self._step.release()
        self.wait_for_turn()
        return self.log[-1]

    def close(self):
        for _ in range(100):
            self._step.release()
        self.scheduler.stop()


@pytest.fixture
def start():
    devices = []

    def started(*cameras, **options):
        devices.append(Device(*cameras, **options))
        return devices[-1]
    yield started
    for device in devices:
        device.close()


def test_the_camera_served_longest_ago_is_next_with_its_newest_frame(start):
    a, b, c = Stand('a'), Stand('b'), Stand('c')
    device = start(a, b, c)
    device.scheduler.start()
    assert not device.scheduler.put(a, Arrival(0, 0.0))
    device.wait_for_turn()
    replaced = [device.scheduler.put(camera, Arrival(number, 0.0))
                for number in (1, 2) for camera in (a, b, c)]
    assert replaced == [False] * 3 + [True] * 3
    assert [device.finish() for _ in range(3)] == [('b', 2), ('c', 2), ('a', 2)]


def serve(device, cameras, turns):
    """Keep a new frame of every camera waiting, and return whose the next turns are."""
    names = []
    for number in range(turns):
        for camera in cameras:
            device.scheduler.put(camera, Arrival(number, 0.0))
        if not number:
            device.scheduler.start()
            device.wait_for_turn()
        else:
            device.finish()
        names.append(device.log[-1][0])
    return names


def test_shares_are_even(start):
    cameras = [Stand(name) for name in 'abcd']
    assert Counter(serve(start(*cameras), cameras, 40)) == dict.fromkeys('abcd', 10)


@pytest.mark.parametrize('priorities', [(2.0, 1.0), (3.0, 1.0, 1.0), (1.0, 0.5, 0.25)])
def test_shares_follow_the_priorities(start, priorities):
    cameras = [Stand(str(number), priority) for number, priority in enumerate(priorities)]
    counts = Counter(serve(start(*cameras), cameras, 40))
    for camera in cameras:
        due = 40 * camera.priority / sum(priorities)
        assert abs(counts[camera.name] - due) <= 1


def test_a_higher_priority_applies_at_once(start):
    a, b = Stand('a'), Stand('b', 0.01)
    device = start(a, b)
    serve(device, [a, b], 4)
    b.priority, names = 1.0, []
    for _ in range(20):
        for camera in (a, b):
            device.scheduler.put(camera, Arrival(0, 0.0))
        names.append(device.finish()[0])
    assert names.count('b') >= 9


def test_a_camera_that_stalls_has_no_claim_when_it_returns(start):
    a, b = Stand('a'), Stand('b')
    device = start(a, b)
    assert serve(device, [a], 20) == ['a'] * 20     # b is silent meanwhile
    names = []
    for _ in range(8):
        for camera in (a, b):
            device.scheduler.put(camera, Arrival(0, 0.0))
        names.append(device.finish()[0])
    assert names == ['b', 'a'] * 4


def test_a_camera_has_one_frame_at_work(start):
    a, b = Stand('a'), Stand('b')
    device = start(a, b, at_once=lambda: 2, workers=2)
    device.scheduler.start()
    for _ in range(2):
        device.scheduler.put(a, Arrival(0, 0.0))
    device.wait_for_turn()
    device.scheduler.put(a, Arrival(1, 0.0))
    device.scheduler.put(b, Arrival(1, 0.0))
    device.wait_for_turn()
    assert device.log == [('a', 0), ('b', 1)]


def test_what_waits_at_the_end_is_turned_away(start):
    a, b = Stand('a'), Stand('b')
    device = start(a, b)
    device.scheduler.start()
    device.scheduler.put(a, Arrival(0, 0.0))
    device.wait_for_turn()
    device.scheduler.put(b, Arrival(1, 0.0))
    threading.Timer(0.2, device._step.release).start()
    device.scheduler.stop()
    assert (b.turned_away, device.log) == ([1], [('a', 0)])
    assert not device.scheduler.put(a, Arrival(2, 0.0))


@pytest.mark.parametrize('camera_hz, limit, expected', [
    (15, 10, 10), (30, 10, 10), (15, 15, 15), (10, 20, 10), (15, 0, 15)])
def test_rate_limit_keeps_the_average(camera_hz, limit, expected):
    rate = RateLimit()
    passed = sum(rate.admits(100 + number / camera_hz, limit) for number in range(20 * camera_hz))
    assert abs(passed - 20 * expected) <= 2


def test_a_higher_rate_applies_at_once():
    rate = RateLimit()
    assert rate.admits(100.0, 0.001) and not rate.admits(100.5, 0.001)
    assert sum(rate.admits(101 + number / 10, 10.0) for number in range(20)) >= 19


def test_rate_limit_saves_nothing_up_for_a_burst():
    rate = RateLimit()
    assert rate.admits(100.0, 1.0)
    assert [rate.admits(200 + number / 100, 1.0) for number in range(5)].count(True) <= 2
