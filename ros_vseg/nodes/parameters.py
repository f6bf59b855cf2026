# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The nodes' parameters as tables: the one source of descriptors, checks and documentation."""
from dataclasses import dataclass
import difflib
import re

from rcl_interfaces.msg import (
    FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult)
from rclpy.exceptions import ParameterException

from ros_vseg.backends import BACKENDS, PRECISIONS
from ros_vseg.errors import VsegError

FOREIGN = ('use_sim_time', 'start_type_description_service', 'qos_overrides.')   # rclpy's own
CAMERA_NAME = r'^[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*$'


class ParameterError(VsegError):
    """A parameter with a value of the wrong type or out of its range."""


@dataclass(frozen=True)
class Parameter:
    """
    One parameter: default (its type is the parameter's type), meaning and allowed values.

    ``change`` says when it can be changed: 'running', 'unconfigured' (a lifecycle node that is
    cleaned up first) or 'start'.
    """

    name: str
    default: bool | int | float | str | tuple
    description: str
    change: str = 'start'
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple = ()
    pattern: str = ''

    def constraint(self):
        """Return in words what a value must be."""
        if self.choices:
            return 'one of ' + ', '.join(self.choices)
        if self.minimum is not None:
            kind = 'a whole number' if isinstance(self.default, int) else 'a decimal number'
            return f'{kind} from {self.minimum} to {self.maximum}, such as {self.default}'
        if self.pattern:
            return 'a list of different ROS names, such as [front, rear] or [left/rgb]'
        return {bool: 'true or false', str: 'a string'}[type(self.default)]

    def allows(self, value):
        """Return whether ``value``, of the right type and range already, may be set."""
        if self.choices:
            return value in self.choices
        if self.pattern:    # an empty list arrives as None
            return bool(value) and len(value) == len(set(value)) and all(
                re.match(self.pattern, name) for name in value)
        return True

    def descriptor(self):
        """Return the ParameterDescriptor that tools such as ``ros2 param describe`` show."""
        descriptor = ParameterDescriptor(
            name=self.name, description=self.description, read_only=self.change == 'start',
            additional_constraints=self.constraint())
        if self.minimum is not None and isinstance(self.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=self.minimum, to_value=self.maximum, step=0)]
        elif self.minimum is not None:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=self.minimum, to_value=self.maximum, step=0.0)]
        return descriptor


VSEG_NODE = (
    Parameter(
        'cameras', ('camera',),
        'Names of the cameras. Camera `front` is subscribed at front/image, '
        'front/image/compressed and front/camera_info, and published below ~/front/.',
        change='unconfigured', pattern=CAMERA_NAME),
    Parameter(
        'bundle', '', 'Path of the bundle (.onnx) to run; empty: the one that is shipped.',
        change='unconfigured'),
    Parameter(
        'label_set', '',
        'Label set to publish in: camvid, cityscapes or the path of a YAML file; '
        "empty: the bundle's own.", change='unconfigured'),
    Parameter(
        'size', '',
        "Size HxW at which the network runs, such as 256x512; empty: the bundle's own. Smaller is "
        'faster and coarser.', change='unconfigured'),
    Parameter(
        'backend', 'auto', 'What computes the network; auto takes the fastest that is installed.',
        change='unconfigured', choices=('auto', *BACKENDS)),
    Parameter(
        'precision', 'auto', 'Number format of the network; auto: the fastest that keeps labels.',
        change='unconfigured', choices=PRECISIONS),
    Parameter(
        'fallback', True,
        'Whether to go on with the next backend where this one cannot be loaded or its GPU fails.',
        change='unconfigured'),
    Parameter(
        'engines', '', 'Folder of TensorRT engines; empty: ~/.cache/ros_vseg.',
        change='unconfigured'),
    Parameter(
        'build', True, 'Whether a TensorRT engine that is missing may be built at configure.',
        change='unconfigured'),
    Parameter(
        'device', 0,
        'Index of the NVIDIA GPU that backend tensorrt uses, as nvidia-smi -L has it.',
        change='unconfigured', minimum=0, maximum=63),
    Parameter(
        'workspace', 0,
        'MB of GPU memory that building a TensorRT engine may take; 0: half of what is free.',
        change='unconfigured', minimum=0, maximum=1_000_000),
    Parameter(
        'gpu_timeout', 5.0,
        'Seconds that a frame may take on the GPU before it counts as lost (backend tensorrt).',
        change='unconfigured', minimum=0.1, maximum=600.0),
    Parameter(
        'exit_if_gpu_lost', False,
        'Whether the node ends with code 75 after a GPU error that only a new process recovers '
        'from, so that respawn brings the GPU back; false: it goes on on the CPU.',
        change='unconfigured'),
    Parameter(
        'build_only', False, 'Build the TensorRT engine that these parameters need, and end.'),
    Parameter(
        'threads', 0, 'CPU threads for the network; 0: one per core.',
        change='unconfigured', minimum=0, maximum=256),
    Parameter(
        'stabilize', False,
        'Whether labels are steadied by those of earlier frames, moved along by optical flow; '
        'about 5 ms a frame on one core. Not on backend tensorrt.', change='unconfigured'),
    Parameter(
        'max_gap', 1.0,
        'Seconds between two frames of a camera after which its prototype pool is emptied, and '
        'age at which a frame leaves it.',
        change='running', minimum=0.001, maximum=3600.0),
    Parameter(
        'overlay_alpha', 0.5, 'Weight of the class colours in ~/<camera>/overlay; 0: image only.',
        change='running', minimum=0.0, maximum=1.0),
    Parameter(
        'autostart', True,
        'Configure and activate at start; false: wait for lifecycle transitions.'),
)


def declare(node, table, may_change=lambda parameter: None):
    """
    Declare ``table`` on an rclpy node and refuse values that are not allowed, now and later.

    ``may_change(parameter)`` returns None, or why the parameter cannot be changed now. Warns of
    overrides that no parameter has. ParameterError: an override of wrong type or out of range.
    """
    parameters = {parameter.name: parameter for parameter in table}

    def check(changes):
        for change in changes:
            parameter = parameters.get(change.name)
            if parameter is None:
                continue
            if not parameter.allows(change.value):
                return SetParametersResult(
                    successful=False, reason=f'{change.name} must be {parameter.constraint()}')
            if node.has_parameter(change.name) and (refusal := may_change(parameter)):
                return SetParametersResult(successful=False, reason=refusal)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)
    for parameter in table:
        try:
            node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        except ParameterException:
            value = node._parameter_overrides[parameter.name].value
            raise ParameterError(
                f"parameter '{parameter.name}' is {value!r}: "
                f'it must be {parameter.constraint()}') from None
    _warn_of_unknown(node, parameters)


def _warn_of_unknown(node, parameters):
    for name in node._parameter_overrides:
        if name in parameters or name.startswith(FOREIGN):
            continue
        close = difflib.get_close_matches(name, parameters, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(parameters)}"
        node.get_logger().warning(f"parameter '{name}' is unknown and has no effect: {hint}")
