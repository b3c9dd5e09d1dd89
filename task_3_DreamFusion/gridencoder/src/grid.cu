// The grid encoding on the GPU: two threads a (level, position), side by side in a warp. Blocks start in the order of the
// levels, so that those which run at one time read one level, and its entries stay in the second-level cache.
//
// One thread takes the corners at the lower end of the first axis, the other those at the upper end. What lies beside each
// other along that axis mostly lies beside each other in the table, hashed or not, since the first prime is 1: the two
// ask for one line of the cache in one instruction, which costs it one look-up, or one addition, instead of two.
#include "grid.h"

constexpr int BLOCK = 256;
constexpr unsigned WARP = 0xffffffff;

// The corners of one thread of a pair: those c with c & 1 == upper, in ascending order.
template <int D, bool ALONG, class X>
struct Side {
  uint32_t entry[1 << (D - 1)];
  X weight[1 << (D - 1)];

  __device__ __forceinline__ Side(const X *x, const X *v, const Level &level, bool smooth, int upper) {
    auto cell = cell_of<D>(x, level.resolution, smooth);
    uint32_t entries[1 << D];
    X w[1 << D];
    entries_of(level, cell, entries);
    weights_of<D, ALONG>(cell, v, w);
    UNROLL
    for (int c = 0; c < 1 << (D - 1); c++) {
      entry[c] = upper ? entries[2 * c + 1] : entries[2 * c];
      weight[c] = upper ? w[2 * c + 1] : w[2 * c];
    }
  }
};

// C features side by side, read in one access.
template <class T, int C>
struct alignas(sizeof(T) * C) Pack {
  T value[C];
};

template <class T, int C, class X>
__device__ __forceinline__ void load(const T *from, X *to) {
  Pack<T, C> pack = *reinterpret_cast<const Pack<T, C> *>(from);
  UNROLL
  for (int f = 0; f < C; f++) to[f] = number(pack.value[f]);
}

// Sums of floats: fast, but the order of the additions, and so the last digits, change from run to run.
template <class X>
struct FloatSum {
  X *out;

  template <int C>
  __device__ __forceinline__ void add(int64_t at, const X *value) const {
#if __CUDA_ARCH__ >= 900
    constexpr bool together = std::is_same_v<X, float>;
#else
    constexpr bool together = false;
#endif
    if constexpr (together && C == 4)
      asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(out + at)),
                   "f"(value[0]), "f"(value[1]), "f"(value[2]), "f"(value[3])
                   : "memory");
    else if constexpr (together && C == 2)
      asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(out + at)), "f"(value[0]),
                   "f"(value[1])
                   : "memory");
    else
      UNROLL
      for (int f = 0; f < C; f++) atomicAdd(out + at + f, value[f]);
  }
};

// Sums of integers, in units of 1 / scale: the same in any order, bit for bit.
struct IntegerSum {
  unsigned long long *out;
  const double *scale;

  template <int C, class X>
  __device__ __forceinline__ void add(int64_t at, const X *value) const {
    UNROLL
    for (int f = 0; f < C; f++) atomicAdd(out + at + f, (unsigned long long)__double2ll_rn(value[f] * *scale));
  }
};

template <int D, bool ALONG, class T, int C>
__global__ void __launch_bounds__(BLOCK)
    encode(const Wide<T> *__restrict__ x, const T *__restrict__ table, const Wide<T> *__restrict__ v,
           T *__restrict__ y, int64_t n, const __grid_constant__ Grid grid) {
  using X = Wide<T>;
  int64_t thread = (int64_t)blockIdx.x * BLOCK + threadIdx.x, i = thread >> 1;
  int l = blockIdx.y, upper = thread & 1;
  bool inside = i < n;
  if (!inside) i = n - 1;  // stays, for the others to exchange sums with
  Side<D, ALONG, X> side(x + i * D, v + i * D, grid.level[l], grid.smooth, upper);
  for (int first = 0; first < grid.features; first += C) {
    X value[1 << (D - 1)][C], sum[C] = {};
    UNROLL
    for (int c = 0; c < 1 << (D - 1); c++)  // all reads are under way before the first is used
      load<T, C>(table + (int64_t)side.entry[c] * grid.features + first, value[c]);
    UNROLL
    for (int c = 0; c < 1 << (D - 1); c++) {
      UNROLL
      for (int f = 0; f < C; f++) sum[f] = fma(side.weight[c], value[c][f], sum[f]);
    }
    UNROLL
    for (int f = 0; f < C; f++) {
      sum[f] += __shfl_xor_sync(WARP, sum[f], 1);
      if (inside && (f & 1) == upper) put(y + ((int64_t)l * grid.features + first + f) * n + i, sum[f]);
    }
  }
}

