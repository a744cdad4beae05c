// 3x3 convolutions of stride 1 and their kernel gradients with a quarter of the products; otherwise as in conv.c.
//
// Source: Winograd's minimal filtering F(4x4, 3x3), Lavin and Gray, arXiv 1509.09308. With transforms A, B and G,
//
//   4x4 of the output = A' [(G kernel G') * (B' 6x6 of the images B)] A
//   kernel gradient   = G' [(B' 6x6 of the images B) * (A 4x4 of the cotangents A')] G
//
// where * stands for a matrix product at each of 36 places: over channels k, or over tiles.

#include "winograd.h"

#define SIDE 4                // of a tile of the output
#define WINDOW 6              // side of what it needs of the images
#define PLACES 36
#define CHANNELS 32           // channels k of the gradient, likewise
#define PART_TILES 64         // of the output, that a thread transforms at once
#define BLOCK_TILES 16        // of these, whose products stay in the cache
#define TRANSFORM_TILES 16    // of the gradient, as PART_TILES
#define PAD 16                // floats between places, so that not all begin in one set of the cache
#define PRODUCTS (BLOCK_TILES * SLICE + PAD)

INLINE int64_t count_tiles(const Conv *conv) {
  return conv->batch * divide_up(conv->out_rows, SIDE) * divide_up(conv->out_columns, SIDE);
}

typedef struct {
  int64_t b, y, x;  // image, first row and first column of the output
} Place;

INLINE Place find_tile(const Conv *conv, int64_t tile) {
  const int64_t columns = divide_up(conv->out_columns, SIDE), in_image = divide_up(conv->out_rows, SIDE) * columns;
  const int64_t rest = tile % in_image;
  return (Place){tile / in_image, rest / columns * SIDE, rest % columns * SIDE};
}

// Where the pixels of a window begin, [size, size]; those outside of the map are `zeros`.
static void find_window(const float *map, int64_t rows, int64_t columns, int64_t channels, Place at, int size,
                        const float *zeros, const float **pixels) {
  for (int64_t y = at.y; y < at.y + size; ++y)
    for (int64_t x = at.x; x < at.x + size; ++x, ++pixels)
      *pixels = 0 <= y && y < rows && 0 <= x && x < columns ? map + ((at.b * rows + y) * columns + x) * channels : zeros;
}

static void find_images(const Conv *conv, int64_t tile, const float *zeros, const float **pixels) {
  Place at = find_tile(conv, tile);
  at.y -= conv->top, at.x -= conv->left;
  find_window(conv->images, conv->rows, conv->columns, conv->channels, at, WINDOW, zeros, pixels);
}

// The transform of a tile of the images, [36, K] with `step` between the places.
static void read_images(const Conv *conv, int64_t tile, const float *zeros, float *to, int64_t step) {
  const float *pixels[PLACES], *next[PLACES];
  find_images(conv, tile, zeros, pixels);
  find_images(conv, tile + 1, zeros, next);
  for (int64_t c = 0; c < conv->channels; c += LANES) {
    const int64_t k = MIN(c, conv->channels - LANES);
    vector x[PLACES] __attribute__((aligned(64))), y[PLACES] __attribute__((aligned(64)));
    for (int place = 0; place < PLACES; ++place) x[place] = load(pixels[place] + k);
    for (int place = 0; place < PLACES; ++place) __builtin_prefetch(next[place] + k);
    TRANSFORM(transform_images, WINDOW, WINDOW, x, y);
    for (int place = 0; place < PLACES; ++place) store(y[place], to + place * step + k);
  }
}

// Likewise of the cotangents, [36, L].
static void read_cotangents(const Conv *conv, int64_t tile, const float *zeros, float *to, int64_t step) {
  const float *pixels[SIDE * SIDE];
  const Place at = find_tile(conv, tile);
  find_window(conv->cotangents, conv->out_rows, conv->out_columns, conv->outputs, at, SIDE, zeros, pixels);
  for (int64_t c = 0; c < conv->outputs; c += LANES) {
    const int64_t l = MIN(c, conv->outputs - LANES);
    vector x[SIDE * SIDE] __attribute__((aligned(64))), y[PLACES] __attribute__((aligned(64)));
    for (int pixel = 0; pixel < SIDE * SIDE; ++pixel) x[pixel] = load(pixels[pixel] + l);
    TRANSFORM(transform_cotangents, SIDE, WINDOW, x, y);
    for (int place = 0; place < PLACES; ++place) store(y[place], to + place * step + l);
  }
}

// Output: a unit is a part of the tiles and some slices of channels l. It transforms all that it needs for itself, which
// stays in its cache.

