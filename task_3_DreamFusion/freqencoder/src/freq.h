// Frequency encoding (NeRF, equation 4), its derivative along a direction, and the gradient of the
// positions.
#pragma once

#include "common.h"

// sin(pi p) and cos(pi p). The reduction to one period is exact, so high frequencies lose no
// digits.
template <class T>
HD void sin_cos_pi(T p, T *s, T *c) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 4) sincospif(p, s, c);
  else sincospi(p, s, c);
#else
  T phase = T(M_PI) * (p - 2 * std::rint(p / 2));
  *s = std::sin(phase);
  *c = std::cos(phase);
#endif
}

// One (position, level, dimension) of y (n, levels, 2, dims); with a direction v (n, dims), of
// dy/dx v.
template <class T>
struct Encode {
  const T *x, *v;
  T *y;
  int64_t dims, levels;

  HD void operator()(int64_t i) const {
    int64_t d = i % dims, level = i / dims % levels, n = i / dims / levels;
    T frequency = T(int64_t(1) << level), s, c;
    sin_cos_pi(frequency * x[n * dims + d], &s, &c);
    T *to = y + (n * levels + level) * 2 * dims + d;
    T slope = v ? T(M_PI) * frequency * v[n * dims + d] : T(1);
    to[0] = v ? slope * c : s;
    to[dims] = v ? -slope * s : c;
  }
};

// One (position, dimension): the gradient of <dy, y>, or with a direction that of <dy, dy/dx v>.
template <class T>
struct InputGrad {
  const T *x, *dy, *v;
  T *dx;
  int64_t dims, levels;

  HD void operator()(int64_t i) const {
    int64_t d = i % dims, n = i / dims;
    T sum = 0;
    for (int64_t level = 0; level < levels; level++) {
      T frequency = T(int64_t(1) << level), s, c;
      sin_cos_pi(frequency * x[i], &s, &c);
      const T *from = dy + (n * levels + level) * 2 * dims + d;
      T slope = T(M_PI) * frequency;
      sum += v ? -slope * slope * v[i] * (from[0] * s + from[dims] * c)
               : slope * (from[0] * c - from[dims] * s);
    }
    dx[i] = sum;
  }
};

EXPORT int freq_encode(int64_t type, const void *x, const void *v, void *y, int64_t n, int64_t dims,
                       int64_t levels, intptr_t threads_or_stream) {
  return dispatch_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return for_each(n * levels * dims, threads_or_stream,
                    Encode<T>{(const T *)x, (const T *)v, (T *)y, dims, levels});
  });
}

EXPORT int freq_input_grad(int64_t type, const void *x, const void *dy, const void *v, void *dx,
                           int64_t n, int64_t dims, int64_t levels, intptr_t threads_or_stream) {
  return dispatch_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return for_each(n * dims, threads_or_stream,
                    InputGrad<T>{(const T *)x, (const T *)dy, (const T *)v, (T *)dx, dims, levels});
  });
}
