# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
"""That `make test-cuda12` has what it says; with other bindings there is nothing to see."""
import pytest

from ros_vseg.gpu.kernels import compile_kernels

bindings = pytest.importorskip('cuda.bindings')


def test_bindings_and_nvrtc_are_those_of_cuda_12():
    if not bindings.__version__.startswith('12.'):
        pytest.skip(f'cuda-bindings {bindings.__version__}: `make test-cuda12` has 12.9')
    from cuda.bindings import nvrtc
    assert nvrtc.nvrtcVersion()[1] == 12
    assert compile_kernels('sm87')[:4] == b'\x7fELF'
