// Copyright 2026 The ros_vseg authors
// SPDX-License-Identifier: Apache-2.0
//
// Preprocessing and decoding on the GPU. The same source compiles as C++, where the tests run it.
//
// Without fused multiply-add (--fmad=false), so that every result is the processor's to the bit:
// see decode.py, whose arithmetic and order of operations this is.

#ifdef __CUDACC__
#define KERNEL extern "C" __global__ void
#define DEVICE __device__ __forceinline__
#else
#include "host_kernels.h"  // blockIdx and the like as variables, and the two macros above
#endif

typedef unsigned char uint8;

#define LIMIT 1e38f  // scores beyond it count as it: sums and differences stay finite
#define RUN 4        // pixels of a thread: side by side in `labels`, one below another in `confidence`

DEVICE int column() { return blockIdx.x * blockDim.x + threadIdx.x; }

DEVICE int row() { return blockIdx.y * blockDim.y + threadIdx.y; }

// NaN counts as lowest.
DEVICE float finite(float score) {
  return score > -LIMIT ? (score < LIMIT ? score : LIMIT) : -LIMIT;
}

// Image uint8 [H, W, 3] -> uint8 [h, w, 3], by taps of rows and columns: see resize.py.
// swap: 1 to turn RGB into BGR.
KERNEL resize(const uint8* image, int height, int width, uint8* out, int out_height, int out_width,
              const int* first_y, const float* weights_y, int taps_y,
              const int* first_x, const float* weights_x, int taps_x, int swap) {
  const int x = column(), y = row();
  if (x >= out_width || y >= out_height) return;
  float sum[3] = {0.0f, 0.0f, 0.0f};
  for (int j = 0; j < taps_y; ++j) {
    const int from_y = first_y[y] + j;
    if (from_y >= height) break;
    const float down = weights_y[y * taps_y + j];
    if (down == 0.0f) continue;  // of many rows a tap has no weight: it would add nothing
    for (int i = 0; i < taps_x; ++i) {
      const int from_x = first_x[x] + i;
      if (from_x >= width) break;
      const float weight = down * weights_x[x * taps_x + i];
      if (weight == 0.0f) continue;
      const uint8* pixel = image + 3 * ((size_t)from_y * width + from_x);
      for (int c = 0; c < 3; ++c) sum[c] += weight * pixel[c];
    }
  }
  uint8* pixel = out + 3 * ((size_t)y * out_width + x);
  for (int c = 0; c < 3; ++c) pixel[swap ? 2 - c : c] = (uint8)(sum[c] + 0.5f);
}

// Prototypes float [N, D] -> the slot of the pool float [T + 1, N, D] that ``slot`` points to.
KERNEL store(const float* prototypes, int count, int dim, const int* slot, float* pool) {
  const int x = column(), y = row();
  if (x >= dim || y >= count) return;
  const size_t place = (size_t)y * dim + x;
  pool[(size_t)*slot * count * dim + place] = prototypes[place];
}

// Coarse scores float [K, h, w] -> the best class of each cell corner, uint8 [h, w].
KERNEL best_class(const float* scores, int classes, int height, int width, uint8* best) {
  const int x = column(), y = row();
  if (x >= width || y >= height) return;
  const size_t plane = (size_t)height * width, place = (size_t)y * width + x;
  float top = finite(scores[place]);
  int winner = 0;
  for (int c = 1; c < classes; ++c) {
    const float score = finite(scores[c * plane + place]);
    if (score > top) {
      top = score;
      winner = c;
    }
  }
  best[place] = (uint8)winner;
}

// The four corners of a coarse cell; beyond the last row and column stands the last one again.
struct Corners {
  size_t top_left, top_right, bottom_left, bottom_right;
};

DEVICE Corners corners(int x, int y, int height, int width) {
  const int right = x + 1 < width ? x + 1 : x, below = y + 1 < height ? y + 1 : y;
  Corners at;
  at.top_left = (size_t)y * width + x;
  at.top_right = (size_t)y * width + right;
  at.bottom_left = (size_t)below * width + x;
  at.bottom_right = (size_t)below * width + right;
  return at;
}

DEVICE float lower_of(float a, float b) { return a < b ? a : b; }

// The labels of ``count`` pixels side by side in a cell whose corners disagree: only classes that
// can win are looked at. Corners are read, and interpolated down, once for all of them.
DEVICE void mixed(const float* scores, int classes, size_t plane, Corners at, float down,
                  const float* rights, int count, int* winner) {
  float bound = -LIMIT;
  for (int c = 0; c < classes; ++c) {
    const float* score = scores + c * plane;
    const float least = lower_of(
        lower_of(finite(score[at.top_left]), finite(score[at.top_right])),
        lower_of(finite(score[at.bottom_left]), finite(score[at.bottom_right])));
    bound = least > bound ? least : bound;
  }
  float top[RUN];
  for (int i = 0; i < RUN; ++i) winner[i] = -1;
  const float up = 1.0f - down;
  for (int c = 0; c < classes; ++c) {
    const float* score = scores + c * plane;
    const float top_left = finite(score[at.top_left]), top_right = finite(score[at.top_right]);
    const float bottom_left = finite(score[at.bottom_left]);
    const float bottom_right = finite(score[at.bottom_right]);
    if (top_left < bound && top_right < bound && bottom_left < bound && bottom_right < bound)
      continue;
    const float first = top_left * up + bottom_left * down;
    const float last = top_right * up + bottom_right * down;
    for (int i = 0; i < RUN; ++i) {
      if (i >= count) break;
      const float value = first * (1.0f - rights[i]) + last * rights[i];
      if (winner[i] < 0 || value > top[i]) {
        top[i] = value;
        winner[i] = c;
      }
    }
  }
}

