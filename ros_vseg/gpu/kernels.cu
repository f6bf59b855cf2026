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
#define RUN 4        // rows of a thread that decodes: neighbours of one column and one coarse cell

DEVICE int column() { return blockIdx.x * blockDim.x + threadIdx.x; }

DEVICE int row() { return blockIdx.y * blockDim.y + threadIdx.y; }

// NaN counts as lowest: fmaxf leaves it out.
DEVICE float finite(float score) { return fminf(fmaxf(score, -LIMIT), LIMIT); }

struct Color {
  int red, green, blue;
};

DEVICE int at_most(int value, int limit) { return value < limit ? value : limit; }

DEVICE int at_least(int value, int limit) { return value > limit ? value : limit; }

// Pixels that lie side by side: `bytes` of each, and where in them the colours are.
struct Packed {
  const uint8* image;
  int width, bytes, red, green, blue;

  DEVICE Color operator()(int y, int x) const {
    const uint8* pixel = image + ((size_t)y * width + x) * bytes;
    return {pixel[red], pixel[green], pixel[blue]};
  }
};

// Luma for each pixel, chroma for two of a row and for 2^`shift` rows.
struct Yuv {
  const uint8* image;
  int luma, luma_pitch, luma_step, u, v, pitch, step, shift;

  // ITU-R BT.601 of 16..235 in 20 bits: OpenCV's numbers and rounding.
  DEVICE Color operator()(int y, int x) const {
    const size_t chroma = (size_t)(y >> shift) * pitch + (size_t)(x >> 1) * step;
    const int blue = image[chroma + u] - 128, red = image[chroma + v] - 128;
    const int light = image[(size_t)y * luma_pitch + (size_t)x * luma_step + luma];
    const int bright = at_least(light - 16, 0) * 1220542 + (1 << 19);
    return {byte(bright + 1673527 * red), byte(bright - 409993 * blue - 852492 * red),
            byte(bright + 2116026 * blue)};
  }

  DEVICE int byte(int value) const { return at_most(at_least(value >> 20, 0), 255); }
};

// A Bayer mosaic whose first red pixel is at (red_y, red_x), each 0 or 1: the means of the nearest.
// A pixel of the edge is the one beside it, further in.
struct Bayer {
  const uint8* image;
  int height, width, red_y, red_x;

  DEVICE Color operator()(int y, int x) const {
    y = at_most(at_least(y, 1), height - 2);
    x = at_most(at_least(x, 1), width - 2);
    const uint8* at = image + (size_t)y * width + x;
    const int up = at[-width], down = at[width], left = at[-1], right = at[1], here = *at;
    const bool in_red_row = ((y ^ red_y) & 1) == 0, in_red_column = ((x ^ red_x) & 1) == 0;
    if (in_red_row != in_red_column) {  // a green pixel
      const int across = (left + right + 1) >> 1, along = (up + down + 1) >> 1;
      return in_red_row ? Color{across, here, along} : Color{along, here, across};
    }
    const int green = (up + down + left + right + 2) >> 2;
    const int corners = (at[-width - 1] + at[-width + 1] + at[width - 1] + at[width + 1] + 2) >> 2;
    return in_red_row ? Color{here, green, corners} : Color{corners, green, here};
  }
};

// Where a resized image comes from and goes to: by taps of rows and columns, see resize.py.
// swap: 1 to turn RGB into BGR.
#define RESIZE                                                                                 \
  int height, int width, uint8 *out, int out_height, int out_width, const int *first_y,        \
      const float *weights_y, int taps_y, const int *first_x, const float *weights_x,          \
      int taps_x, int swap

template <typename Source>
DEVICE void resize_from(const Source& source, RESIZE) {
  const int x = column(), y = row();
  if (x >= out_width || y >= out_height) return;
  float red = 0.0f, green = 0.0f, blue = 0.0f;
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
      const Color color = source(from_y, from_x);
      red += weight * color.red;
      green += weight * color.green;
      blue += weight * color.blue;
    }
  }
  uint8* pixel = out + 3 * ((size_t)y * out_width + x);
  pixel[swap ? 2 : 0] = (uint8)(red + 0.5f);
  pixel[1] = (uint8)(green + 0.5f);
  pixel[swap ? 0 : 2] = (uint8)(blue + 0.5f);
}

#define RESIZED                                                                                \
  height, width, out, out_height, out_width, first_y, weights_y, taps_y, first_x, weights_x,   \
      taps_x, swap

