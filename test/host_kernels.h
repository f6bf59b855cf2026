// Copyright 2026 The ros_vseg authors
// SPDX-License-Identifier: Apache-2.0
//
// What kernels.cu needs of CUDA, so that it compiles as C++ and runs thread after thread.
#pragma once
#include <strings.h>

#include <cmath>
#include <cstddef>

struct Index {
  unsigned x, y, z;
};

static thread_local Index blockIdx, blockDim, threadIdx;

#define KERNEL extern "C" void
#define DEVICE inline

DEVICE int __ffs(int bits) { return ffs(bits); }
