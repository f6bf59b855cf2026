# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What the node publishes for one camera; what nobody subscribes to is not computed."""
from array import array
import math
import re
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from ros_vseg.bundle import BundleInfo
from ros_vseg.depth import depth_image, DepthRange
from ros_vseg.encoding import Picture, to_rgb_pixels
from ros_vseg.errors import LabelSetError, VsegError
from ros_vseg.image import fill_image
from ros_vseg.labels import colorize, LabelSet, overlay, remap_table
from ros_vseg.nodes.calibration import fits, intrinsics
from ros_vseg.nodes.inputs import not_made
from ros_vseg.probabilities import class_probabilities
from ros_vseg.stream import Result

Bytes = npt.NDArray[np.uint8]

OUTPUTS = {
    'label': Image, 'label/compressed': CompressedImage, 'label/runs': Image, 'color': Image,
    'overlay': Image, 'confidence': Image, 'camera_info': CameraInfo}

PATIENCE = 30   # frames that camera_info may come later than images
RUN = np.dtype([('id', 'u1'), ('length', '<i4')])   # without a gap between them


class Extras(NamedTuple):
    """What a user asks for beside OUTPUTS, by topic: tables of masks, ids of the network's."""

    masks: Mapping[str, Bytes] = {}
    probabilities: Mapping[str, Sequence[int]] = {}


def extras(label_set: LabelSet, network: LabelSet, masks: Mapping[str, Sequence[str]],
           probabilities: Sequence[str]) -> Extras:
    """
    Look up the classes that masks and probabilities name.

    Args:
        label_set: what the published ids mean.
        network: what the ids of the network's scores mean.
        masks: names of classes of ``label_set`` by name of the mask.
        probabilities: names of classes of ``label_set``.

    Returns:
        mask/<name>: uint8 [256], 255 for the ids of the mask, else 0; probability/<class>: ids of
        the network's classes that the class is made of. What is no letter or digit of a class's
        name is _ in its topic, and before a first digit comes one: probability/_3d.

    Raises:
        LabelSetError: a class that ``label_set`` does not have, a mask that cannot be a topic, or
            two classes with one topic.
    """
    tables = {}
    for name, classes in masks.items():
        if not re.fullmatch('[A-Za-z][A-Za-z0-9_]*', name):
            raise LabelSetError(f'mask {name!r} cannot be a topic: use letters, digits and _')
        table = np.zeros(256, np.uint8)
        table[_ids(label_set, classes, f'mask {name}')] = 255
        tables[f'mask/{name}'] = table
    ids = _ids(label_set, probabilities, 'probabilities')
    topics: dict[str, str] = {}
    for name in probabilities:
        other = topics.setdefault(_probability_topic(name), name)
        if other != name:
            raise LabelSetError(f'probabilities: {other!r} and {name!r} would both be published '
                                f'at {_probability_topic(name)}: rename one in the label set')
    renamed = remap_table(network, label_set) if label_set != network else np.arange(256)
    return Extras(tables, {
        _probability_topic(label_set.names[index]):
        np.flatnonzero(renamed[:len(network.names)] == index).tolist() for index in ids})


def _probability_topic(name: str) -> str:
    token = re.sub('[^A-Za-z0-9_]', '_', name)
    return f'probability/{"_" if token[:1].isdigit() else ""}{token}'


def _ids(label_set: LabelSet, classes: Sequence[str], where: str) -> list[int]:
    for name in classes:
        if name not in label_set.names:
            raise LabelSetError(f'{where}: label set {label_set.name} has no class {name!r}, only '
                                f'{", ".join(label_set.names)}')
    return [label_set.names.index(name) for name in classes]


def _kinds(info: BundleInfo, more: Extras) -> dict[str, Any]:
    topics = (*more.masks, *more.probabilities, *(('depth',) if info.depth else ()))
    return {**OUTPUTS, **dict.fromkeys(topics, Image)}


def published_once(cameras: Sequence[str], info: BundleInfo, more: Extras) -> None:
    """Refuse cameras of which two would publish at one topic: VsegError."""
    owners: dict[str, str] = {}
    for camera in cameras:
        for output in _kinds(info, more):
            other = owners.setdefault(f'{camera}/{output}', camera)
            if other != camera:
                raise VsegError(f'cameras {other} and {camera} would both publish '
                                f'~/{camera}/{output}: rename one of them')