// Labels uint8 [H, W], renamed by table: bilinear upsampling and argmax.
// first, weight: cell before each output row or column, and the weight of the cell after it.
KERNEL labels(const float* scores, const uint8* best, int classes, int height, int width,
              const int* first_y, const float* weight_y, const int* first_x, const float* weight_x,
              const uint8* table, uint8* out, int out_height, int out_width) {
  const int begin = column() * RUN, y = row();
  if (begin >= out_width || y >= out_height) return;
  const int end = begin + RUN < out_width ? begin + RUN : out_width;
  const size_t plane = (size_t)height * width;
  const float down = weight_y[y];
  int found[RUN] = {0, 0, 0, 0};
  for (int x = begin; x < end;) {
    const int cell = first_x[x];
    int after = x + 1;
    while (after < end && first_x[after] == cell) ++after;
    const Corners at = corners(cell, first_y[y], height, width);
    const int label = best[at.top_left];
    int winner[RUN] = {label, label, label, label};
    if (best[at.top_right] != label || best[at.bottom_left] != label ||
        best[at.bottom_right] != label)
      mixed(scores, classes, plane, at, down, weight_x + x, after - x, winner);
    for (int i = 0; i < RUN; ++i)   // indices that the compiler knows: no array in memory
      for (int j = 0; j < RUN; ++j)
        if (x - begin + j == i && x + j < after) found[i] = winner[j];
    x = after;
  }
  uint8* place = out + (size_t)y * out_width + begin;
  if (end - begin == RUN && (size_t)place % RUN == 0) {   // four labels by one store
    *(unsigned*)place = (unsigned)table[found[0]] | (unsigned)table[found[1]] << 8 |
                        (unsigned)table[found[2]] << 16 | (unsigned)table[found[3]] << 24;
    return;
  }
  for (int i = 0; i < RUN; ++i)
    if (begin + i < end) place[i] = table[found[i]];
}

// Two corners of a cell, interpolated to the right; below that, two of these interpolated down:
// the order of decode.py's confidence.
DEVICE float between(float left, float right, float weight) {
  return finite(left) * (1.0f - weight) + finite(right) * weight;
}

// Confidence uint8 [H, W]: 255 times the largest softmax probability.
// exp(d) is (1 + u + u^2 / 2)^64 with u = d / 64, d clamped to -16.
// A thread has RUN rows of one column. Rows of one cell share what is read and interpolated to the
// right; a row of another cell begins anew.
KERNEL confidence(const float* scores, int classes, int height, int width, const int* first_y,
                  const float* weight_y, const int* first_x, const float* weight_x, uint8* out,
                  int out_height, int out_width) {
  const int x = column(), begin = row() * RUN;
  if (x >= out_width || begin >= out_height) return;
  const int end = begin + RUN < out_height ? begin + RUN : out_height;
  const size_t plane = (size_t)height * width;
  const float right = weight_x[x];
  for (int y = begin; y < end;) {
    const int cell = first_y[y];
    int after = y + 1;
    while (after < end && first_y[after] == cell) ++after;
    const int count = after - y;
    const Corners at = corners(first_x[x], cell, height, width);
    float down[RUN], top[RUN], total[RUN];
    for (int i = 0; i < RUN; ++i) {
      down[i] = i < count ? weight_y[y + i] : 0.0f;
      total[i] = 0.0f;
    }
    for (int c = 0; c < classes; ++c) {
      const float* score = scores + c * plane;
      const float above = between(score[at.top_left], score[at.top_right], right);
      const float below = between(score[at.bottom_left], score[at.bottom_right], right);
      for (int i = 0; i < RUN; ++i) {
        const float value = above * (1.0f - down[i]) + below * down[i];
        top[i] = c == 0 || value > top[i] ? value : top[i];
      }
    }
    for (int c = 0; c < classes; ++c) {
      const float* score = scores + c * plane;
      const float above = between(score[at.top_left], score[at.top_right], right);
      const float below = between(score[at.bottom_left], score[at.bottom_right], right);
      for (int i = 0; i < RUN; ++i) {
        const float beneath = above * (1.0f - down[i]) + below * down[i] - top[i];
        const float u = (beneath > -16.0f ? beneath : -16.0f) * (1.0f / 64.0f);
        float power = 1.0f + u + u * u * 0.5f;
        for (int k = 0; k < 6; ++k) power *= power;
        total[i] += power;
      }
    }
    for (int i = 0; i < RUN; ++i)
      if (i < count)
        out[(size_t)(y + i) * out_width + x] = (uint8)(255.0f / total[i] + 0.5f);
    y = after;
  }
}
