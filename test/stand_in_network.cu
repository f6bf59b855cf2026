// Copyright 2026 The ros_vseg authors
// SPDX-License-Identifier: Apache-2.0
//
// A network that is none, for GPUs without TensorRT: what it gives depends on every input, and can
// be computed again to the bit. It reads and writes where an engine would.
#ifdef __CUDACC__
#define KERNEL extern "C" __global__ void
#else
#include "host_kernels.h"
#endif

KERNEL network(const unsigned char* image, const float* pool, const float* mask, float* scores,
               float* prototypes, int width, int classes, int coarse_height, int coarse_width,
               int stride, int slots, int dim, int values) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x < values && y == 0) prototypes[x] = image[(size_t)x * 97 % (width * stride)] * 0.125f;
  if (x >= coarse_width || y >= coarse_height) return;
  for (int c = 0; c < classes; ++c) {
    const size_t pixel = (size_t)(y * stride) * width + x * stride;
    float score = image[3 * pixel + c % 3] * (1.0f + (float)(c % 5));
    for (int s = 0; s < slots; ++s)
      if (mask[s] == 0.0f) score += pool[s * dim + c];
    scores[((size_t)c * coarse_height + y) * coarse_width + x] = score;
  }
}
