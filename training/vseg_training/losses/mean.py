# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Means that several processes share."""
from torch import distributed


def mean_over_processes(total, count):
    """
    Quotient of two scalars, total / count; 0 where nothing was counted.

    In a group of processes, this one's part of the quotient of their sums: the mean of the parts,
    which is what distributed training takes of losses and gradients, is that quotient.
    """
    if distributed.is_available() and distributed.is_initialized():
        # every process takes part, also one that counted nothing
        count = count.clone()
        distributed.all_reduce(count)
        total = total * distributed.get_world_size()
    return total / count.clamp(min=1e-12)
