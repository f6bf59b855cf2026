# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""The buffers of a camera whose images have one size, and the CUDA graphs of its frames."""
import numpy as np

from ros_vseg.bundle import BundleInfo
from ros_vseg.gpu.cuda import aligned, ALIGNMENT, Buffer, Gpu, Place
from ros_vseg.gpu.kernels import Axes, Taps
from ros_vseg.gpu.work_queue import Graph

Key = tuple[str, tuple[int, int], tuple[int, ...]]


class Frame:
    """
    What goes up and comes down with each frame of a camera.

    One upload takes the image, the mask of the pool and the slot that the frame writes: the
    graphs are then the same for every state of the ring, and need no other address. Each part
    begins at a multiple of 256 bytes, as TensorRT asks for. A GPU that shares the processor's
    memory reads and writes the host's arrays themselves, and nothing is copied.

    Attributes:
        key: encoding, shape, and shape of the pixels of the camera's images: what they are for.
        encoding: of FORMATS.
        shape: (height, width) of the camera's images.
        host: page-locked uint8 array of all that goes up.
        image: its part for the image, uint8 as the encoding has it.
        mask: its part for the mask of the pool, float32 [(T + 1) N].
        slot: its part for the number of the slot, int32 [1].
        labels, confidence: page-locked uint8 [H, W].
        mean_confidence: page-locked float32 [1].
        is_mapped: whether the places on the GPU are the host's arrays.
        upload: the part of ``host`` that goes up.
        gpu: what ``upload`` is copied to; gpu_image, gpu_mask and gpu_slot are its parts.
        gpu_labels, gpu_confidence, gpu_mean_confidence: what the arrays without ``gpu_`` are
            copied from.
        taps, axes: the tables of the kernels.
        graphs: by whether the confidence is computed.
    """

    def __init__(self, gpu: Gpu, key: Key, info: BundleInfo, coarse: tuple[int, int]) -> None:
        self.key = key
        self.encoding, shape, stored = key
        self.shape = shape
        pixels, size = shape[0] * shape[1], int(np.prod(stored))
        seen = (info.pool_frames + 1) * info.num_prototypes
        mask_at = aligned(size)
        slot_at = mask_at + aligned(4 * seen)
        mean_at = slot_at + ALIGNMENT   # comes down, but two pinned arrays may not share a page
        memory = gpu.pinned((mean_at + 2 * ALIGNMENT,))
        self.host = memory[-memory.ctypes.data % ALIGNMENT:][:mean_at + ALIGNMENT]
        self.image = self.host[:size].reshape(stored)
        self.mask = self.host[mask_at:mask_at + 4 * seen].view(np.float32)
        self.slot = self.host[slot_at:slot_at + 4].view(np.int32)
        self.mean_confidence = self.host[mean_at:mean_at + 4].view(np.float32)
        self.upload = self.host[:mean_at]
        self.labels, self.confidence = gpu.pinned(shape), gpu.pinned(shape)
        self.is_mapped = gpu.maps_host
        self.gpu: Buffer | Place
        self.gpu_labels: Buffer | Place
        self.gpu_confidence: Buffer | Place
        if self.is_mapped:
            self.gpu = gpu.mapped(self.host)
            self.gpu_labels = gpu.mapped(self.labels)
            self.gpu_confidence = gpu.mapped(self.confidence)
        else:
            self.gpu = gpu.allocate(mean_at + ALIGNMENT)
            self.gpu_labels, self.gpu_confidence = gpu.allocate(pixels), gpu.allocate(pixels)
        self.gpu_image = self.gpu.part(0, size)
        self.gpu_mask = self.gpu.part(mask_at, 4 * seen)
        self.gpu_slot = self.gpu.part(slot_at, 4)
        self.gpu_mean_confidence = self.gpu.part(mean_at, 4)
        self.taps = Taps(gpu, shape, (info.height, info.width))
        self.axes = Axes(gpu, coarse, shape)
        self.graphs: dict[bool, Graph] = {}
