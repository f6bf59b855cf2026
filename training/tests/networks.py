# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Small students and teachers with random but lively weights."""
import torch

from vseg_training.models.layers import resize
from vseg_training.models.student import Student
from vseg_training.models.teacher import Teacher


def tiny(network=Student, **options):
    """Network of 5 classes whose batch norm has seen one clip."""
    torch.manual_seed(0)
    defaults = {'channels': 16, 'key_channels': 8, 'num_prototypes': 4, 'head_widths': (16, 8)}
    model = network(5, **{**defaults, **options})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.6)
            module.momentum = 1.0
    # batch statistics of one clip, without which a random network says nothing of its input
    model.train()
    with torch.no_grad():
        model(resize(255 * torch.rand(4, 3, 4, 6), (96, 128))[None])
        if hasattr(model.attention, 'phi'):
            model.attention.phi.weight *= 8
            model.attention.g.weight *= 8
    return model


def tiny_teacher(**options):
    """Teacher with the options of ``tiny``."""
    return tiny(Teacher, **options)
