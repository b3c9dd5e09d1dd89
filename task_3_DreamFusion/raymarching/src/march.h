// Ray marching on CPU and GPU (Instant-NGP, appendix E): Morton codes, the box, the occupancy grid,
// and the march along a ray.
//
// A ray's samples lie at start + k * step_size, k = 0, 1, ..., where that is before `far` and in an
// occupied cell. How the march skips empty cells does not change them.
#pragma once

#include "common.h"

constexpr int MAX_STEPS = 1 << 24;  // the next step of a ray that has ended; float32 counts to here

// --- Morton codes: interleaved bits of three coordinates, so that near cells are near in memory

HD uint32_t spread_bits(uint32_t v) {  // ten bits, two zeros between each two
  v = (v | v << 16) & 0x030000ffu;
  v = (v | v << 8) & 0x0300f00fu;
  v = (v | v << 4) & 0x030c30c3u;
  return (v | v << 2) & 0x09249249u;
}

HD uint32_t gather_bits(uint32_t v) {
  v &= 0x09249249u;
  v = (v | v >> 2) & 0x030c30c3u;
  v = (v | v >> 4) & 0x0300f00fu;
  v = (v | v >> 8) & 0x030000ffu;
  return (v | v >> 16) & 0x3ffu;
}

HD uint32_t morton(uint32_t x, uint32_t y, uint32_t z) {
  return spread_bits(x) | spread_bits(y) << 1 | spread_bits(z) << 2;
}

struct MortonEncode {
  const int32_t *cells;
  int32_t *codes;
  HD void operator()(int64_t i) const {
    codes[i] = (int32_t)morton((uint32_t)cells[3 * i], (uint32_t)cells[3 * i + 1],
                               (uint32_t)cells[3 * i + 2]);
  }
};

struct MortonDecode {
  const int32_t *codes;
  int32_t *cells;
  HD void operator()(int64_t i) const {
    for (int d = 0; d < 3; d++) cells[3 * i + d] = (int32_t)gather_bits((uint32_t)codes[i] >> d);
  }
};

template <class T>
struct PackBits {
  const T *density;
  uint8_t *bits;
  T threshold;
  HD void operator()(int64_t i) const {
    uint32_t byte = 0;
    for (int b = 0; b < 8; b++) byte |= (uint32_t)(density[8 * i + b] > threshold) << b;
    bits[i] = (uint8_t)byte;
  }
};

// --- The box

template <class T>
struct Box {
  T low[3], high[3];
};

template <class T>
struct RayAabbIntersect {
  const T *origins, *directions;
  T *nears, *fars;
  Box<T> box;
  T near_plane;

  HD void operator()(int64_t i) const {
    T near = near_plane, far = T(INFINITY);
    for (int d = 0; d < 3; d++) {
      T o = origins[3 * i + d], v = directions[3 * i + d];
      if (v == 0) {
        if (!(o >= box.low[d] && o <= box.high[d])) far = -T(INFINITY);
        continue;
      }
      T a = (box.low[d] - o) / v, b = (box.high[d] - o) / v;
      if (a > b) {
        T other = a;
        a = b;
        b = other;
      }
      if (a > near) near = a;
      if (b < far) far = b;
    }
    bool hit = near < far && far < T(INFINITY);
    nears[i] = hit ? near : near_plane;
    fars[i] = hit ? far : near_plane;
  }
};

// --- Marching

template <class T>
struct Scene {
  const uint8_t *bits;
  int resolution;  // cells along an axis, a power of two, at least 4
  Box<T> box;
  T scale[3];  // cells per unit of length
  T step_size;
};

template <class T>
struct Rays {
  const T *origins, *directions, *starts, *fars;
};

// Side in cells, 1, 2 or 4, of an aligned empty cube that contains a cell; 0 if the cell is
// occupied.
HD int empty_cells_around(const uint8_t *bits, uint32_t code) {
  if (reinterpret_cast<const uint64_t *>(bits)[code >> 6] == 0) return 4;
  uint8_t byte = bits[code >> 3];
  return byte == 0 ? 2 : byte >> (code & 7) & 1 ? 0 : 1;
}

