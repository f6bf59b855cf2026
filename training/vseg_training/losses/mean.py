# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Means that several processes share."""
from torch import distributed, Tensor


def mean_over_processes(total: Tensor, count: Tensor) -> Tensor:
    """
    Quotient total / count of two float scalars; 0 where nothing was counted.

    In a group of processes it is this one's part of the quotient of their sums. Distributed
    training takes the mean of losses and gradients over processes, and the mean of the parts is
    that quotient.

    Examples:
        >>> import torch
        >>> mean_over_processes(torch.tensor(6.0), torch.tensor(4.0))
        tensor(1.5000)
        >>> mean_over_processes(torch.tensor(0.0), torch.tensor(0.0))
        tensor(0.)
    """
    if distributed.is_available() and distributed.is_initialized():
        # every process takes part, also one that counted nothing
        count = count.clone()
        distributed.all_reduce(count)
        total = total * distributed.get_world_size()
    return total / count.clamp(min=1e-12)