class Outputs:
    """
    Publishers of one camera.

    ``node`` is the rclpy node, whose parameter overlay_alpha applies at once; ``info`` of the
    bundle, with whose depth there is the topic ``depth``; ``count`` is told what is left out.
    """

    def __init__(self, node: Node, name: str, label_set: LabelSet, info: BundleInfo,
                 more: Extras = Extras(), count: Callable[[str], None] = lambda cause: None
                 ) -> None:
        self._node, self._label_set, self._info, self._extras = node, label_set, info, more
        self._without_focal, self._count = 0, count     # frames
        self._told_size = False
        self._publishers: dict[str, Publisher[Any]] = {}
        try:
            for output, kind in _kinds(info, more).items():
                self._publishers[output] = self._publisher(kind, f'~/{name}/{output}')
        except Exception:
            self.destroy()
            raise

    def _publisher(self, kind: Any, topic: str) -> 'Publisher[Any]':     # not generic on Jazzy
        try:
            return self._node.create_publisher(
                kind, topic, QoSProfile(depth=5),
                qos_overriding_options=QoSOverridingOptions.with_default_policies())
        except Exception as error:  # rclpy's errors have no common base
            raise not_made(topic, error) from error

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def wanted(self, output: str) -> bool:
        """Return whether anything subscribes to an output."""
        return self._publishers[output].get_subscription_count() > 0

    def any_wanted(self) -> bool:
        """Return whether anything subscribes to any output."""
        return any(map(self.wanted, self._publishers))

    def publish_label(self, header: Header, labels: Bytes) -> None:
        """Publish the label image uint8 [H, W]."""
        self._publish('label', header, labels, 'mono8')

    def publish_rest(self, header: Header, image: Picture, result: Result,
                     camera_info: Any | None) -> None:
        """
        Publish everything else.

        Args:
            header: of the camera's image.
            image: uint8 [H, W, 3] RGB, or raw.
            result: what the stream made of it.
            camera_info: the camera's newest CameraInfo, or None.
        """
        if self.wanted('label/compressed'):
            self._publishers['label/compressed'].publish(_png(header, result.labels))
        if self.wanted('label/runs'):
            self._publishers['label/runs'].publish(_runs(header, result.labels))
        if self.wanted('color'):
            self._publish('color', header, colorize(result.labels, self._label_set), 'rgb8')
        if self.wanted('overlay'):
            alpha = self._node.get_parameter('overlay_alpha').value
            blend = overlay(
                to_rgb_pixels(image), result.labels, self._label_set, alpha)
            self._publish('overlay', header, blend, 'rgb8')
        if result.confidence is not None:
            self._publish('confidence', header, result.confidence, 'mono8')
        for topic, table in self._extras.masks.items():
            if self.wanted(topic):
                self._publish(topic, header, cv2.LUT(result.labels, table), 'mono8')
        self._publish_probabilities(header, result)
        if result.depth is not None and self._info.depth and self.wanted('depth'):
            self._publish_depth(
                header, result.depth, result.labels.shape, self._info.depth, camera_info)
        if camera_info is not None and self.wanted('camera_info'):
            self._publish_camera_info(header, result.labels.shape, camera_info)

    def _publish_probabilities(self, header: Header, result: Result) -> None:
        topics = [topic for topic in self._extras.probabilities if self.wanted(topic)]
        if not topics or result.scores is None:
            return
        images = class_probabilities(
            result.scores, result.labels.shape,
            [self._extras.probabilities[topic] for topic in topics])
        for topic, image in zip(topics, images):
            self._publish(topic, header, image, '32FC1')

    def _publish_depth(self, header: Header, coarse: npt.NDArray[np.float32],
                       size: tuple[int, int], known: DepthRange, camera_info: Any | None) -> None:
        reason = _no_focal(camera_info, size)
        if reason is None and camera_info is not None:
            metres = depth_image(
                coarse, size, known, intrinsics(camera_info, size).fy, self._info.height)
            self._publish('depth', header, metres, '32FC1')
            return
        self._without_focal += 1
        self._count('depth_without_focal_length')
        if self._without_focal == PATIENCE:
            self._node.get_logger().error(
                f'{self._publishers["depth"].topic_name} is not published: metres follow from the '
                f"camera's focal length, and {reason}")

    def _publish_camera_info(self, header: Header, size: tuple[int, int],
                             camera_info: Any) -> None:
        reason = _other_size(camera_info, size)
        if reason is None:
            camera_info.header = header
            self._publishers['camera_info'].publish(camera_info)
            return
        self._count('camera_info_of_other_size')
        if not self._told_size:
            self._told_size = True
            self._node.get_logger().warning(
                f'{self._publishers["camera_info"].topic_name} is not published: {reason}; remap '
                "camera_info to that of the camera's images")

    def _publish(self, output: str, header: Header, pixels: npt.NDArray[Any],
                 encoding: str) -> None:
        if self.wanted(output):
            message = fill_image(Image(header=header), pixels, encoding)
            self._publishers[output].publish(message)


def _no_focal(camera_info: Any | None, size: tuple[int, int]) -> str | None:
    """Return why the focal length of images of (H, W) is not known, or None."""
    if camera_info is None:
        return 'there is no camera_info'
    reason = _other_size(camera_info, size)
    if reason is None and not 0 < intrinsics(camera_info, size).fy < math.inf:
        reason = 'camera_info has none (k[4])'
    return reason


def _other_size(camera_info: Any, size: tuple[int, int]) -> str | None:
    """Return in words that a CameraInfo is of another size than (H, W), or None."""
    if fits(camera_info, size):
        return None
    return (f'camera_info is of {camera_info.height}x{camera_info.width}, the image '
            f'{size[0]}x{size[1]}')


def _png(header: Header, labels: Bytes) -> CompressedImage:
    """Return a label image as a PNG without loss, named as image_transport names it."""
    _, data = cv2.imencode('.png', labels)
    return CompressedImage(header=header, format='mono8; png compressed mono8',
                           data=array('B', data.tobytes()))


def _runs(header: Header, labels: Bytes) -> Image:
    """Return a label image as Autoware takes it: runs of one id, row by row, 5 bytes each."""
    flat = np.ascontiguousarray(labels).reshape(-1)
    begins = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    runs = np.empty(len(begins), RUN)
    runs['id'], runs['length'] = flat[begins], np.diff(begins, append=flat.size)
    height, width = labels.shape
    return Image(header=header, height=height, width=width, encoding='mono8', step=width,
                 data=array('B', runs.tobytes()))