// Call visit(t, position) for up to `max_samples` samples of a ray from its step `k` on. Return the
// next step, MAX_STEPS when the ray has ended.
template <class T, class Visit>
HD int march_ray(const Scene<T> &s, const Rays<T> &rays, int64_t ray, int k, int max_samples,
                 Visit visit) {
  const T *o = rays.origins + 3 * ray, *v = rays.directions + 3 * ray;
  T start = rays.starts[ray], far = rays.fars[ray];
  while (max_samples > 0 && k < MAX_STEPS) {
    T t = start + (T)k * s.step_size;
    if (!(t < far)) return MAX_STEPS;
    T p[3];
    int cell[3];
    for (int d = 0; d < 3; d++) {
      p[d] = o[d] + t * v[d];
      T at = (p[d] - s.box.low[d]) * s.scale[d];
      cell[d] = at > 0 ? (at < (T)s.resolution ? (int)at : s.resolution - 1) : 0;
    }
    int side =
        empty_cells_around(s.bits, morton((uint32_t)cell[0], (uint32_t)cell[1], (uint32_t)cell[2]));
    if (side == 0) {
      visit(t, p);
      max_samples--;
      k++;
      continue;
    }
    // Skip to the last step that is surely inside the empty cube: its faces are moved inward by a
    // thousandth of a cell, far more than rounding can move a sample.
    T t_exit = far;
    for (int d = 0; d < 3; d++) {
      if (v[d] == 0) continue;
      T face = (T)(cell[d] & -side) + (v[d] > 0 ? (T)side - T(1e-3) : T(1e-3));
      T t_face = (s.box.low[d] + face / s.scale[d] - o[d]) / v[d];
      if (t_face < t_exit) t_exit = t_face;
    }
    T steps = (t_exit - start) / s.step_size;
    int target = steps > 0 ? (steps < (T)MAX_STEPS ? (int)steps : MAX_STEPS - 1) : 0;
    k = target > k ? target + 1 : k + 1;
  }
  return k;
}

// One ray: its number of samples from its step on, at most max_samples, and the next step after
// them.
template <class T>
struct MarchCount {
  Scene<T> scene;
  Rays<T> rays;
  const int64_t *alive;  // which rays; null: all
  const int32_t *steps;  // next step of each; null: 0
  int32_t *counts, *next;
  int max_samples;

  HD void operator()(int64_t i) const {
    int count = 0;
    next[i] = march_ray(scene, rays, alive ? alive[i] : i, steps ? steps[i] : 0, max_samples,
                        [&](T, const T *) { count++; });
    counts[i] = count;
  }
};

// The same march, writing as many samples as packed_info says.
template <class T>
struct MarchWrite {
  Scene<T> scene;
  Rays<T> rays;
  const int64_t *alive;
  const int32_t *steps;
  const int64_t *packed_info;  // (rays, 2): first sample, and number of samples
  T *positions, *ts;
  int64_t *ray_indices;  // the ray of each sample

  HD void operator()(int64_t i) const {
    int64_t ray = alive ? alive[i] : i, at = packed_info[2 * i];
    march_ray(scene, rays, ray, steps ? steps[i] : 0, (int)packed_info[2 * i + 1],
              [&](T t, const T *p) {
                for (int d = 0; d < 3; d++) positions[3 * at + d] = p[d];
                ts[at] = t;
                ray_indices[at++] = ray;
              });
  }
};

// Compact the alive rays: those with samples take the places of those without.
struct Compact {
  const int64_t *alive, *places;  // places: new place of each ray with samples, counted from 1
  const int32_t *counts, *next;
  const int64_t *firsts;
  int64_t *new_alive, *new_info;
  int32_t *new_steps;

  HD void operator()(int64_t i) const {
    if (counts[i] == 0) return;
    int64_t target = places[i] - 1;
    new_alive[target] = alive[i];
    new_steps[target] = next[i];
    new_info[2 * target] = firsts[i];
    new_info[2 * target + 1] = counts[i];
  }
};

