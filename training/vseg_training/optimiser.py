# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Optimiser and schedule of a recipe's ``optim``, in the form that Lightning takes."""
from typing import Any

import torch
from torch import nn

from .recipe import Optimisation


def build_optimiser(module: nn.Module, backbone: nn.Module, options: Optimisation
                    ) -> dict[str, Any]:
    """
    Build the optimiser of a module and its schedule over steps.

    Args:
        module: What is trained; parameters without gradient stay as they are.
        backbone: The part of it that has a learning rate of its own.
        options: ``optim`` of a recipe.

    Raises:
        ValueError: ``optim.optimizer`` is unknown.
    """
    optimizer = _optimizer(_parameter_groups(module, backbone, options), options)

    def poly(step: int) -> float:
        """Share of the learning rate, after a linear warm-up."""
        warmup = min(1.0, (step + 1) / max(1, options.warmup_steps))
        return warmup * max(0.0, 1 - step / options.max_steps) ** options.power

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, poly)
    return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': schedule, 'interval': 'step'}}


def _parameter_groups(module: nn.Module, backbone: nn.Module, options: Optimisation
                      ) -> list[dict[str, Any]]:
    """What is trained: the backbone, where it is, and the rest."""
    own = [p for p in backbone.parameters() if p.requires_grad]
    known = {id(parameter) for parameter in own}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in known]
    groups = [{'params': rest, 'lr': options.lr}]
    if own:
        groups.insert(0, {'params': own, 'lr': options.lr * options.backbone_lr_scale})
    return groups


def _optimizer(groups: list[dict[str, Any]], options: Optimisation) -> torch.optim.Optimizer:
    if options.optimizer == 'sgd':
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=options.weight_decay)
    if options.optimizer == 'adamw':
        return torch.optim.AdamW(groups, weight_decay=options.weight_decay)
    raise ValueError(f'optimizer {options.optimizer!r} is unknown: use adamw or sgd')
