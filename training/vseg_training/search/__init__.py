# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""Search for the auxiliary module of overparameterised training (Liu's thesis, Sec. 6.3.4)."""
