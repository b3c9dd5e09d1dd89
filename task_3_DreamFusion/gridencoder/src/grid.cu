// The grid encoding on the GPU: two neighboring threads of a warp per (level, position). Blocks
// start in the order of the levels, so that those running at one time read one level, and its
// entries stay in the L2 cache.
//
// One thread takes the corners at the lower end of the first axis, the other those at the upper
// end. Neighbors along that axis are mostly neighbors in the table, hashed or not, since the first
// prime is 1: the two threads access one cache line in one instruction, which costs one look-up, or
// one addition, instead of two.
#include "grid.h"

constexpr int BLOCK = 256;
constexpr unsigned WARP = 0xffffffff;

// The corners of one thread of a pair: those at the lower or at the upper end of the first axis.
template <int D, bool ALONG, class X>
struct PairCorners {
  uint32_t entry[1 << (D - 1)];
  X weight[1 << (D - 1)];

  __device__ __forceinline__ PairCorners(const X *x, const X *v, const Level &level,
                                         bool smoothstep, int upper) {
    auto cell = cell_of<D>(x, level.resolution, smoothstep);
    uint32_t low[D], high[D];
    axis_terms(level, cell, low, high);
    entry[0] = upper ? high[0] : low[0];
    join_terms<D, 1>(level, low, high, entry);
    X along[1 << (D - 1)];
    weight[0] = upper ? cell.upper[0] : 1 - cell.upper[0];
    if constexpr (ALONG) along[0] = upper ? v[0] * cell.slope[0] : -v[0] * cell.slope[0];
    spread_weights<D, 1, ALONG>(cell, v, weight, along);
    if constexpr (ALONG) {
      UNROLL
      for (int c = 0; c < 1 << (D - 1); c++) weight[c] = along[c];
    }
  }
};

// C adjacent features, read in one access.
template <class T, int C>
struct alignas(sizeof(T) * C) Pack {
  T value[C];
};

template <class T, int C, class X>
__device__ __forceinline__ void load(const T *from, X *to) {
  Pack<T, C> pack = *reinterpret_cast<const Pack<T, C> *>(from);
  UNROLL
  for (int f = 0; f < C; f++) to[f] = widen(pack.value[f]);
}

// Sums of floats: fast, but the order of additions, and so the last digits, change between runs.
template <class X>
struct FloatSum {
#if __CUDA_ARCH__ >= 900
  // Whether one instruction adds several values.
  static constexpr bool VECTORIZED = std::is_same_v<X, float>;
#else
  static constexpr bool VECTORIZED = false;
#endif
  X *out;

  template <int C>
  __device__ __forceinline__ void add(int64_t at, const X *value) const {
    if constexpr (VECTORIZED && C == 4)
      asm volatile(
          "red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(out + at)),
          "f"(value[0]), "f"(value[1]), "f"(value[2]), "f"(value[3])
          : "memory");
    else if constexpr (VECTORIZED && C == 2)
      asm volatile(
          "red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(out + at)),
          "f"(value[0]), "f"(value[1])
          : "memory");
    else {
      UNROLL
      for (int f = 0; f < C; f++) atomicAdd(out + at + f, value[f]);
    }
  }
};

// Sums of integers, in units of 1 / scale: the same in any order, bit for bit.
struct IntegerSum {
  static constexpr bool VECTORIZED = false;
  unsigned long long *out;
  const double *scale;

  template <int C, class X>
  __device__ __forceinline__ void add(int64_t at, const X *value) const {
    UNROLL
    for (int f = 0; f < C; f++)
      atomicAdd(out + at + f, (unsigned long long)__double2ll_rn(value[f] * *scale));
  }
};

template <int D, bool ALONG, class T, int C>
__global__ void __launch_bounds__(BLOCK)
    encode(const Wide<T> *__restrict__ x, const T *__restrict__ table,
           const Wide<T> *__restrict__ v, T *__restrict__ y, int64_t n,
           const __grid_constant__ Grid grid) {
  using X = Wide<T>;
  int64_t thread = (int64_t)blockIdx.x * BLOCK + threadIdx.x, i = thread >> 1;
  int l = blockIdx.y, upper = thread & 1;
  bool inside = i < n;
  if (!inside) i = n - 1;  // stays, since warp shuffles need all lanes
  PairCorners<D, ALONG, X> corners(x + i * D, v + i * D, grid.level[l], grid.smoothstep, upper);
  for (int first = 0; first < grid.features; first += C) {
    X value[1 << (D - 1)][C], sum[C] = {};
    UNROLL
    for (int c = 0; c < 1 << (D - 1); c++)  // all reads start before the first is used
      load<T, C>(table + (int64_t)corners.entry[c] * grid.features + first, value[c]);
    UNROLL
    for (int c = 0; c < 1 << (D - 1); c++) {
      UNROLL
      for (int f = 0; f < C; f++) sum[f] = fma(corners.weight[c], value[c][f], sum[f]);
    }
    UNROLL
    for (int f = 0; f < C; f++) {
      sum[f] += __shfl_xor_sync(WARP, sum[f], 1);
      if (inside && (f & 1) == upper)
        store(y + ((int64_t)l * grid.features + first + f) * n + i, sum[f]);
    }
  }
}

