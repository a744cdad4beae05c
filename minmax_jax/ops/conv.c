// Convolutions and their kernel gradients, in 32-bit floats, for XLA on a CPU; native.py builds them, conv.py calls them.
//
//   output[b, y, x, l]   = sum over i, j, k of at(b, y, x, i, j)[k] * kernel[i, j, k, l]
//   gradient[i, j, k, l] = sum over b, y, x of at(b, y, x, i, j)[k] * cotangents[b, y, x, l]
//   at(b, y, x, i, j)    = images[b, y * stride + i - top, x * stride + j - left], or 0 outside of the images
//
// Tiles of the result, eight by two vectors of channels l, are summed in registers. Each number is summed by one thread
// in one order: the number of threads changes no result.

#include "conv.h"

#define LINE 16           // floats of a line of the cache
#define BLOCK_ROWS 4      // of the output, that share what is read of the images
#define BLOCK_WINDOWS 64  // of the images, likewise, where rows are short
#define BLOCK_PIXELS 256  // of the gradient: the cotangents of a block stay in the cache for all tiles

// Output: tiles of pixels, whose windows begin `stride` places after one another in `rows`.

INLINE void output_tile(const Conv *conv, const float *rows, int64_t width, int64_t slice, float *to, const int pixels,
                        const int vectors) {
  vector sums[TILE][2] = {0};
  const int64_t step = conv->stride * conv->channels, row = conv->kernel_columns * conv->channels;
  const float *weights = conv->weights + slice * conv->kernel_rows * row * SLICE;
  for (int64_t i = 0; i < conv->kernel_rows; ++i) {
    // The places of one row of the kernel lie side by side, as their weights do.
    const float *x = rows + i * width * conv->channels;
    for (int64_t k = 0; k < row; ++k, ++x, weights += SLICE)
      for (int v = 0; v < vectors; ++v) {
        const vector values = load(weights + v * LANES);
        for (int p = 0; p < pixels; ++p) sums[p][v] += x[p * step] * values;
      }
  }
  for (int p = 0; p < pixels; ++p)
    for (int v = 0; v < vectors; ++v) {
      const int64_t l = slice * SLICE + v * LANES, lanes = conv->outputs - l;
      float *place = to + p * conv->outputs + v * LANES;
      store_some(finish(conv, sums[p][v], l, place, lanes), place, lanes);
    }
}

// `count` neighbouring pixels.
static void output_line(const Conv *conv, const float *rows, int64_t width, int64_t slice, int64_t count, float *to) {
  const int vectors = conv->outputs - slice * SLICE > LANES ? 2 : 1;
  for (int64_t x = 0; x < count; x += TILE) {
    const float *from = rows + x * conv->stride * conv->channels;
    DISPATCH(MIN(TILE, count - x), vectors, output_tile, conv, from, width, slice, to + x * conv->outputs)
  }
}

// A unit is a block of rows of one image. `rows` holds the rows of the image that it needs, with their padding.
static void run_rows(const Conv *conv, int64_t unit) {
  const int64_t b = unit / conv->parts, first = unit % conv->parts * BLOCK_ROWS;
  const int64_t count = MIN(BLOCK_ROWS, conv->out_rows - first), needed = (count - 1) * conv->stride + conv->kernel_rows;
  const int64_t width = (conv->out_columns - 1) * conv->stride + conv->kernel_columns, line = width * conv->channels;
  const int64_t inside = MIN(conv->columns, width - conv->left);
  float *to = conv->result + (b * conv->out_rows + first) * conv->out_columns * conv->outputs;
  float *rows = calloc(needed * line, sizeof(float));
  for (int64_t row = 0; row < needed; ++row) {
    const int64_t y = first * conv->stride - conv->top + row;
    if (0 <= y && y < conv->rows)
      memcpy(rows + row * line + conv->left * conv->channels,
             conv->images + (b * conv->rows + y) * conv->columns * conv->channels,
             inside * conv->channels * sizeof(float));
  }
  for (int64_t slice = 0; slice < divide_up(conv->outputs, SLICE); ++slice)
    for (int64_t y = 0; y < count; ++y)
      output_line(conv, rows + y * conv->stride * line, width, slice, conv->out_columns,
                  to + y * conv->out_columns * conv->outputs + slice * SLICE);
  free(rows);
}

