// A convolution and its gradient to the kernel, for XLA on a CPU; native.py builds it, conv.py calls it.
//
//   output[b, y, x, l]   = sum over i, j, k of at(b, y, x, i, j)[k] * kernel[i, j, k, l]
//   gradient[i, j, k, l] = sum over b, y, x of at(b, y, x, i, j)[k] * cotangents[b, y, x, l]
//   at(b, y, x, i, j)    = images[b, y * stride + i - top, x * stride + j - left], or 0 outside of the images
//
// Tiles of the result, eight by two vectors of channels l, are summed in registers. Each number is summed by one thread
// in one order: the number of threads changes no result.

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define TILE 8            // pixels of the output, or channels k of the gradient
#define LINE 16           // floats of a line of the cache
#define BLOCK_ROWS 4      // of the output, that share what is read of the images
#define BLOCK_PIXELS 256  // of the gradient: the cotangents of a block stay in the cache for all tiles
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define INLINE static inline __attribute__((always_inline))

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));

typedef struct Job Job;
struct Job {
  const float *images, *kernel, *cotangents;
  float *result;
  int64_t batch, rows, columns, channels;     // of the images
  int64_t out_rows, out_columns, outputs;     // of the output or the cotangents
  int64_t kernel_rows, kernel_columns;
  int64_t stride, top, left;
  void (*run)(const Job *, int64_t unit);
  int64_t parts, units;  // parts: units that one slice of channels, or one image, is cut into
  atomic_long next, done;
  atomic_int users;
};

// Calls tile(..., channels or pixels, vectors) with constants, so that sums stay in registers.
#define DISPATCH(size, vectors, tile, ...)                                                        \
  switch (size) {                                                                                 \
    CASE(1, vectors, tile, __VA_ARGS__) CASE(2, vectors, tile, __VA_ARGS__)                       \
    CASE(3, vectors, tile, __VA_ARGS__) CASE(4, vectors, tile, __VA_ARGS__)                       \
    CASE(5, vectors, tile, __VA_ARGS__) CASE(6, vectors, tile, __VA_ARGS__)                       \
    CASE(7, vectors, tile, __VA_ARGS__) CASE(8, vectors, tile, __VA_ARGS__)                       \
  }
#define CASE(n, vectors, tile, ...)                                                               \
  case n:                                                                                         \
    if (vectors == 2) tile(__VA_ARGS__, n, 2);                                                    \
    else tile(__VA_ARGS__, n, 1);                                                                 \
    break;

// Of a tile at channel l: two vectors, the second shifted back into the first where fewer channels are left; or one; or
// none, where fewer are left than one holds.
INLINE int count_vectors(const Job *job, int64_t l) {
  const int64_t left = job->outputs - l;
  return left > LANES ? 2 : left == LANES;
}

INLINE int64_t second_vector(const Job *job, int64_t l) { return MIN(LANES, job->outputs - l - LANES); }

// Output: tiles of pixels. `rows` holds the rows of the images that a block needs, with their padding.

INLINE void output_tile(const Job *job, const float *rows, int64_t width, int64_t l, float *to, const int pixels,
                        const int vectors) {
  vector sums[TILE][2] = {0};
  const int64_t step = job->stride * job->channels, second = second_vector(job, l);
  const float *weights = job->kernel + l;
  for (int64_t i = 0; i < job->kernel_rows; ++i) {
    // The places of one row of the kernel lie side by side, as their weights do.
    const float *x = rows + i * width * job->channels;
    for (int64_t k = 0; k < job->kernel_columns * job->channels; ++k, ++x, weights += job->outputs)
      for (int v = 0; v < vectors; ++v) {
        const vector values = *(const vector *)(weights + v * second);
        for (int p = 0; p < pixels; ++p) sums[p][v] += x[p * step] * values;
      }
  }
  for (int p = 0; p < pixels; ++p)
    for (int v = 0; v < vectors; ++v) *(vector *)(to + p * job->outputs + v * second) = sums[p][v];
}

// The last channels l, fewer than a vector.
static void output_rest(const Job *job, const float *rows, int64_t width, int64_t l, float *to) {
  for (; l < job->outputs; ++l, ++to) {
    float sum = 0;
    for (int64_t i = 0; i < job->kernel_rows; ++i)
      for (int64_t k = 0; k < job->kernel_columns * job->channels; ++k)
        sum += rows[i * width * job->channels + k] *
               job->kernel[(i * job->kernel_columns * job->channels + k) * job->outputs + l];
    *to = sum;
  }
}

