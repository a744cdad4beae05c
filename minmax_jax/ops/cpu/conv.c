// Convolutions and their kernel gradients, in 32-bit floats, for XLA on a CPU; library.py builds them, native.py calls them.
//
//   output[b, y, x, l]   = sum over i, j, k of at(b, y, x, i, j)[k] * kernel[i, j, k, l]
//   gradient[i, j, k, l] = sum over b, y, x of at(b, y, x, i, j)[k] * cotangents[b, y, x, l]
//   at(b, y, x, i, j)    = images[b, y * stride + i - top, x * stride + j - left], or 0 outside of the images
//
// Tiles of the result, TILE by two vectors of channels l, are summed in registers. Each number is summed by one thread
// in one order: the number of threads changes no result.

#include "conv.h"

#define LINE 16           // floats of a line of the cache
#define BLOCK_ROWS 4      // of the output, that share what is read of the images
#define BLOCK_WINDOWS 64  // of the images, the same where rows are short
#define BLOCK_PIXELS 128   // of the gradient, at least: their copies stay in the cache for all tiles
#define UNIT_CHANNELS 128  // k, and l, of the gradient that share these copies, where that leaves enough units

// Output: tiles of pixels, whose windows begin `stride` pixels apart in `rows`.

INLINE void output_tile(const Conv *conv, const float *rows, int64_t width, int64_t slice, float *to, const int pixels,
                        const int vectors) {
  vector sums[TILE][2] = {0};
  const int64_t step = conv->stride * conv->channels, row = conv->kernel_columns * conv->channels;
  const float *weights = conv->weights + slice * conv->kernel_rows * row * SLICE;
  for (int64_t i = 0; i < conv->kernel_rows; ++i) {
    // The taps of one row of the kernel are contiguous, as are their weights.
    const float *x = rows + i * width * conv->channels;
    for (int64_t k = 0; k < row; ++k, ++x, weights += SLICE)
      add_products(sums, x, step, weights, LANES, pixels, vectors);
  }
  for (int p = 0; p < pixels; ++p)
    for (int v = 0; v < vectors; ++v) {
      const int64_t l = slice * SLICE + v * LANES, lanes = conv->outputs - l;
      float *target = to + p * conv->outputs + v * LANES;
      store_some(apply_epilogue(conv, sums[p][v], l, target, lanes), target, lanes);
    }
}

// `count` neighbouring pixels.
static void output_line(const Conv *conv, const float *rows, int64_t width, int64_t slice, int64_t count, float *to) {
  const int vectors = count_vectors(conv->outputs - slice * SLICE);
  for (int64_t x = 0, size; x < count; x += size) {
    const float *from = rows + x * conv->stride * conv->channels;
    size = next_tile(count - x);
    DISPATCH(size, vectors, output_tile, conv, from, width, slice, to + x * conv->outputs)
  }
}

// A unit is a block of rows of one image. `rows` holds the rows of the image that it needs, with their padding.
static void run_rows(const Conv *conv, int64_t unit, float *rows) {
  const int64_t b = unit / conv->parts, first = unit % conv->parts * BLOCK_ROWS;
  const int64_t count = MIN(BLOCK_ROWS, conv->out_rows - first), needed = (count - 1) * conv->stride + conv->kernel_rows;
  const int64_t width = (conv->out_columns - 1) * conv->stride + conv->kernel_columns, line = width * conv->channels;
  // Nothing is inside where the padding is wider than all that is read.
  const int64_t inside = MAX(0, MIN(conv->columns, width - conv->left));
  float *to = conv->result + (b * conv->out_rows + first) * conv->out_columns * conv->outputs;
  memset(rows, 0, needed * line * sizeof(float));
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
}

static int64_t count_floats_of_rows(const Conv *conv) {
  const int64_t needed = (BLOCK_ROWS - 1) * conv->stride + conv->kernel_rows;
  return needed * ((conv->out_columns - 1) * conv->stride + conv->kernel_columns) * conv->channels;
}

// Where a row of the output is shorter than a tile, tiles span rows and images: windows are copied to contiguous memory,
// unless they are single pixels, which are contiguous already. A unit is a block of them and some slices of
// channels l.

static int are_windows(const Conv *conv) {
  return conv->kernel_rows * conv->kernel_columns * conv->stride == 1 && conv->rows == conv->out_rows &&
         conv->columns == conv->out_columns && conv->top == 0 && conv->left == 0;
}

static void copy_windows(const Conv *conv, int64_t first, int64_t count, float *windows) {
  const int64_t taps = conv->kernel_rows * conv->kernel_columns;
  memset(windows, 0, count * taps * conv->channels * sizeof(float));
  for (int64_t at = 0; at < count * taps; ++at) {
    const int64_t pixel = first + at / taps, row = pixel / conv->out_columns, b = row / conv->out_rows;
    const int64_t y = row % conv->out_rows * conv->stride - conv->top + at % taps / conv->kernel_columns;
    const int64_t x = pixel % conv->out_columns * conv->stride - conv->left + at % taps % conv->kernel_columns;
    if (0 <= y && y < conv->rows && 0 <= x && x < conv->columns)
      memcpy(windows + at * conv->channels, conv->images + ((b * conv->rows + y) * conv->columns + x) * conv->channels,
             conv->channels * sizeof(float));
  }
}