// Where many positions add to few entries, atomic additions wait for each other. So a small level
// has several partial sums, used by the blocks in turn: the first in the table, the others behind
// it, level after level.
struct PartialSums {
  int64_t count[MAX_LEVELS], begin[MAX_LEVELS];  // number of sums, and start of the second
};

template <int D, bool ALONG, class T, int C, class Sum>
__global__ void __launch_bounds__(BLOCK)
    table_grad(const Wide<T> *__restrict__ x, const T *__restrict__ dy,
               const Wide<T> *__restrict__ v, Sum sum, int64_t n, const __grid_constant__ Grid grid,
               const __grid_constant__ PartialSums copies) {
  using X = Wide<T>;
  int64_t thread = (int64_t)blockIdx.x * BLOCK + threadIdx.x, i = thread >> 1;
  int l = blockIdx.y, upper = thread & 1;
  bool inside = i < n;
  if (!inside) i = n - 1;  // stays, since warp shuffles need all lanes
  int64_t copy = copies.count[l] > 1 ? blockIdx.x % copies.count[l] : 0, shift = 0;
  if (copy) shift = copies.begin[l] + (copy - 1) * grid.level[l].size - grid.level[l].offset;
  PairCorners<D, ALONG, X> corners(x + i * D, v + i * D, grid.level[l], grid.smoothstep, upper);
  for (int first = 0; first < grid.features; first += C) {
    X g[C];
    UNROLL
    for (int f = 0; f < C; f++) g[f] = widen(dy[((int64_t)l * grid.features + first + f) * n + i]);
    UNROLL
    for (int c = 0; c < 1 << (D - 1); c++) {
      X part[C];
      UNROLL
      for (int f = 0; f < C; f++) part[f] = corners.weight[c] * g[f];
      // One addition of four values, by the thread of the even entry.
      if constexpr (Sum::VECTORIZED && C == 2) {
        if (grid.features == 2 && shift % 2 == 0) {
          uint32_t other = __shfl_xor_sync(WARP, corners.entry[c], 1);
          X weight = __shfl_xor_sync(WARP, corners.weight[c], 1);
          if ((corners.entry[c] ^ other) == 1) {
            X four[4] = {part[0], part[1], weight * g[0], weight * g[1]};
            if (inside && corners.entry[c] % 2 == 0)
              sum.template add<4>((corners.entry[c] + shift) * 2, four);
            continue;
          }
        }
      }
      if (inside) sum.template add<C>((corners.entry[c] + shift) * grid.features + first, part);
    }
  }
}

// Add the other partial sums of the small levels to the first.
template <class V>
__global__ void __launch_bounds__(BLOCK)
    add_copies(V *__restrict__ out, const __grid_constant__ Grid grid,
               const __grid_constant__ PartialSums copies) {
  int64_t k = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  int l = blockIdx.y;
  int64_t count = (int64_t)grid.level[l].size * grid.features;
  if (copies.count[l] < 2 || k >= count) return;
  V total = out[(int64_t)grid.level[l].offset * grid.features + k];
  for (int64_t copy = 1; copy < copies.count[l]; copy++)
    total += out[copies.begin[l] * grid.features + (copy - 1) * count + k];
  out[(int64_t)grid.level[l].offset * grid.features + k] = total;
}

// Transpose (rows, columns) by tiles in shared memory: reads and writes are coalesced, and writes
// take two values in one access.
constexpr int TILE_ROWS = 64, TILE_COLUMNS = 32, STRIP = 8;

template <class T>
__global__ void __launch_bounds__(TILE_COLUMNS *STRIP)
    transpose(const T *__restrict__ from, T *__restrict__ to, int64_t rows, int64_t columns) {
  __shared__ T tile[TILE_ROWS][TILE_COLUMNS + 1];
  int64_t top = (int64_t)blockIdx.x * TILE_ROWS, left = (int64_t)blockIdx.y * TILE_COLUMNS;
  UNROLL
  for (int k = threadIdx.y; k < TILE_ROWS; k += STRIP)
    if (top + k < rows && left + threadIdx.x < columns)
      tile[k][threadIdx.x] = from[(top + k) * columns + left + threadIdx.x];
  __syncthreads();
  int64_t row = top + 2 * threadIdx.x;
  UNROLL
  for (int k = threadIdx.y; k < TILE_COLUMNS; k += STRIP) {
    if (left + k >= columns || row >= rows) continue;
    T *at = to + (left + k) * rows + row;
    Pack<T, 2> pair{tile[2 * threadIdx.x][k], tile[2 * threadIdx.x + 1][k]};
    if (rows % 2 == 0) *reinterpret_cast<Pack<T, 2> *>(at) = pair;
    else {
      at[0] = pair.value[0];
      if (row + 1 < rows) at[1] = pair.value[1];
    }
  }
}

