// What CPU and GPU share of the grid encoding (Instant-NGP, section 3): levels, cells, corners and their weights.
//
// A position's value at a level is the sum over the 2^D corners of its cell of weight times entry. With a direction v
// the weights are replaced by their derivative along v, which gives every second derivative that normals need from
// the same three functions: encode (values), table_grad (gradient of the entries), input_grad (of the positions).
#pragma once

#include "common.h"

constexpr int MAX_LEVELS = 32, MAX_FEATURES = 8;

struct Level {
  int resolution;         // cells along an axis
  uint32_t offset, size;  // first entry and number of entries
  int side;               // 0: one entry a vertex; -1: hashed; else tiled, the pattern repeats after so many vertices
};

struct Grid {
  int levels, features;
  bool smooth;  // smoothstep instead of linear weights
  Level level[MAX_LEVELS];
};

// From arrays of `levels` resolutions and `levels` + 1 offsets. size is a power of two where a level is hashed.
inline Grid grid_of(int64_t dims, int64_t features, int64_t levels, const int64_t *resolutions, const int64_t *offsets,
                    int64_t hashed, int64_t smooth) {
  Grid g{(int)levels, (int)features, smooth != 0, {}};
  for (int i = 0; i < levels; i++) {
    int64_t size = offsets[i + 1] - offsets[i], vertices = 1, side = 1;
    for (int d = 0; d < dims && vertices <= size; d++) vertices *= resolutions[i] + 1;
    auto fits = [&](int64_t s) {
      int64_t volume = 1;
      for (int d = 0; d < dims; d++) volume *= s;
      return volume <= size;
    };
    if (vertices > size && !hashed)
      while (fits(side + 1)) side++;
    g.level[i] = {(int)resolutions[i], (uint32_t)offsets[i], (uint32_t)size,
                  vertices <= size ? 0 : hashed ? -1 : (int)side};
  }
  return g;
}

// Where a position lies at a level: the lowest corner of its cell, and along each axis the weight of the upper corner
// with its first and second derivative.
template <int D, class X>
struct Cell {
  int corner[D];
  X upper[D], slope[D], bend[D];
};

// Positions outside the unit cube count as the nearest one inside. NaN stays NaN, in the first cell.
template <int D, class X>
HD Cell<D, X> cell_of(const X *x, int resolution, bool smooth) {
  Cell<D, X> cell;
  X scale = (X)resolution;
  UNROLL
  for (int d = 0; d < D; d++) {
    X inside = x[d] < 0 ? X(0) : x[d] > 1 ? X(1) : x[d];
    int corner = inside > 0 ? (int)(inside * scale) : 0;
    if (corner >= resolution) corner = resolution - 1;
    // one rounding in all: at fine levels a product rounded first would leave few digits behind the point
    X t = fma(inside, scale, -(X)corner);
    if (t < 0 && corner > 0) t = fma(inside, scale, -(X)--corner);
    cell.corner[d] = corner;
    cell.upper[d] = smooth ? t * t * (3 - 2 * t) : t;
    bool moves = x[d] >= 0 && x[d] <= 1;
    cell.slope[d] = !moves ? X(0) : smooth ? 6 * t * (1 - t) * scale : scale;
    cell.bend[d] = moves && smooth ? 6 * (1 - 2 * t) * scale * scale : X(0);
  }
  return cell;
}

// Factor of an axis in the weight of a corner, and its derivatives; bit d of `corner` says lower or upper.
template <int D, class X>
HD X factor(const Cell<D, X> &cell, int corner, int d) {
  return corner >> d & 1 ? cell.upper[d] : 1 - cell.upper[d];
}

template <int D, class X>
HD X signed_by(int corner, int d, X value) {
  return corner >> d & 1 ? value : -value;
}

// Product of the factors of all axes but two (give the same axis twice to leave out one, or -1 for none).
template <int D, class X>
HD X product(const Cell<D, X> &cell, int corner, int without, int and_without) {
  X p = 1;
  UNROLL
  for (int d = 0; d < D; d++)
    if (d != without && d != and_without) p *= factor(cell, corner, d);
  return p;
}

// Takes the weights (value) of the corners of the axes before FIRST to those of all axes; `along`, with a direction, are
// their derivatives along v.
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

// The derivative of a corner's weight along axis d; with a direction, of the weight's derivative along v.
template <int D, bool ALONG, class X>
HD X weight_slope(const Cell<D, X> &cell, int corner, const X *v, int d) {
  X slope = signed_by<D>(corner, d, cell.slope[d]);
  if constexpr (!ALONG) return slope * product(cell, corner, d, d);
  X sum = v[d] * signed_by<D>(corner, d, cell.bend[d]) * product(cell, corner, d, d);
  UNROLL
  for (int k = 0; k < D; k++)
    if (k != d) sum += v[k] * slope * signed_by<D>(corner, k, cell.slope[k]) * product(cell, corner, d, k);
  return sum;
}

// What each axis adds to the number of an entry, at the lower and at the upper corner of a cell. Instant-NGP, equation 4;
// the fourth prime is ours.
template <int D, class X>
HD void terms_of(const Level &level, const Cell<D, X> &cell, uint32_t *low, uint32_t *high) {
  constexpr uint32_t primes[4] = {1u, 2654435761u, 805459861u, 3674653429u};
  uint32_t stride = 1, width = level.side ? (uint32_t)level.side : (uint32_t)level.resolution + 1;
  UNROLL
  for (int d = 0; d < D; d++) {
    uint32_t at = (uint32_t)cell.corner[d];
    if (level.side < 0) {
      low[d] = at * primes[d], high[d] = low[d] + primes[d];
    } else {
      low[d] = (level.side ? at % width : at) * stride;
      high[d] = (level.side ? (at + 1) % width : at + 1) * stride;
      stride *= width;
    }
  }
}

