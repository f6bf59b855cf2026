# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""
Every test run is a DDS domain of its own, on this machine only, with the shipped profile.

The node under test is one process for all tests; each test has frames and times of its own.
"""
import os

from hypothesis import HealthCheck, settings
import pytest
import ros_helpers as ros
from tiny_bundle import write_tiny_bundle

from ros_vseg import backends
from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.processes import ros_environment

os.environ.update(ros_environment())

# The same examples everywhere, however long a busy machine takes over them.
settings.register_profile('any machine', deadline=None, derandomize=True,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('any machine')


@pytest.fixture(scope='session')
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('bundle') / 'tiny.onnx')


@pytest.fixture(scope='session')
def tiny(bundle):
    return Bundle.load(bundle)


@pytest.fixture(scope='session')
def student():
    """Return the student that is shipped."""
    return Bundle.load(default_bundle_path())


@pytest.fixture(scope='session')
def probe():
    probe = ros.Probe()
    yield probe
    probe.close()


@pytest.fixture(scope='session')
def node(bundle, tmp_path_factory):
    arguments = {'qos_overrides./front/image.subscription.reliability': 'reliable',
                 'qos_overrides./vseg_node/front/label.publisher.depth': 50}
    log = tmp_path_factory.mktemp('node') / 'log'
    with ros.start('vseg_node', log, bundle=bundle, cameras='[front, rear]', threads=1,
                   precision='fp32', **arguments) as child:
        yield child
        child.check_alive()


@pytest.fixture(scope='session')
def front(node, probe):
    """Return the camera that publishes raw images and that only labels are wanted of."""
    return ros.CameraProbe(probe, 'vseg_node', 'front')


@pytest.fixture(scope='session')
def rear(node, probe):
    """Return the camera that publishes JPEG, and that everything is wanted of."""
    outputs = ('label', 'color', 'overlay', 'confidence', 'camera_info')
    return ros.CameraProbe(probe, 'vseg_node', 'rear', outputs, raw=False)


@pytest.fixture(scope='session')
def backend(bundle):
    return backends.load(Bundle.load(bundle), threads=1, precision='fp32')
