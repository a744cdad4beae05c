// The transforms of winograd.c. The polynomials behind them are taken at 0, A, -A, B, -B and infinity: rounding errors are
// half of those at 0, 1, -1, 2 and -2, the usual choice.

#include "conv.h"

#define A 0.625f
#define B 1.5f
#define A2 (A * A)
#define B2 (B * B)
#define SCALE_0 (1 / (A2 * B2))
#define SCALE_A (1 / (2 * A2 * (A2 - B2)))
#define SCALE_B (1 / (2 * B2 * (B2 - A2)))

// The transforms along one side, from x, whose numbers lie `from` apart, to y, `to` apart.

INLINE void transform_images(const vector *x, int from, vector *y, int to) {
  const vector x0 = x[0], x1 = x[from], x2 = x[2 * from], x3 = x[3 * from], x4 = x[4 * from], x5 = x[5 * from];
  const vector even_a = x4 - B2 * x2, odd_a = A * (x3 - B2 * x1);
  const vector even_b = x4 - A2 * x2, odd_b = B * (x3 - A2 * x1);
  y[0] = A2 * B2 * x0 - (A2 + B2) * x2 + x4;
  y[to] = even_a + odd_a;
  y[2 * to] = even_a - odd_a;
  y[3 * to] = even_b + odd_b;
  y[4 * to] = even_b - odd_b;
  y[5 * to] = A2 * B2 * x1 - (A2 + B2) * x3 + x5;
}

INLINE void transform_kernel(const vector *x, int from, vector *y, int to) {
  const vector x0 = x[0], x1 = x[from], x2 = x[2 * from];
  const vector even_a = SCALE_A * (x0 + A2 * x2), odd_a = SCALE_A * A * x1;
  const vector even_b = SCALE_B * (x0 + B2 * x2), odd_b = SCALE_B * B * x1;
  y[0] = SCALE_0 * x0;
  y[to] = even_a + odd_a;
  y[2 * to] = even_a - odd_a;
  y[3 * to] = even_b + odd_b;
  y[4 * to] = even_b - odd_b;
  y[5 * to] = x2;
}

INLINE void transform_kernel_back(const vector *x, int from, vector *y, int to) {
  const vector even_a = SCALE_A * (x[from] + x[2 * from]), odd_a = SCALE_A * (x[from] - x[2 * from]);
  const vector even_b = SCALE_B * (x[3 * from] + x[4 * from]), odd_b = SCALE_B * (x[3 * from] - x[4 * from]);
  y[0] = SCALE_0 * x[0] + even_a + even_b;
  y[to] = A * odd_a + B * odd_b;
  y[2 * to] = A2 * even_a + B2 * even_b + x[5 * from];
}

INLINE void transform_output(const vector *x, int from, vector *y, int to) {
  const vector even_a = x[from] + x[2 * from], odd_a = x[from] - x[2 * from];
  const vector even_b = x[3 * from] + x[4 * from], odd_b = x[3 * from] - x[4 * from];
  y[0] = x[0] + even_a + even_b;
  y[to] = A * odd_a + B * odd_b;
  y[2 * to] = A2 * even_a + B2 * even_b;
  y[3 * to] = A2 * A * odd_a + B2 * B * odd_b + x[5 * from];
}

INLINE void transform_cotangents(const vector *x, int from, vector *y, int to) {
  const vector x0 = x[0], x1 = x[from], x2 = x[2 * from], x3 = x[3 * from];
  const vector even_a = x0 + A2 * x2, odd_a = A * (x1 + A2 * x3);
  const vector even_b = x0 + B2 * x2, odd_b = B * (x1 + B2 * x3);
  y[0] = x0;
  y[to] = even_a + odd_a;
  y[2 * to] = even_a - odd_a;
  y[3 * to] = even_b + odd_b;
  y[4 * to] = even_b - odd_b;
  y[5 * to] = x3;
}

// Along both sides: [size, size] vectors x to [new_size, new_size] vectors y.
#define TRANSFORM(along, size, new_size, x, y)                                                      \
  do {                                                                                              \
    vector half[(new_size) * (size)] __attribute__((aligned(64)));                                  \
    for (int column = 0; column < (size); ++column) along((x) + column, size, half + column, size); \
    for (int row = 0; row < (new_size); ++row) along(half + row * (size), 1, (y) + row * (new_size), 1); \
  } while (0)
