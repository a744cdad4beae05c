// Shared by the C files: shapes, the packed kernel, the epilogue, and the arguments of a call.

#pragma once

#include "threads.h"

#define UNITS 4  // of the output, per thread, desired

struct Conv {
  const float *images, *kernel, *cotangents;
  const float *factor, *shift, *residual;  // of the output, or NULL
  float *result, *scratch, *weights;       // the last is the packed kernel
  uint8_t *indices;                        // of maxima
  int64_t batch, rows, columns, channels;  // of the images
  int64_t out_rows, out_columns, outputs;  // of the output or the cotangents
  int64_t kernel_rows, kernel_columns;
  int64_t stride, top, left;
  int64_t row, row_step, column, column_step;  // of the kernel: the first tap and the step to the next
  int64_t line;                                // taps of a complete row of the kernel
  int64_t transposed;               // whether `kernel` is [kh, kw, L, K], and its taps are reversed
  int64_t relu;                 // whether negative numbers of the output become 0
  int64_t k_width, l_width;     // channels of a unit of the kernel's gradient
  int64_t parts;                // units per image, slice of channels or part of the tiles
  int64_t first, count, group;  // tiles that are computed together, and their maximum number
};

// Packs the kernel in the order in which it is read, [slices of L, kh, kw, K, SLICE], times `factor`; a unit is one tap of
// one slice. The last slice is padded with zeros.
static void pack(const Conv *conv, int64_t unit, float *own) {
  const int64_t taps = conv->kernel_rows * conv->kernel_columns, tap = unit % taps, first = unit / taps * SLICE;
  const int64_t count = MIN(SLICE, conv->outputs - first), channels = conv->channels;
  const int64_t source = conv->transposed ? taps - 1 - tap : tap;
  const int64_t row = conv->row + source / conv->kernel_columns * conv->row_step;
  const int64_t column = conv->column + source % conv->kernel_columns * conv->column_step;
  const float *from = conv->kernel + (row * conv->line + column) * channels * conv->outputs;
  float *to = conv->weights + unit * channels * SLICE;
  if (count < SLICE) memset(to, 0, channels * SLICE * sizeof(float));
  if (conv->transposed) {
    for (int64_t k = 0; k < channels; ++k)
      for (int64_t l = 0; l < count; ++l) to[k * SLICE + l] = from[(first + l) * channels + k];
  } else {
    for (int64_t k = 0; k < channels; ++k)
      memcpy(to + k * SLICE, from + k * conv->outputs + first, count * sizeof(float));
  }
  if (conv->factor != NULL)
    for (int64_t k = 0; k < channels; ++k)
      for (int64_t l = 0; l < count; ++l) to[k * SLICE + l] *= conv->factor[first + l];
}

// The epilogue of sums for up to a vector of channels from l on, which are written to `to`.
INLINE vector apply_epilogue(const Conv *conv, vector sums, int64_t l, const float *to, int64_t lanes) {
  if (conv->shift != NULL) sums += load_some(conv->shift + l, lanes);
  if (conv->residual != NULL) sums += load_some(conv->residual + (to - conv->result), lanes);
  return conv->relu ? (vector)(~(sums < 0) & (mask)sums) : sums;
}

// A convolution whose units read `weights`.
static XLA_FFI_Error *run_packed(XLA_FFI_CallFrame *frame, Conv *conv, RunUnit run, int64_t units,
                                 int64_t own_floats) {
  const int64_t packs = divide_up(conv->outputs, SLICE) * conv->kernel_rows * conv->kernel_columns;
  conv->weights = allocate(packs * conv->channels * SLICE);
  if (conv->weights == NULL) return out_of_memory(frame);
  XLA_FFI_Error *error = run_units(frame, conv, pack, packs, 0);
  if (error == NULL) error = run_units(frame, conv, run, units, own_floats);
  free(conv->weights);
  return error;
}

static int64_t attribute(const XLA_FFI_CallFrame *frame, const char *name) {
  for (int64_t at = 0; at < frame->attrs.size; ++at) {
    const XLA_FFI_ByteSpan *other = frame->attrs.names[at];
    if (other->len == strlen(name) && !memcmp(other->ptr, name, other->len))
      return *(const int64_t *)((const XLA_FFI_Scalar *)frame->attrs.attrs[at])->value;
  }
  abort();  // native.py passes all of them
}

static int describes_itself(XLA_FFI_CallFrame *frame) {
  // JAX 0.11 renamed the extensions' type; without its name this is built for 0.10 as well.
  if (frame->extension_start == NULL || frame->extension_start->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)frame->extension_start)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  metadata->traits = 0;
  return 1;
}

// The convolution of a call: the first argument are the images; native.py has checked all shapes and types.
static Conv read_call(const XLA_FFI_CallFrame *frame, const XLA_FFI_Buffer *output, const XLA_FFI_Buffer *kernel) {
  const XLA_FFI_Buffer *images = frame->args.args[0];
  return (Conv){
      .images = images->data,
      .kernel = kernel->data,
      .cotangents = output->data,
      .result = ((XLA_FFI_Buffer *)frame->rets.rets[0])->data,
      .batch = images->dims[0],
      .rows = images->dims[1],
      .columns = images->dims[2],
      .channels = images->dims[3],
      .out_rows = output->dims[1],
      .out_columns = output->dims[2],
      .outputs = output->dims[3],
      .kernel_rows = kernel->dims[0],
      .kernel_columns = kernel->dims[1],
      .stride = attribute(frame, "stride"),
      .top = attribute(frame, "top"),
      .left = attribute(frame, "left"),
  };
}

// A call that computes an output: (images, kernel[, factor, shift[, residual]]).
static Conv read_output_call(const XLA_FFI_CallFrame *frame) {
  Conv conv = read_call(frame, frame->rets.rets[0], frame->args.args[1]);
  const float **optional[] = {&conv.factor, &conv.shift, &conv.residual};
  for (int64_t arg = 2; arg < frame->args.size; ++arg)
    *optional[arg - 2] = ((const XLA_FFI_Buffer *)frame->args.args[arg])->data;
  conv.transposed = attribute(frame, "transposed");
  conv.row = attribute(frame, "row"), conv.row_step = attribute(frame, "row_step");
  conv.column = attribute(frame, "column"), conv.column_step = attribute(frame, "column_step");
  conv.line = conv.kernel_columns;
  conv.kernel_rows = divide_up(conv.kernel_rows - conv.row, conv.row_step);
  conv.kernel_columns = divide_up(conv.kernel_columns - conv.column, conv.column_step);
  conv.relu = attribute(frame, "relu");
  return conv;
}
