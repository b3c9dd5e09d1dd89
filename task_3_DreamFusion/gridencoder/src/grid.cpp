// The grid encoding on CPU threads. Each sum into the table is formed by one thread, position after position: the
// result does not depend on how many threads there are.
#include "grid.h"

constexpr int BLOCK = 64;  // positions whose corners are worked out together, several in one instruction

// Entries and weights of the corners of up to BLOCK positions at a level, corner after corner.
template <int D, class X>
struct Corners {
  uint32_t entries[1 << D][BLOCK];
  X weights[1 << D][BLOCK];

  template <bool ALONG>
  void find(const Level &level, bool smooth, const X *x, const X *v, int count) {
    for (int i = 0; i < count; i++) {
      auto cell = cell_of<D>(x + i * D, level.resolution, smooth);
      uint32_t entry[1 << D];
      X weight[1 << D];
      entries_of(level, cell, entry);
      weights_of<D, ALONG>(cell, v + i * D, weight);
      UNROLL
      for (int c = 0; c < 1 << D; c++) entries[c][i] = entry[c], weights[c][i] = weight[c];
    }
  }
};

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
    int l = (int)(job / chunks);
    T *to = y + (int64_t)l * grid.features * n;
    Corners<D, X> corners;
    int64_t end = std::min(n, (job % chunks + 1) * CHUNK);
    for (int64_t i = job % chunks * CHUNK; i < end; i += BLOCK) {
      int count = (int)std::min<int64_t>(BLOCK, end - i);
      corners.template find<ALONG>(grid.level[l], grid.smooth, x + i * D, v + i * D, count);
      by_features(grid.features, [&](auto features) {
        for (int k = 0; k < count; k++) {
          X sum[MAX_FEATURES] = {};
          UNROLL
          for (int c = 0; c < 1 << D; c++) {
            const T *entry = table + (int64_t)corners.entries[c][k] * features;
            for (int f = 0; f < features; f++) sum[f] = fma(corners.weights[c][k], (X)number(entry[f]), sum[f]);
          }
          for (int f = 0; f < features; f++) put(to + f * n + i + k, sum[f]);
        }
      });
    }
  });
}

template <int D, bool ALONG, class T>
static void table_grad(const Wide<T> *x, const T *dy, const Wide<T> *v, Wide<T> *out, int64_t n, const Grid &grid,
                       intptr_t threads) {
  using X = Wide<T>;
  parallel(grid.levels, threads, [&](int64_t l) {
    const T *from = dy + l * grid.features * n;
    Corners<D, X> corners;
    for (int64_t i = 0; i < n; i += BLOCK) {
      int count = (int)std::min<int64_t>(BLOCK, n - i);
      corners.template find<ALONG>(grid.level[l], grid.smooth, x + i * D, v + i * D, count);
      by_features(grid.features, [&](auto features) {
        for (int k = 0; k < count; k++) {
          X g[MAX_FEATURES];
          for (int f = 0; f < features; f++) g[f] = number(from[f * n + i + k]);
          UNROLL
          for (int c = 0; c < 1 << D; c++) {
            X *entry = out + (int64_t)corners.entries[c][k] * features;
            for (int f = 0; f < features; f++) entry[f] = fma(corners.weights[c][k], g[f], entry[f]);
          }
        }
      });
    }
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
