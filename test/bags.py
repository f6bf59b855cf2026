# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Bags for tests: small drives as MCAP, SQLite and ROS 1 bags."""
import struct

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin, Writer as Ros2Writer
from rosbags.typesys import get_typestore, Stores

from ros_vseg.media.writers import BagWriter

PERIOD = 10**9 // 10


def picture(number, size=(24, 32)):
    """Return an image uint8 [H, W, 3] of one colour, which names its number."""
    return np.full((*size, 3), (10 * number, 255 - 10 * number, 7 * number), np.uint8)


def gradient(number, size=(48, 64)):
    """Return a picture that survives a video codec: grey, brighter by number."""
    return np.full((*size, 3), 40 + 30 * number, np.uint8)


def exact(number, size=(24, 32)):
    """Return labels uint8 [H, W] that name their number."""
    labels = np.full(size, number, np.uint8)
    labels[0] = 255
    return labels


def png(pixels):
    """Return the bytes of a PNG of uint8 [H, W, 3] RGB or [H, W]."""
    return cv2.imencode('.png', pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


def write_drive(path, frames=4, labels='', topic='/camera/image', start=10**9):
    """
    Write an MCAP bag of ``frames`` pictures, 10 a second, with BagWriter; return its path.

    labels: '' for none; 'before' or 'after' their pictures. A topic that ends in /compressed gets
    PNGs, and so do its labels.
    """
    def put(writer, name, pixels, encoding, stamp):
        if topic.endswith('/compressed'):
            writer.compressed(name, png(pixels), 'png', stamp, 'camera')
        else:
            writer.image(name, pixels, encoding, stamp, 'camera')

    label_topic = topic.removesuffix('/compressed').rpartition('/')[0] + '/label'
    with BagWriter(path) as writer:
        for number in range(frames):
            stamp = start + number * PERIOD
            if labels == 'before':
                put(writer, label_topic, exact(number), 'mono8', stamp)
            put(writer, topic, picture(number), 'rgb8', stamp)
            if labels == 'after':
                put(writer, label_topic, exact(number), 'mono8', stamp)
    return path


def write_foreign_drive(path, kind, frames=4, topic='/front/image_raw'):
    """Write a bag as others do: kind 'sqlite3' (ROS 2 folder) or 'ros1' (.bag); bgr8 images."""
    types = get_typestore(Stores.ROS1_NOETIC if kind == 'ros1' else Stores.ROS2_FOXY)
    image, header, time = (types.types[name] for name in (
        'sensor_msgs/msg/Image', 'std_msgs/msg/Header', 'builtin_interfaces/msg/Time'))
    writer = (Ros1Writer(path) if kind == 'ros1' else
              Ros2Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3))
    with writer:
        connection = writer.add_connection(topic, 'sensor_msgs/msg/Image', typestore=types)
        for number in range(frames):
            stamp = 10**9 + number * PERIOD
            pixels = np.ascontiguousarray(picture(number)[..., ::-1])
            numbered = {'seq': number} if kind == 'ros1' else {}
            message = image(
                header(stamp=time(*divmod(stamp, 10**9)), frame_id='front', **numbered),
                *pixels.shape[:2], 'bgr8', 0, pixels.strides[0], pixels.reshape(-1))
            serialize = types.serialize_ros1 if kind == 'ros1' else types.serialize_cdr
            # recorded a little after the camera's own stamp
            writer.write(connection, stamp + 5 * 10**6, serialize(message, connection.msgtype))
    return path


def image_message(number, stamp, size=(24, 32)):
    """Return the CDR bytes of a sensor_msgs/Image with ``picture(number)``."""
    types = get_typestore(Stores.ROS2_HUMBLE)
    image, header, time = (types.types[name] for name in (
        'sensor_msgs/msg/Image', 'std_msgs/msg/Header', 'builtin_interfaces/msg/Time'))
    pixels = picture(number, size)
    message = image(header(time(*divmod(stamp, 10**9)), 'camera'), *size, 'rgb8', 0,
                    pixels.strides[0], pixels.reshape(-1))
    return bytes(types.serialize_cdr(message, 'sensor_msgs/msg/Image'))


CAMERA_CHANNEL = ('/camera/image', 'sensor_msgs/msg/Image', 'ros2msg', b'', 'cdr')


def write_mcap(path, channels, messages, chunk=2, ending=True, compress=bytes, name=''):
    """
    Write an MCAP file record by record, as any program may: without an index.

    channels: (topic, schema name, schema encoding, schema data, message encoding), ids from 1;
    messages: (channel id, time, data); chunk: messages in one, 0: none has a chunk; ending:
    whether the end marker is there; compress, name: of the chunks. Returns path.
    """
    def record(kind, content):
        return struct.pack('<BQ', kind, len(content)) + content

    def text(value):
        value = value.encode() if isinstance(value, str) else value
        return struct.pack('<I', len(value)) + value

    def packed(part):
        if not chunk:
            return b''.join(part)
        content = b''.join(part)
        packed = compress(content)
        return record(6, struct.pack('<QQQI', 0, 2**60, len(content), 0) + text(name)
                      + struct.pack('<Q', len(packed)) + packed)

    magic = b'\x89MCAP0\r\n'
    data = magic + record(1, text('') + text('test'))
    part = []
    for number, (topic, kind, encoding, schema, message_encoding) in enumerate(channels, 1):
        part.append(record(3, struct.pack('<H', number) + text(kind) + text(encoding)
                           + text(schema)))
        part.append(record(4, struct.pack('<HH', number, number) + text(topic)
                           + text(message_encoding) + text(b'')))
    for count, (channel, time, content) in enumerate(messages, 1):
        part.append(record(5, struct.pack('<HIQQ', channel, count, time, time) + content))
        if not chunk or count % chunk == 0:
            data, part = data + packed(part), []
    data += packed(part) if part else b''
    if ending:
        data += record(15, bytes(4)) + record(2, bytes(20)) + magic
    path.write_bytes(data)
    return path
