// Work in units, shared by the threads of XLA's pool, and the memory for it.

#pragma once

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "vectors.h"
#include "xla/ffi/api/c_api.h"

// Threads of XLA's pool take units of work as long as there are any, each with its own scratch memory. One may start so
// late that all units are done and their data is gone.

typedef struct Conv Conv;
typedef void (*RunUnit)(const Conv *, int64_t unit, float *own);

typedef struct {
  const Conv *conv;
  RunUnit run;
  int64_t units, own_floats;
  atomic_long next, done;
  atomic_int users;
} Work;

static void leave(Work *work) {
  if (atomic_fetch_sub(&work->users, 1) == 1) free(work);
}

static float *allocate(int64_t floats) { return aligned_alloc(64, (divide_up(floats, 16) + 1) * 64); }

static void take_units(Work *work, float *own) {
  for (int64_t unit; (unit = atomic_fetch_add(&work->next, 1)) < work->units; atomic_fetch_add(&work->done, 1))
    work->run(work->conv, unit, own);
  free(own);
  leave(work);
}

static void help(void *data) {
  Work *work = data;
  float *own = atomic_load(&work->next) < work->units ? allocate(work->own_floats) : NULL;
  if (own != NULL) take_units(work, own);
  else leave(work);  // The other threads do all units.
}

static XLA_FFI_Error *out_of_memory(XLA_FFI_CallFrame *frame) {
  XLA_FFI_Error_Create_Args args = {
      .struct_size = sizeof args, .message = "Out of memory.", .errc = XLA_FFI_Error_Code_RESOURCE_EXHAUSTED};
  return frame->api->XLA_FFI_Error_Create(&args);
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

static XLA_FFI_Error *run_units(XLA_FFI_CallFrame *frame, const Conv *conv, RunUnit run, int64_t units,
                                int64_t own_floats) {
  XLA_FFI_Error *error = NULL;
  const int64_t helpers = MAX(MIN(count_threads(frame), units), 1) - 1;
  Work *work = malloc(sizeof(Work));
  float *own = allocate(own_floats);
  if (work == NULL || own == NULL) {
    free(own);
    free(work);
    return out_of_memory(frame);
  }
  *work = (Work){.conv = conv, .run = run, .units = units, .own_floats = own_floats};
  atomic_init(&work->next, 0);
  atomic_init(&work->done, 0);
  atomic_init(&work->users, helpers + 2);
  for (int64_t helper = 0; helper < helpers; ++helper) {
    XLA_FFI_ThreadPool_Schedule_Args task = {.struct_size = sizeof task, .ctx = frame->ctx, .task = help, .data = work};
    error = error ? error : frame->api->XLA_FFI_ThreadPool_Schedule(&task);
    if (error != NULL) leave(work);
  }
  take_units(work, own);
  while (atomic_load(&work->done) < units) sched_yield();
  leave(work);
  return error;
}