// The kernel's transform, [36, K, SLICE].
static void read_kernel(const Conv *conv, int64_t l, float *to) {
  const int64_t size = conv->channels * SLICE, step = size + PAD;
  for (int64_t k = 0; k < conv->channels; ++k)
    for (int v = 0; v < count_vectors(conv, l); ++v) {
      const float *from = conv->weights + l / SLICE * 9 * size + k * SLICE + v * second_vector(conv, l);
      vector x[9] __attribute__((aligned(64))), y[PLACES] __attribute__((aligned(64)));
      for (int place = 0; place < 9; ++place) x[place] = load(from + place * size);
      TRANSFORM(transform_kernel, 3, WINDOW, x, y);
      for (int place = 0; place < PLACES; ++place) store(y[place], to + place * step + k * SLICE + v * LANES);
    }
}

INLINE void multiply_channels(const float *images, const float *kernel, int64_t channels, float *to,
                              const int vectors) {
  vector sums[TILE][2] = {0};
  for (int64_t k = 0; k < channels; ++k, ++images, kernel += SLICE)
    for (int v = 0; v < vectors; ++v)
      for (int t = 0; t < TILE; ++t) sums[t][v] += images[t * channels] * load(kernel + v * LANES);
  for (int t = 0; t < TILE; ++t)
    for (int v = 0; v < vectors; ++v) store(sums[t][v], to + t * SLICE + v * LANES);
}

static void write_output(const Conv *conv, int64_t tile, int64_t l, const float *from) {
  const Place at = find_tile(conv, tile);
  const int64_t rows = MIN(SIDE, conv->out_rows - at.y), columns = MIN(SIDE, conv->out_columns - at.x);
  float *to = conv->result + ((at.b * conv->out_rows + at.y) * conv->out_columns + at.x) * conv->outputs + l;
  for (int v = 0; v < count_vectors(conv, l); ++v, from += LANES, to += second_vector(conv, l)) {
    vector x[PLACES] __attribute__((aligned(64))), y[SIDE * SIDE] __attribute__((aligned(64)));
    for (int place = 0; place < PLACES; ++place) x[place] = load(from + place * PRODUCTS);
    TRANSFORM(transform_output, WINDOW, SIDE, x, y);
    for (int64_t pixel = 0; pixel < rows * columns; ++pixel) {
      const int64_t row = pixel / columns, column = pixel % columns;
      float *place = to + (row * conv->out_columns + column) * conv->outputs;
      const vector sums = y[row * SIDE + column];
      store(finish(conv, sums, l + v * second_vector(conv, l), place, LANES), place);
    }
  }
}

// One slice of a block of up to BLOCK_TILES tiles.
static void multiply_block(const Conv *conv, const float *images, const float *kernel, int64_t l, int64_t count,
                           float *products) {
  const int64_t channels = conv->channels, two = count_vectors(conv, l) == 2;
  for (int64_t place = 0; place < PLACES; ++place, kernel += channels * SLICE + PAD)
    // Rows without a tile, up to a multiple of TILE, are multiplied, too, and not used.
    for (int64_t t = 0; t < count; t += TILE) {
      const float *from = images + place * (PART_TILES * channels + PAD) + t * channels;
      float *to = products + place * PRODUCTS + t * SLICE;
      if (two) multiply_channels(from, kernel, channels, to, 2);
      else multiply_channels(from, kernel, channels, to, 1);
    }
}

static void run_output(const Conv *conv, int64_t unit) {
  const int64_t channels = conv->channels, step = PART_TILES * channels + PAD, first = unit / conv->parts * PART_TILES;
  const int64_t count = MIN(PART_TILES, count_tiles(conv) - first), width = divide_up(conv->outputs, SLICE);
  const int64_t l_first = unit % conv->parts * width / conv->parts * SLICE;
  const int64_t l_last = (unit % conv->parts + 1) * width / conv->parts * SLICE;
  float *zeros = calloc(channels, sizeof(float));
  float *images = aligned_alloc(64, PLACES * step * sizeof(float));
  float *kernel = aligned_alloc(64, PLACES * (channels * SLICE + PAD) * sizeof(float));
  float *products = aligned_alloc(64, PLACES * PRODUCTS * sizeof(float));
  for (int64_t t = 0; t < count; ++t) read_images(conv, first + t, zeros, images + t * channels, step);
  for (int64_t l = l_first; l < MIN(l_last, conv->outputs); l += SLICE) {
    read_kernel(conv, l, kernel);
    for (int64_t block = 0; block < count; block += BLOCK_TILES) {
      const int64_t in_block = MIN(BLOCK_TILES, count - block);
      multiply_block(conv, images + block * channels, kernel, l, in_block, products);
      for (int64_t t = 0; t < in_block; ++t) write_output(conv, first + block + t, l, products + t * SLICE);
    }
  }
  free(products);
  free(kernel);
  free(images);
  free(zeros);
}

// Gradient: one group of tiles after another, whose transforms lie in the scratch: [36, group, K] of the images and
// [36, group, L] of the cotangents.

