// Square max pooling of the ReLU of 32-bit floats, and its gradient; native.py calls them.
//
// One byte per maximum holds its index in the window, counted by rows: all that the gradient needs. It is the size of the
// window, which is no index, where nothing in the window is above 0.

#include "conv.h"

typedef uint8_t bytes __attribute__((vector_size(LANES)));

INLINE mask load_indices(const uint8_t *from, int64_t lanes) {
  bytes indices = {0};
  memcpy(&indices, from, MIN(lanes, LANES));
  return __builtin_convertvector(indices, mask);
}

INLINE void store_indices(mask values, uint8_t *to, int64_t lanes) {
  const bytes indices = __builtin_convertvector(values, bytes);
  memcpy(to, &indices, MIN(lanes, LANES));
}

// A unit is one row of one image: of the maxima, and of the features for the gradient.

static void find_maxima(const Conv *conv, int64_t unit, float *own) {
  const int64_t b = unit / conv->out_rows, top = unit % conv->out_rows * conv->stride - conv->top;
  for (int64_t column = 0; column < conv->out_columns; ++column) {
    const int64_t left = column * conv->stride - conv->left, at = (unit * conv->out_columns + column) * conv->channels;
    for (int64_t k = 0; k < conv->channels; k += LANES) {
      const int64_t lanes = conv->channels - k;
      vector maximum = {0};
      mask index = (mask){0} + (int32_t)(conv->kernel_rows * conv->kernel_columns);
      for (int64_t i = MAX(0, -top); i < MIN(conv->kernel_rows, conv->rows - top); ++i)
        for (int64_t j = MAX(0, -left); j < MIN(conv->kernel_columns, conv->columns - left); ++j) {
          const int64_t pixel = (b * conv->rows + top + i) * conv->columns + left + j;
          const vector values = load_some(conv->images + pixel * conv->channels + k, lanes);
          const mask taken = ~(values <= maximum) & (maximum == maximum);  // NaN stays NaN
          maximum = (vector)((taken & (mask)values) | (~taken & (mask)maximum));
          index = (taken & (int32_t)(i * conv->kernel_columns + j)) | (~taken & index);
        }
      store_some(maximum, conv->result + at + k, lanes);
      store_indices(index, conv->indices + at + k, lanes);
    }
  }
}

static void spread(const Conv *conv, int64_t unit, float *own) {
  const int64_t b = unit / conv->rows, y = unit % conv->rows + conv->top;
  for (int64_t column = 0; column < conv->columns; ++column) {
    const int64_t x = column + conv->left;
    for (int64_t k = 0; k < conv->channels; k += LANES) {
      const int64_t lanes = conv->channels - k;
      vector sum = {0};
      for (int64_t i = y % conv->stride; i < MIN(conv->kernel_rows, y + 1); i += conv->stride)
        for (int64_t j = x % conv->stride; j < MIN(conv->kernel_columns, x + 1); j += conv->stride) {
          const int64_t row = (y - i) / conv->stride, of_row = (x - j) / conv->stride;
          if (row >= conv->out_rows || of_row >= conv->out_columns) continue;
          const int64_t at = ((b * conv->out_rows + row) * conv->out_columns + of_row) * conv->channels + k;
          const mask here = load_indices(conv->indices + at, lanes) == (int32_t)(i * conv->kernel_columns + j);
          sum += (vector)(here & (mask)load_some(conv->cotangents + at, lanes));
        }
      store_some(sum, conv->result + (unit * conv->columns + column) * conv->channels + k, lanes);
    }
  }
}

static Conv read_pool(const XLA_FFI_CallFrame *frame, const XLA_FFI_Buffer *features, const XLA_FFI_Buffer *maxima,
                      const XLA_FFI_Buffer *indices) {
  return (Conv){
      .images = features->data,
      .cotangents = maxima->data,
      .result = ((XLA_FFI_Buffer *)frame->rets.rets[0])->data,
      .indices = indices->data,
      .batch = features->dims[0],
      .rows = features->dims[1],
      .columns = features->dims[2],
      .channels = features->dims[3],
      .out_rows = maxima->dims[1],
      .out_columns = maxima->dims[2],
      .kernel_rows = attribute(frame, "window"),
      .kernel_columns = attribute(frame, "window"),
      .stride = attribute(frame, "stride"),
      .top = attribute(frame, "padding"),
      .left = attribute(frame, "padding"),
  };
}

// features [B, H, W, K] -> (maxima [B, h, w, K], their indices)
XLA_FFI_Error *minmax_max_pool(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  void **rets = frame->rets.rets;
  const Conv conv = read_pool(frame, frame->args.args[0], rets[0], rets[1]);
  return run_units(frame, &conv, find_maxima, conv.batch * conv.out_rows, 0);
}

// (indices, cotangents [B, h, w, K]) -> gradient [B, H, W, K]
XLA_FFI_Error *minmax_max_pool_gradient(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  void **args = frame->args.args;
  const Conv conv = read_pool(frame, frame->rets.rets[0], args[1], args[0]);
  return run_units(frame, &conv, spread, conv.batch * conv.rows, 0);
}