EXPORT int grid_transpose(int64_t type, const void *from, void *to, int64_t rows, int64_t columns,
                          intptr_t threads_or_stream) {
  if (rows == 0 || columns == 0) return 0;
  dim3 tiles((unsigned)((rows + TILE_ROWS - 1) / TILE_ROWS),
             (unsigned)((columns + TILE_COLUMNS - 1) / TILE_COLUMNS));
  return dispatch_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    transpose<T><<<tiles, dim3(TILE_COLUMNS, STRIP), 0, (cudaStream_t)threads_or_stream>>>(
        (const T *)from, (T *)to, rows, columns);
    return (int)cudaGetLastError();
  });
}

// Call f with the number of features that one access reads.
template <class T, class F>
int dispatch_features(int64_t features, F f) {
  if constexpr (sizeof(T) < 8) {
    if (features % 4 == 0) return f(Int<4>{});
    if (features % 2 == 0) return f(Int<2>{});
  }
  return f(Int<1>{});
}

static dim3 blocks(int64_t threads, int64_t levels) {
  return dim3((unsigned)((threads + BLOCK - 1) / BLOCK), (unsigned)levels);
}

EXPORT int grid_encode(int64_t type, const void *x, const void *table, const void *v, void *y,
                       GRID_ARGUMENTS) {
  if (n == 0) return 0;
  return dispatch_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return dispatch_shape(dims, v, [&](auto d, auto along) {
      return dispatch_features<T>(features, [&](auto c) {
        encode<decltype(d)::value, decltype(along)::value, T, decltype(c)::value>
            <<<blocks(2 * n, levels), BLOCK, 0, (cudaStream_t)threads_or_stream>>>(
                (const X *)x, (const T *)table, (const X *)v, (T *)y, n, GRID);
        return (int)cudaGetLastError();
      });
    });
  });
}

// out: Wide<T>, or with a scale (a double on the device) int64 in units of 1 / scale; all 0 before.
// copies: number of partial sums of each level; those after the first lie behind the table.
EXPORT int grid_table_grad(int64_t type, const void *x, const void *dy, const void *v, void *out,
                           const void *scale, const int64_t *copies, GRID_ARGUMENTS) {
  if (n == 0) return 0;
  PartialSums partial;
  int64_t end = offsets[levels], largest = 0;
  for (int64_t l = 0; l < levels; l++) {
    partial.count[l] = copies[l], partial.begin[l] = end;
    int64_t size = offsets[l + 1] - offsets[l];
    end += (copies[l] - 1) * size;
    if (copies[l] > 1 && size > largest) largest = size;
  }
  return dispatch_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return dispatch_shape(dims, v, [&](auto d, auto along) {
      return dispatch_features<T>(features, [&](auto c) {
        auto launch = [&](auto sum) {
          table_grad<decltype(d)::value, decltype(along)::value, T, decltype(c)::value>
              <<<blocks(2 * n, levels), BLOCK, 0, (cudaStream_t)threads_or_stream>>>(
                  (const X *)x, (const T *)dy, (const X *)v, sum, n, GRID, partial);
          auto code = cudaGetLastError();
          if (largest && !code) {
            add_copies<<<blocks(largest * features, levels), BLOCK, 0,
                         (cudaStream_t)threads_or_stream>>>(sum.out, GRID, partial);
            code = cudaGetLastError();
          }
          return (int)code;
        };
        if (scale) return launch(IntegerSum{(unsigned long long *)out, (const double *)scale});
        return launch(FloatSum<X>{(X *)out});
      });
    });
  });
}

template <int D, class T, class Sum>
struct VariationGrad {
  using X = Wide<T>;
  const X *x;
  const T *table;
  const X *dy;
  Sum sum;
  int64_t n;
  Grid grid;

  HD void operator()(int64_t i) const {
#ifdef __CUDA_ARCH__
    auto add = [&](uint32_t entry, int f, X value) {
      sum.template add<1>((int64_t)entry * grid.features + f, &value);
    };
    add_variation_grad<D>(grid, grid.level[i / n], x + i % n * D, table, dy[i], add);
#endif
  }
};

EXPORT int grid_variation_grad(int64_t type, const void *x, const void *table, const void *dy,
                               void *out, const void *scale, GRID_ARGUMENTS) {
  return dispatch_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return dispatch_dims(dims, [&](auto d) {
      auto launch = [&](auto sum) {
        using Work = VariationGrad<decltype(d)::value, T, decltype(sum)>;
        return for_each(n * levels, threads_or_stream,
                        Work{(const X *)x, (const T *)table, (const X *)dy, sum, n, GRID});
      };
      if (scale) return launch(IntegerSum{(unsigned long long *)out, (const double *)scale});
      return launch(FloatSum<X>{(X *)out});
    });
  });
}
