// Vectors of 32-bit floats, and tiles of sums that stay in registers.

#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
// Pixels, or channels, whose sums stay in registers: TILE times two vectors, beside two of weights and one more.
#if defined(__AVX512F__) || defined(__aarch64__)
#define TILE 8  // of 32 registers
#else
#define TILE 6  // of 16
#endif
#define SLICE (2 * LANES)  // channels l that are computed together
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define INLINE static inline __attribute__((always_inline))

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t mask __attribute__((vector_size(4 * LANES), aligned(4)));

INLINE vector load(const float *from) { return *(const vector *)from; }

INLINE void store(vector values, float *to) { *(vector *)to = values; }

// The first `lanes` of a vector.
INLINE vector load_some(const float *from, int64_t lanes) {
  vector values = {0};
  if (lanes >= LANES) return load(from);
  memcpy(&values, from, lanes * sizeof(float));
  return values;
}

INLINE void store_some(vector values, float *to, int64_t lanes) {
  if (lanes >= LANES) store(values, to);
  else memcpy(to, &values, lanes * sizeof(float));
}

INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of a slice, where `left` channels are left.
INLINE int count_vectors(int64_t left) { return left > LANES ? 2 : 1; }

// The size of the next tile where `left` are left. All are nearly of one size: a small one keeps the processor waiting.
INLINE int64_t next_tile(int64_t left) { return divide_up(left, divide_up(left, TILE)); }

// Adds to the sums of a tile: numbers of the images, `step` apart, times vectors of weights, `second` apart.
INLINE void add_products(vector sums[TILE][2], const float *images, int64_t step, const float *weights, int64_t second,
                         const int size, const int vectors) {
  vector values[2];
  for (int v = 0; v < vectors; ++v) values[v] = load(weights + v * second);
  for (int t = 0; t < size; ++t) {
    const vector x = images[t * step] - (vector){0};
    for (int v = 0; v < vectors; ++v) sums[t][v] += x * values[v];
  }
}

// Calls tile(..., size, vectors) with constants, so that sums stay in registers.
#define DISPATCH(size, vectors, tile, ...)                                  \
  switch (size) {                                                           \
    CASE(1, vectors, tile, __VA_ARGS__) CASE(2, vectors, tile, __VA_ARGS__) \
    CASE(3, vectors, tile, __VA_ARGS__) CASE(4, vectors, tile, __VA_ARGS__) \
    CASE(5, vectors, tile, __VA_ARGS__) CASE(6, vectors, tile, __VA_ARGS__) \
    LARGE_CASES(vectors, tile, __VA_ARGS__)                                 \
  }
#if TILE == 8
#define LARGE_CASES(vectors, tile, ...) CASE(7, vectors, tile, __VA_ARGS__) CASE(8, vectors, tile, __VA_ARGS__)
#else
#define LARGE_CASES(vectors, tile, ...)
#endif
#define CASE(n, vectors, tile, ...)                 \
  case n:                                           \
    if (vectors == 2) tile(__VA_ARGS__, n, 2);      \
    else tile(__VA_ARGS__, n, 1);                   \
    break;
