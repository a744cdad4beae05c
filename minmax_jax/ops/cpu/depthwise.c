// Depthwise convolution of 32-bit floats with a square kernel, and its gradients; native.py calls them.
//
// Padding is symmetric, so that the kernel's middle lies on every `stride`-th pixel; `row_step` is the dilation.

#include "conv.h"

#define PIXELS 4  // whose sums stay in registers, two vectors each

// Adds the products of one tap for `size` pixels, `step` floats apart.
INLINE void add_tap(vector sums[PIXELS][2], const float *images, int64_t step, const float *weights, int64_t lanes,
                    const int size, const int full) {
  const vector first = full ? load(weights) : load_some(weights, lanes);
  const vector second = full ? load(weights + LANES) : load_some(weights + LANES, MAX(lanes - LANES, 0));
  for (int t = 0; t < size; ++t) {
    const float *from = images + t * step;
    sums[t][0] += first * (full ? load(from) : load_some(from, lanes));
    sums[t][1] += second * (full ? load(from + LANES) : load_some(from + LANES, MAX(lanes - LANES, 0)));
  }
}

// Sums of `size` neighbouring pixels of a row of the result; all of their taps' columns are inside the image if `inside`.
INLINE void sum_pixels(const Conv *conv, const float *image, int64_t row, int64_t column, int64_t k, float *to,
                       const int size, const int full, const int inside) {
  const int64_t channels = conv->channels, lanes = channels - k, side = conv->kernel_rows;
  vector sums[PIXELS][2] = {0};
  for (int64_t i = 0; i < side; ++i) {
    const int64_t y = row * conv->stride - conv->top + i * conv->row_step;
    if (y < 0 || y >= conv->rows) continue;
    for (int64_t j = 0; j < side; ++j) {
      const int64_t x = column * conv->stride - conv->left + j * conv->row_step;
      if (!inside && (x < 0 || x >= conv->columns)) continue;
      const int64_t tap = i * side + j, taken = conv->transposed ? side * side - 1 - tap : tap;
      add_tap(sums, image + (y * conv->columns + x) * channels + k, conv->stride * channels,
              conv->kernel + taken * channels + k, lanes, size, full);
    }
  }
  for (int t = 0; t < size; ++t) {
    float *pixel = to + (column + t) * channels + k;
    store_some(sums[t][0], pixel, lanes);
    if (lanes > LANES) store_some(sums[t][1], pixel + LANES, lanes - LANES);
  }
}

INLINE void sum_row(const Conv *conv, const float *image, int64_t row, int64_t k, float *to, const int full) {
  const int64_t reach = (conv->kernel_columns - 1) * conv->row_step;
  for (int64_t column = 0; column < conv->out_columns;) {
    const int64_t left = column * conv->stride - conv->left;
    if (left >= 0 && column + PIXELS <= conv->out_columns &&
        left + (PIXELS - 1) * conv->stride + reach < conv->columns) {
      sum_pixels(conv, image, row, column, k, to, PIXELS, full, 1);
      column += PIXELS;
    } else {
      sum_pixels(conv, image, row, column, k, to, 1, full, 0);
      ++column;
    }
  }
}

// A unit is a row of the result.
static void depthwise_row(const Conv *conv, int64_t unit, float *own) {
  const float *image = conv->images + unit / conv->out_rows * conv->rows * conv->columns * conv->channels;
  float *to = conv->result + unit * conv->out_columns * conv->channels;
  for (int64_t k = 0; k < conv->channels; k += SLICE) {
    if (k + SLICE <= conv->channels) sum_row(conv, image, unit % conv->out_rows, k, to, 1);
    else sum_row(conv, image, unit % conv->out_rows, k, to, 0);
  }
}

// The gradient to the images where the stride is not 1; a unit is a row of it.
static void gather_row(const Conv *conv, int64_t unit, float *own) {
  const int64_t b = unit / conv->rows, channels = conv->channels, side = conv->kernel_rows, stride = conv->stride;
  for (int64_t column = 0; column < conv->columns; ++column)
    for (int64_t k = 0; k < channels; k += LANES) {
      vector sum = {0};
      for (int64_t i = 0; i < side; ++i) {
        const int64_t y = unit % conv->rows + conv->top - i * conv->row_step;
        if (y < 0 || y % stride || y / stride >= conv->out_rows) continue;
        for (int64_t j = 0; j < side; ++j) {
          const int64_t x = column + conv->left - j * conv->row_step;
          if (x < 0 || x % stride || x / stride >= conv->out_columns) continue;
          const int64_t at = ((b * conv->out_rows + y / stride) * conv->out_columns + x / stride) * channels + k;
          sum += load_some(conv->cotangents + at, channels - k) *
                 load_some(conv->kernel + (i * side + j) * channels + k, channels - k);
        }
      }
      store_some(sum, conv->result + (unit * conv->columns + column) * channels + k, channels - k);
    }
}