static void run_windows(const Conv *conv, int64_t unit, float *own) {
  const int64_t part = unit % conv->parts, slices = divide_up(conv->outputs, SLICE);
  const int64_t first = unit / conv->parts * BLOCK_WINDOWS;
  const int64_t count = MIN(BLOCK_WINDOWS, conv->batch * conv->out_rows * conv->out_columns - first);
  Conv flat = *conv;
  flat.kernel_rows = flat.kernel_columns = flat.stride = 1;
  flat.channels = conv->kernel_rows * conv->kernel_columns * conv->channels;
  const float *windows = are_windows(conv) ? conv->images + first * conv->channels : own;
  if (windows == own) copy_windows(conv, first, count, own);
  for (int64_t slice = part * slices / conv->parts; slice < (part + 1) * slices / conv->parts; ++slice)
    output_line(&flat, windows, 1, slice, count, conv->result + first * conv->outputs + slice * SLICE);
}

// Gradient: a unit is one row i of the kernel and some channels k and l. Block of rows after block of rows, it copies
// lines of the images' channels and slices of the cotangents', so that pixels of each lie side by side: as they are, they
// lie so far apart that few would fit into the cache at once.

typedef struct {
  int64_t i, k, l;            // of the unit, the first of each
  int64_t channels, outputs;  // numbers of k and l
  int64_t row, rows;          // of the cotangents, counted over the whole batch: a block
  float *images;              // [lines of k, rows, W, LINE], those that the kernel's row i meets
  float *cotangents;          // [slices of l, rows, w, SLICE]
} Block;

// The row of the images that meets a row of the cotangents; the caller checks that it exists.
INLINE int64_t image_row(const Conv *conv, const Block *block, int64_t row) {
  return row % conv->out_rows * conv->stride + block->i - conv->top;
}

// `width` numbers, or those before the end of the array. Copies beyond the channels are not used.
INLINE void copy_some(const float *from, const float *end, float *to, const int64_t width) {
  if (end - from >= width) {
    for (int64_t at = 0; at < width; at += LANES) store(load(from + at), to + at);
  } else {
    memset(to, 0, width * sizeof(float));
    memcpy(to, from, (end - from) * sizeof(float));
  }
}

static void copy_block(const Conv *conv, const Block *block) {
  const int64_t pixels = block->rows * conv->out_columns, taps = block->rows * conv->columns;
  const float *images_end = conv->images + conv->batch * conv->rows * conv->columns * conv->channels;
  const float *end = conv->cotangents + conv->batch * conv->out_rows * conv->out_columns * conv->outputs;
  const float *g = conv->cotangents + block->row * conv->out_columns * conv->outputs + block->l;
  for (int64_t pixel = 0; pixel < pixels; ++pixel, g += conv->outputs)
    for (int64_t l = 0; l < block->outputs; l += SLICE)
      copy_some(g + l, end, block->cotangents + l * pixels + pixel * SLICE, SLICE);
  for (int64_t row = 0; row < block->rows; ++row) {
    const int64_t y = image_row(conv, block, block->row + row), b = (block->row + row) / conv->out_rows;
    if (y < 0 || y >= conv->rows) continue;
    const float *x = conv->images + (b * conv->rows + y) * conv->columns * conv->channels + block->k;
    for (int64_t column = 0; column < conv->columns; ++column, x += conv->channels)
      for (int64_t k = 0; k < block->channels; k += LINE)
        copy_some(x + k, images_end, block->images + k * taps + (row * conv->columns + column) * LINE, LINE);
  }
}

// Adds what a block gives to a tile: tap (i, j) of the kernel, channels from k and l on, counted within the unit.
INLINE void gradient_tile(const Conv *conv, const Block *block, int64_t j, int64_t k, int64_t l, const int channels,
                          const int vectors) {
  vector sums[TILE][2] = {0};
  const int64_t offset = j - conv->left;  // column x * stride + offset of the images meets column x
  const int64_t first = MAX(0, divide_up(-offset, conv->stride));
  const int64_t met = offset < conv->columns ? (conv->columns - 1 - offset) / conv->stride + 1 : 0;
  const int64_t last = MIN(conv->out_columns, met);
  const float *images = block->images + k / LINE * LINE * block->rows * conv->columns + k % LINE;
  const float *cotangents = block->cotangents + l * block->rows * conv->out_columns;
  for (int64_t row = 0; row < block->rows; ++row) {
    const int64_t y = image_row(conv, block, block->row + row);
    if (y < 0 || y >= conv->rows) continue;
    const float *x = images + (row * conv->columns + first * conv->stride + offset) * LINE;
    const float *g = cotangents + (row * conv->out_columns + first) * SLICE;
    for (int64_t column = first; column < last; ++column, x += conv->stride * LINE, g += SLICE)
      add_products(sums, x, 1, g, LANES, channels, vectors);
  }
  float *to = conv->result + ((block->i * conv->kernel_columns + j) * conv->channels + block->k + k) * conv->outputs;
  for (int c = 0; c < channels; ++c, to += conv->outputs)
    for (int v = 0; v < vectors; ++v) {
      const int64_t at = block->l + l + v * LANES, lanes = conv->outputs - at;
      store_some(load_some(to + at, lanes) + sums[c][v], to + at, lanes);
    }
}

