# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node in this process: what it declares, and what it lets go of."""
import gc
import weakref

import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from ros_vseg.nodes.lifecycle import VsegNode

SUCCESS = TransitionCallbackReturn.SUCCESS


@pytest.fixture
def make(bundle):
    """Return a function that makes a VsegNode with parameters of the command line."""
    made = []

    def start(**parameters):
        values = {'bundle': bundle, 'threads': 1, 'precision': 'fp32', **parameters}
        arguments = [part for name, value in values.items()
                     for part in ('-p', f'{name}:={value}')]
        rclpy.init(args=['vseg_node', '--ros-args', '-r', '__ns:=/alone', *arguments])
        made.append(VsegNode())
        return made[0]
    yield start
    for node in made:
        node.destroy_node()
    rclpy.try_shutdown()


def test_a_camera_that_is_added_has_its_parameters_at_once(make):
    node = make(cameras='[front]')
    add = Parameter('cameras', value=['front', 'left/rgb'])
    assert node.set_parameters_atomically([add]).successful
    bits = Parameter('left/rgb.bit_depth', value=12)
    assert node.set_parameters_atomically([bits]).successful
    refused = node.set_parameters_atomically([Parameter('left/rgb.bit_depth', value=7)])
    assert not refused.successful
    assert node.trigger_configure() == SUCCESS
    assert [camera._value('bit_depth') for camera in node._cameras] == [16, 12]


def test_a_wrong_parameter_of_a_camera_that_is_added_is_told_when_it_is_configured(make, capfd):
    node = make(**{'cameras': '[front]', 'rear.priority': 'high'})
    add = Parameter('cameras', value=['front', 'rear'])
    assert node.set_parameters_atomically([add]).successful
    assert node.trigger_configure() != SUCCESS
    assert "parameter 'rear.priority' is 'high'" in capfd.readouterr().err


def test_cleanup_lets_go_of_the_network_at_once(make):
    """A GPU's memory is to be free for the next configure, not when Python comes round to it."""
    node = make()
    assert node.trigger_configure() == node.trigger_activate() == SUCCESS
    backend = weakref.ref(node._backend)
    gc.disable()
    try:
        assert node.trigger_deactivate() == node.trigger_cleanup() == SUCCESS
        assert backend() is None
    finally:
        gc.enable()
