// The grid encoding on CPU threads. Each sum into the table is formed by one thread, position after position: the
// result does not depend on how many threads there are.
#include "grid.h"

// Calls f with the number of features, as a constant if it is the usual one.
template <class F>
void by_features(int features, F f) {
  if (features == 2) f(Int<2>{});
  else f(features);
}

// Table and dy: (entries, F) and (levels, F, n), as y.
template <int D, bool ALONG, class T>
static void encode(const Wide<T> *x, const T *table, const Wide<T> *v, T *y, int64_t n, const Grid &grid,
                   intptr_t threads) {
  using X = Wide<T>;
  int64_t chunks = (n + CHUNK - 1) / CHUNK;
  parallel(chunks * grid.levels, threads, [&](int64_t job) {
    const Level level = grid.level[job / chunks];
    T *to = y + job / chunks * grid.features * n;
    by_features(grid.features, [&](auto features) {
      for (int64_t i = job % chunks * CHUNK; i < std::min(n, (job % chunks + 1) * CHUNK); i++) {
        auto cell = cell_of<D>(x + i * D, level.resolution, grid.smooth);
        uint32_t entries[1 << D];
        X w[1 << D], sum[MAX_FEATURES] = {};
        entries_of(level, cell, entries);
        weights_of<D, ALONG>(cell, v + i * D, w);
        UNROLL
        for (int c = 0; c < 1 << D; c++) {
          const T *entry = table + (int64_t)entries[c] * features;
          for (int f = 0; f < features; f++) sum[f] = fma(w[c], (X)number(entry[f]), sum[f]);
        }
        for (int f = 0; f < features; f++) put(to + f * n + i, sum[f]);
      }
    });
  });
}

template <int D, bool ALONG, class T>
static void table_grad(const Wide<T> *x, const T *dy, const Wide<T> *v, Wide<T> *out, int64_t n, const Grid &grid,
                       intptr_t threads) {
  using X = Wide<T>;
  parallel(grid.levels, threads, [&](int64_t l) {
    const Level level = grid.level[l];
    const T *from = dy + l * grid.features * n;
    by_features(grid.features, [&](auto features) {
      for (int64_t i = 0; i < n; i++) {
        auto cell = cell_of<D>(x + i * D, level.resolution, grid.smooth);
        uint32_t entries[1 << D];
        X w[1 << D], g[MAX_FEATURES];
        entries_of(level, cell, entries);
        weights_of<D, ALONG>(cell, v + i * D, w);
        for (int f = 0; f < features; f++) g[f] = number(from[f * n + i]);
        UNROLL
        for (int c = 0; c < 1 << D; c++) {
          X *entry = out + (int64_t)entries[c] * features;
          for (int f = 0; f < features; f++) entry[f] = fma(w[c], g[f], entry[f]);
        }
      }
    });
  });
}

EXPORT int grid_encode(int64_t type, const void *x, const void *table, const void *v, void *y, GRID_ARGUMENTS) {
  return by_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return by_shape(dims, v, [&](auto d, auto along) {
      encode<decltype(d)::value, decltype(along)::value>((const X *)x, (const T *)table, (const X *)v, (T *)y, n,
                                                         GRID, where);
      return 0;
    });
  });
}

// scale and copies are for the GPU's sums: here there is no scale, and one sum a level.
EXPORT int grid_table_grad(int64_t type, const void *x, const void *dy, const void *v, void *out, const void *,
                           const int64_t *, GRID_ARGUMENTS) {
  return by_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return by_shape(dims, v, [&](auto d, auto along) {
      table_grad<decltype(d)::value, decltype(along)::value>((const X *)x, (const T *)dy, (const X *)v, (X *)out, n,
                                                             GRID, where);
      return 0;
    });
  });
}

// (rows, columns) to (columns, rows), a strip of rows at a time.
EXPORT int grid_transpose(int64_t type, const void *from, void *to, int64_t rows, int64_t columns, intptr_t where) {
  return by_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    parallel((rows + CHUNK - 1) / CHUNK, where, [&](int64_t strip) {
      for (int64_t c = 0; c < columns; c++)
        for (int64_t r = strip * CHUNK; r < std::min(rows, (strip + 1) * CHUNK); r++)
          ((T *)to)[c * rows + r] = ((const T *)from)[r * columns + c];
    });
    return 0;
  });
}

EXPORT int grid_penalty_grad(int64_t type, const void *x, const void *table, const void *dy, void *out, const void *,
                             int64_t variation, GRID_ARGUMENTS) {
  return by_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return by_shape(dims, variation, [&](auto d, auto kind) {
      Grid grid = GRID;
      parallel(levels, where, [&](int64_t l) {
        auto add = [&](uint32_t entry, int f, X value) { ((X *)out)[(int64_t)entry * features + f] += value; };
        for (int64_t i = 0; i < n; i++)
          penalty_grad<decltype(d)::value, decltype(kind)::value>(grid, grid.level[l], (const X *)x + i * dims,
                                                                  (const T *)table, ((const X *)dy)[l * n + i], add);
      });
      return 0;
    });
  });
}
