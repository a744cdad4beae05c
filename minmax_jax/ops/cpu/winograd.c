// 3x3 convolutions of stride 1 and their kernel gradients with a quarter of the products; otherwise as in conv.c.
//
// Source: Winograd's minimal filtering F(4x4, 3x3), Lavin and Gray, arXiv 1509.09308. With transforms A, B and G,
//
//   4x4 of the output = A' [(G kernel G') * (B' 6x6 of the images B)] A
//   kernel gradient   = G' [(B' 6x6 of the images B) * (A 4x4 of the cotangents A')] G
//
// where * stands for a matrix product at each of 36 numbers: over channels k, or over tiles.

#include "winograd.h"

#define SIDE 4                // of a tile of the output
#define WINDOW 6              // side of what it needs of the images
#define NUMBERS 36
#define CHANNELS 32           // channels k of the gradient, likewise
#define PART_TILES 64         // of the output, that a thread transforms at once
#define BLOCK_TILES 16        // of these, whose products stay in the cache
#define TRANSFORM_TILES 16    // of the gradient, as PART_TILES
#define PAD 16                // floats between numbers, so that not all begin in one set of the cache
#define PRODUCTS (BLOCK_TILES * SLICE + PAD)

INLINE int64_t count_tiles(const Conv *conv) {
  return conv->batch * divide_up(conv->out_rows, SIDE) * divide_up(conv->out_columns, SIDE);
}

typedef struct {
  int64_t b, y, x;  // image, first row and first column of the output
} Position;

INLINE Position find_tile(const Conv *conv, int64_t tile) {
  const int64_t columns = divide_up(conv->out_columns, SIDE), in_image = divide_up(conv->out_rows, SIDE) * columns;
  const int64_t rest = tile % in_image;
  return (Position){tile / in_image, rest / columns * SIDE, rest % columns * SIDE};
}

// Where the pixels of a window begin, [size, size]; those outside of the map are `zeros`.
static void find_window(const float *map, int64_t rows, int64_t columns, int64_t channels, Position at, int size,
                        const float *zeros, const float **pixels) {
  for (int64_t y = at.y; y < at.y + size; ++y)
    for (int64_t x = at.x; x < at.x + size; ++x, ++pixels)
      *pixels = 0 <= y && y < rows && 0 <= x && x < columns ? map + ((at.b * rows + y) * columns + x) * channels : zeros;
}

static void find_images(const Conv *conv, int64_t tile, const float *zeros, const float **pixels) {
  Position at = find_tile(conv, tile);
  at.y -= conv->top, at.x -= conv->left;
  find_window(conv->images, conv->rows, conv->columns, conv->channels, at, WINDOW, zeros, pixels);
}

// The order of the transforms of tiles: [36, blocks of channels, tiles, channels of a block], `step` between the numbers.
// Channels are whole vectors, filled up with zeros; the last block is the smaller one.
typedef struct {
  float *start;
  int64_t step, channels, block, tiles;
} Order;

INLINE int64_t fill_up(int64_t channels) { return divide_up(channels, LANES) * LANES; }

INLINE float *find_transform(const Order *order, int64_t t, int64_t c) {
  const int64_t first = c / order->block * order->block;
  return order->start + first * order->tiles + t * MIN(order->block, order->channels - first) + c - first;
}

// Writes the transform of a tile of the images to number t of an order.
static void read_images(const Conv *conv, int64_t tile, const float *zeros, const Order *order, int64_t t) {
  const float *pixels[NUMBERS], *next[NUMBERS];
  find_images(conv, tile, zeros, pixels);
  find_images(conv, tile + 1, zeros, next);
  for (int64_t k = 0; k < conv->channels; k += LANES) {
    vector x[NUMBERS] __attribute__((aligned(64))), y[NUMBERS] __attribute__((aligned(64)));
    for (int number = 0; number < NUMBERS; ++number) x[number] = load_some(pixels[number] + k, conv->channels - k);
    for (int number = 0; number < NUMBERS; ++number) __builtin_prefetch(next[number] + k);
    TRANSFORM(transform_images, WINDOW, WINDOW, x, y);
    float *to = find_transform(order, t, k);
    for (int number = 0; number < NUMBERS; ++number) store(y[number], to + number * order->step);
  }
}

