// The grid encoding on CPU and GPU (Instant-NGP, section 3): levels, cells, corners and their
// weights.
//
// A position's value at a level is the sum over the 2^D corners of its cell of weight times entry.
// With a direction v the weights are replaced by their derivatives along v. So the same three
// functions give every second derivative: encode (values), table_grad (gradient of the entries),
// input_grad (of the positions).
#pragma once

#include "common.h"

constexpr int MAX_LEVELS = 32, MAX_FEATURES = 8;

struct Level {
  int resolution;         // cells along an axis
  uint32_t offset, size;  // first entry and number of entries
  int tile;               // 0: one entry per vertex; -1: hashed; else side of the tiles in vertices
};

struct Grid {
  int levels, features;
  bool smoothstep;  // else linear
  Level level[MAX_LEVELS];
};

// From `levels` resolutions and `levels` + 1 offsets. The size of a hashed level is a power of two.
inline Grid make_grid(int64_t dims, int64_t features, int64_t levels, const int64_t *resolutions,
                      const int64_t *offsets, int64_t hashed, int64_t smoothstep) {
  Grid g{(int)levels, (int)features, smoothstep != 0, {}};
  for (int i = 0; i < levels; i++) {
    int64_t size = offsets[i + 1] - offsets[i], vertices = 1, tile = 1;
    for (int d = 0; d < dims && vertices <= size; d++) vertices *= resolutions[i] + 1;
    auto fits = [&](int64_t s) {
      int64_t volume = 1;
      for (int d = 0; d < dims; d++) volume *= s;
      return volume <= size;
    };
    if (vertices > size && !hashed)
      while (fits(tile + 1)) tile++;
    g.level[i] = {(int)resolutions[i], (uint32_t)offsets[i], (uint32_t)size,
                  vertices <= size ? 0
                  : hashed         ? -1
                                   : (int)tile};
  }
  return g;
}

// A position at a level: the lowest corner of its cell, and along each axis the weight of the upper
// corner with its first and second derivative.
template <int D, class X>
struct Cell {
  int corner[D];
  X upper[D], slope[D], curvature[D];
};

// Positions outside the unit cube count as the nearest one inside. NaN stays NaN, in the first
// cell.
template <int D, class X>
HD Cell<D, X> cell_of(const X *x, int resolution, bool smoothstep) {
  Cell<D, X> cell;
  X scale = (X)resolution;
  UNROLL
  for (int d = 0; d < D; d++) {
    X inside = x[d] < 0 ? X(0) : x[d] > 1 ? X(1) : x[d];
    int corner = inside > 0 ? (int)(inside * scale) : 0;
    if (corner >= resolution) corner = resolution - 1;
    // With one rounding: at fine levels a product rounded first would leave few fractional digits.
    X t = fma(inside, scale, -(X)corner);
    if (t < 0 && corner > 0) t = fma(inside, scale, -(X)--corner);
    cell.corner[d] = corner;
    cell.upper[d] = smoothstep ? t * t * (3 - 2 * t) : t;
    bool inside_cube = x[d] >= 0 && x[d] <= 1;
    cell.slope[d] = !inside_cube ? X(0) : smoothstep ? 6 * t * (1 - t) * scale : scale;
    cell.curvature[d] = inside_cube && smoothstep ? 6 * (1 - 2 * t) * scale * scale : X(0);
  }
  return cell;
}

// Factor of axis d in the weight of a corner; bit d of `corner` is 1 for the upper end.
template <int D, class X>
HD X factor(const Cell<D, X> &cell, int corner, int d) {
  return corner >> d & 1 ? cell.upper[d] : 1 - cell.upper[d];
}

template <int D, class X>
HD X signed_by(int corner, int d, X value) {
  return corner >> d & 1 ? value : -value;
}

// Product of the factors of all axes but two (which may be the same).
template <int D, class X>
HD X product(const Cell<D, X> &cell, int corner, int without, int and_without) {
  X p = 1;
  UNROLL
  for (int d = 0; d < D; d++)
    if (d != without && d != and_without) p *= factor(cell, corner, d);
  return p;
}

