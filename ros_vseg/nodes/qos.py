# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""QoS of the topics that several nodes share: latched, for who is discovered late."""
from rclpy.qos import DurabilityPolicy, QoSProfile

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
EXACT = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)   # exact labels