// Add samples to the image of alive rays; a ray that has become opaque ends.
template <class T>
struct Accumulate {
  const T *sigmas, *features, *deltas, *ts;
  const int64_t *alive, *packed_info;
  T *depths, *image, *optical_depth;
  int32_t *steps;
  int64_t channels;
  T max_optical_depth;

  HD void operator()(int64_t i) const {
    int64_t ray = alive[i], first = packed_info[2 * i];
    T tau = optical_depth[ray];
    for (int64_t j = first; j < first + packed_info[2 * i + 1] && tau <= max_optical_depth; j++) {
      T s = sigmas[j] * deltas[j], w = exp(-tau) * -expm1(-s);
      for (int64_t c = 0; c < channels; c++)
        image[ray * channels + c] += w * features[j * channels + c];
      depths[ray] += w * ts[j];
      tau += s;
    }
    optical_depth[ray] = tau;
    if (!(tau <= max_optical_depth)) steps[i] = MAX_STEPS;
  }
};

template <class T>
Box<T> box_of(double x0, double y0, double z0, double x1, double y1, double z1) {
  return {{(T)x0, (T)y0, (T)z0}, {(T)x1, (T)y1, (T)z1}};
}

#define BOX_ARGUMENTS double x0, double y0, double z0, double x1, double y1, double z1
#define BOX x0, y0, z0, x1, y1, z1

template <class T>
Scene<T> scene_of(const void *bits, int64_t resolution, double step_size, BOX_ARGUMENTS) {
  Scene<T> s{(const uint8_t *)bits, (int)resolution, box_of<T>(BOX), {}, (T)step_size};
  for (int d = 0; d < 3; d++) s.scale[d] = (T)resolution / (s.box.high[d] - s.box.low[d]);
  return s;
}

EXPORT int morton3d(const void *cells, void *codes, int64_t n, intptr_t threads_or_stream) {
  return for_each(n, threads_or_stream, MortonEncode{(const int32_t *)cells, (int32_t *)codes});
}

EXPORT int morton3d_invert(const void *codes, void *cells, int64_t n, intptr_t threads_or_stream) {
  return for_each(n, threads_or_stream, MortonDecode{(const int32_t *)codes, (int32_t *)cells});
}

EXPORT int packbits(int64_t type, const void *density, void *bits, double threshold, int64_t bytes,
                    intptr_t threads_or_stream) {
  return dispatch_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return for_each(bytes, threads_or_stream,
                    PackBits<T>{(const T *)density, (uint8_t *)bits, (T)threshold});
  });
}

EXPORT int ray_aabb_intersect(int64_t type, const void *origins, const void *directions,
                              void *nears, void *fars, double near_plane, BOX_ARGUMENTS, int64_t n,
                              intptr_t threads_or_stream) {
  return dispatch_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return for_each(n, threads_or_stream,
                    RayAabbIntersect<T>{(const T *)origins, (const T *)directions, (T *)nears,
                                        (T *)fars, box_of<T>(BOX), (T)near_plane});
  });
}

#define MARCH_ARGUMENTS                                                                         \
  const void *origins, const void *directions, const void *starts, const void *fars,            \
      const void *bits, int64_t resolution, double step_size, BOX_ARGUMENTS, const void *alive, \
      const void *steps
#define RAYS {(const T *)origins, (const T *)directions, (const T *)starts, (const T *)fars}

EXPORT int march_count(int64_t type, MARCH_ARGUMENTS, void *counts, void *next, int64_t max_samples,
                       int64_t n, intptr_t threads_or_stream) {
  return dispatch_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return for_each(n, threads_or_stream,
                    MarchCount<T>{scene_of<T>(bits, resolution, step_size, BOX), RAYS,
                                  (const int64_t *)alive, (const int32_t *)steps, (int32_t *)counts,
                                  (int32_t *)next, (int)max_samples});
  });
}

EXPORT int march_write(int64_t type, MARCH_ARGUMENTS, const void *packed_info, void *positions,
                       void *ts, void *ray_indices, int64_t n, intptr_t threads_or_stream) {
  return dispatch_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return for_each(
        n, threads_or_stream,
        MarchWrite<T>{scene_of<T>(bits, resolution, step_size, BOX), RAYS, (const int64_t *)alive,
                      (const int32_t *)steps, (const int64_t *)packed_info, (T *)positions, (T *)ts,
                      (int64_t *)ray_indices});
  });
}

