# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The errors a user can fix: each message says what is wrong, where, and what to do."""


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
