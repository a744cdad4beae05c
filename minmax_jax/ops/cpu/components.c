// Boxes of the connected regions of a map at all of its thresholds, in one pass from high to low.
//
// Pixels join the regions of those neighbours, of eight, that are there already (union-find). A region carries its
// area and box, so that a threshold costs its live regions, not its pixels.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  int32_t top, left, bottom, right;  // inclusive
} Box;

typedef struct {
  Box box;
  int32_t area, first;  // first: the minimum index of its pixels
} Region;

static int32_t find(int32_t* parent, int32_t i) {
  while (parent[i] != i) i = parent[i] = parent[parent[i]];
  return i;
}

static int32_t minimum(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t maximum(int32_t a, int32_t b) { return a > b ? a : b; }

static double overlap(Box a, Box b) {
  const double height = minimum(a.bottom, b.bottom) - maximum(a.top, b.top) + 1;
  const double width = minimum(a.right, b.right) - maximum(a.left, b.left) + 1;
  if (height <= 0 || width <= 0) return 0;
  const double both = height * width;
  const double of_a = (double)(a.bottom - a.top + 1) * (a.right - a.left + 1);
  const double of_b = (double)(b.bottom - b.top + 1) * (b.right - b.left + 1);
  return both / (of_a + of_b - both);
}

static void join(int32_t* parent, Region* regions, int32_t a, int32_t b) {
  a = find(parent, a), b = find(parent, b);
  if (a == b) return;
  if (regions[a].area < regions[b].area) {
    const int32_t swapped = a;
    a = b, b = swapped;
  }
  parent[b] = a;
  Region* to = &regions[a];
  const Region* from = &regions[b];
  to->area += from->area;
  to->first = minimum(to->first, from->first);
  to->box.top = minimum(to->box.top, from->box.top);
  to->box.left = minimum(to->box.left, from->box.left);
  to->box.bottom = maximum(to->box.bottom, from->box.bottom);
  to->box.right = maximum(to->box.right, from->box.right);
}

// levels: [height, width]. truth: [num_truth] boxes. For each v in 0 ... 255, of the regions of {level > v}:
// largest[v] is the overlap of the largest region's box with the true box that it overlaps most, best[v] the maximum
// overlap of any; both 0 where there is no region. Returns 0, or 1 without memory.
int minmax_box_overlaps(const uint8_t* levels, int32_t height, int32_t width, const Box* truth, int32_t num_truth,
                        double* largest, double* best) {
  const int32_t count = height * width;
  int32_t* order = malloc(count * sizeof(int32_t));
  int32_t* parent = malloc(count * sizeof(int32_t));
  int32_t* live = malloc(count * sizeof(int32_t));
  Region* regions = malloc(count * sizeof(Region));
  const int failed = !order || !parent || !live || !regions;
  if (failed) goto end;
  int32_t starts[257] = {0};
  for (int32_t i = 0; i < count; ++i) ++starts[levels[i] + 1];
  for (int v = 0; v < 256; ++v) starts[v + 1] += starts[v];
  int32_t next[256];
  memcpy(next, starts, sizeof(next));
  for (int32_t i = 0; i < count; ++i) order[next[levels[i]]++] = i;
  for (int32_t i = 0; i < count; ++i) parent[i] = -1;
  int32_t num_live = 0;
  largest[255] = best[255] = 0;
  for (int v = 254; v >= 0; --v) {
    for (int32_t k = starts[v + 1]; k < starts[v + 2]; ++k) {
      const int32_t i = order[k], y = i / width, x = i % width;
      parent[i] = i;
      regions[i] = (Region){{y, x, y, x}, 1, i};
      for (int32_t ny = maximum(y - 1, 0); ny <= minimum(y + 1, height - 1); ++ny)
        for (int32_t nx = maximum(x - 1, 0); nx <= minimum(x + 1, width - 1); ++nx)
          if (parent[ny * width + nx] >= 0) join(parent, regions, i, ny * width + nx);
      live[num_live++] = i;
    }
    int32_t kept = 0;
    for (int32_t k = 0; k < num_live; ++k)
      if (parent[live[k]] == live[k]) live[kept++] = live[k];
    num_live = kept;
    const Region* maximum = NULL;
    largest[v] = best[v] = 0;
    for (int32_t k = 0; k < num_live; ++k) {
      const Region* region = &regions[live[k]];
      double overlaps = 0;
      for (int32_t t = 0; t < num_truth; ++t) {
        const double with = overlap(region->box, truth[t]);
        if (with > overlaps) overlaps = with;
      }
      if (overlaps > best[v]) best[v] = overlaps;
      if (!maximum || region->area > maximum->area ||
          (region->area == maximum->area && region->first < maximum->first)) {
        maximum = region;
        largest[v] = overlaps;
      }
    }
  }
end:
  free(order), free(parent), free(live), free(regions);
  return failed;
}