EXPORT int compact(const void *alive, const void *places, const void *counts, const void *next,
                   const void *firsts, void *new_alive, void *new_info, void *new_steps, int64_t n,
                   intptr_t threads_or_stream) {
  return for_each(n, threads_or_stream,
                  Compact{(const int64_t *)alive, (const int64_t *)places, (const int32_t *)counts,
                          (const int32_t *)next, (const int64_t *)firsts, (int64_t *)new_alive,
                          (int64_t *)new_info, (int32_t *)new_steps});
}

EXPORT int accumulate(int64_t type, const void *sigmas, const void *features, const void *deltas,
                      const void *ts, const void *alive, const void *packed_info, void *depths,
                      void *image, void *optical_depth, void *steps, int64_t channels,
                      double max_optical_depth, int64_t n, intptr_t threads_or_stream) {
  return dispatch_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return for_each(
        n, threads_or_stream,
        Accumulate<T>{(const T *)sigmas, (const T *)features, (const T *)deltas, (const T *)ts,
                      (const int64_t *)alive, (const int64_t *)packed_info, (T *)depths, (T *)image,
                      (T *)optical_depth, (int32_t *)steps, channels, (T)max_optical_depth});
  });
}

// --- Compositing (NeRF, equation 3), implemented in march.cpp and in march.cu

template <class T>
struct Composite {
  const T *sigmas, *features, *deltas, *ts;
  const int64_t *packed_info;  // (rays, 2): first sample, and number of samples
  int64_t channels;
  T max_optical_depth;
  T *image, *depths, *opacities, *weights;
};

constexpr int STOPPED = -1;  // transmittance of a sample behind the end of its ray

template <class T>
struct CompositeGrad {
  Composite<T> in;  // of its outputs only the weights are used, as an input
  const T *d_image, *d_depths, *d_opacities, *d_weights;
  T *d_sigmas, *d_features;

  // Derivative of the loss with respect to a sample's weight.
  HD T d_weight(int64_t ray, int64_t j) const {
    T g = d_weights[j] + d_opacities[ray] + d_depths[ray] * in.ts[j];
    for (int64_t c = 0; c < in.channels; c++)
      g = fma(d_image[ray * in.channels + c], in.features[j * in.channels + c], g);
    return g;
  }
};

template <class T>
int composite(const Composite<T> &work, int64_t rays, intptr_t threads_or_stream);
template <class T>
int composite_grad(const CompositeGrad<T> &work, int64_t rays, intptr_t threads_or_stream);

#define COMPOSITE_ARGUMENTS                                                     \
  const void *sigmas, const void *features, const void *deltas, const void *ts, \
      const void *packed_info, int64_t channels, double max_optical_depth
#define COMPOSITE                                                           \
  (const T *)sigmas, (const T *)features, (const T *)deltas, (const T *)ts, \
      (const int64_t *)packed_info, channels, (T)max_optical_depth

EXPORT int composite_rays(int64_t type, COMPOSITE_ARGUMENTS, void *image, void *depths,
                          void *opacities, void *weights, int64_t rays,
                          intptr_t threads_or_stream) {
  return dispatch_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return composite(Composite<T>{COMPOSITE, (T *)image, (T *)depths, (T *)opacities, (T *)weights},
                     rays, threads_or_stream);
  });
}

EXPORT int composite_rays_grad(int64_t type, COMPOSITE_ARGUMENTS, void *weights,
                               const void *d_image, const void *d_depths, const void *d_opacities,
                               const void *d_weights, void *d_sigmas, void *d_features,
                               int64_t rays, intptr_t threads_or_stream) {
  return dispatch_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    Composite<T> in{COMPOSITE, nullptr, nullptr, nullptr, (T *)weights};
    return composite_grad(
        CompositeGrad<T>{in, (const T *)d_image, (const T *)d_depths, (const T *)d_opacities,
                         (const T *)d_weights, (T *)d_sigmas, (T *)d_features},
        rays, threads_or_stream);
  });
}
