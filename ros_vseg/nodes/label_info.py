# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Latched topics that say what the ids of a label image mean."""
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import String

from ros_vseg.files import to_json
from ros_vseg.labels import LabelSet
from ros_vseg.nodes.qos import LATCHED

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:     # an optional package
    LabelInfo = None


def publish_label_info(node: Node, label_set: LabelSet) -> list[Publisher]:
    """
    Latch ``~/label_info_json`` and, where vision_msgs is installed, ``~/label_info``.

    The classes of a LabelInfo have the ids of the label image, and the last one is UNLABELED, the
    void id. Returns the publishers: the topics last as long as these.
    """
    text = String(data=to_json(label_set.to_dict()))
    publishers = [_latch(node, '~/label_info_json', text)]
    if LabelInfo:
        publishers.append(_latch(node, '~/label_info', label_info(node, label_set)))
    return publishers


def label_info(node: Node, label_set: LabelSet) -> Any:
    """Return a label set as a vision_msgs/LabelInfo; its threshold is 0: every pixel counts."""
    message = LabelInfo(class_map=[
        *(VisionClass(class_id=index, class_name=name)
          for index, name in enumerate(label_set.names)),
        VisionClass(class_id=label_set.void_id, class_name='UNLABELED')])
    message.header.stamp = node.get_clock().now().to_msg()
    return message


def _latch(node: Node, topic: str, message: Any) -> Publisher:
    publisher = node.create_publisher(type(message), topic, LATCHED)
    publisher.publish(message)
    return publisher