// Extend the weights (value) of the corners of the axes before FIRST to all axes; with a direction,
// `along` are their derivatives along v.
template <int D, int FIRST, bool ALONG, class X>
HD void spread_weights(const Cell<D, X> &cell, const X *v, X *value, X *along) {
  UNROLL
  for (int d = FIRST; d < D; d++) {
    X upper = cell.upper[d], lower = 1 - upper, slope = ALONG ? v[d] * cell.slope[d] : X(0);
    UNROLL
    for (int c = 0; c < 1 << (d - FIRST); c++) {
      int other = c | 1 << (d - FIRST);
      if constexpr (ALONG) {
        along[other] = fma(along[c], upper, value[c] * slope);
        along[c] = fma(along[c], lower, -value[c] * slope);
      }
      value[other] = value[c] * upper;
      value[c] *= lower;
    }
  }
}

// The weights of all corners, or with a direction their derivatives along v.
template <int D, bool ALONG, class X>
HD void weights_of(const Cell<D, X> &cell, const X *v, X *out) {
  X value[1 << D] = {1}, along[1 << D] = {0};
  spread_weights<D, 0, ALONG>(cell, v, value, along);
  UNROLL
  for (int c = 0; c < 1 << D; c++) out[c] = ALONG ? along[c] : value[c];
}

// The derivative of a corner's weight along axis d; with a direction, of the weight's derivative
// along v.
template <int D, bool ALONG, class X>
HD X weight_slope(const Cell<D, X> &cell, int corner, const X *v, int d) {
  X slope = signed_by<D>(corner, d, cell.slope[d]);
  if constexpr (!ALONG) return slope * product(cell, corner, d, d);
  X sum = v[d] * signed_by<D>(corner, d, cell.curvature[d]) * product(cell, corner, d, d);
  UNROLL
  for (int k = 0; k < D; k++)
    if (k != d)
      sum += v[k] * slope * signed_by<D>(corner, k, cell.slope[k]) * product(cell, corner, d, k);
  return sum;
}

// Terms of each axis in the index of an entry, at the lower and at the upper end of a cell.
// Instant-NGP, equation 4; the fourth prime is ours.
template <int D, class X>
HD void axis_terms(const Level &level, const Cell<D, X> &cell, uint32_t *low, uint32_t *high) {
  constexpr uint32_t primes[4] = {1u, 2654435761u, 805459861u, 3674653429u};
  uint32_t stride = 1, width = level.tile ? (uint32_t)level.tile : (uint32_t)level.resolution + 1;
  UNROLL
  for (int d = 0; d < D; d++) {
    uint32_t at = (uint32_t)cell.corner[d];
    if (level.tile < 0) {
      low[d] = at * primes[d], high[d] = low[d] + primes[d];
    } else {
      low[d] = (level.tile ? at % width : at) * stride;
      high[d] = (level.tile ? (at + 1) % width : at + 1) * stride;
      stride *= width;
    }
  }
}

// Extend out[0], the term of the axes before FIRST, to the table entries of all corners of the
// others.
template <int D, int FIRST>
HD void join_terms(const Level &level, const uint32_t *low, const uint32_t *high, uint32_t *out) {
  bool hashed = level.tile < 0;
  UNROLL
  for (int d = FIRST; d < D; d++) {
    UNROLL
    for (int c = 0; c < 1 << (d - FIRST); c++) {
      int other = c | 1 << (d - FIRST);
      out[other] = hashed ? out[c] ^ high[d] : out[c] + high[d];
      out[c] = hashed ? out[c] ^ low[d] : out[c] + low[d];
    }
  }
  UNROLL
  for (int c = 0; c < 1 << (D - FIRST); c++)
    out[c] = level.offset + (hashed ? out[c] & (level.size - 1) : out[c]);
}

// The table entries of all corners of a cell.
template <int D, class X>
HD void corner_entries(const Level &level, const Cell<D, X> &cell, uint32_t *out) {
  uint32_t low[D], high[D];
  axis_terms(level, cell, low, high);
  out[0] = 0;
  join_terms<D, 0>(level, low, high, out);
}

// One position: the gradient of <dy, y> in x; with a direction that of <dy, dy/dx v>. dy: (levels,
// F, n).
template <int D, bool ALONG, class T>
struct InputGrad {
  using X = Wide<T>;
  const X *x;
  const T *table, *dy;
  const X *v;
  X *dx;
  int64_t n;
  Grid grid;