// Where a row of the output is shorter than a tile, tiles reach over rows and images: windows are copied one behind the
// other. Where they are the pixels themselves, that is what they are. A unit is a block of them and some slices of
// channels l.

static int are_windows(const Conv *conv) {
  return conv->kernel_rows * conv->kernel_columns * conv->stride == 1 && conv->rows == conv->out_rows &&
         conv->columns == conv->out_columns && conv->top == 0 && conv->left == 0;
}

static float *copy_windows(const Conv *conv, int64_t first, int64_t count) {
  const int64_t places = conv->kernel_rows * conv->kernel_columns;
  float *windows = calloc(count * places * conv->channels, sizeof(float));
  for (int64_t at = 0; at < count * places; ++at) {
    const int64_t pixel = first + at / places, row = pixel / conv->out_columns, b = row / conv->out_rows;
    const int64_t y = row % conv->out_rows * conv->stride - conv->top + at % places / conv->kernel_columns;
    const int64_t x = pixel % conv->out_columns * conv->stride - conv->left + at % places % conv->kernel_columns;
    if (0 <= y && y < conv->rows && 0 <= x && x < conv->columns)
      memcpy(windows + at * conv->channels, conv->images + ((b * conv->rows + y) * conv->columns + x) * conv->channels,
             conv->channels * sizeof(float));
  }
  return windows;
}

static void run_windows(const Conv *conv, int64_t unit) {
  const int64_t part = unit % conv->parts, slices = divide_up(conv->outputs, SLICE);
  const int64_t first = unit / conv->parts * BLOCK_WINDOWS;
  const int64_t count = MIN(BLOCK_WINDOWS, conv->batch * conv->out_rows * conv->out_columns - first);
  Conv flat = *conv;
  flat.kernel_rows = flat.kernel_columns = flat.stride = 1;
  flat.channels = conv->kernel_rows * conv->kernel_columns * conv->channels;
  float *copied = are_windows(conv) ? NULL : copy_windows(conv, first, count);
  const float *windows = copied ? copied : conv->images + first * conv->channels;
  for (int64_t slice = part * slices / conv->parts; slice < (part + 1) * slices / conv->parts; ++slice)
    output_line(&flat, windows, 1, slice, count, conv->result + first * conv->outputs + slice * SLICE);
  free(copied);
}

// Gradient: tiles of channels k.

typedef struct {
  int64_t first, last;  // rows of the cotangents, counted over the whole batch
  int64_t i, j, k, l;
} Place;

// For each row of the cotangents that meets the images: the first pixels of both that meet, and how many.
INLINE int64_t meet(const Conv *conv, const Place *at, int64_t row, const float **x, const float **g) {
  const int64_t b = row / conv->out_rows, y = row % conv->out_rows * conv->stride + at->i - conv->top;
  const int64_t offset = at->j - conv->left;  // column x * stride + offset of the images meets column x
  if (y < 0 || y >= conv->rows || offset >= conv->columns) return 0;
  const int64_t first = MAX(0, (conv->stride - 1 - offset) / conv->stride);
  const int64_t last = MIN(conv->out_columns, (conv->columns - 1 - offset) / conv->stride + 1);
  *x = conv->images + ((b * conv->rows + y) * conv->columns + first * conv->stride + offset) * conv->channels + at->k;
  *g = conv->cotangents + (row * conv->out_columns + first) * conv->outputs + at->l;
  return last - first;
}

INLINE float *gradient_at(const Conv *conv, const Place *at) {
  return conv->result + ((at->i * conv->kernel_columns + at->j) * conv->channels + at->k) * conv->outputs + at->l;
}

