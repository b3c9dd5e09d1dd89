// The grid encoding on the GPU: one thread a (level, position). Blocks start in the order of the levels, so that those
// which run at one time read one level, and its entries stay in the second-level cache.
#include "grid.h"

constexpr int BLOCK = 256;

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
  int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  int l = blockIdx.y;
  if (i >= n) return;
  auto cell = cell_of<D>(x + i * D, grid.level[l].resolution, grid.smooth);
  uint32_t entries[1 << D];
  X w[1 << D];
  entries_of(grid.level[l], cell, entries);
  weights_of<D, ALONG>(cell, v + i * D, w);
  for (int first = 0; first < grid.features; first += C) {
    X value[1 << D][C], sum[C] = {};
    UNROLL
    for (int c = 0; c < 1 << D; c++)  // all reads are under way before the first is used
      load<T, C>(table + (int64_t)entries[c] * grid.features + first, value[c]);
    UNROLL
    for (int c = 0; c < 1 << D; c++) {
      UNROLL
      for (int f = 0; f < C; f++) sum[f] = fma(w[c], value[c][f], sum[f]);
    }
    UNROLL
    for (int f = 0; f < C; f++) put(y + ((int64_t)l * grid.features + first + f) * n + i, sum[f]);
  }
}

template <int D, bool ALONG, class T, int C, class Sum>
__global__ void __launch_bounds__(BLOCK)
    table_grad(const Wide<T> *__restrict__ x, const T *__restrict__ dy, const Wide<T> *__restrict__ v, Sum sum,
               int64_t n, const __grid_constant__ Grid grid) {
  using X = Wide<T>;
  int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
  int l = blockIdx.y;
  if (i >= n) return;
  auto cell = cell_of<D>(x + i * D, grid.level[l].resolution, grid.smooth);
  uint32_t entries[1 << D];
  X w[1 << D];
  entries_of(grid.level[l], cell, entries);
  weights_of<D, ALONG>(cell, v + i * D, w);
  for (int first = 0; first < grid.features; first += C) {
    X g[C];
    UNROLL
    for (int f = 0; f < C; f++) g[f] = number(dy[((int64_t)l * grid.features + first + f) * n + i]);
    UNROLL
    for (int c = 0; c < 1 << D; c++) {
      X part[C];
      UNROLL
      for (int f = 0; f < C; f++) part[f] = w[c] * g[f];
      sum.template add<C>((int64_t)entries[c] * grid.features + first, part);
    }
  }
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

static dim3 blocks(int64_t n, int64_t levels) { return dim3((unsigned)((n + BLOCK - 1) / BLOCK), (unsigned)levels); }

EXPORT int grid_encode(int64_t type, const void *x, const void *table, const void *v, void *y, GRID_ARGUMENTS) {
  if (n == 0) return 0;
  return by_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    using X = Wide<T>;
    return by_shape(dims, v, [&](auto d, auto along) {
      return by_features<T>(features, [&](auto c) {
        encode<decltype(d)::value, decltype(along)::value, T, decltype(c)::value>
            <<<blocks(n, levels), BLOCK, 0, (cudaStream_t)where>>>((const X *)x, (const T *)table, (const X *)v,
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
              <<<blocks(n, levels), BLOCK, 0, (cudaStream_t)where>>>((const X *)x, (const T *)dy, (const X *)v, sum,
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
