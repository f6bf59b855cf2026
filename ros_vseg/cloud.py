# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Depth and labels of one camera -> points that carry colour, class and confidence."""
import numpy as np
import numpy.typing as npt

from ros_vseg.errors import ImageError

DEPTH_ENCODINGS = {'16UC1': ('u2', 1e-3), 'mono16': ('u2', 1e-3), '32FC1': ('f4', 1.0)}  # REP 118
# As PCL's PointXYZRGBL has them: rgb is 0x00RRGGBB in the bits of a float.
FIELDS = ('x', 'y', 'z', 'rgb', 'label', 'confidence')
POINT = np.dtype(list(zip(FIELDS, ('<f4', '<f4', '<f4', '<u4', '<u4', '<f4'))))


def depth_in_metres(data: bytes, height: int, width: int, step: int, encoding: str,
                    bigendian: bool) -> npt.NDArray[np.float32]:
    """
    Read a depth image as REP 118 has it: 16UC1 in millimetres, 32FC1 in metres.

    Args:
        data: the rows, ``step`` bytes each.
        encoding: 16UC1, mono16 or 32FC1.

    Returns:
        float32 [H, W] in metres; NaN where there is no measurement (0, infinite or NaN).

    Raises:
        ImageError: for another encoding, or too few bytes.
    """
    if encoding not in DEPTH_ENCODINGS:
        raise ImageError(f'depth has encoding {encoding}: it must be 16UC1 (mm) or 32FC1 (m)',
                         'encoding')
    code, unit = DEPTH_ENCODINGS[encoding]
    kind = np.dtype(('>' if bigendian else '<') + code)
    if step < width * kind.itemsize or len(data) < step * height:
        raise ImageError(f'depth of {height}x{width} {encoding} with step {step} has {len(data)} '
                         'bytes: the driver sends less than it says', 'data')
    rows = np.frombuffer(data, np.uint8, step * height).reshape(height, step)
    values = rows[:, :width * kind.itemsize].copy().view(kind)
    metres = values.astype(np.float32) * np.float32(unit)
    metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
    return metres


def back_project(depth: npt.NDArray[np.float32], intrinsics: tuple[float, float, float, float]
                 ) -> npt.NDArray[np.float32]:
    """
    Return the points of a depth image: x right, y down, z forward.

    Args:
        depth: float32 [H, W], metres along the optical axis.
        intrinsics: fx, fy, cx, cy of the rectified image in pixels.

    Returns:
        float32 [H, W, 3] in metres; NaN where depth is.
    """
    fx, fy, cx, cy = intrinsics
    height, width = depth.shape
    x = (np.arange(width, dtype=np.float32) - np.float32(cx)) / np.float32(fx)
    y = (np.arange(height, dtype=np.float32) - np.float32(cy)) / np.float32(fy)
    return np.stack([depth * x, depth * y[:, None], depth], axis=-1)


def labelled_points(points: npt.NDArray[np.float32], colors: npt.NDArray[np.uint8],
                    labels: npt.NDArray[np.uint8],
                    confidence: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.void]:
    """
    Put points, colours, classes and confidence together, pixel by pixel.

    Args:
        points: float32 [H, W, 3] in metres.
        colors: uint8 [H, W, 3] RGB.
        labels: uint8 [H, W], class ids, 255 = void.
        confidence: uint8 [H, W], 255 times the probability of the class; None: 1 everywhere.

    Returns:
        POINT [H, W].

    Raises:
        ImageError: if the sizes differ: the depth is not registered to the labelled image.
    """
    for name, other in (('the image', colors), ('the label image', labels),
                        ('the confidence', confidence)):
        if other is not None and other.shape[:2] != points.shape[:2]:
            (height, width), (rows, columns) = points.shape[:2], other.shape[:2]
            raise ImageError(
                f'depth is {height}x{width}, {name} is {rows}x{columns}: register the depth to '
                'the camera first (depth_image_proc register)', 'size')
    cloud = np.empty(points.shape[:2], POINT)
    for axis, name in enumerate('xyz'):
        cloud[name] = points[..., axis]
    red, green, blue = (colors[..., channel].astype(np.uint32) for channel in range(3))
    cloud['rgb'] = red << 16 | green << 8 | blue
    cloud['label'] = labels
    cloud['confidence'] = 1.0 if confidence is None else confidence / np.float32(255)
    return cloud
