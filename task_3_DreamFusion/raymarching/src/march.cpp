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
    T tau = 0, rest = 0;
    for (int64_t j = first; j < last; j++) {  // first what passes each sample, then from the back what lies behind it
      T s = in.sigmas[j] * in.deltas[j];
      work.d_sigmas[j] = tau <= in.opaque ? std::exp(-(tau + s)) : STOPPED;
      tau += s;
    }
    for (int64_t j = last - 1; j >= first; j--) {
      T g = work.of_weight(ray, j), passes = work.d_sigmas[j];
      work.d_sigmas[j] = passes == STOPPED ? T(0) : in.deltas[j] * (passes * g - rest);
      rest += in.weights[j] * g;
      for (int64_t c = 0; c < in.channels; c++)
        work.d_features[j * in.channels + c] = in.weights[j] * work.d_image[ray * in.channels + c];
    }
  });
}
