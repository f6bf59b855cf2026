# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""One thread per test process: tiny tensors gain nothing from more, and a busy machine loses."""
import torch


torch.set_num_threads(1)
