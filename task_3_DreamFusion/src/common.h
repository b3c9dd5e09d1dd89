// Shared by the kernels of all three packages: number types, and loops over CPU threads or CUDA
// threads.
//
// A library has one C interface for both: pointers, int64_t and double; the last argument is the
// number of threads on the CPU and the stream on the GPU. Functions return 0, or a code that
// error_string() describes. Contraction of a * b + c is off in both builds (fma() where it is
// wanted), so CPU and GPU round alike.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define HD __host__ __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#else
#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>
#define HD inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

enum Type { HALF = 0, FLOAT = 1, DOUBLE = 2 };  // TYPE_CODES in kernels.py
constexpr int UNSUPPORTED = -1;                 // there is no kernel for this type or size

#ifdef __CUDACC__
using Half = __half;
HD float widen(Half h) { return __half2float(h); }
HD void store(Half *to, float value) { *to = __float2half_rn(value); }
#else
struct Half {
  uint16_t bits;
};

inline float widen(Half h) {
  uint32_t sign = (uint32_t)(h.bits & 0x8000) << 16, magnitude = h.bits & 0x7fff;
  uint32_t bits = magnitude << 13;
  float value;
  if (magnitude >= 0x7c00) bits |= 0x7f800000;  // infinity or NaN
  std::memcpy(&value, &bits, 4);
  if (magnitude < 0x7c00) value *= 0x1p112f;  // from the exponent bias of half to that of float
  return sign ? -value : value;
}

inline void store(Half *to, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x47800000) {  // 65536 and above
    magnitude = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
  } else if (magnitude < 0x38800000) {  // subnormal: 0.5 has the same unit in the last place
    float shifted = std::fabs(value) + 0.5f, half = 0.5f;
    uint32_t base;
    std::memcpy(&magnitude, &shifted, 4);
    std::memcpy(&base, &half, 4);
    magnitude -= base;
  } else {
    magnitude = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;  // ties to even
  }
  to->bits = (uint16_t)(sign | magnitude);
}
#endif

HD float widen(float x) { return x; }
HD double widen(double x) { return x; }
HD void store(float *to, float value) { *to = value; }
HD void store(double *to, double value) { *to = value; }

// The type to compute in: float for half, else that of the values.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <int N>
using Int = std::integral_constant<int, N>;

// Call f with a null pointer of the type that a code stands for.
template <class F>
int dispatch_type(int64_t type, F f) {
  switch (type) {
    case HALF: return f((Half *)nullptr);
    case FLOAT: return f((float *)nullptr);
    case DOUBLE: return f((double *)nullptr);
  }
  return UNSUPPORTED;
}

template <class F>
int dispatch_wide_type(int64_t type, F f) {
  switch (type) {
    case FLOAT: return f((float *)nullptr);
    case DOUBLE: return f((double *)nullptr);
  }
  return UNSUPPORTED;
}

#ifdef __CUDACC__

template <class F>
__global__ void __launch_bounds__(256) for_each_kernel(int64_t n, F f) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) f(i);
}

// f(i) for every i below n.
template <class F>
int for_each(int64_t n, intptr_t threads_or_stream, F f) {
  if (n == 0) return 0;
  for_each_kernel<<<(unsigned)((n + 255) / 256), 256, 0, (cudaStream_t)threads_or_stream>>>(n, f);
  return (int)cudaGetLastError();
}

__global__ void probe_kernel(int *out) { *out = 42; }

// Test whether the kernels run on the current device: the driver may be too old for the compiler.
EXPORT int probe() {
  int *on_device, value = 0;
  if (auto error = cudaMalloc(&on_device, sizeof(int))) return (int)error;
  probe_kernel<<<1, 1>>>(on_device);
  auto error = cudaGetLastError();
  if (!error) error = cudaMemcpy(&value, on_device, sizeof(int), cudaMemcpyDeviceToHost);
  cudaFree(on_device);
  if (error) return (int)error;
  return value == 42 ? 0 : UNSUPPORTED;
}

// Make a device current for this library, whose CUDA runtime is not PyTorch's.
EXPORT int select_device(int device) { return (int)cudaSetDevice(device); }

EXPORT const char *error_string(int code) {
  return code == UNSUPPORTED ? "no kernel for this type or size"
                             : cudaGetErrorString((cudaError_t)code);
}

#else

// work(j) for every j below jobs, in any order, on several threads.
template <class F>
void parallel(int64_t jobs, intptr_t threads, F work) {
  std::atomic<int64_t> next{0};
  auto run = [&] {
    for (int64_t j; (j = next++) < jobs;) work(j);
  };
  std::vector<std::thread> pool;
  try {
    for (int64_t i = 1; i < std::min<int64_t>(jobs, threads); i++) pool.emplace_back(run);
  } catch (const std::system_error &) {  // no more threads: the existing ones do the work
  }
  run();
  for (auto &thread : pool) thread.join();
}

constexpr int64_t CHUNK = 2048;  // elements per job

// f(i) for every i below n.
template <class F>
int for_each(int64_t n, intptr_t threads, F f) {
  parallel((n + CHUNK - 1) / CHUNK, threads, [&](int64_t j) {
    for (int64_t i = j * CHUNK; i < std::min(n, (j + 1) * CHUNK); i++) f(i);
  });
  return 0;
}

EXPORT int probe() { return 0; }

EXPORT const char *error_string(int) { return "no kernel for this type or size"; }

#endif