// Image uint8 of [H, W] pixels in some encoding -> RGB uint8 [h, w, 3].
KERNEL resize_packed(const uint8* image, int bytes, int red, int green, int blue, RESIZE) {
  resize_from(Packed{image, width, bytes, red, green, blue}, RESIZED);
}

KERNEL resize_yuv(const uint8* image, int luma, int luma_pitch, int luma_step, int u, int v,
                  int pitch, int step, int shift, RESIZE) {
  resize_from(Yuv{image, luma, luma_pitch, luma_step, u, v, pitch, step, shift}, RESIZED);
}

KERNEL resize_bayer(const uint8* image, int red_y, int red_x, RESIZE) {
  resize_from(Bayer{image, height, width, red_y, red_x}, RESIZED);
}

// Prototypes float [N, D] -> the slot of the pool float [T + 1, N, D] that ``slot`` points to.
KERNEL store(const float* prototypes, int count, int dim, const int* slot, float* pool) {
  const int x = column(), y = row();
  if (x >= dim || y >= count) return;
  const size_t place = (size_t)y * dim + x;
  pool[(size_t)*slot * count * dim + place] = prototypes[place];
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

// The best class of a corner so far; the first wins a tie.
struct Best {
  float top;
  int winner;
};

DEVICE void look_at(Best* best, float score, int c) {
  if (c == 0 || score > best->top) {
    best->top = score;
    best->winner = c;
  }
}

// Coarse scores float [K, h, w] -> the classes that can win in each cell, a bit for each, as
// unsigned [ceil(K / 32), h, w]: the only one where all corners agree, else those whose best corner
// reaches the best of all worst corners.
KERNEL candidates(const float* scores, int classes, int height, int width, unsigned* masks) {
  const int x = column(), y = row();
  if (x >= width || y >= height) return;
  const size_t plane = (size_t)height * width;
  const Corners at = corners(x, y, height, width);
  float bound = -LIMIT;
  Best best[4];
  for (int c = 0; c < classes; ++c) {
    const float* score = scores + c * plane;
    const float top_left = finite(score[at.top_left]), top_right = finite(score[at.top_right]);
    const float bottom_left = finite(score[at.bottom_left]);
    const float bottom_right = finite(score[at.bottom_right]);
    bound = fmaxf(bound, fminf(fminf(top_left, top_right), fminf(bottom_left, bottom_right)));
    look_at(best, top_left, c);
    look_at(best + 1, top_right, c);
    look_at(best + 2, bottom_left, c);
    look_at(best + 3, bottom_right, c);
  }
  const int label = best[0].winner;
  const bool agreed = best[1].winner == label && best[2].winner == label &&
                      best[3].winner == label;
  for (int begin = 0; begin < classes; begin += 32) {
    unsigned mask = agreed && label / 32 == begin / 32 ? 1u << label % 32 : 0;
    const int end = begin + 32 < classes ? begin + 32 : classes;
    for (int c = begin; c < end && !agreed; ++c) {
      const float* score = scores + c * plane;
      const float most = fmaxf(fmaxf(score[at.top_left], score[at.top_right]),
                               fmaxf(score[at.bottom_left], score[at.bottom_right]));
      if (fmaxf(most, -LIMIT) >= bound) mask |= 1u << (c - begin);
    }
    masks[begin / 32 * plane + at.top_left] = mask;
  }
}

// A pixel column of a thread: `count` rows from `begin` on, which all lie in one coarse cell.
struct Run {
  int begin, count;
  Corners at;
};

// groups: of each thread row its first pixel row and their number, 1 to RUN.
DEVICE Run run(const int* groups, const int* first_y, const int* first_x, int x, int height,
               int width) {
  Run it;
  it.begin = groups[2 * row()];
  it.count = groups[2 * row() + 1];
  it.at = corners(first_x[x], first_y[it.begin], height, width);
  return it;
}

// Labels uint8 [H, W], renamed by table: bilinear upsampling and argmax, of the candidates alone.
// first, weight: cell before each output row or column, and the weight of the cell after it.
KERNEL labels(const float* scores, const unsigned* masks, int classes, int height, int width,
              const int* groups, int group_count, const int* first_y, const float* weight_y,
              const int* first_x, const float* weight_x, const uint8* table, uint8* out,
              int out_width) {
  const int x = column();
  if (x >= out_width || row() >= group_count) return;
  const size_t plane = (size_t)height * width;
  const Run it = run(groups, first_y, first_x, x, height, width);
  uint8* place = out + (size_t)it.begin * out_width + x;

  int only = -1;
  bool several = false;
  for (int word = 0; 32 * word < classes; ++word) {
    const unsigned mask = masks[word * plane + it.at.top_left];
    if (mask == 0) continue;
    several = several || only >= 0 || (mask & (mask - 1)) != 0;
    only = 32 * word + __ffs((int)mask) - 1;
  }
  if (!several) {
    const uint8 label = table[only];
    for (int i = 0; i < RUN; ++i)
      if (i < it.count) place[(size_t)i * out_width] = label;
    return;
  }

  const float right = weight_x[x], left = 1.0f - right;
  float down[RUN], top[RUN];
  int winner[RUN];
  for (int i = 0; i < RUN; ++i) {
    down[i] = i < it.count ? weight_y[it.begin + i] : 0.0f;
    winner[i] = -1;
  }
  for (int word = 0; 32 * word < classes; ++word)
    for (unsigned mask = masks[word * plane + it.at.top_left]; mask; mask &= mask - 1) {
      const int c = 32 * word + __ffs((int)mask) - 1;
      const float* score = scores + c * plane;
      const float top_left = finite(score[it.at.top_left]);
      const float top_right = finite(score[it.at.top_right]);
      const float bottom_left = finite(score[it.at.bottom_left]);
      const float bottom_right = finite(score[it.at.bottom_right]);
      for (int i = 0; i < RUN; ++i) {
        const float up = 1.0f - down[i];
        const float first = top_left * up + bottom_left * down[i];
        const float last = top_right * up + bottom_right * down[i];
        const float value = first * left + last * right;
        if (winner[i] < 0 || value > top[i]) {
          top[i] = value;
          winner[i] = c;
        }
      }
    }
  for (int i = 0; i < RUN; ++i)
    if (i < it.count) place[(size_t)i * out_width] = table[winner[i]];
}

// A class's scores above and below a run, interpolated to the right.
struct Ends {
  float above, below;
};

DEVICE Ends ends(const float* score, const Corners& at, float left, float right) {
  Ends of;
  of.above = finite(score[at.top_left]) * left + finite(score[at.top_right]) * right;
  of.below = finite(score[at.bottom_left]) * left + finite(score[at.bottom_right]) * right;
  return of;
}

// Confidence uint8 [H, W]: 255 times the largest softmax probability.
// exp(d) is (1 + u + u^2 / 2)^64 with u = d / 64, d clamped to -16; all is done in 64ths, which
// rounds alike. Rounding keeps order, so that the largest of the candidates is the largest of all.
KERNEL confidence(const float* scores, const unsigned* masks, int classes, int height, int width,
                  const int* groups, int group_count, const int* first_y, const float* weight_y,
                  const int* first_x, const float* weight_x, uint8* out, int out_width) {
  const int x = column();
  if (x >= out_width || row() >= group_count) return;
  const size_t plane = (size_t)height * width;
  const Run it = run(groups, first_y, first_x, x, height, width);
  const float right = weight_x[x] * (1.0f / 64.0f);
  const float left = (1.0f - weight_x[x]) * (1.0f / 64.0f);
  float up[RUN], down[RUN], top[RUN], total[RUN];
  for (int i = 0; i < RUN; ++i) {
    down[i] = i < it.count ? weight_y[it.begin + i] : 0.0f;
    up[i] = 1.0f - down[i];
    top[i] = -LIMIT;
    total[i] = 0.0f;
  }
  for (int word = 0; 32 * word < classes; ++word)
    for (unsigned mask = masks[word * plane + it.at.top_left]; mask; mask &= mask - 1) {
      const int c = 32 * word + __ffs((int)mask) - 1;
      const Ends of = ends(scores + c * plane, it.at, left, right);
      for (int i = 0; i < RUN; ++i)
        top[i] = fmaxf(top[i], of.above * up[i] + of.below * down[i]);
    }
  for (int c = 0; c < classes; ++c) {
    const Ends of = ends(scores + c * plane, it.at, left, right);
    for (int i = 0; i < RUN; ++i) {
      const float u = fmaxf(of.above * up[i] + of.below * down[i] - top[i], -0.25f);
      float power = fmaf(u * u, 0.5f, 1.0f + u);    // as if rounded twice: half is exact
      for (int k = 0; k < 6; ++k) power *= power;
      total[i] += power;
    }
  }
  uint8* place = out + (size_t)it.begin * out_width + x;
  for (int i = 0; i < RUN; ++i)
    if (i < it.count) place[(size_t)i * out_width] = (uint8)(255.0f / total[i] + 0.5f);
}