static void run_output(const Job *job, int64_t unit) {
  const int64_t b = unit / job->parts, first = unit % job->parts * BLOCK_ROWS;
  const int64_t count = MIN(BLOCK_ROWS, job->out_rows - first), needed = (count - 1) * job->stride + job->kernel_rows;
  const int64_t width = (job->out_columns - 1) * job->stride + job->kernel_columns, line = width * job->channels;
  const int64_t inside = MIN(job->columns, width - job->left);
  float *rows = calloc(needed * line, sizeof(float));
  for (int64_t row = 0; row < needed; ++row) {
    const int64_t y = first * job->stride - job->top + row;
    if (0 <= y && y < job->rows)
      memcpy(rows + row * line + job->left * job->channels,
             job->images + (b * job->rows + y) * job->columns * job->channels,
             inside * job->channels * sizeof(float));
  }
  for (int64_t l = 0; l < job->outputs; l += 2 * LANES) {
    const int vectors = count_vectors(job, l);
    for (int64_t y = 0; y < count; ++y) {
      float *to = job->result + ((b * job->out_rows + first + y) * job->out_columns) * job->outputs + l;
      for (int64_t x = 0; x < job->out_columns; x += TILE) {
        const float *from = rows + y * job->stride * line + x * job->stride * job->channels;
        const int64_t pixels = MIN(TILE, job->out_columns - x);
        if (vectors) {
          DISPATCH(pixels, vectors, output_tile, job, from, width, l, to + x * job->outputs)
        } else {
          for (int64_t p = 0; p < pixels; ++p)
            output_rest(job, from + p * job->stride * job->channels, width, l, to + (x + p) * job->outputs);
        }
      }
    }
  }
  free(rows);
}

// Gradient: tiles of channels k.

typedef struct {
  int64_t first, last;  // rows of the cotangents, counted over the whole batch
  int64_t i, j, k, l;
} Place;

// For each row of the cotangents that meets the images: the first pixels of both that meet, and how many.
INLINE int64_t meet(const Job *job, const Place *at, int64_t row, const float **x, const float **g) {
  const int64_t b = row / job->out_rows, y = row % job->out_rows * job->stride + at->i - job->top;
  const int64_t offset = at->j - job->left;  // column x * stride + offset of the images meets column x
  if (y < 0 || y >= job->rows || offset >= job->columns) return 0;
  const int64_t first = MAX(0, (job->stride - 1 - offset) / job->stride);
  const int64_t last = MIN(job->out_columns, (job->columns - 1 - offset) / job->stride + 1);
  *x = job->images + ((b * job->rows + y) * job->columns + first * job->stride + offset) * job->channels + at->k;
  *g = job->cotangents + (row * job->out_columns + first) * job->outputs + at->l;
  return last - first;
}

INLINE float *gradient_at(const Job *job, const Place *at) {
  return job->result + ((at->i * job->kernel_columns + at->j) * job->channels + at->k) * job->outputs + at->l;
}

INLINE void gradient_tile(const Job *job, const Place *at, const int channels, const int vectors) {
  vector sums[TILE][2] = {0};
  const int64_t second = second_vector(job, at->l);
  const float *x, *g;
  for (int64_t row = at->first; row < at->last; ++row)
    for (int64_t left = meet(job, at, row, &x, &g); left > 0; --left) {
      for (int v = 0; v < vectors; ++v) {
        const vector values = *(const vector *)(g + v * second);
        for (int c = 0; c < channels; ++c) sums[c][v] += x[c] * values;
      }
      x += job->stride * job->channels;
      g += job->outputs;
    }
  float *to = gradient_at(job, at);
  for (int c = 0; c < channels; ++c, to += job->outputs) {
    *(vector *)to += sums[c][0];
    if (vectors == 2 && second == LANES) *(vector *)(to + LANES) += sums[c][1];
    // What both vectors hold is added once.
    if (vectors == 2 && second < LANES)
      for (int64_t lane = LANES - second; lane < LANES; ++lane) to[second + lane] += sums[c][1][lane];
  }
}

static void gradient_rest(const Job *job, const Place *at, int64_t channels) {
  const int64_t lanes = job->outputs - at->l;
  float sums[TILE][LANES] = {{0}};
  const float *x, *g;
  for (int64_t row = at->first; row < at->last; ++row)
    for (int64_t left = meet(job, at, row, &x, &g); left > 0; --left) {
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t lane = 0; lane < lanes; ++lane) sums[c][lane] += x[c] * g[lane];
      x += job->stride * job->channels;
      g += job->outputs;
    }
  float *to = gradient_at(job, at);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t lane = 0; lane < lanes; ++lane) to[c * job->outputs + lane] += sums[c][lane];
}

static void gradient_tiles(const Job *job, Place at, int64_t channels) {
  for (at.l = 0; at.l < job->outputs; at.l += 2 * LANES) {
    const int vectors = count_vectors(job, at.l);
    if (vectors) {
      DISPATCH(channels, vectors, gradient_tile, job, &at)
    } else {
      gradient_rest(job, &at, channels);
    }
  }
}