// Likewise of the cotangents.
static void read_cotangents(const Conv *conv, int64_t tile, const float *zeros, const Order *order, int64_t t) {
  const float *pixels[SIDE * SIDE];
  const Position at = find_tile(conv, tile);
  find_window(conv->cotangents, conv->out_rows, conv->out_columns, conv->outputs, at, SIDE, zeros, pixels);
  for (int64_t l = 0; l < conv->outputs; l += LANES) {
    vector x[SIDE * SIDE] __attribute__((aligned(64))), y[NUMBERS] __attribute__((aligned(64)));
    for (int pixel = 0; pixel < SIDE * SIDE; ++pixel) x[pixel] = load_some(pixels[pixel] + l, conv->outputs - l);
    TRANSFORM(transform_cotangents, SIDE, WINDOW, x, y);
    float *to = find_transform(order, t, l);
    for (int number = 0; number < NUMBERS; ++number) store(y[number], to + number * order->step);
  }
}

// Output: a unit is a part of the tiles and some slices of channels l. It transforms all that it needs for itself, which
// stays in its cache.

// The kernel's transform, [36, K, SLICE].
static void read_kernel(const Conv *conv, int64_t l, float *to) {
  const int64_t size = conv->channels * SLICE, step = size + PAD;
  for (int64_t k = 0; k < conv->channels; ++k)
    for (int v = 0; v < count_vectors(conv->outputs - l); ++v) {
      const float *from = conv->weights + l / SLICE * 9 * size + k * SLICE + v * LANES;
      vector x[9] __attribute__((aligned(64))), y[NUMBERS] __attribute__((aligned(64)));
      for (int number = 0; number < 9; ++number) x[number] = load(from + number * size);
      TRANSFORM(transform_kernel, 3, WINDOW, x, y);
      for (int number = 0; number < NUMBERS; ++number) store(y[number], to + number * step + k * SLICE + v * LANES);
    }
}

INLINE void store_sums(const vector sums[TILE][2], float *to, const int size, const int vectors) {
  for (int t = 0; t < size; ++t)
    for (int v = 0; v < vectors; ++v) store(sums[t][v], to + t * SLICE + v * LANES);
}

INLINE void multiply_channels(const Conv *conv, const float *images, const float *kernel, float *to, const int tiles,
                              const int vectors) {
  vector sums[TILE][2] = {0};
  const int64_t step = fill_up(conv->channels);
  for (int64_t k = 0; k < conv->channels; ++k, ++images, kernel += SLICE)
    add_products(sums, images, step, kernel, LANES, tiles, vectors);
  store_sums(sums, to, tiles, vectors);
}

static void write_output(const Conv *conv, int64_t tile, int64_t l, const float *from) {
  const Position at = find_tile(conv, tile);
  const int64_t rows = MIN(SIDE, conv->out_rows - at.y), columns = MIN(SIDE, conv->out_columns - at.x);
  float *to = conv->result + ((at.b * conv->out_rows + at.y) * conv->out_columns + at.x) * conv->outputs + l;
  for (int v = 0; v < count_vectors(conv->outputs - l); ++v, from += LANES, to += LANES) {
    vector x[NUMBERS] __attribute__((aligned(64))), y[SIDE * SIDE] __attribute__((aligned(64)));
    for (int number = 0; number < NUMBERS; ++number) x[number] = load(from + number * PRODUCTS);
    TRANSFORM(transform_output, WINDOW, SIDE, x, y);
    for (int64_t pixel = 0; pixel < rows * columns; ++pixel) {
      const int64_t row = pixel / columns, column = pixel % columns;
      float *target = to + (row * conv->out_columns + column) * conv->outputs;
      const vector sums = y[row * SIDE + column];
      const int64_t at = l + v * LANES, lanes = conv->outputs - at;
      store_some(apply_epilogue(conv, sums, at, target, lanes), target, lanes);
    }
  }
}