static void add_block(const Conv *conv, const Block *block) {
  for (int64_t l = 0; l < block->outputs; l += SLICE)
    for (int64_t j = 0; j < conv->kernel_columns; ++j)
      for (int64_t line = 0; line < block->channels; line += LINE)
        for (int64_t k = line, size, last = MIN(line + LINE, block->channels); k < last; k += size) {
          size = next_tile(last - k);
          DISPATCH(size, count_vectors(block->outputs - l), gradient_tile, conv, block, j, k, l)
        }
}

static int64_t count_gradient_units(const Conv *conv) {
  return conv->kernel_rows * divide_up(conv->channels, conv->k_width) * divide_up(conv->outputs, conv->l_width);
}

// Rows of the cotangents that a block takes in.
INLINE int64_t count_block_rows(const Conv *conv) { return divide_up(BLOCK_PIXELS, MAX(1, conv->out_columns)); }

static int64_t count_floats_of_block(const Conv *conv) {
  return count_block_rows(conv) * (conv->columns * conv->k_width + conv->out_columns * conv->l_width);
}

static void run_gradient(const Conv *conv, int64_t unit, float *own) {
  const int64_t l_parts = divide_up(conv->outputs, conv->l_width), k_parts = divide_up(conv->channels, conv->k_width);
  const int64_t rows = conv->batch * conv->out_rows, step = count_block_rows(conv);
  Block block = {.i = unit / l_parts / k_parts, .l = unit % l_parts * conv->l_width};
  block.k = unit / l_parts % k_parts * conv->k_width;
  block.channels = MIN(conv->k_width, conv->channels - block.k);
  block.outputs = MIN(conv->l_width, conv->outputs - block.l);
  block.images = own;
  block.cotangents = own + step * conv->columns * conv->k_width;
  for (int64_t at = 0; at < conv->kernel_columns * block.channels; ++at) {
    const int64_t j = at / block.channels, k = block.k + at % block.channels;
    float *to = conv->result + ((block.i * conv->kernel_columns + j) * conv->channels + k) * conv->outputs + block.l;
    memset(to, 0, block.outputs * sizeof(float));
  }
  for (block.row = 0; block.row < rows; block.row += step) {
    block.rows = MIN(step, rows - block.row);
    copy_block(conv, &block);
    add_block(conv, &block);
  }
}

// All arrays are float32: images [B, H, W, K], kernels [kh, kw, K, L], outputs and cotangents [B, h, w, L].

// (images, kernel[, factor, shift[, residual]]) -> output
XLA_FFI_Error *minmax_conv(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  Conv conv = read_output_call(frame);
  if (conv.out_columns >= TILE && !are_windows(&conv)) {
    conv.parts = divide_up(conv.out_rows, BLOCK_ROWS);
    return run_packed(frame, &conv, run_rows, conv.batch * conv.parts, count_floats_of_rows(&conv));
  }
  const int64_t blocks = divide_up(conv.batch * conv.out_rows * conv.out_columns, BLOCK_WINDOWS);
  conv.parts = MIN(divide_up(UNITS * count_threads(frame), MAX(1, blocks)), divide_up(conv.outputs, SLICE));
  const int64_t window = conv.kernel_rows * conv.kernel_columns * conv.channels;
  return run_packed(frame, &conv, run_windows, blocks * conv.parts, are_windows(&conv) ? 0 : BLOCK_WINDOWS * window);
}

// (images, cotangents) -> gradient
XLA_FFI_Error *minmax_conv_kernel_gradient(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  Conv conv = read_call(frame, frame->args.args[1], frame->rets.rets[0]);
  conv.k_width = conv.l_width = UNIT_CHANNELS;
  while (count_gradient_units(&conv) < 2 * count_threads(frame) && conv.k_width > LINE) {
    if (conv.l_width > SLICE) conv.l_width /= 2;
    else conv.k_width /= 2;
  }
  return run_units(frame, &conv, run_gradient, count_gradient_units(&conv), count_floats_of_block(&conv));
}
