# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node ``vseg_node``: camera images in, label images out."""
from contextlib import suppress
import gc
import json
import logging
import sys
import textwrap
import traceback
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from std_srvs.srv import Trigger

from ros_vseg import backends, interrupts
from ros_vseg.backends.base import Backend
from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.engines.engine import engine_for
from ros_vseg.errors import BackendError, VsegError
from ros_vseg.gpu import failures
from ros_vseg.gpu.cuda import Gpu
from ros_vseg.graph import at_size, parse_size
from ros_vseg.labels import load_label_set
from ros_vseg.nodes import diagnostics
from ros_vseg.nodes import parameters
from ros_vseg.nodes import start
from ros_vseg.nodes.camera import Camera
from ros_vseg.nodes.label_info import publish_label_info
from ros_vseg.nodes.outputs import extras, published_once
from ros_vseg.nodes.scheduler import Scheduler
from ros_vseg.stream import Stream

try:
    from rclpy.experimental import EventsExecutor
except ImportError:     # Humble
    from rclpy.executors import SingleThreadedExecutor as EventsExecutor

HELP = {'-h', '--help'}
GPU_LOST = 75       # exit code: a new process can use the GPU again (EX_TEMPFAIL)
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class RosLogHandler(logging.Handler):
    """Passes the log of the parts without ROS on to the node's."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        if record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


class VsegNode(LifecycleNode):
    """Configure loads the bundle once for all cameras; activate lets them label in turn."""

    def __init__(self) -> None:
        super().__init__('vseg_node')
        self._backend: Backend | None = None
        self._cameras: list[Camera] = []
        self._scheduler: Scheduler | None = None    # while active
        self._label_info: list[Publisher] = []
        self._problem = ''
        parameters.declare_vseg_node(self, self._may_change)
        self._log, self._log_handler = (
            logging.getLogger('ros_vseg'), RosLogHandler(self.get_logger()))
        self._log.setLevel(logging.INFO)
        self._log.addHandler(self._log_handler)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)    # ticks while simulated time stands
        self.create_timer(0.2, self._update_subscriptions, clock=steady)
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the bundle; what fails is logged, and shown in /diagnostics."""
        try:
            self._configure()
        except interrupts.Interrupted:
            self._clean_up()
            return FAILURE
        except Exception as error:
            self._problem = str(error)
            known = isinstance(error, VsegError)
            self.get_logger().error(
                f'cannot configure: {error if known else traceback.format_exc()}')
            self._clean_up()
            return FAILURE
        self._problem = ''
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let the cameras label."""
        on_gpu = self._on_gpu()
        self._scheduler = Scheduler(
            lambda: len(self._cameras) if self._on_gpu() else 1,
            workers=len(self._cameras) if on_gpu else 1)
        self._scheduler.start()
        for camera in self._cameras:
            camera.activate(self._scheduler)
        self._update_subscriptions()
        return SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, and end after the frames at work."""
        self._deactivate()
        return SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the bundle and of all topics."""
        self._clean_up()
        return SUCCESS

    on_shutdown = on_error = on_cleanup

    # as text: a Parameter is generic from Kilted on
    def set_parameters_atomically(self, parameter_list: 'list[Parameter[Any]]'
                                  ) -> SetParametersResult:
        """See rclpy.node.Node; a camera that is added has its parameters at once."""
        result = super().set_parameters_atomically(parameter_list)
        # not by a callback after the change, which Humble has not
        if result.successful and 'cameras' in [item.name for item in parameter_list]:
            with suppress(parameters.ParameterError):   # told when it is configured
                parameters.declare_cameras(self, self._value('cameras'), self._may_change)
        return result

    def destroy_node(self) -> None:
        """End as a lifecycle node is cleaned up."""
        self._clean_up()
        self._log.removeHandler(self._log_handler)
        super().destroy_node()
        # rclpy forgets it, and with it the node would outlive all else
        self._state_machine.destroy_when_not_in_use()

    def autostart(self) -> None:
        """Configure and activate, if the parameter says so; what fails is logged."""
        if self._value('autostart') and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def build(self) -> None:
        """Build the TensorRT engine that the parameters need; VsegError if it cannot be."""
        device = self._value('device')
        path, *_ = engine_for(self._bundle(), Gpu(device).capability, self._value('precision'),
                              folder=self._path('engines') or None, device=device,
                              workspace=self._value('workspace'))
        self.get_logger().info(f'engine {path} is there')

    def must_restart(self) -> bool:
        """Return whether the GPU is lost to this process, and the node is to end for it."""
        return failures.lost() is not None and self._value('exit_if_gpu_lost')

    def _value(self, name: str) -> Any:
        return parameters.value(self, name)

    def _path(self, name: str) -> str:
        return parameters.path(self, name)

    def _may_change(self, parameter: parameters.Parameter) -> str | None:
        if parameter.change == 'unconfigured' and self._backend is not None:
            return (f'{parameter.name} can be changed while the node is unconfigured: first '
                    f'`ros2 lifecycle set {self.get_fully_qualified_name()}` deactivate, cleanup')
        return None

    def _configure(self) -> None:
        bundle, names = self._bundle(), self._value('cameras')
        chosen = self._path('label_set')
        label_set = load_label_set(chosen) if chosen else bundle.info.label_set
        more = extras(label_set, bundle.info.label_set, parameters.masks(self),
                      self._value('probabilities'))
        with interrupts.interruptible():    # it may build an engine
            backend = self._load(bundle)
        published_once(names, bundle.info, more)
        if more.probabilities and backend.name in backends.WITHOUT_SCORES:
            raise BackendError(
                f'probabilities need scores on the host, which backend {backend.name} leaves on '
                'the GPU: use backend openvino or onnxruntime, or leave probabilities empty')
        parameters.declare_cameras(self, names, self._may_change)
        self._backend = backend
        for name in names:
            stream = Stream(backend, max_gap=self._value('max_gap'), label_set=label_set)
            self._cameras.append(Camera(self, name, stream, label_set, more))
        self._label_info = publish_label_info(self, label_set)
        self.get_logger().info(
            f'{bundle.info.name} labels {", ".join(names)} '
            f'with the {len(label_set.names)} classes of {label_set.name}')

    def _load(self, bundle: Bundle) -> Backend:
        return backends.load(
            bundle, self._value('backend'), fallback=self._value('fallback'),
            threads=self._value('threads'), precision=self._value('precision'),
            engines=self._path('engines') or None, may_build=self._value('build'),
            stabilize=self._value('stabilize'), device=self._value('device'),
            gpu_timeout=self._value('gpu_timeout'), workspace=self._value('workspace'))

    def _bundle(self) -> Bundle:
        bundle = Bundle.load(self._path('bundle') or default_bundle_path())
        size = self._value('size')
        return at_size(bundle, parse_size(size) if size else None)

    def _on_gpu(self) -> bool:
        """Whether streams may overlap: a network on the processor has all its cores already."""
        return self._backend is not None and self._backend.name in backends.ON_GPU

    def _deactivate(self) -> None:
        for camera in self._cameras:
            camera.deactivate()
        if self._scheduler is not None:
            self._scheduler.stop()
            self._scheduler = None

    def _clean_up(self) -> None:
        self._deactivate()
        self._destroy_topics()      # its names of cameras are gone when it returns
        self._cameras, self._label_info, self._backend = [], [], None
        gc.collect()    # cameras refer to themselves, and hold the network

    def _destroy_topics(self) -> None:
        for camera in self._cameras:
            camera.destroy()
        for publisher in self._label_info:
            self.destroy_publisher(publisher)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        for camera in self._cameras:
            camera.request_reset()
        response.success = bool(self._cameras)
        response.message = (
            f'{len(self._cameras)} prototype pools are emptied before their next frame'
            if self._cameras else 'the node is not configured')
        return response

    def _update_subscriptions(self) -> None:
        for camera in self._cameras:
            camera.update_subscriptions()

    def _publish_diagnostics(self) -> None:
        name = self.get_fully_qualified_name().lstrip('/')
        message = DiagnosticArray(status=[
            diagnostics.node_status(name, self._backend, self._problem)])
        if self._backend is not None:
            message.status.extend(diagnostics.camera_status(camera, self, self._backend)
                                  for camera in self._cameras)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(args: list[str] | None = None) -> int:
    """
    Run the node until it is interrupted or terminated.

    Returns:
        0; 1 where it cannot go on; 2 for arguments that are refused: a restart would not help;
        GPU_LOST where only a new process can use the GPU again.
    """
    if HELP.intersection(sys.argv[1:] if args is None else args):
        print(usage())
        return 0
    unknown = start.plain(sys.argv[1:] if args is None else args)
    if unknown:
        print(f'vseg_node: error: arguments {" ".join(unknown)}: parameters are given by '
              '--ros-args -p NAME:=VALUE, see --help', file=sys.stderr)
        return 2
    interrupts.defer()
    node = executor = None
    code = 0
    try:
        start.init(args)
        node, executor = VsegNode(), EventsExecutor()
        executor.add_node(node)
        code = _run(node, executor)
    except interrupts.Interrupted:
        pass
    except VsegError as error:
        rclpy.logging.get_logger('vseg_node').fatal(str(error))
        code = 2 if isinstance(error, parameters.ParameterError) else 1
    finally:
        start.close(node, executor)
    interrupts.leave(code)


def _run(node: VsegNode, executor: Executor) -> int:
    """Label until a signal comes or the GPU is lost, and return the exit code."""
    if node.get_parameter('build_only').value:
        with interrupts.interruptible():
            node.build()
        return 0
    node.autostart()
    while rclpy.ok() and not interrupts.asked():
        # not spin(): in some builds EventsExecutor's never sleeps
        executor.spin_once(timeout_sec=1.0)
        if node.must_restart():     # after the frame, which the CPU labels
            return GPU_LOST
    return 0


def usage() -> str:
    """Return what --help says: how to start the node, and all its parameters."""
    lines = ['usage: vseg_node [--ros-args -p NAME:=VALUE ... --params-file FILE]', '',
             'Labels the images of one or more cameras. Parameters, with their defaults:']
    for parameter in parameters.VSEG_NODE:
        lines += _described(parameter.name, parameter)
    for parameter in parameters.CAMERA:
        lines += _described(f'<camera>.{parameter.name}', parameter)
    lines += ['  masks.<name>: []', '      Classes of a mask at ~/<camera>/mask/<name>.']
    return '\n'.join(lines)


def _described(name: str, parameter: parameters.Parameter) -> list[str]:
    default = json.dumps(parameter.default)
    return [f'  {name}: {default}', *textwrap.wrap(
        parameter.description, 90, initial_indent=6 * ' ', subsequent_indent=6 * ' ')]