  HD void operator()(int64_t i) const {
    X sum[D] = {};
    for (int l = 0; l < grid.levels; l++) {
      auto cell = cell_of<D>(x + i * D, grid.level[l].resolution, grid.smoothstep);
      uint32_t entries[1 << D];
      corner_entries(grid.level[l], cell, entries);
      const T *from = dy + (int64_t)l * grid.features * n + i;
      UNROLL
      for (int c = 0; c < 1 << D; c++) {
        const T *entry = table + (int64_t)entries[c] * grid.features;
        X along = 0;
        for (int f = 0; f < grid.features; f++)
          along = fma((X)widen(from[f * n]), (X)widen(entry[f]), along);
        UNROLL
        for (int d = 0; d < D; d++)
          sum[d] = fma(weight_slope<D, ALONG>(cell, c, v + i * D, d), along, sum[d]);
      }
    }
    UNROLL
    for (int d = 0; d < D; d++) dx[i * D + d] = sum[d];
  }
};

// One (level, position): the squared differences from the lowest corner of its cell to the next
// vertex along each axis, summed.
template <int D, class T>
struct Variation {
  using X = Wide<T>;
  const X *x;
  const T *table;
  X *out;  // (levels, n)
  int64_t n;
  Grid grid;

  HD void operator()(int64_t i) const {
    const Level &level = grid.level[i / n];
    auto cell = cell_of<D>(x + i % n * D, level.resolution, false);
    uint32_t entries[1 << D];
    corner_entries(level, cell, entries);
    const T *lowest = table + (int64_t)entries[0] * grid.features;
    X sum = 0;
    for (int f = 0; f < grid.features; f++) {
      X value = widen(lowest[f]);
      for (int d = 0; d < D; d++) {
        X step = (X)widen(table[(int64_t)entries[1 << d] * grid.features + f]) - value;
        sum = fma(step, step, sum);
      }
    }
    out[i] = sum;
  }
};

// Add the gradient of one (level, position) to the table by add(entry, feature, value).
template <int D, class T, class X, class Add>
HD void add_variation_grad(const Grid &grid, const Level &level, const X *x, const T *table, X dy,
                           Add add) {
  auto cell = cell_of<D>(x, level.resolution, false);
  uint32_t entries[1 << D];
  corner_entries(level, cell, entries);
  for (int f = 0; f < grid.features; f++) {
    X value = widen(table[(int64_t)entries[0] * grid.features + f]);
    for (int d = 0; d < D; d++) {
      uint32_t next = entries[1 << d];
      X change = 2 * dy * ((X)widen(table[(int64_t)next * grid.features + f]) - value);
      add(next, f, change);
      add(entries[0], f, -change);
    }
  }
}

// Call f with the number of dimensions as a constant.
template <class F>
int dispatch_dims(int64_t dims, F f) {
  switch (dims) {
    case 2: return f(Int<2>{});
    case 3: return f(Int<3>{});
    case 4: return f(Int<4>{});
  }
  return UNSUPPORTED;
}

// Call f with the number of dimensions, and whether there is a direction, as constants.
template <class F>
int dispatch_shape(int64_t dims, bool has_direction, F f) {
  return dispatch_dims(dims, [&](auto d) {
    return has_direction ? f(d, std::true_type{}) : f(d, std::false_type{});
  });
}

// Common arguments of the functions, of which grid.cpp and grid.cu implement some differently.
#define GRID_ARGUMENTS                                                                   \
  int64_t n, int64_t dims, int64_t features, int64_t levels, const int64_t *resolutions, \
      const int64_t *offsets, int64_t hashed, int64_t smoothstep, intptr_t threads_or_stream
#define GRID make_grid(dims, features, levels, resolutions, offsets, hashed, smoothstep)

EXPORT int grid_input_grad(int64_t type, const void *x, const void *table, const void *dy,
                           const void *v, void *dx, GRID_ARGUMENTS) {
  return dispatch_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return dispatch_shape(dims, v, [&](auto d, auto along) {
      using Work = InputGrad<decltype(d)::value, decltype(along)::value, T>;
      return for_each(
          n, threads_or_stream,
          Work{(const X *)x, (const T *)table, (const T *)dy, (const X *)v, (X *)dx, n, GRID});
    });
  });
}

EXPORT int grid_variation(int64_t type, const void *x, const void *table, void *out,
                          GRID_ARGUMENTS) {
  return dispatch_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return dispatch_dims(dims, [&](auto d) {
      using Work = Variation<decltype(d)::value, T>;
      return for_each(n * levels, threads_or_stream,
                      Work{(const X *)x, (const T *)table, (X *)out, n, GRID});
    });
  });
}