static void run_gradient(const Job *job, int64_t unit) {
  const int64_t k_first = unit / job->parts * LINE, k_last = MIN(k_first + LINE, job->channels);
  const int64_t i_first = job->parts == 1 ? 0 : unit % job->parts;
  const int64_t i_last = job->parts == 1 ? job->kernel_rows : i_first + 1;
  const int64_t rows = job->batch * job->out_rows, step = BLOCK_PIXELS / job->out_columns + 1;
  for (int64_t i = i_first; i < i_last; ++i)
    for (int64_t j = 0; j < job->kernel_columns; ++j)
      memset(gradient_at(job, &(Place){.i = i, .j = j, .k = k_first}), 0,
             (k_last - k_first) * job->outputs * sizeof(float));
  for (int64_t row = 0; row < rows; row += step)
    for (int64_t i = i_first; i < i_last; ++i)
      for (int64_t j = 0; j < job->kernel_columns; ++j)
        for (int64_t k = k_first; k < k_last; k += TILE)
          gradient_tiles(job, (Place){row, MIN(row + step, rows), i, j, k, 0}, MIN(TILE, k_last - k));
}

// Threads of XLA's pool take units as long as there are any. One may come so late that the call is over.

static void leave(Job *job) {
  if (atomic_fetch_sub(&job->users, 1) == 1) free(job);
}

static void help(void *data) {
  Job *job = data;
  for (int64_t unit; (unit = atomic_fetch_add(&job->next, 1)) < job->units; atomic_fetch_add(&job->done, 1))
    job->run(job, unit);
  leave(job);
}

static int64_t count_threads(XLA_FFI_CallFrame *frame) {
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {.struct_size = sizeof args, .ctx = frame->ctx, .num_threads = &threads};
  XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_NumThreads(&args);
  if (error == NULL) return threads;
  XLA_FFI_Error_Destroy_Args gone = {.struct_size = sizeof gone, .error = error};
  frame->api->XLA_FFI_Error_Destroy(&gone);
  return 1;
}

static XLA_FFI_Error *run(XLA_FFI_CallFrame *frame, Job *job, int64_t threads) {
  XLA_FFI_Error *error = NULL;
  const int64_t helpers = MAX(MIN(threads, job->units), 1) - 1;
  atomic_init(&job->next, 0);
  atomic_init(&job->done, 0);
  atomic_init(&job->users, helpers + 2);
  for (int64_t helper = 0; helper < helpers; ++helper) {
    XLA_FFI_ThreadPool_Schedule_Args task = {.struct_size = sizeof task, .ctx = frame->ctx, .task = help, .data = job};
    error = error ? error : frame->api->XLA_FFI_ThreadPool_Schedule(&task);
    if (error != NULL) leave(job);
  }
  help(job);
  while (atomic_load(&job->done) < job->units) sched_yield();
  leave(job);
  return error;
}

static int64_t attribute(const XLA_FFI_CallFrame *frame, const char *name) {
  for (int64_t at = 0; at < frame->attrs.size; ++at) {
    const XLA_FFI_ByteSpan *found = frame->attrs.names[at];
    if (found->len == strlen(name) && !memcmp(found->ptr, name, found->len))
      return *(const int64_t *)((const XLA_FFI_Scalar *)frame->attrs.attrs[at])->value;
  }
  abort();  // conv.py gives them all
}

static int describes_itself(XLA_FFI_CallFrame *frame) {
  XLA_FFI_Extension_Base *extension = frame->extension_start;
  if (extension == NULL || extension->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)extension)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  metadata->traits = 0;
  return 1;
}

static Job *create(XLA_FFI_CallFrame *frame, const XLA_FFI_Buffer *output, const XLA_FFI_Buffer *kernel) {
  const XLA_FFI_Buffer *images = frame->args.args[0];
  Job *job = malloc(sizeof(Job));
  *job = (Job){
      .images = images->data,
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
  return job;
}

// All arrays are float32: images [B, H, W, K], kernels [kh, kw, K, L], outputs and cotangents [B, h, w, L].

// (images, kernel) -> output
XLA_FFI_Error *minmax_conv(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  Job *job = create(frame, frame->rets.rets[0], frame->args.args[1]);
  job->kernel = ((XLA_FFI_Buffer *)frame->args.args[1])->data;
  job->run = run_output;
  job->parts = (job->out_rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
  job->units = job->batch * job->parts;
  return run(frame, job, count_threads(frame));
}

// (images, cotangents) -> gradient
XLA_FFI_Error *minmax_conv_kernel_gradient(XLA_FFI_CallFrame *frame) {
  if (describes_itself(frame)) return NULL;
  const int64_t threads = count_threads(frame);
  Job *job = create(frame, frame->args.args[1], frame->rets.rets[0]);
  const int64_t slices = (job->channels + LINE - 1) / LINE;
  job->cotangents = ((XLA_FFI_Buffer *)frame->args.args[1])->data;
  job->run = run_gradient;
  job->parts = slices < 2 * threads ? job->kernel_rows : 1;
  job->units = slices * job->parts;
  return run(frame, job, threads);
}