// One slice of a block of up to BLOCK_TILES tiles.
static void multiply_block(const Conv *conv, const float *images, const float *kernel, int64_t l, int64_t count,
                           float *products) {
  const int64_t step = fill_up(conv->channels), vectors = count_vectors(conv->outputs - l);
  for (int64_t number = 0; number < NUMBERS; ++number, kernel += conv->channels * SLICE + PAD)
    for (int64_t t = 0, size; t < count; t += size) {
      const float *from = images + number * (PART_TILES * step + PAD) + t * step;
      float *to = products + number * PRODUCTS + t * SLICE;
      size = next_tile(count - t);
      DISPATCH(size, vectors, multiply_channels, conv, from, kernel, to)
    }
}

// In turn: transforms of a part's images and of a slice of the kernel, products, zeros.
static int64_t count_floats_of_part(const Conv *conv) {
  const int64_t channels = fill_up(conv->channels), kernel = conv->channels * SLICE + PAD;
  return NUMBERS * (PART_TILES * channels + PAD + kernel + PRODUCTS) + channels;
}

static void run_output(const Conv *conv, int64_t unit, float *images) {
  const int64_t channels = fill_up(conv->channels), step = PART_TILES * channels + PAD;
  const int64_t first = unit / conv->parts * PART_TILES;
  const int64_t count = MIN(PART_TILES, count_tiles(conv) - first), width = divide_up(conv->outputs, SLICE);
  const int64_t l_first = unit % conv->parts * width / conv->parts * SLICE;
  const int64_t l_last = (unit % conv->parts + 1) * width / conv->parts * SLICE;
  float *kernel = images + NUMBERS * step, *products = kernel + NUMBERS * (conv->channels * SLICE + PAD);
  float *zeros = products + NUMBERS * PRODUCTS;
  memset(zeros, 0, channels * sizeof(float));
  const Order order = {images, step, channels, channels, PART_TILES};
  for (int64_t t = 0; t < count; ++t) read_images(conv, first + t, zeros, &order, t);
  for (int64_t l = l_first; l < MIN(l_last, conv->outputs); l += SLICE) {
    read_kernel(conv, l, kernel);
    for (int64_t block = 0; block < count; block += BLOCK_TILES) {
      const int64_t in_block = MIN(BLOCK_TILES, count - block);
      multiply_block(conv, images + block * channels, kernel, l, in_block, products);
      for (int64_t t = 0; t < in_block; ++t) write_output(conv, first + block + t, l, products + t * SLICE);
    }
  }
}

// Gradient: one group of tiles after another, whose transforms lie in the scratch in blocks of channels, so that what
// one unit reads of a number lies side by side.

INLINE Order order_images(const Conv *conv) {
  const int64_t channels = fill_up(conv->channels);
  return (Order){conv->scratch, conv->group * channels, channels, CHANNELS, conv->group};
}

INLINE Order order_cotangents(const Conv *conv) {
  const int64_t channels = fill_up(conv->outputs);
  float *start = conv->scratch + NUMBERS * conv->group * fill_up(conv->channels);
  return (Order){start, conv->group * channels, channels, SLICE, conv->group};
}

static void run_transforms(const Conv *conv, int64_t unit, float *zeros) {
  const int64_t last = MIN((unit + 1) * TRANSFORM_TILES, conv->count);
  const Order images = order_images(conv), cotangents = order_cotangents(conv);
  memset(zeros, 0, MAX(conv->channels, conv->outputs) * sizeof(float));
  for (int64_t t = unit * TRANSFORM_TILES; t < last; ++t) {
    read_images(conv, conv->first + t, zeros, &images, t);
    read_cotangents(conv, conv->first + t, zeros, &cotangents, t);
  }
}

// A unit is a block of channels k and a slice of channels l.

