// What the C files have in common: shapes, the order of the kernel, what follows the sums, and how a call is read.

#pragma once

#include "threads.h"

#define UNITS 4  // of the output, wanted for each thread

struct Conv {
  const float *images, *kernel, *cotangents;
  const float *factor, *shift, *residual;  // of the output, or NULL
  float *result, *scratch, *weights;       // the last is the packed kernel
  uint8_t *places;                         // of maxima
  int64_t batch, rows, columns, channels;  // of the images
  int64_t out_rows, out_columns, outputs;  // of the output or the cotangents
  int64_t kernel_rows, kernel_columns;
  int64_t stride, top, left;
  int64_t row, row_step, column, column_step;  // of the kernel: the first place taken, and how far off the next ones are
  int64_t line;                                // places of a whole row of the kernel
  int64_t turned;               // whether `kernel` is [kh, kw, L, K], and its places are taken from last to first
  int64_t relu;                 // whether negative numbers of the output become 0
  int64_t k_width, l_width;     // channels of a unit of the kernel's gradient
  int64_t parts;                // units that one image, one slice of channels or one part of the tiles is cut into
  int64_t first, count, group;  // tiles that are computed together, and the most of them
};

// The kernel in the order in which it is read, [slices of L, kh, kw, K, SLICE]; a unit is one place of one slice. What
// the last slice lacks is 0. `factor` is taken in here.
static void pack(const Conv *conv, int64_t unit, float *own) {
  const int64_t places = conv->kernel_rows * conv->kernel_columns, place = unit % places, first = unit / places * SLICE;
  const int64_t count = MIN(SLICE, conv->outputs - first), channels = conv->channels;
  const int64_t taken = conv->turned ? places - 1 - place : place;
  const int64_t row = conv->row + taken / conv->kernel_columns * conv->row_step;
  const int64_t column = conv->column + taken % conv->kernel_columns * conv->column_step;
  const float *from = conv->kernel + (row * conv->line + column) * channels * conv->outputs;
  float *to = conv->weights + unit * channels * SLICE;
  if (count < SLICE) memset(to, 0, channels * SLICE * sizeof(float));
  if (conv->turned) {
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

// What becomes of sums for up to a vector of channels from l on, before they are written to a place of the output.
INLINE vector finish(const Conv *conv, vector sums, int64_t l, const float *to, int64_t lanes) {
  if (conv->shift != NULL) sums += load_some(conv->shift + l, lanes);
  if (conv->residual != NULL) sums += load_some(conv->residual + (to - conv->result), lanes);
  return conv->relu ? (vector)(~(sums < 0) & (mask)sums) : sums;
}

// A convolution whose units read `weights`.
static XLA_FFI_Error *run_packed(XLA_FFI_CallFrame *frame, Conv *conv, RunUnit run, int64_t units,
                                 int64_t own_floats) {
  const int64_t packs = divide_up(conv->outputs, SLICE) * conv->kernel_rows * conv->kernel_columns;
  conv->weights = allocate(packs * conv->channels * SLICE);
  if (conv->weights == NULL) return tell_memory_is_short(frame);
  XLA_FFI_Error *error = run_units(frame, conv, pack, packs, 0);
  if (error == NULL) error = run_units(frame, conv, run, units, own_floats);
  free(conv->weights);
  return error;
}

static int64_t attribute(const XLA_FFI_CallFrame *frame, const char *name) {
  for (int64_t at = 0; at < frame->attrs.size; ++at) {
    const XLA_FFI_ByteSpan *found = frame->attrs.names[at];
    if (found->len == strlen(name) && !memcmp(found->ptr, name, found->len))
      return *(const int64_t *)((const XLA_FFI_Scalar *)frame->attrs.attrs[at])->value;
  }
  abort();  // native.py gives them all
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

// The convolution of a call: its first argument are the images, its first result is what is computed.
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

// Of a call that computes an output: (images, kernel[, factor, shift[, residual]]).
static Conv read_output_call(const XLA_FFI_CallFrame *frame) {
  Conv conv = read_call(frame, frame->rets.rets[0], frame->args.args[1]);
  const float **optional[] = {&conv.factor, &conv.shift, &conv.residual};
  for (int64_t arg = 2; arg < frame->args.size; ++arg)
    *optional[arg - 2] = ((const XLA_FFI_Buffer *)frame->args.args[arg])->data;
  conv.turned = attribute(frame, "turned");
  conv.row = attribute(frame, "row"), conv.row_step = attribute(frame, "row_step");
  conv.column = attribute(frame, "column"), conv.column_step = attribute(frame, "column_step");
  conv.line = conv.kernel_columns;
  conv.kernel_rows = divide_up(conv.kernel_rows - conv.row, conv.row_step);
  conv.kernel_columns = divide_up(conv.kernel_columns - conv.column, conv.column_step);
  conv.relu = attribute(frame, "relu");
  return conv;
}
