// What the C files have in common: vectors, shapes, threads of XLA's pool, the order of the kernel, and what follows the
// sums.

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
// Pixels, or channels, whose sums stay in registers: TILE times two vectors, beside two of weights and one more.
#if defined(__AVX512F__) || defined(__aarch64__)
#define TILE 8  // of 32 registers
#else
#define TILE 6  // of 16
#endif
#define SLICE (2 * LANES)  // channels l that are computed together
#define UNITS 4            // of the output, wanted for each thread
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define INLINE static inline __attribute__((always_inline))

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t mask __attribute__((vector_size(4 * LANES), aligned(4)));

INLINE vector load(const float *from) { return *(const vector *)from; }

INLINE void store(vector values, float *to) { *(vector *)to = values; }

// The first `lanes` of a vector.
INLINE vector load_some(const float *from, int64_t lanes) {
  vector values = {0};
  if (lanes >= LANES) return load(from);
  memcpy(&values, from, lanes * sizeof(float));
  return values;
}

INLINE void store_some(vector values, float *to, int64_t lanes) {
  if (lanes >= LANES) store(values, to);
  else memcpy(to, &values, lanes * sizeof(float));
}

INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Of a slice, where `left` channels are left.
INLINE int count_vectors(int64_t left) { return left > LANES ? 2 : 1; }

// The size of the next tile where `left` are left. All are nearly of one size: a small one keeps the processor waiting.
INLINE int64_t next_tile(int64_t left) { return divide_up(left, divide_up(left, TILE)); }

// Adds to the sums of a tile: numbers of the images, `step` apart, times vectors of weights, `second` apart.
INLINE void add_products(vector sums[TILE][2], const float *images, int64_t step, const float *weights, int64_t second,
                         const int size, const int vectors) {
  vector values[2];
  for (int v = 0; v < vectors; ++v) values[v] = load(weights + v * second);
  for (int t = 0; t < size; ++t) {
    const vector x = images[t * step] - (vector){0};
    for (int v = 0; v < vectors; ++v) sums[t][v] += x * values[v];
  }
}

typedef struct {
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
} Conv;

// Calls tile(..., size, vectors) with constants, so that sums stay in registers.
#define DISPATCH(size, vectors, tile, ...)                                  \
  switch (size) {                                                           \
    CASE(1, vectors, tile, __VA_ARGS__) CASE(2, vectors, tile, __VA_ARGS__) \
    CASE(3, vectors, tile, __VA_ARGS__) CASE(4, vectors, tile, __VA_ARGS__) \
    CASE(5, vectors, tile, __VA_ARGS__) CASE(6, vectors, tile, __VA_ARGS__) \
    LARGE_CASES(vectors, tile, __VA_ARGS__)                                 \
  }
#if TILE == 8
#define LARGE_CASES(vectors, tile, ...) CASE(7, vectors, tile, __VA_ARGS__) CASE(8, vectors, tile, __VA_ARGS__)
#else
#define LARGE_CASES(vectors, tile, ...)
#endif
#define CASE(n, vectors, tile, ...)                 \
  case n:                                           \
    if (vectors == 2) tile(__VA_ARGS__, n, 2);      \
    else tile(__VA_ARGS__, n, 1);                   \
    break;

// Threads of XLA's pool take units of work as long as there are any. One may come so late that all are done, and what
// it would work on is gone.

typedef void (*RunUnit)(const Conv *, int64_t unit);

typedef struct {
  const Conv *conv;
  RunUnit run;
  int64_t units;
  atomic_long next, done;
  atomic_int users;
} Work;

static void leave(Work *work) {
  if (atomic_fetch_sub(&work->users, 1) == 1) free(work);
}

static void help(void *data) {
  Work *work = data;
  for (int64_t unit; (unit = atomic_fetch_add(&work->next, 1)) < work->units; atomic_fetch_add(&work->done, 1))
    work->run(work->conv, unit);
  leave(work);
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

static XLA_FFI_Error *run_units(XLA_FFI_CallFrame *frame, const Conv *conv, RunUnit run, int64_t units) {
  XLA_FFI_Error *error = NULL;
  const int64_t helpers = MAX(MIN(count_threads(frame), units), 1) - 1;
  Work *work = malloc(sizeof(Work));
  *work = (Work){.conv = conv, .run = run, .units = units};
  atomic_init(&work->next, 0);
  atomic_init(&work->done, 0);
  atomic_init(&work->users, helpers + 2);
  for (int64_t helper = 0; helper < helpers; ++helper) {
    XLA_FFI_ThreadPool_Schedule_Args task = {.struct_size = sizeof task, .ctx = frame->ctx, .task = help, .data = work};
    error = error ? error : frame->api->XLA_FFI_ThreadPool_Schedule(&task);
    if (error != NULL) leave(work);
  }
  help(work);
  while (atomic_load(&work->done) < units) sched_yield();
  leave(work);
  return error;
}

// The kernel in the order in which it is read, [slices of L, kh, kw, K, SLICE]; a unit is one place of one slice. What
// the last slice lacks is 0. `factor` is taken in here.
static void pack(const Conv *conv, int64_t unit) {
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
static XLA_FFI_Error *run_packed(XLA_FFI_CallFrame *frame, Conv *conv, RunUnit run, int64_t units) {
  const int64_t packs = divide_up(conv->outputs, SLICE) * conv->kernel_rows * conv->kernel_columns;
  conv->weights = malloc(packs * conv->channels * SLICE * sizeof(float));
  XLA_FFI_Error *error = run_units(frame, conv, pack, packs);
  if (error == NULL) error = run_units(frame, conv, run, units);
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