// Takes the term of the axes before FIRST, in out[0], to the entries in the whole table of all corners of the others.
template <int D, int FIRST>
HD void join_terms(const Level &level, const uint32_t *low, const uint32_t *high, uint32_t *out) {
  bool hashed = level.side < 0;
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
  for (int c = 0; c < 1 << (D - FIRST); c++) out[c] = level.offset + (hashed ? out[c] & (level.size - 1) : out[c]);
}

// The entries of all corners of a cell.
template <int D, class X>
HD void entries_of(const Level &level, const Cell<D, X> &cell, uint32_t *out) {
  uint32_t low[D], high[D];
  terms_of(level, cell, low, high);
  out[0] = 0;
  join_terms<D, 0>(level, low, high, out);
}

// One position: the gradient of <dy, y> in x, or with a direction that of <dy, dy/dx v>. dy is (levels, F, n).
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
      auto cell = cell_of<D>(x + i * D, grid.level[l].resolution, grid.smooth);
      uint32_t entries[1 << D];
      entries_of(grid.level[l], cell, entries);
      const T *from = dy + (int64_t)l * grid.features * n + i;
      UNROLL
      for (int c = 0; c < 1 << D; c++) {
        const T *entry = table + (int64_t)entries[c] * grid.features;
        X along = 0;
        for (int f = 0; f < grid.features; f++) along = fma((X)number(from[f * n]), (X)number(entry[f]), along);
        UNROLL
        for (int d = 0; d < D; d++)
          sum[d] = fma(weight_slope<D, ALONG>(cell, c, v + i * D, d), along, sum[d]);
      }
    }
    UNROLL
    for (int d = 0; d < D; d++) dx[i * D + d] = sum[d];
  }
};

// One (level, position): the penalty of the lowest corner of its cell. Total variation is the sum over the axes of the
// squared difference to the next vertex; weight decay is the squared entry itself.
template <int D, bool VARIATION, class T>
struct Penalty {
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
    entries_of(level, cell, entries);
    const T *here = table + (int64_t)entries[0] * grid.features;
    X sum = 0;
    for (int f = 0; f < grid.features; f++) {
      X value = number(here[f]);
      if constexpr (!VARIATION) sum = fma(value, value, sum);
      else
        for (int d = 0; d < D; d++) {
          X step = (X)number(table[(int64_t)entries[1 << d] * grid.features + f]) - value;
          sum = fma(step, step, sum);
        }
    }
    out[i] = sum;
  }
};

// What one (level, position) adds to the gradient of the table; add(entry, feature, value) does the adding.
template <int D, bool VARIATION, class T, class X, class Add>
HD void penalty_grad(const Grid &grid, const Level &level, const X *x, const T *table, X dy, Add add) {
  auto cell = cell_of<D>(x, level.resolution, false);
  uint32_t entries[1 << D], here;
  entries_of(level, cell, entries);
  here = entries[0];
  for (int f = 0; f < grid.features; f++) {
    X value = number(table[(int64_t)here * grid.features + f]);
    if constexpr (!VARIATION) add(here, f, 2 * dy * value);
    else
      for (int d = 0; d < D; d++) {
        uint32_t next = entries[1 << d];
        X change = 2 * dy * ((X)number(table[(int64_t)next * grid.features + f]) - value);
        add(next, f, change);
        add(here, f, -change);
      }
  }
}

// Calls f with the number of dimensions, and whether there is a direction (or a variation), as constants.
template <class F>
int by_shape(int64_t dims, bool flag, F f) {
  auto with = [&](auto d) { return flag ? f(d, std::true_type{}) : f(d, std::false_type{}); };
  switch (dims) {
    case 2: return with(Int<2>{});
    case 3: return with(Int<3>{});
    case 4: return with(Int<4>{});
  }
  return UNSUPPORTED;
}

// The functions of which grid.cpp and grid.cu each have their own: how values are laid out and sums are formed differs.
#define GRID_ARGUMENTS                                                                                               \
  int64_t n, int64_t dims, int64_t features, int64_t levels, const int64_t *resolutions, const int64_t *offsets,     \
      int64_t hashed, int64_t smooth, intptr_t where
#define GRID grid_of(dims, features, levels, resolutions, offsets, hashed, smooth)

EXPORT int grid_input_grad(int64_t type, const void *x, const void *table, const void *dy, const void *v, void *dx,
                           GRID_ARGUMENTS) {
  return by_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return by_shape(dims, v, [&](auto d, auto along) {
      using Work = InputGrad<decltype(d)::value, decltype(along)::value, T>;
      return each(n, where, Work{(const X *)x, (const T *)table, (const T *)dy, (const X *)v, (X *)dx, n, GRID});
    });
  });
}

EXPORT int grid_penalty(int64_t type, const void *x, const void *table, void *out, int64_t variation,
                        GRID_ARGUMENTS) {
  return by_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return by_shape(dims, variation, [&](auto d, auto kind) {
      using Work = Penalty<decltype(d)::value, decltype(kind)::value, T>;
      return each(n * levels, where, Work{(const X *)x, (const T *)table, (X *)out, n, GRID});
    });
  });
}