static void run_transforms(const Conv *conv, int64_t unit) {
  const int64_t last = MIN((unit + 1) * TRANSFORM_TILES, conv->count), group = conv->group;
  float *zeros = calloc(MAX(conv->channels, conv->outputs), sizeof(float));
  float *images = conv->scratch, *cotangents = conv->scratch + PLACES * group * conv->channels;
  for (int64_t t = unit * TRANSFORM_TILES; t < last; ++t) {
    read_images(conv, conv->first + t, zeros, images + t * conv->channels, group * conv->channels);
    read_cotangents(conv, conv->first + t, zeros, cotangents + t * conv->outputs, group * conv->outputs);
  }
  free(zeros);
}

// A unit is a slice of channels k and one of channels l.

INLINE void multiply_tiles(const Conv *conv, const float *images, const float *cotangents, int64_t second, float *to,
                           const int vectors) {
  vector sums[TILE][2] = {0};
  for (int64_t t = 0; t < conv->count; ++t, images += conv->channels, cotangents += conv->outputs)
    for (int v = 0; v < vectors; ++v)
      for (int c = 0; c < TILE; ++c) sums[c][v] += images[c] * load(cotangents + v * second);
  for (int c = 0; c < TILE; ++c)
    for (int v = 0; v < vectors; ++v) store(sums[c][v], to + c * SLICE + v * LANES);
}

static void write_gradient(const Conv *conv, int64_t k, int64_t l, const float *sums) {
  const int64_t second = second_vector(conv, l), lanes = MIN(SLICE, conv->outputs - l);
  float found[9][SLICE] __attribute__((aligned(64)));
  for (int v = 0; v < count_vectors(conv, l); ++v) {
    vector x[PLACES] __attribute__((aligned(64))), y[9] __attribute__((aligned(64)));
    for (int place = 0; place < PLACES; ++place) x[place] = load(sums + place * CHANNELS * SLICE + v * LANES);
    TRANSFORM(transform_kernel_back, WINDOW, 3, x, y);
    for (int place = 0; place < 9; ++place) store(y[place], found[place] + v * second);
  }
  for (int place = 0; place < 9; ++place) {
    float *to = conv->result + (place * conv->channels + k) * conv->outputs + l;
    for (int64_t lane = 0; lane < lanes; ++lane) to[lane] = found[place][lane] + (conv->first ? to[lane] : 0);
  }
}

static void run_gradient(const Conv *conv, int64_t unit) {
  const int64_t slices = divide_up(conv->outputs, SLICE), l = unit % slices * SLICE, second = second_vector(conv, l);
  const int64_t k = unit / slices * CHANNELS, channels = MIN(CHANNELS, conv->channels - k);
  const int64_t step = conv->group * conv->channels;
  float *sums = aligned_alloc(64, PLACES * CHANNELS * SLICE * sizeof(float));
  for (int64_t place = 0; place < PLACES; ++place)
    for (int64_t c = 0; c < channels; c += TILE) {
      const float *images = conv->scratch + place * step + k + c;
      const float *cotangents = conv->scratch + PLACES * step + place * conv->group * conv->outputs + l;
      float *to = sums + place * CHANNELS * SLICE + c * SLICE;
      if (count_vectors(conv, l) == 2) multiply_tiles(conv, images, cotangents, second, to, 2);
      else multiply_tiles(conv, images, cotangents, second, to, 1);
    }
  for (int64_t c = 0; c < channels; ++c) write_gradient(conv, k + c, l, sums + c * SLICE);
  free(sums);
}

// Arrays as in conv.c. K and L are multiples of 8, at least 16, and no slice of 32 of L holds fewer than 16: so each
// vector has a place.

// (images, kernel[, factor, shift[, residual]]) -> output
XLA_FFI_Error *minmax_winograd(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  Conv conv = read_output_call(frame);
  const int64_t tile_parts = MAX(1, divide_up(count_tiles(&conv), PART_TILES));
  const int64_t wanted = divide_up(UNITS * count_threads(frame), tile_parts);
  conv.parts = MIN(wanted, divide_up(conv.outputs, SLICE));
  return run_packed(frame, &conv, run_output, tile_parts * conv.parts);
}

// (images, cotangents) -> (gradient, scratch [36, group, K + L])
XLA_FFI_Error *minmax_winograd_kernel_gradient(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  Conv conv = read_call(frame, frame->args.args[1], frame->rets.rets[0]);
  const XLA_FFI_Buffer *scratch = frame->rets.rets[1];
  const int64_t tiles = count_tiles(&conv);
  const int64_t units = divide_up(conv.channels, CHANNELS) * divide_up(conv.outputs, SLICE);
  conv.scratch = scratch->data;
  conv.group = scratch->dims[1];
  XLA_FFI_Error *error = NULL;
  if (tiles == 0) memset(conv.result, 0, 9 * conv.channels * conv.outputs * sizeof(float));
  for (conv.first = 0; conv.first < tiles && error == NULL; conv.first += conv.group) {
    conv.count = MIN(conv.group, tiles - conv.first);
    error = run_units(frame, &conv, run_transforms, divide_up(conv.count, TRANSFORM_TILES));
    if (error == NULL) error = run_units(frame, &conv, run_gradient, units);
  }
  return error;
}
