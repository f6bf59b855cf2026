# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node ``vseg_node``: camera images in, label images out."""
import json
import logging
from pathlib import Path
import signal
import sys
import traceback

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String
from std_srvs.srv import Trigger

from ros_vseg import backends
from ros_vseg.bundle import Bundle, default_bundle_path
from ros_vseg.engines.engine import engine_for
from ros_vseg.errors import VsegError
from ros_vseg.gpu.cuda import Gpu
from ros_vseg.graph import at_size, parse_size
from ros_vseg.labels import load_label_set
from ros_vseg.nodes import diagnostics
from ros_vseg.nodes import parameters
from ros_vseg.nodes.camera import Camera
from ros_vseg.stream import Stream

try:
    from rclpy.experimental import EventsExecutor as Executor
except ImportError:     # Humble
    Executor = SingleThreadedExecutor
try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:     # an optional package
    LabelInfo = None

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class RosLogHandler(logging.Handler):
    """Passes the log of the parts without ROS on to the node's."""

    def __init__(self, logger):
        super().__init__()
        self._logger = logger

    def emit(self, record):
        if record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


class VsegNode(LifecycleNode):
    """Configure loads the bundle once for all cameras; activate lets them label."""

    def __init__(self):
        super().__init__('vseg_node')
        self._backend = None
        self._cameras = []
        self._label_info = []       # latched publishers
        self._problem = ''
        parameters.declare(self, parameters.VSEG_NODE, self._may_change)
        log = logging.getLogger('ros_vseg')
        log.setLevel(logging.INFO)
        log.addHandler(RosLogHandler(self.get_logger()))
        self.create_service(Trigger, '~/reset', self._on_reset)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)    # ticks while simulated time stands
        self.create_timer(0.2, self._update_subscriptions, clock=steady)
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)

    def on_configure(self, state):
        try:
            self._configure()
        except Exception as error:
            self._problem = str(error)
            known = isinstance(error, VsegError)
            self.get_logger().error(
                f'cannot configure: {error if known else traceback.format_exc()}')
            self._clean_up()
            return FAILURE
        self._problem = ''
        return SUCCESS

    def on_activate(self, state):
        for camera in self._cameras:
            camera.activate()
        self._update_subscriptions()
        return SUCCESS

    def on_deactivate(self, state):
        for camera in self._cameras:
            camera.deactivate()
        return SUCCESS

    def on_cleanup(self, state):
        self._clean_up()
        return SUCCESS

    on_shutdown = on_error = on_cleanup

    def destroy_node(self):
        self._clean_up()
        super().destroy_node()

    def autostart(self):
        """Configure and activate, if the parameter says so; what fails is logged."""
        if self._value('autostart') and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def _value(self, name):
        return self.get_parameter(name).value

    def _may_change(self, parameter):
        if parameter.change == 'unconfigured' and self._backend is not None:
            return (f'{parameter.name} can be changed while the node is unconfigured: first '
                    f'`ros2 lifecycle set {self.get_fully_qualified_name()}` deactivate, cleanup')

    def _configure(self):
        bundle = self._bundle()
        chosen = self._value('label_set')
        label_set = load_label_set(chosen) if chosen else bundle.info.label_set
        self._backend = backends.load(
            bundle, self._value('backend'), fallback=self._value('fallback'),
            threads=self._value('threads'), precision=self._value('precision'),
            engines=self._value('engines') or None, may_build=self._value('build'),
            stabilize=self._value('stabilize'))
        for name in self._value('cameras'):
            stream = Stream(
                self._backend, max_gap=self._value('max_gap'), label_set=label_set)
            self._cameras.append(Camera(self, name, stream, label_set))
        self._publish_label_info(label_set)
        self.get_logger().info(
            f'{bundle.info.name} labels {", ".join(self._value("cameras"))} '
            f'with the {len(label_set.names)} classes of {label_set.name}')

    def _bundle(self):
        path = self._value('bundle')
        bundle = Bundle.load(Path(path).expanduser() if path else default_bundle_path())
        size = self._value('size')
        return at_size(bundle, parse_size(size) if size else None)

    def build(self):
        """Build the TensorRT engine that the parameters need; VsegError if it cannot be."""
        path, *_ = engine_for(self._bundle(), Gpu().capability, self._value('precision'),
                              folder=self._value('engines') or None)
        self.get_logger().info(f'engine {path} is there')

    def _clean_up(self):
        for camera in self._cameras:
            camera.destroy()
        for publisher in self._label_info:
            self.destroy_publisher(publisher)
        self._cameras, self._label_info, self._backend = [], [], None

    def _publish_label_info(self, label_set):
        self._latch(String, '~/label_info', String(data=json.dumps(label_set.to_dict())))
        if LabelInfo:
            self._latch(LabelInfo, '~/label_info/vision', LabelInfo(class_map=[
                VisionClass(class_id=index, class_name=name)
                for index, name in enumerate(label_set.names)]))

    def _latch(self, kind, topic, message):
        publisher = self.create_publisher(kind, topic, LATCHED)
        publisher.publish(message)
        self._label_info.append(publisher)

    def _on_reset(self, request, response):
        for camera in self._cameras:
            camera.request_reset()
        response.success = bool(self._cameras)
        response.message = (
            f'{len(self._cameras)} prototype pools are emptied before their next frame'
            if self._cameras else 'the node is not configured')
        return response

    def _update_subscriptions(self):
        for camera in self._cameras:
            camera.update_subscriptions()

    def _publish_diagnostics(self):
        name = self.get_fully_qualified_name().lstrip('/')
        if self._backend is None:
            level = DiagnosticStatus.ERROR if self._problem else DiagnosticStatus.OK
            own = diagnostics.status(
                f'{name}: node', level, self._problem or 'not configured', {})
        else:
            problem = self._backend.problem
            own = diagnostics.status(
                f'{name}: node', DiagnosticStatus.WARN if problem else DiagnosticStatus.OK,
                problem or 'configured', {
                    'backend': self._backend.name, 'device': self._backend.device,
                    'bundle': str(self._backend.bundle.path)})
        message = DiagnosticArray(status=[own, *(
            diagnostics.camera_status(camera, name, self._backend) for camera in self._cameras)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(args=None):
    """Run the node until it is interrupted or terminated; return the exit code."""
    # rclpy's own handlers end the context under the node's feet: interrupt like plain Python.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    node = None
    try:
        node = VsegNode()
        if node.get_parameter('build_only').value:
            node.build()
            return 0
        executor = Executor()
        executor.add_node(node)
        node.autostart()
        while rclpy.ok():   # not spin(): in some builds EventsExecutor's never sleeps
            executor.spin_once(timeout_sec=1.0)
    except KeyboardInterrupt:
        pass
    except VsegError as error:
        rclpy.logging.get_logger('vseg_node').fatal(str(error))
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