// Adds the products of a row of cotangents with the pixels that one tap meets there.
INLINE vector sum_tap(const Conv *conv, const float *images, const float *cotangents, int64_t first, int64_t last,
                      int64_t lanes, const int full) {
  vector sum = {0}, other = {0};
  const int64_t channels = conv->channels, step = conv->stride * channels;
  int64_t x = first;
  for (; x + 1 < last; x += 2) {
    sum += (full ? load(images + x * step) : load_some(images + x * step, lanes)) *
           (full ? load(cotangents + x * channels) : load_some(cotangents + x * channels, lanes));
    other += (full ? load(images + (x + 1) * step) : load_some(images + (x + 1) * step, lanes)) *
             (full ? load(cotangents + (x + 1) * channels) : load_some(cotangents + (x + 1) * channels, lanes));
  }
  if (x < last) sum += load_some(images + x * step, lanes) * load_some(cotangents + x * channels, lanes);
  return sum + other;
}

// The gradient to the kernel, of one image and one vector of channels, [side, side, LANES] in `scratch`.
static void kernel_part(const Conv *conv, int64_t unit, float *own) {
  const int64_t channels = conv->channels, side = conv->kernel_rows, stride = conv->stride;
  const int64_t b = unit / conv->parts, k = unit % conv->parts * LANES, lanes = channels - k;
  float *sums = conv->scratch + unit * side * side * LANES;
  memset(sums, 0, side * side * LANES * sizeof(float));
  for (int64_t row = 0; row < conv->out_rows; ++row) {
    const float *cotangents = conv->cotangents + (b * conv->out_rows + row) * conv->out_columns * channels + k;
    for (int64_t i = 0; i < side; ++i) {
      const int64_t y = row * stride - conv->top + i * conv->row_step;
      if (y < 0 || y >= conv->rows) continue;
      for (int64_t j = 0; j < side; ++j) {
        const int64_t left = j * conv->row_step - conv->left;
        const int64_t first = left < 0 ? divide_up(-left, stride) : 0;
        const int64_t last = left < conv->columns ? MIN(conv->out_columns, divide_up(conv->columns - left, stride)) : 0;
        const float *images = conv->images + ((b * conv->rows + y) * conv->columns + left) * channels + k;
        float *to = sums + (i * side + j) * LANES;
        const vector sum = lanes >= LANES ? sum_tap(conv, images, cotangents, first, last, lanes, 1)
                                          : sum_tap(conv, images, cotangents, first, last, lanes, 0);
        store(load(to) + sum, to);
      }
    }
  }
}

// images [B, H, W, K], output or cotangents [B, h, w, K], kernel [side, side, 1, K]
static Conv read_depthwise(const XLA_FFI_CallFrame *frame, const XLA_FFI_Buffer *images, const XLA_FFI_Buffer *output,
                           const XLA_FFI_Buffer *kernel) {
  const int64_t padding = attribute(frame, "dilation") * (kernel->dims[0] / 2);
  return (Conv){
      .images = images->data,
      .cotangents = output->data,
      .kernel = kernel->data,
      .result = ((XLA_FFI_Buffer *)frame->rets.rets[0])->data,
      .batch = images->dims[0],
      .rows = images->dims[1],
      .columns = images->dims[2],
      .channels = images->dims[3],
      .out_rows = output->dims[1],
      .out_columns = output->dims[2],
      .kernel_rows = kernel->dims[0],
      .kernel_columns = kernel->dims[1],
      .stride = attribute(frame, "stride"),
      .top = padding,
      .left = padding,
      .row_step = attribute(frame, "dilation"),
  };
}

// (images [B, H, W, K], kernel) -> [B, h, w, K]
XLA_FFI_Error *minmax_depthwise(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  const Conv conv = read_depthwise(frame, frame->args.args[0], frame->rets.rets[0], frame->args.args[1]);
  return run_units(frame, &conv, depthwise_row, conv.batch * conv.out_rows, 0);
}

// (cotangents [B, h, w, K], kernel) -> gradient to the images, [B, H, W, K]
XLA_FFI_Error *minmax_depthwise_input_gradient(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  Conv conv = read_depthwise(frame, frame->rets.rets[0], frame->args.args[0], frame->args.args[1]);
  if (conv.stride != 1) return run_units(frame, &conv, gather_row, conv.batch * conv.rows, 0);
  conv.images = conv.cotangents;
  conv.transposed = 1;
  return run_units(frame, &conv, depthwise_row, conv.batch * conv.out_rows, 0);
}

// (images, cotangents [B, h, w, K]) -> gradient to the kernel, [side, side, 1, K]
XLA_FFI_Error *minmax_depthwise_kernel_gradient(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  Conv conv = read_depthwise(frame, frame->args.args[0], frame->args.args[1], frame->rets.rets[0]);
  const int64_t taps = conv.kernel_rows * conv.kernel_columns;
  conv.parts = divide_up(conv.channels, LANES);
  conv.scratch = allocate(conv.batch * conv.parts * taps * LANES);
  if (conv.scratch == NULL) return out_of_memory(frame);
  XLA_FFI_Error *error = run_units(frame, &conv, kernel_part, conv.batch * conv.parts, 0);
  for (int64_t tap = 0; tap < taps; ++tap)
    for (int64_t k = 0; k < conv.channels; ++k) {
      double sum = 0;
      for (int64_t b = 0; b < conv.batch; ++b)
        sum += conv.scratch[((b * conv.parts + k / LANES) * taps + tap) * LANES + k % LANES];
      conv.result[tap * conv.channels + k] = sum;
    }
  free(conv.scratch);
  return error;
}