INLINE void multiply_tiles(const Conv *conv, const float *images, int64_t width, const float *cotangents, float *to,
                           const int channels, const int vectors) {
  vector sums[TILE][2] = {0};
  for (int64_t t = 0; t < conv->count; ++t, images += width, cotangents += vectors * LANES)
    add_products(sums, images, 1, cotangents, LANES, channels, vectors);
  store_sums(sums, to, channels, vectors);
}

static void write_gradient(const Conv *conv, int64_t k, int64_t l, const float *sums) {
  float *to = conv->result + k * conv->outputs + l;
  for (int v = 0; v < count_vectors(conv->outputs - l); ++v, sums += LANES, to += LANES) {
    vector x[NUMBERS] __attribute__((aligned(64))), y[9] __attribute__((aligned(64)));
    for (int number = 0; number < NUMBERS; ++number) x[number] = load(sums + number * CHANNELS * SLICE);
    TRANSFORM(transform_kernel_back, WINDOW, 3, x, y);
    for (int number = 0; number < 9; ++number) {
      float *at = to + number * conv->channels * conv->outputs;
      const int64_t lanes = conv->outputs - l - v * LANES;
      store_some(conv->first ? load_some(at, lanes) + y[number] : y[number], at, lanes);
    }
  }
}

static void run_gradient(const Conv *conv, int64_t unit, float *sums) {
  const int64_t slices = divide_up(conv->outputs, SLICE), l = unit % slices * SLICE;
  const int64_t k = unit / slices * CHANNELS, channels = MIN(CHANNELS, conv->channels - k), width = fill_up(channels);
  const Order images = order_images(conv), cotangents = order_cotangents(conv);
  const float *x = find_transform(&images, 0, k), *g = find_transform(&cotangents, 0, l);
  for (int64_t number = 0; number < NUMBERS; ++number, x += images.step, g += cotangents.step)
    for (int64_t c = 0, size; c < channels; c += size) {
      float *to = sums + (number * CHANNELS + c) * SLICE;
      size = next_tile(channels - c);
      DISPATCH(size, count_vectors(conv->outputs - l), multiply_tiles, conv, x + c, width, g, to)
    }
  for (int64_t c = 0; c < channels; ++c) write_gradient(conv, k + c, l, sums + c * SLICE);
}

// Arrays as in conv.c.

// (images, kernel[, factor, shift[, residual]]) -> output
XLA_FFI_Error *minmax_winograd(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  Conv conv = read_output_call(frame);
  const int64_t tile_parts = MAX(1, divide_up(count_tiles(&conv), PART_TILES));
  const int64_t wanted = divide_up(UNITS * count_threads(frame), tile_parts);
  conv.parts = MIN(wanted, divide_up(conv.outputs, SLICE));
  return run_packed(frame, &conv, run_output, tile_parts * conv.parts, count_floats_of_part(&conv));
}

// (images, cotangents) -> (gradient, scratch [36, group, K + L], whose order is that of Order)
XLA_FFI_Error *minmax_winograd_kernel_gradient(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  Conv conv = read_call(frame, frame->args.args[1], frame->rets.rets[0]);
  const XLA_FFI_Buffer *scratch = frame->rets.rets[1];
  const int64_t tiles = count_tiles(&conv), zeros = MAX(conv.channels, conv.outputs);
  const int64_t units = divide_up(conv.channels, CHANNELS) * divide_up(conv.outputs, SLICE);
  conv.scratch = scratch->data;
  conv.group = scratch->dims[1];
  XLA_FFI_Error *error = NULL;
  if (tiles == 0) memset(conv.result, 0, 9 * conv.channels * conv.outputs * sizeof(float));
  for (conv.first = 0; conv.first < tiles && error == NULL; conv.first += conv.group) {
    conv.count = MIN(conv.group, tiles - conv.first);
    error = run_units(frame, &conv, run_transforms, divide_up(conv.count, TRANSFORM_TILES), zeros);
    if (error == NULL) error = run_units(frame, &conv, run_gradient, units, NUMBERS * CHANNELS * SLICE);
  }
  return error;
}
