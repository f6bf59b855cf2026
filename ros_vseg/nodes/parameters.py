# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The nodes' parameters as tables: the one source of descriptors, checks and documentation."""
from dataclasses import dataclass, replace
import difflib
from pathlib import Path
import re
from typing import Any, Callable, Iterable, Sequence

from rcl_interfaces.msg import (
    FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult)
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from ros_vseg.backends import BACKENDS, PRECISIONS
from ros_vseg.errors import VsegError

FOREIGN = ('use_sim_time', 'start_type_description_service', 'qos_overrides.')   # rclpy's own
ROS_NAME = r'[A-Za-z][A-Za-z0-9_]*'
CAMERA_NAME = rf'^(?!masks$){ROS_NAME}(/{ROS_NAME})*$'    # masks.<name> is no camera's
MASKS = 'masks.'        # prefix of the masks' parameters; what follows is a name of the user's


class ParameterError(VsegError):
    """A parameter with a value of the wrong type or out of its range."""


@dataclass(frozen=True)
class Parameter:
    """
    One parameter: default (its type is the parameter's type), meaning and allowed values.

    ``change`` says when it can be changed: 'running', 'unconfigured' (a lifecycle node that is
    cleaned up first) or 'start'. A tuple is a list of different strings, and may be empty only
    where the default is.
    """

    name: str
    default: bool | int | float | str | tuple[str, ...]
    description: str
    change: str = 'start'
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ''       # of each string of a list, from its start to its end
    items: str = ''         # what a list holds, in words

    def constraint(self) -> str:
        """Return in words what a value must be."""
        if self.choices:
            return 'one of ' + ', '.join(self.choices)
        if self.minimum is not None:
            kind = 'a whole number' if isinstance(self.default, int) else 'a decimal number'
            return f'{kind} from {self.minimum} to {self.maximum}, such as {self.default}'
        if isinstance(self.default, tuple):
            return f'a list of different {self.items}'
        return 'true or false' if isinstance(self.default, bool) else 'a string'

    def allows(self, value: Any) -> bool:
        """Return whether ``value``, of the right type and range already, may be set."""
        if isinstance(self.default, tuple):     # an empty list arrives as None
            names = value or ()
            different = len(names) == len(set(map(str, names)))
            return different and bool(names or not self.default) and all(
                isinstance(name, str) and re.fullmatch(self.pattern, name) for name in names)
        if value is None:
            return False
        return not self.choices or value in self.choices

    def accepts(self, value: Any) -> bool:
        """Return whether ``value``, of YAML, has the right type and may be set."""
        kind = list if isinstance(self.default, tuple) else type(self.default)
        return type(value) is kind and self.allows(value)

    def declared(self) -> Any:
        """Return what to declare: the default, or the type where that is an empty list."""
        return RosParameter.Type.STRING_ARRAY if self.default == () else self.default

    def descriptor(self) -> ParameterDescriptor:
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
        change='unconfigured', pattern=CAMERA_NAME,
        items='ROS names but masks, such as [front, rear] or [left/rgb]'),
    Parameter(
        'bundle', '', 'Path of the bundle (.onnx) to run; empty: the one that is shipped.',
        change='unconfigured'),
    Parameter(
        'label_set', '',
        'Label set to publish in: camvid, cityscapes, voc, ade20k, nyu40 or the path of a YAML '
        "file; empty: the bundle's own.", change='unconfigured'),
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
        'probabilities', (),
        'Classes whose probability is published at ~/<camera>/probability/<class>, 32FC1 in 0..1, '
        'such as [road, sidewalk]. Not on backend tensorrt.',
        change='unconfigured', pattern='.+', items='class names, such as [road, sidewalk]'),
    Parameter(
        'autostart', True,
        'Configure and activate at start; false: wait for lifecycle transitions.'),
)

CAMERA = (      # of one camera, by its name: front.priority
    Parameter(
        'transport', 'auto',
        'Which images to take: raw, compressed, or auto, the raw ones as long as they come.',
        change='running', choices=('auto', 'raw', 'compressed')),
    Parameter(
        'priority', 1.0,
        'Share of the device when it cannot keep up: 2.0 has twice the frames of a camera of 1.0.',
        change='running', minimum=0.01, maximum=100.0),
    Parameter(
        'max_rate', 0.0, 'Frames a second to label at most; 0: all.',
        change='running', minimum=0.0, maximum=1000.0),
    Parameter(
        'bit_depth', 16,
        'Bits that the values of 16-bit images use (mono16, rgb16, bayer_rggb16 and the like), '
        'such as 12 for 0 to 4095.', change='unconfigured', minimum=8, maximum=16),
    Parameter(
        'depth_as_grey', False,
        'Whether 16UC1 and 32FC1 images are grey pictures; false: they are refused as depth '
        '(REP 118).', change='unconfigured'),
)


