// Sums over all but the last axis of 32-bit floats; native.py calls them.

#include "conv.h"

#define PART_ROWS 256  // that are summed in single precision, by one thread; their sums are added in double precision
#define VECTORS 4      // of channels, whose sums stay in registers

// A unit is a part of the rows: `images` are the values, `cotangents` their partners, `kernel` the centres. Sums of
// values and of products lie in turn in `scratch`, [parts, 2, K].
static void sum_part(const Conv *conv, int64_t unit, float *own) {
  const int64_t channels = conv->channels, last = MIN((unit + 1) * PART_ROWS, conv->rows);
  for (int64_t k = 0; k < channels; k += VECTORS * LANES) {
    vector sums[VECTORS] = {0}, products[VECTORS] = {0}, centres[VECTORS];
    for (int v = 0; v < VECTORS; ++v) {
      const int64_t lanes = channels - k - v * LANES;
      centres[v] = lanes > 0 ? load_some(conv->kernel + k + v * LANES, lanes) : (vector){0};
    }
    for (int64_t row = unit * PART_ROWS; row < last; ++row)
      for (int v = 0; v < VECTORS; ++v) {
        const int64_t lanes = channels - k - v * LANES, at = row * channels + k + v * LANES;
        if (lanes <= 0) break;
        const vector values = load_some(conv->images + at, lanes);
        sums[v] += values;
        products[v] += values * (load_some(conv->cotangents + at, lanes) - centres[v]);
      }
    for (int v = 0; v < VECTORS && k + v * LANES < channels; ++v) {
      float *to = conv->scratch + 2 * unit * channels + k + v * LANES;
      store_some(sums[v], to, channels - k - v * LANES);
      store_some(products[v], to + channels, channels - k - v * LANES);
    }
  }
}

// (values [..., K], partners [..., K], centres [K]) -> sums [K] of the values, and of values * (partners - centres)
XLA_FFI_Error *minmax_channel_sums(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  const XLA_FFI_Buffer **args = (const XLA_FFI_Buffer **)frame->args.args;
  Conv conv = {.images = args[0]->data, .cotangents = args[1]->data, .kernel = args[2]->data};
  conv.channels = args[2]->dims[0];
  conv.rows = 1;
  for (int64_t axis = 0; axis < args[0]->rank - 1; ++axis) conv.rows *= args[0]->dims[axis];
  const int64_t parts = divide_up(conv.rows, PART_ROWS), numbers = 2 * conv.channels;
  conv.scratch = allocate(parts * numbers);
  if (conv.scratch == NULL) return out_of_memory(frame);
  XLA_FFI_Error *error = run_units(frame, &conv, sum_part, parts, 0);
  for (int64_t number = 0; number < numbers; ++number) {
    float *to = ((XLA_FFI_Buffer *)frame->rets.rets[number / conv.channels])->data;
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += conv.scratch[part * numbers + number];
    to[number % conv.channels] = sum;
  }
  free(conv.scratch);
  return error;
}
