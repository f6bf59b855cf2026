# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Table of the kinds of networks that a recipe can name, and how one is built."""
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import fields
from typing import Any, TypeAlias

import torch

from .deeplab import DeepLab
from .espnet import ESPNet, ESPNetC
from .hrnet import HRNet
from .mobilenetv2plus import MobileNetV2Plus
from .nfs import NfSSegNet
from .options import Model, NetworkOptions, Tasks
from .per_frame import PerFrame
from .pspnet import PSPNet
from .student import Student
from .tasks import check, widened
from .teacher import Teacher
from ..backbones import BACKBONES, load_pretrained


Exportable: TypeAlias = Student | PerFrame
Network: TypeAlias = Student | PerFrame | Teacher

PER_FRAME: dict[str, type[PerFrame]] = {
    'pspnet': PSPNet, 'deeplab': DeepLab, 'espnet': ESPNet, 'espnet_c': ESPNetC, 'hrnet': HRNet,
    'mobilenetv2plus': MobileNetV2Plus, 'nfs': NfSSegNet}
MGCNETS: dict[str, type[Student] | type[Teacher]] = {'ssc': Student, 'msc': Teacher}
OF_STUDENTS = ('hide_own', 'wrong_pool')  # options that a teacher lacks


def build(options: NetworkOptions, num_classes: int, pretrained: bool = False,
          tasks: Tasks | None = None) -> Network:
    """
    Build the network that a recipe's ``model`` describes.

    Args:
        options: Of one of the kinds.
        num_classes: K.
        pretrained: Whether to load the backbone's weights (``model.weights``).
        tasks: What it is to say beside classes.

    Raises:
        ValueError: An option has an unknown value, or they do not fit together.
    """
    arguments = {field.name: getattr(options, field.name) for field in fields(options)
                 if field.name not in NetworkOptions.OF_TRAINING}
    network: Network
    if isinstance(options, Model):
        network = _mgcnet(arguments, num_classes)
    else:
        network = PER_FRAME[options.kind](num_classes, **arguments)
    if tasks:
        check(tasks)
        if tasks.channels:
            _add_tasks(network, tasks)
    if pretrained and options.weights:
        backbone = arguments.get('backbone', options.kind)
        if options.weights == 'imagenet':
            _refuse_imagenet(backbone, arguments)
        load_pretrained(network.backbone, backbone, options.weights)
    return network


def _add_tasks(network: Network, tasks: Tasks) -> None:
    if isinstance(network, Teacher):
        raise ValueError('tasks need a network of one stream: set model.short_term to ssc, or '
                         'leave tasks out')
    network.tasks = tasks
    network.head.classify = widened(network.head.get_submodule('classify'), tasks.channels)


def _mgcnet(arguments: dict[str, Any], num_classes: int) -> Student | Teacher:
    short_term = arguments.pop('short_term')
    if short_term not in MGCNETS:
        raise ValueError(f'model.short_term {short_term!r} is unknown: use ssc or msc')
    left_out = OF_STUDENTS if short_term == 'msc' else ()
    return MGCNETS[short_term](num_classes, **{
        key: value for key, value in arguments.items() if key not in left_out})


def _refuse_imagenet(backbone: str, arguments: dict[str, Any]) -> None:
    """Raise ValueError for a backbone of which no public weights exist."""
    fix = 'set model.weights to null, or to a file'
    if backbone not in BACKBONES:
        raise ValueError(f'there are no ImageNet weights of {backbone}: {fix}')
    if arguments.get('width', 1) != 1:
        raise ValueError('there are no ImageNet weights of a backbone of another width: '
                         f'set model.width to 1, or {fix}')
    if arguments.get('deep_stem') and backbone.startswith('resnet'):
        raise ValueError(f'there are no ImageNet weights of {backbone} with a deep stem: '
                         f'set model.deep_stem to false, or {fix}')


def refuse_without_prototypes(networks: Iterable[Network]) -> None:
    """Raise ValueError where structural distillation meets a network of another kind."""
    for network in networks:
        if isinstance(network, PerFrame):
            raise ValueError(
                f'distill.structural compares prototypes, which a {type(network).__name__} has '
                'not: set distill.structural to 0')


def refuse_single_values(network: Network, crop: Sequence[int]) -> None:
    """
    Raise ValueError where a step of one frame leaves batch norm one value, too few to train on.

    Args:
        network: It stays as it is.
        crop: (height, width) of the frame.
    """
    try:
        deepcopy(network).to('meta').train()(torch.zeros(1, 1, 3, *crop, device='meta'))
    except ValueError as error:
        raise ValueError(
            f'data.frames_per_step is 1, and of one frame {crop[0]}x{crop[1]} a map of '
            f'{type(network).__name__} keeps one value per channel, which batch norm cannot train '
            'on: set data.frames_per_step to 2 or more') from error
