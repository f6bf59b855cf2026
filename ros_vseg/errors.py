# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The errors a user can fix: each message says what is wrong, where, and what to do."""
from reprlib import Repr

LONGEST_SHOWN = 80  # characters of a wrong value in a message
SHOWN = Repr()      # looks no deeper than it shows: a value may be of any size
SHOWN.maxlevel, SHOWN.maxstring, SHOWN.maxother = 2, LONGEST_SHOWN, LONGEST_SHOWN


class VsegError(ValueError):
    """Base of every error that a user, not a developer, can fix."""


class BundleError(VsegError):
    """A model file that is missing, damaged, not a bundle, or of a newer format."""


class LabelSetError(VsegError):
    """A label set that is malformed or does not fit the bundle."""


class ImageError(VsegError):
    """
    An image message or file that cannot be turned into pixels.

    ``cause`` is a short key for counting: encoding, depth, step, size, data, decode or nan.
    """

    def __init__(self, message: str, cause: str) -> None:
        """Hold what is wrong, and its cause."""
        super().__init__(message)
        self.cause = cause


class MediaError(VsegError):
    """A bag, video or folder that cannot be read or written."""


class BackendError(VsegError):
    """An inference backend that is not installed or refuses the bundle."""


class EngineError(BackendError):
    """A TensorRT engine that cannot be built, or that is not for this bundle, version or GPU."""


class DeviceError(BackendError):
    """A GPU that is missing, out of memory or lost."""


def shorten(value: object) -> str:
    """
    Return a wrong value as Python writes it, for a message: at most 80 characters.

    >>> shorten('0.5'), len(shorten('x' * 1000))
    ("'0.5'", 80)
    """
    try:
        text = SHOWN.repr(value)
    except ValueError:      # Python writes no number of more than 4300 digits
        return 'a number of thousands of digits'
    return text if len(text) <= LONGEST_SHOWN else f'{text[:LONGEST_SHOWN - 3]}...'
