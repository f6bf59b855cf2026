# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""How frames are read, for every command that reads some."""
import argparse
from pathlib import Path
from typing import Any, Optional


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``open_frames`` takes."""
    parser.add_argument('--topic', help='image topic of a bag with several')
    parser.add_argument('--bit-depth', type=int, default=16, choices=range(8, 17), metavar='N',
                        help='bits that the values of 16-bit images use (default: 16)')
    parser.add_argument('--depth-as-grey', action='store_true',
                        help='take 16UC1 and 32FC1 images as grey pictures instead of depth')


def open_frames(path: Path, options: argparse.Namespace, fps: Optional[float] = None) -> Any:
    """Return the Source of a path, read as the options say; see ``open_source``."""
    from ros_vseg.media.sources import open_source
    return open_source(path, options.topic, fps, bit_depth=options.bit_depth,
                       depth_as_grey=options.depth_as_grey)


def path_with_name(text: str) -> Path:
    """Return a path; argparse tells of one without a name, as of a shell's unset variable."""
    if not text:
        raise argparse.ArgumentTypeError('it is empty: give a path')
    return Path(text)
