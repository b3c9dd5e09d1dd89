// The grid encoding on CPU threads. Each table entry is summed by one thread, position after
// position, so the result does not depend on the number of threads.
#include "grid.h"

// Call f with the number of features, as a constant if it is the usual one.
template <class F>
void dispatch_features(int features, F f) {
  if (features == 2) f(Int<2>{});
  else f(features);
}

// table: (entries, F). y and dy: (levels, F, n).
template <int D, bool ALONG, class T>
static void encode(const Wide<T> *x, const T *table, const Wide<T> *v, T *y, int64_t n,
                   const Grid &grid, intptr_t threads) {
  using X = Wide<T>;
  int64_t chunks = (n + CHUNK - 1) / CHUNK;
  parallel(chunks * grid.levels, threads, [&](int64_t job) {
    const Level level = grid.level[job / chunks];
    T *to = y + job / chunks * grid.features * n;
    dispatch_features(grid.features, [&](auto features) {
      for (int64_t i = job % chunks * CHUNK; i < std::min(n, (job % chunks + 1) * CHUNK); i++) {
        auto cell = cell_of<D>(x + i * D, level.resolution, grid.smoothstep);
        uint32_t entries[1 << D];
        X w[1 << D], sum[MAX_FEATURES] = {};
        corner_entries(level, cell, entries);
        weights_of<D, ALONG>(cell, v + i * D, w);
        UNROLL
        for (int c = 0; c < 1 << D; c++) {
          const T *entry = table + (int64_t)entries[c] * features;
          for (int f = 0; f < features; f++) sum[f] = fma(w[c], (X)widen(entry[f]), sum[f]);
        }
        for (int f = 0; f < features; f++) store(to + f * n + i, sum[f]);
      }
    });
  });
}

template <int D, bool ALONG, class T>
static void table_grad(const Wide<T> *x, const T *dy, const Wide<T> *v, Wide<T> *out, int64_t n,
                       const Grid &grid, intptr_t threads) {
  using X = Wide<T>;
  parallel(grid.levels, threads, [&](int64_t l) {
    const Level level = grid.level[l];
    const T *from = dy + l * grid.features * n;
    dispatch_features(grid.features, [&](auto features) {
      for (int64_t i = 0; i < n; i++) {
        auto cell = cell_of<D>(x + i * D, level.resolution, grid.smoothstep);
        uint32_t entries[1 << D];
        X w[1 << D], g[MAX_FEATURES];
        corner_entries(level, cell, entries);
        weights_of<D, ALONG>(cell, v + i * D, w);
        for (int f = 0; f < features; f++) g[f] = widen(from[f * n + i]);
        UNROLL
        for (int c = 0; c < 1 << D; c++) {
          X *entry = out + (int64_t)entries[c] * features;
          for (int f = 0; f < features; f++) entry[f] = fma(w[c], g[f], entry[f]);
        }
      }
    });
  });
}

EXPORT int grid_encode(int64_t type, const void *x, const void *table, const void *v, void *y,
                       GRID_ARGUMENTS) {
  return dispatch_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return dispatch_shape(dims, v, [&](auto d, auto along) {
      encode<decltype(d)::value, decltype(along)::value>(
          (const X *)x, (const T *)table, (const X *)v, (T *)y, n, GRID, threads_or_stream);
      return 0;
    });
  });
}

// The two unnamed arguments, scale and copies, are for the GPU.
EXPORT int grid_table_grad(int64_t type, const void *x, const void *dy, const void *v, void *out,
                           const void *, const int64_t *, GRID_ARGUMENTS) {
  return dispatch_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return dispatch_shape(dims, v, [&](auto d, auto along) {
      table_grad<decltype(d)::value, decltype(along)::value>(
          (const X *)x, (const T *)dy, (const X *)v, (X *)out, n, GRID, threads_or_stream);
      return 0;
    });
  });
}

// Transpose (rows, columns), a strip of rows at a time.
EXPORT int grid_transpose(int64_t type, const void *from, void *to, int64_t rows, int64_t columns,
                          intptr_t threads_or_stream) {
  return dispatch_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    parallel((rows + CHUNK - 1) / CHUNK, threads_or_stream, [&](int64_t strip) {
      for (int64_t c = 0; c < columns; c++)
        for (int64_t r = strip * CHUNK; r < std::min(rows, (strip + 1) * CHUNK); r++)
          ((T *)to)[c * rows + r] = ((const T *)from)[r * columns + c];
    });
    return 0;
  });
}

EXPORT int grid_variation_grad(int64_t type, const void *x, const void *table, const void *dy,
                               void *out, const void *, GRID_ARGUMENTS) {
  return dispatch_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return dispatch_dims(dims, [&](auto d) {
      Grid grid = GRID;
      parallel(levels, threads_or_stream, [&](int64_t l) {
        auto add = [&](uint32_t entry, int f, X value) {
          ((X *)out)[(int64_t)entry * features + f] += value;
        };
        for (int64_t i = 0; i < n; i++)
          add_variation_grad<decltype(d)::value>(grid, grid.level[l], (const X *)x + i * dims,
                                                 (const T *)table, ((const X *)dy)[l * n + i], add);
      });
      return 0;
    });
  });
}
