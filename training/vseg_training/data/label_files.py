# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Label files: PNGs whose grey levels or palette indices are ids, and tables of such ids."""
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf
from PIL import Image

from ros_vseg.labels import LabelSet

from .clips import VOID
from .image_files import JPEG, PNG, read_file, unreadable
from ..yaml_files import load_yaml, refuse_repeated


UNKNOWN = -1  # in a table of ids: an id that must not occur
Table = npt.NDArray[np.int16]
_KINDS = {0: 'grey', 2: 'RGB', 3: 'palette', 4: 'grey with alpha', 6: 'RGBA'}  # of PNG
_NEEDED = 'labels must be 8-bit single-channel PNGs of class ids, not of colours'


class LabelFile(NamedTuple):
    """Ids uint8 [H, W] as they are in a file, and its palette uint8 [256, 3] RGB if any."""

    ids: npt.NDArray[np.uint8]
    palette: npt.NDArray[np.uint8] | None


def read_label_file(path: Path) -> LabelFile:
    """
    Read the ids of a PNG: its grey levels of 1, 2, 4 or 8 bits, or the indices of its palette.

    Raises:
        ValueError: The file is not such a PNG, whatever its name says, is cut, or is to be turned
            (``read_file``).
        OSError: It cannot be opened.
    """
    content = read_file(path)
    if content.startswith(JPEG):
        raise ValueError(f'{path} holds a JPEG, which changes ids: save the labels as PNG from '
                         'where they were made')
    if not content.startswith(PNG) or len(content) < 26:
        raise ValueError(f'{path} is not a PNG: {_NEEDED}')
    depth, kind = content[24], content[25]
    if depth == 16 or kind not in (0, 3):
        raise ValueError(f'{path} is {depth}-bit {_KINDS.get(kind, "of an unknown kind")}: '
                         f'{_NEEDED}')
    try:
        with Image.open(BytesIO(content)) as image:
            ids = np.asarray(image).astype(np.uint8)
            colors = image.getpalette() if kind == 3 else None
    except Exception as error:  # a decoder fails in many ways on a damaged file
        raise unreadable(path) from error
    if kind == 0 and depth in (2, 4):
        ids //= 255 // (2 ** depth - 1)  # the decoder spreads grey levels over 0..255
    if colors is None:
        return LabelFile(ids, None)
    palette = np.zeros((256, 3), np.uint8)
    palette[:len(colors) // 3] = np.reshape(colors, (-1, 3))
    return LabelFile(ids, palette)


def check_palette(path: Path, ids: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8],
                  label_set: LabelSet) -> None:
    """
    Compare the palette of a label file with the colours of the classes.

    Colours that say nothing are ignored: grey levels equal to the index, and those that PASCAL
    VOC's tools give to every index.

    Args:
        path: Of the file.
        ids: uint8 [H, W], ids of the label set.
        palette: uint8 [256, 3] RGB.
        label_set: Names and colours by id.

    Raises:
        ValueError: An id that occurs has the colour of another class, or one of no class.
    """
    colors = [tuple(color) for color in label_set.colors]
    for index in np.unique(ids).tolist():
        color = tuple(palette[index].tolist())
        own = colors[index] if index < len(colors) else None
        if color == own or own is None and color == (0, 0, 0):
            continue
        meaning = f'id {index} is {"void" if own is None else label_set.names[index]}'
        if color in colors:
            shown = f'the colour of class {label_set.names[colors.index(color)]}'
        elif own is None or color in ((index,) * 3, _voc_color(index)):
            continue
        else:
            shown, meaning = f'the colour {color}', f'{meaning} with {own}'
        raise ValueError(f'{path}: index {index} of its palette has {shown}, but {meaning}: save '
                         'the ids without a palette, or, if the indices are right, give the '
                         'source a label_map that names their classes')


def _voc_color(index: int) -> tuple[int, ...]:
    """Colour that PASCAL VOC's tools give to an index: its bits, spread over three channels."""
    color = [0, 0, 0]
    for bit in range(8):
        color[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return tuple(color)


def is_mask(paths: Iterable[Path]) -> bool:
    """Whether label files have the ids 0 and 255, and no other; unreadable ones have others."""
    seen: set[int] = set()
    for path in paths:
        try:
            seen.update(np.unique(read_label_file(path).ids).tolist())
        except (ValueError, OSError):
            return False
        if not seen <= {0, 255}:
            return False
    return seen == {0, 255}


def id_table(ids: Mapping[int, int]) -> Table:
    """Table int16 [256] from ids on disk to class ids, from a dict; void stays, others fail."""
    table = np.full(256, UNKNOWN, np.int16)
    table[VOID] = VOID
    for disk, label in ids.items():
        table[disk] = label
    return table


def read_label_map(path: str, names: Sequence[str]) -> Table:
    """
    Read the YAML file that maps ids on disk to the label set's class names, or to void.

    Args:
        path: Of the file.
        names: Class names of the label set.

    Returns:
        A table as of ``id_table``.

    Raises:
        ValueError: The file cannot be read, or an id or a name does not fit.
    """
    try:
        entries: Any = OmegaConf.to_container(load_yaml(Path(path), f'label map {path}'))
    except OSError as error:
        raise ValueError(f'label map {path} cannot be read: {error}') from error
    places = {name: index for index, name in enumerate(names)} | {'void': VOID}
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f'label map {path} must map ids to class names, one "id: name" a line')
    refuse_repeated(Path(path), f'label map {path}')
    for disk, name in entries.items():
        # to Python true is the number 1
        if not isinstance(disk, int) or isinstance(disk, bool) or not 0 <= disk <= 255:
            raise ValueError(f'label map {path}: {disk!r} is not an id: use 0 to 255')
        if not isinstance(name, str) or name not in places:
            raise ValueError(f'label map {path}: class {name!r} is not in the label set: use '
                             f'{", ".join(places)}')
    return id_table({disk: places[name] for disk, name in entries.items()})
