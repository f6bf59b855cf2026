# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Images as cameras send them, for what takes them as they are."""
from types import SimpleNamespace

import numpy as np

from ros_vseg.encoding import LAYOUTS
from ros_vseg.gpu.formats import RAW
from ros_vseg.image import ImageReader


def raw_message(encoding, shape, seed=5, padding=0):
    """Return an Image with random pixels of an encoding."""
    layout, (height, width) = LAYOUTS[encoding], shape
    step = layout.channels * (width + width % layout.block[1]) + padding
    rows = int(height * sum(plane.rows * plane.width for plane in layout.planes))
    data = np.random.default_rng(seed).integers(0, 256, rows * step, np.uint8)
    return SimpleNamespace(height=height, width=width, encoding=encoding, is_bigendian=0,
                           step=step, data=data)


def raw_image(encoding, shape, seed=5, padding=0):
    """Return the RawImage of a ``raw_message``."""
    return ImageReader('test').read_raw(raw_message(encoding, shape, seed, padding), RAW)
