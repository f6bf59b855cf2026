# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""What a recipe says of its network: ``kind``, and the options that this kind has."""
from dataclasses import dataclass, field
from typing import ClassVar, List, Optional


@dataclass
class NetworkOptions:
    """
    What every kind has.

    ``kind``: one of ``KINDS``. ``weights`` of the backbone as in
    ``backbones.load_pretrained``; ``init``: a checkpoint or a bundle to start from.
    ``frozen_backbone``: whether the backbone keeps its weights.
    """

    # of these, none is an argument of a network
    OF_TRAINING: ClassVar[tuple[str, ...]] = ('kind', 'weights', 'init', 'frozen_backbone')

    kind: str = 'mgcnet'
    weights: Optional[str] = None
    init: Optional[str] = None
    frozen_backbone: bool = False

    @property
    def context_frames(self) -> int:
        """T: a network without context has none."""
        return 0


@dataclass
class Model(NetworkOptions):
    """
    Arguments of ``models.student.Student`` and ``models.teacher.Teacher``, the kind mgcnet.

    ``short_term``: ssc (a student) or msc (a teacher). ``hide_own`` and ``wrong_pool`` are for
    ssc alone.
    """

    weights: Optional[str] = 'imagenet'
    short_term: str = 'ssc'
    backbone: str = 'efficientnet_lite0'
    non_local: str = 'prototype'
    output_stride: int = 16
    channels: int = 128
    key_channels: int = 64
    num_prototypes: int = 32
    context_frames: int = 3
    head_widths: List[int] = field(default_factory=lambda: [96, 48])
    dropout: float = 0.1
    attention: str = 'cosine'
    attention_scale: float = 1.0
    positions: bool = True
    hide_own: float = 0.3
    wrong_pool: float = 0.1


@dataclass
class PSPNetOptions(NetworkOptions):
    """Arguments of ``models.pspnet.PSPNet``; the defaults are the papers' PSPNet-R18."""

    kind: str = 'pspnet'
    backbone: str = 'resnet18'
    width: float = 1.0
    deep_stem: bool = True
    output_stride: int = 8
    channels: int = 128
    dropout: float = 0.1


@dataclass
class DeepLabOptions(PSPNetOptions):
    """Arguments of ``models.deeplab.DeepLab``; the defaults are the papers' DeepLab-R18."""

    kind: str = 'deeplab'
    channels: int = 64
    rates: List[int] = field(default_factory=lambda: [12, 24, 36])


@dataclass
class ESPNetOptions(NetworkOptions):
    """Arguments of ``models.espnet.ESPNet``."""

    kind: str = 'espnet'
    alpha_2: int = 2
    alpha_3: int = 8


@dataclass
class ESPNetCOptions(ESPNetOptions):
    """Arguments of ``models.espnet.ESPNetC``."""

    kind: str = 'espnet_c'


@dataclass
class HRNetOptions(NetworkOptions):
    """Arguments of ``models.hrnet.HRNet``; the defaults are HRNet-W18-Small-v2."""

    kind: str = 'hrnet'
    width: float = 1.0
    dropout: float = 0.0


@dataclass
class MobileNetV2PlusOptions(NetworkOptions):
    """Arguments of ``models.mobilenetv2plus.MobileNetV2Plus``; ImageNet weights fit."""

    kind: str = 'mobilenetv2plus'
    channels: int = 256
    dropout: float = 0.2


@dataclass
class DepthTask:
    """
    Depth in metres along the optical axis, as classes (VNL; Yin et al., 2019).

    ``bins`` are of equal width in the logarithm, from ``nearest`` to ``farthest`` metres, for a
    camera of a focal length of ``focal`` pixels of the network's input; depths of other cameras
    are theirs in proportion. The runtime calls what is beyond 3/4 of ``farthest`` far.
    ``sharpness``: of the weighted cross-entropy.
    """

    weight: float = 1.0
    bins: int = 64
    nearest: float = 2.0
    farthest: float = 100.0
    focal: float = 555.0
    sharpness: float = 0.2


@dataclass
class NormalsTask:
    """Surface normals: unit vectors towards the camera, in its axes."""

    weight: float = 1.0


@dataclass
class Tasks:
    """
    What a network says of a frame beside its classes; all tasks share all but the last layer.

    ``weighting``: fixed, or kendall (weights by learned variances; Kendall et al., 2018).
    """

    depth: Optional[DepthTask] = None
    normals: Optional[NormalsTask] = None
    weighting: str = 'fixed'

    @property
    def channels(self) -> int:
        """Of the last layer, beyond those of the classes."""
        return (self.depth.bins if self.depth else 0) + (3 if self.normals else 0)


@dataclass
class NfSOptions(NetworkOptions):
    """Arguments of ``models.nfs.NfSSegNet``."""

    kind: str = 'nfs'
    width: float = 1.0
    output_stride: int = 8
    decoder: int = 32


KINDS: dict[str, type[NetworkOptions]] = {
    options.kind: options for options in (
        Model, PSPNetOptions, DeepLabOptions, ESPNetOptions, ESPNetCOptions, HRNetOptions,
        MobileNetV2PlusOptions, NfSOptions)}