template <int D, bool ALONG, class T, int C, class Sum>
__global__ void __launch_bounds__(BLOCK)
    table_grad(const Wide<T> *__restrict__ x, const T *__restrict__ dy, const Wide<T> *__restrict__ v, Sum sum,
               int64_t n, const __grid_constant__ Grid grid) {
  using X = Wide<T>;
  int64_t thread = (int64_t)blockIdx.x * BLOCK + threadIdx.x, i = thread >> 1;
  int l = blockIdx.y, upper = thread & 1;
  if (i >= n) return;
  Side<D, ALONG, X> side(x + i * D, v + i * D, grid.level[l], grid.smooth, upper);
  for (int first = 0; first < grid.features; first += C) {
    X g[C];
    UNROLL
    for (int f = 0; f < C; f++) g[f] = number(dy[((int64_t)l * grid.features + first + f) * n + i]);
    UNROLL
    for (int c = 0; c < 1 << (D - 1); c++) {
      X part[C];
      UNROLL
      for (int f = 0; f < C; f++) part[f] = side.weight[c] * g[f];
      sum.template add<C>((int64_t)side.entry[c] * grid.features + first, part);
    }
  }
}

// (rows, columns) to (columns, rows), by squares that are turned in shared memory: both sides in whole lines.
constexpr int SQUARE = 32, STRIP = 8;

template <class T>
__global__ void __launch_bounds__(SQUARE *STRIP)
    transpose(const T *__restrict__ from, T *__restrict__ to, int64_t rows, int64_t columns) {
  __shared__ T square[SQUARE][SQUARE + 1];
  int64_t top = (int64_t)blockIdx.x * SQUARE, left = (int64_t)blockIdx.y * SQUARE;
  for (int k = threadIdx.y; k < SQUARE; k += STRIP)
    if (top + k < rows && left + threadIdx.x < columns)
      square[k][threadIdx.x] = from[(top + k) * columns + left + threadIdx.x];
  __syncthreads();
  for (int k = threadIdx.y; k < SQUARE; k += STRIP)
    if (left + k < columns && top + threadIdx.x < rows)
      to[(left + k) * rows + top + threadIdx.x] = square[threadIdx.x][k];
}

EXPORT int grid_transpose(int64_t type, const void *from, void *to, int64_t rows, int64_t columns, intptr_t where) {
  if (rows == 0 || columns == 0) return 0;
  dim3 squares((unsigned)((rows + SQUARE - 1) / SQUARE), (unsigned)((columns + SQUARE - 1) / SQUARE));
  return by_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    transpose<T><<<squares, dim3(SQUARE, STRIP), 0, (cudaStream_t)where>>>((const T *)from, (T *)to, rows, columns);
    return (int)cudaGetLastError();
  });
}

// Calls f with the number of features that one access takes.
template <class T, class F>
int by_features(int64_t features, F f) {
  if constexpr (sizeof(T) < 8) {
    if (features % 4 == 0) return f(Int<4>{});
    if (features % 2 == 0) return f(Int<2>{});
  }
  return f(Int<1>{});
}

static dim3 blocks(int64_t threads, int64_t levels) {
  return dim3((unsigned)((threads + BLOCK - 1) / BLOCK), (unsigned)levels);
}

EXPORT int grid_encode(int64_t type, const void *x, const void *table, const void *v, void *y, GRID_ARGUMENTS) {
  if (n == 0) return 0;
  return by_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return by_shape(dims, v, [&](auto d, auto along) {
      return by_features<T>(features, [&](auto c) {
        encode<decltype(d)::value, decltype(along)::value, T, decltype(c)::value>
            <<<blocks(2 * n, levels), BLOCK, 0, (cudaStream_t)where>>>((const X *)x, (const T *)table, (const X *)v,
                                                                   (T *)y, n, GRID);
        return (int)cudaGetLastError();
      });
    });
  });
}

// out is Wide<T>; or with a scale (a double on the device), int64 in units of 1 / scale.
EXPORT int grid_table_grad(int64_t type, const void *x, const void *dy, const void *v, void *out, const void *scale,
                           GRID_ARGUMENTS) {
  if (n == 0) return 0;
  return by_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return by_shape(dims, v, [&](auto d, auto along) {
      return by_features<T>(features, [&](auto c) {
        auto launch = [&](auto sum) {
          table_grad<decltype(d)::value, decltype(along)::value, T, decltype(c)::value>
              <<<blocks(2 * n, levels), BLOCK, 0, (cudaStream_t)where>>>((const X *)x, (const T *)dy, (const X *)v, sum,
                                                                     n, GRID);
          return (int)cudaGetLastError();
        };
        if (scale) return launch(IntegerSum{(unsigned long long *)out, (const double *)scale});
        return launch(FloatSum<X>{(X *)out});
      });
    });
  });
}

template <int D, bool VARIATION, class T, class Sum>
struct PenaltyGrad {
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
    penalty_grad<D, VARIATION>(grid, grid.level[i / n], x + i % n * D, table, dy[i], add);
#endif
  }
};

EXPORT int grid_penalty_grad(int64_t type, const void *x, const void *table, const void *dy, void *out,
                             const void *scale, int64_t variation, GRID_ARGUMENTS) {
  return by_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return by_shape(dims, variation, [&](auto d, auto kind) {
      auto launch = [&](auto sum) {
        using Work = PenaltyGrad<decltype(d)::value, decltype(kind)::value, T, decltype(sum)>;
        return each(n * levels, where, Work{(const X *)x, (const T *)table, (const X *)dy, sum, n, GRID});
      };
      if (scale) return launch(IntegerSum{(unsigned long long *)out, (const double *)scale});
      return launch(FloatSum<X>{(X *)out});
    });
  });
}
