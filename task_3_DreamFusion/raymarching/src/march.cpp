// Compositing on CPU threads, a ray at a time.
#include "march.h"

template <class T>
int composite(const Composite<T> &work, int64_t rays, intptr_t where) {
  return each(rays, where, [work](int64_t ray) {
    int64_t first = work.spans[2 * ray], last = first + work.spans[2 * ray + 1];
    T tau = 0, depth = 0, opacity = 0;
    T *color = work.image + ray * work.channels;
    for (int64_t c = 0; c < work.channels; c++) color[c] = 0;
    for (int64_t j = first; j < last; j++) {
      T s = work.sigmas[j] * work.deltas[j];
      T w = tau <= work.opaque ? std::exp(-tau) * -std::expm1(-s) : T(0);
      for (int64_t c = 0; c < work.channels; c++) color[c] += w * work.features[j * work.channels + c];
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
int composite_grad(const CompositeGrad<T> &work, int64_t rays, intptr_t where) {
  return each(rays, where, [work](int64_t ray) {
    const auto &in = work.in;
    int64_t first = in.spans[2 * ray], last = first + in.spans[2 * ray + 1];
    T rest = 0, tau = 0;
    for (int64_t j = first; j < last; j++) rest += in.weights[j] * work.of_weight(ray, j);
    for (int64_t j = first; j < last; j++) {
      bool counts = tau <= in.opaque;
      tau += in.sigmas[j] * in.deltas[j];
      T g = work.of_weight(ray, j);
      rest -= in.weights[j] * g;  // now of the samples behind this one
      work.d_sigmas[j] = counts ? in.deltas[j] * (std::exp(-tau) * g - rest) : T(0);
      for (int64_t c = 0; c < in.channels; c++)
        work.d_features[j * in.channels + c] = in.weights[j] * work.d_image[ray * in.channels + c];
    }
  });
}