MayChange = Callable[[Parameter], str | None]


def declare(node: Node, table: Iterable[Parameter],
            may_change: MayChange = lambda parameter: None) -> None:
    """
    Declare ``table`` and refuse values that are not allowed, now and later.

    Warns of overrides that no parameter has.

    Args:
        node: whose parameters these are.
        table: what to declare.
        may_change: returns None, or why a parameter cannot be changed now.

    Raises:
        ParameterError: an override of wrong type or out of range.
    """
    _declare(node, table, may_change)
    _warn_of_unknown(node)


def declare_vseg_node(node: Node, may_change: MayChange = lambda parameter: None) -> None:
    """Declare VSEG_NODE, CAMERA for each camera, and the masks that are named; see declare."""
    _declare(node, VSEG_NODE, may_change)
    declare_cameras(node, value(node, 'cameras'), may_change)
    _declare(node, _masks(node), may_change)
    _warn_of_unknown(node)


def declare_cameras(node: Node, names: Iterable[str],
                    may_change: MayChange = lambda parameter: None) -> None:
    """Declare CAMERA for those cameras that have no parameters yet; see declare."""
    _declare(node, [
        replace(parameter, name=f'{name}.{parameter.name}') for name in names
        for parameter in CAMERA if not node.has_parameter(f'{name}.{parameter.name}')], may_change)


def value(node: Node, name: str) -> Any:
    """Return a parameter's value; an empty list as [], not as None."""
    found = node.get_parameter_or(name).value   # get_parameter refuses a list that is empty
    return [] if found is None else found


def path(node: Node, name: str) -> str:
    """Return a parameter that is a path, ~ as the home folder; VsegError: no such user."""
    given: str = value(node, name)
    try:
        return str(Path(given).expanduser()) if given else ''
    except RuntimeError:
        raise VsegError(f"parameter {name} is '{given}': there is no such user; give the whole "
                        'path') from None


def masks(node: Node) -> dict[str, list[str]]:
    """Return the classes of each mask, by the mask's name."""
    return {parameter.name.removeprefix(MASKS): value(node, parameter.name)
            for parameter in _masks(node)}


def _masks(node: Node) -> list[Parameter]:
    names = [name for name in node._parameter_overrides if name.startswith(MASKS)]
    return [Parameter(
        name, (), 'Classes of the mask that is published at ~/<camera>/mask/'
        f'{name.removeprefix(MASKS)}: mono8, 255 where the label is one of them, else 0.',
        change='unconfigured', pattern='.+', items='class names, such as [pedestrian, bicyclist]')
        for name in names]


def _declare(node: Node, table: Iterable[Parameter], may_change: MayChange) -> None:
    parameters = {parameter.name: parameter for parameter in table}
    if not parameters:  # a callback that checks nothing would stay for ever
        return

    def check_change(changes: Sequence[RosParameter]) -> SetParametersResult:
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

    node.add_on_set_parameters_callback(check_change)
    for parameter in parameters.values():
        try:
            node.declare_parameter(parameter.name, parameter.declared(), parameter.descriptor())
        except ParameterException:
            given = node._parameter_overrides[parameter.name].value
            raise ParameterError(_refusal(parameter, given)) from None


def _refusal(parameter: Parameter, given: Any) -> str:
    shown = [] if given is None else given      # an empty list arrives as None
    return f"parameter '{parameter.name}' is {shown!r}: it must be {parameter.constraint()}"


def _warn_of_unknown(node: Node) -> None:
    declared = [name for name in node._parameters if not name.startswith(FOREIGN)]
    for name in node._parameter_overrides:
        if node.has_parameter(name) or name.startswith(FOREIGN):
            continue
        close = difflib.get_close_matches(name, declared, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(declared)}"
        node.get_logger().warning(f"parameter '{name}' is unknown and has no effect: {hint}")
