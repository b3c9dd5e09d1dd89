// Compositing on CPU threads, one ray at a time.
#include "march.h"

template <class T>
int composite(const Composite<T> &work, int64_t rays, intptr_t threads_or_stream) {
  return for_each(rays, threads_or_stream, [work](int64_t ray) {
    int64_t first = work.packed_info[2 * ray], last = first + work.packed_info[2 * ray + 1];
    T tau = 0, depth = 0, opacity = 0;
    T *color = work.image + ray * work.channels;
    for (int64_t c = 0; c < work.channels; c++) color[c] = 0;
    for (int64_t j = first; j < last; j++) {
      T s = work.sigmas[j] * work.deltas[j];
      T w = tau <= work.max_optical_depth ? std::exp(-tau) * -std::expm1(-s) : T(0);
      for (int64_t c = 0; c < work.channels; c++)
        color[c] += w * work.features[j * work.channels + c];
      depth += w * work.ts[j];
      opacity += w;
      work.weights[j] = w;
      tau += s;
    }
    work.depths[ray] = depth;
    work.opacities[ray] = opacity;
  });
}

template <class T>
int composite_grad(const CompositeGrad<T> &work, int64_t rays, intptr_t threads_or_stream) {
  return for_each(rays, threads_or_stream, [work](int64_t ray) {
    const auto &in = work.in;
    int64_t first = in.packed_info[2 * ray], last = first + in.packed_info[2 * ray + 1];
    T tau = 0, suffix = 0;
    for (int64_t j = first; j < last; j++) {  // transmittance behind each sample
      T s = in.sigmas[j] * in.deltas[j];
      work.d_sigmas[j] = tau <= in.max_optical_depth ? std::exp(-(tau + s)) : STOPPED;
      tau += s;
    }
    for (int64_t j = last - 1; j >= first; j--) {  // from the back: `suffix` sums what lies behind
      T g = work.d_weight(ray, j), transmittance = work.d_sigmas[j];
      work.d_sigmas[j] =
          transmittance == STOPPED ? T(0) : in.deltas[j] * (transmittance * g - suffix);
      suffix += in.weights[j] * g;
      for (int64_t c = 0; c < in.channels; c++)
        work.d_features[j * in.channels + c] = in.weights[j] * work.d_image[ray * in.channels + c];
    }
  });
}
