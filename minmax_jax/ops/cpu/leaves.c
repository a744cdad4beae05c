// Operations on all leaves of a tree of 32-bit floats in one call; tree_calls.py calls them.
//
// XLA compiles several loops for each leaf, for the 300 parameters of a network more than for all of its layers.

#include <math.h>

#include "conv.h"

#define CHUNK 16384  // numbers of a unit, which belong to one leaf

typedef struct {
  void **args, **rets;
  const float *constants;  // of Adam
  double *sums;            // of each unit
  int64_t leaves;
} Leaves;

static int64_t count_numbers(const XLA_FFI_Buffer *leaf) {
  int64_t count = 1;
  for (int64_t axis = 0; axis < leaf->rank; ++axis) count *= leaf->dims[axis];
  return count;
}

static int64_t count_units(void **leaves, int64_t count) {
  int64_t units = 0;
  for (int64_t leaf = 0; leaf < count; ++leaf) units += divide_up(count_numbers(leaves[leaf]), CHUNK);
  return units;
}

// The leaf of a unit; `first` and `count` are its numbers.
static int64_t find_leaf(void **leaves, int64_t unit, int64_t *first, int64_t *count) {
  int64_t leaf = 0;
  for (int64_t units; unit >= (units = divide_up(count_numbers(leaves[leaf]), CHUNK)); ++leaf) unit -= units;
  *first = unit * CHUNK;
  *count = MIN(CHUNK, count_numbers(leaves[leaf]) - *first);
  return leaf;
}

INLINE float *numbers(void *buffer, int64_t first) { return (float *)((XLA_FFI_Buffer *)buffer)->data + first; }

// Moments may be updated in place.
static void update_moments(const Conv *call, int64_t unit, float *own) {
  const Leaves *all = (const Leaves *)call;
  const int64_t leaves = all->leaves;
  int64_t first, count;
  const int64_t leaf = find_leaf(all->args + 1, unit, &first, &count);
  const float *gradient = numbers(all->args[1 + leaf], first);
  const float *mean = numbers(all->args[1 + leaves + leaf], first);
  const float *square = numbers(all->args[1 + 2 * leaves + leaf], first);
  float *restrict update = numbers(all->rets[leaf], first);
  float *mean_after = numbers(all->rets[leaves + leaf], first);
  float *square_after = numbers(all->rets[2 * leaves + leaf], first);
  const float mean_decay = all->constants[0], square_decay = all->constants[1], epsilon = all->constants[2];
  const float mean_share = all->constants[3], square_share = all->constants[4];
  const float mean_correction = all->constants[5], square_correction = all->constants[6];
#pragma GCC ivdep
  for (int64_t at = 0; at < count; ++at) {
    const float g = gradient[at];
    const float m = mean_share * g + mean_decay * mean[at], v = square_share * (g * g) + square_decay * square[at];
    mean_after[at] = m;
    square_after[at] = v;
    update[at] = (m / mean_correction) / (sqrtf(v / square_correction) + epsilon);
  }
}

static void sum_squares(const Conv *call, int64_t unit, float *own) {
  const Leaves *all = (const Leaves *)call;
  int64_t first, count;
  const int64_t leaf = find_leaf(all->args, unit, &first, &count);
  const float *values = numbers(all->args[leaf], first);
  double sums[LANES] = {0};  // in double precision, so that their order hardly counts
  int64_t at = 0;
  for (; at + LANES <= count; at += LANES)
    for (int64_t lane = 0; lane < LANES; ++lane) sums[lane] += (double)values[at + lane] * values[at + lane];
  for (; at < count; ++at) sums[0] += (double)values[at] * values[at];
  double sum = 0;
  for (int64_t lane = 0; lane < LANES; ++lane) sum += sums[lane];
  all->sums[unit] = sum;
}

// (constants [7], gradients, means, squares of N leaves each) -> (updates, means, squares)
XLA_FFI_Error *minmax_adam(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  const int64_t leaves = frame->rets.size / 3;
  const Leaves all = {.args = frame->args.args, .rets = frame->rets.rets, .leaves = leaves,
                      .constants = numbers(frame->args.args[0], 0)};
  return run_units(frame, (const Conv *)&all, update_moments, count_units(all.args + 1, leaves), 0);
}

// leaves -> the sum of their squares, []
XLA_FFI_Error *minmax_sum_of_squares(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  const int64_t units = count_units(frame->args.args, frame->args.size);
  const Leaves all = {.args = frame->args.args, .leaves = frame->args.size, .sums = malloc((units + 1) * sizeof(double))};
  if (all.sums == NULL) return out_of_memory(frame);
  XLA_FFI_Error *error = run_units(frame, (const Conv *)&all, sum_squares, units, 0);
  double sum = 0;
  for (int64_t unit = 0; unit < units; ++unit) sum += all.sums[unit];
  *numbers(frame->rets.rets[0], 0) = sum;
  free(all.sums);
  return error;
}
