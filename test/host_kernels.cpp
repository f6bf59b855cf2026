// Copyright 2026 The ros_vseg authors
// SPDX-License-Identifier: Apache-2.0
//
// Launches the kernels on the processor; parameters come as CUDA takes them: pointers to values.
#include <utility>

#include "kernels.cu"
#include "stand_in_network.cu"

template <typename... A, std::size_t... I>
static void over(void (*kernel)(A...), const unsigned* grid, const unsigned* block, void** values,
                 std::index_sequence<I...>) {
  blockDim = {block[0], block[1], block[2]};
  for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
      for (threadIdx.y = 0; threadIdx.y < block[1]; ++threadIdx.y)
        for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x)
          kernel(*static_cast<A*>(values[I])...);
}

template <typename... A>
static void launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block,
                   void** values) {
  over(kernel, grid, block, values, std::index_sequence_for<A...>{});
}

#define HOST(name)                                                                          \
  extern "C" void host_##name(const unsigned* grid, const unsigned* block, void** values) { \
    launch(name, grid, block, values);                                                      \
  }

HOST(resize_packed)
HOST(resize_yuv)
HOST(resize_bayer)
HOST(store)
HOST(candidates)
HOST(labels)
HOST(confidence)
HOST(network)