INLINE void gradient_tile(const Conv *conv, const Place *at, const int channels, const int vectors) {
  vector sums[TILE][2] = {0};
  const int64_t second = second_vector(conv, at->l);
  const float *x, *g;
  for (int64_t row = at->first; row < at->last; ++row)
    for (int64_t left = meet(conv, at, row, &x, &g); left > 0; --left) {
      for (int v = 0; v < vectors; ++v) {
        const vector values = load(g + v * second);
        for (int c = 0; c < channels; ++c) sums[c][v] += x[c] * values;
      }
      x += conv->stride * conv->channels;
      g += conv->outputs;
    }
  float *to = gradient_at(conv, at);
  for (int c = 0; c < channels; ++c, to += conv->outputs) {
    *(vector *)to += sums[c][0];
    if (vectors == 2 && second == LANES) *(vector *)(to + LANES) += sums[c][1];
    // What both vectors hold is added once.
    if (vectors == 2 && second < LANES)
      for (int64_t lane = LANES - second; lane < LANES; ++lane) to[second + lane] += sums[c][1][lane];
  }
}

static void gradient_rest(const Conv *conv, const Place *at, int64_t channels) {
  const int64_t lanes = conv->outputs - at->l;
  float sums[TILE][LANES] = {{0}};
  const float *x, *g;
  for (int64_t row = at->first; row < at->last; ++row)
    for (int64_t left = meet(conv, at, row, &x, &g); left > 0; --left) {
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t lane = 0; lane < lanes; ++lane) sums[c][lane] += x[c] * g[lane];
      x += conv->stride * conv->channels;
      g += conv->outputs;
    }
  float *to = gradient_at(conv, at);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t lane = 0; lane < lanes; ++lane) to[c * conv->outputs + lane] += sums[c][lane];
}

static void gradient_tiles(const Conv *conv, Place at, int64_t channels) {
  for (at.l = 0; at.l < conv->outputs; at.l += 2 * LANES) {
    const int vectors = count_vectors(conv, at.l);
    if (vectors) {
      DISPATCH(channels, vectors, gradient_tile, conv, &at)
    } else {
      gradient_rest(conv, &at, channels);
    }
  }
}

static void run_gradient(const Conv *conv, int64_t unit) {
  const int64_t k_first = unit / conv->parts * LINE, k_last = MIN(k_first + LINE, conv->channels);
  const int64_t i_first = conv->parts == 1 ? 0 : unit % conv->parts;
  const int64_t i_last = conv->parts == 1 ? conv->kernel_rows : i_first + 1;
  const int64_t rows = conv->batch * conv->out_rows, step = BLOCK_PIXELS / conv->out_columns + 1;
  for (int64_t i = i_first; i < i_last; ++i)
    for (int64_t j = 0; j < conv->kernel_columns; ++j)
      memset(gradient_at(conv, &(Place){.i = i, .j = j, .k = k_first}), 0,
             (k_last - k_first) * conv->outputs * sizeof(float));
  for (int64_t row = 0; row < rows; row += step)
    for (int64_t i = i_first; i < i_last; ++i)
      for (int64_t j = 0; j < conv->kernel_columns; ++j)
        for (int64_t k = k_first; k < k_last; k += TILE)
          gradient_tiles(conv, (Place){row, MIN(row + step, rows), i, j, k, 0}, MIN(TILE, k_last - k));
}

// All arrays are float32: images [B, H, W, K], kernels [kh, kw, K, L], outputs and cotangents [B, h, w, L].

// (images, kernel[, factor, shift[, residual]]) -> output
XLA_FFI_Error *minmax_conv(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  Conv conv = read_output_call(frame);
  if (conv.out_columns >= TILE && !are_windows(&conv)) {
    conv.parts = divide_up(conv.out_rows, BLOCK_ROWS);
    return run_packed(frame, &conv, run_rows, conv.batch * conv.parts);
  }
  const int64_t blocks = divide_up(conv.batch * conv.out_rows * conv.out_columns, BLOCK_WINDOWS);
  conv.parts = MIN(divide_up(UNITS * count_threads(frame), MAX(1, blocks)), divide_up(conv.outputs, SLICE));
  return run_packed(frame, &conv, run_windows, blocks * conv.parts);
}

// (images, cotangents) -> gradient
XLA_FFI_Error *minmax_conv_kernel_gradient(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  Conv conv = read_call(frame, frame->args.args[1], frame->rets.rets[0]);
  const int64_t slices = divide_up(conv.channels, LINE);
  conv.parts = slices < 2 * count_threads(frame) ? conv.kernel_rows : 1;
  return run_units(frame, &conv, run_gradient, slices * conv.parts);
}
