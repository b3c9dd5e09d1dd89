// What CPU and GPU share of ray marching (Instant-NGP, appendix E): the box, Morton codes, the occupancy grid, and the
// walk along a ray.
//
// Samples of a ray lie at start + k * step, k = 0, 1, ...; those before `far` in an occupied cell count. Nothing else
// decides about them: how the walk jumps over empty cells does not change what it finds.
#pragma once

#include "common.h"

constexpr int LAST = 1 << 24;  // steps of a ray: as many as float32 counts

// --- Morton codes: the bits of three coordinates in turns, so that near cells are near in memory

HD uint32_t spread(uint32_t v) {  // ten bits, two zeros between them
  v = (v | v << 16) & 0x030000ffu;
  v = (v | v << 8) & 0x0300f00fu;
  v = (v | v << 4) & 0x030c30c3u;
  return (v | v << 2) & 0x09249249u;
}

HD uint32_t gather(uint32_t v) {
  v &= 0x09249249u;
  v = (v | v >> 2) & 0x030c30c3u;
  v = (v | v >> 4) & 0x0300f00fu;
  v = (v | v >> 8) & 0x030000ffu;
  return (v | v >> 16) & 0x3ffu;
}

HD uint32_t morton(uint32_t x, uint32_t y, uint32_t z) { return spread(x) | spread(y) << 1 | spread(z) << 2; }

struct Encode {
  const int32_t *cells;
  int32_t *codes;
  HD void operator()(int64_t i) const {
    codes[i] = (int32_t)morton((uint32_t)cells[3 * i], (uint32_t)cells[3 * i + 1], (uint32_t)cells[3 * i + 2]);
  }
};

struct Decode {
  const int32_t *codes;
  int32_t *cells;
  HD void operator()(int64_t i) const {
    for (int d = 0; d < 3; d++) cells[3 * i + d] = (int32_t)gather((uint32_t)codes[i] >> d);
  }
};

template <class T>
struct Pack {
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
struct NearFar {
  const T *origins, *directions;
  T *nears, *fars;
  Box<T> box;
  T least;

  HD void operator()(int64_t i) const {
    T near = least, far = T(INFINITY);
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
    nears[i] = hit ? near : least;
    fars[i] = hit ? far : least;
  }
};

// --- The walk

template <class T>
struct Scene {
  const uint8_t *bits;
  int resolution;  // cells along an axis, a power of two from 4
  Box<T> box;
  T scale[3];  // cells a unit of length
  T step;
};

template <class T>
struct Rays {
  const T *origins, *directions, *starts, *fars;
};

// How many cells' side, 1, 2 or 4, the empty cube around a cell has at least; 0 if the cell is occupied.
HD int empty_around(const uint8_t *bits, uint32_t code) {
  if (reinterpret_cast<const uint64_t *>(bits)[code >> 6] == 0) return 4;
  uint8_t byte = bits[code >> 3];
  return byte == 0 ? 2 : byte >> (code & 7) & 1 ? 0 : 1;
}

// Goes along a ray from its step `k` on, calls visit(t, position) for up to `limit` samples, and returns the step to
// go on from, LAST when the ray is done.
template <class T, class Visit>
HD int walk(const Scene<T> &s, const Rays<T> &rays, int64_t ray, int k, int limit, Visit visit) {
  const T *o = rays.origins + 3 * ray, *v = rays.directions + 3 * ray;
  T start = rays.starts[ray], far = rays.fars[ray];
  while (limit > 0 && k < LAST) {
    T t = start + (T)k * s.step;
    if (!(t < far)) return LAST;
    T p[3];
    int cell[3];
    for (int d = 0; d < 3; d++) {
      p[d] = o[d] + t * v[d];
      T at = (p[d] - s.box.low[d]) * s.scale[d];
      cell[d] = at > 0 ? (at < (T)s.resolution ? (int)at : s.resolution - 1) : 0;
    }
    int side = empty_around(s.bits, morton((uint32_t)cell[0], (uint32_t)cell[1], (uint32_t)cell[2]));
    if (side == 0) {
      visit(t, p);
      limit--;
      k++;
      continue;
    }
    // To the last step that is surely inside the empty cube: its faces are drawn in by a thousandth of a cell, far more
    // than rounding can move a sample.
    T leaves = far;
    for (int d = 0; d < 3; d++) {
      if (v[d] == 0) continue;
      T face = (T)(cell[d] & -side) + (v[d] > 0 ? (T)side - T(1e-3) : T(1e-3));
      T t_face = (s.box.low[d] + face / s.scale[d] - o[d]) / v[d];
      if (t_face < leaves) leaves = t_face;
    }
    T steps = (leaves - start) / s.step;
    int to = steps > 0 ? (steps < (T)LAST ? (int)steps : LAST - 1) : 0;
    k = to > k ? to + 1 : k + 1;
  }
  return k;
}

// One ray of the list: how many samples it has from its step on, at most limit, and where it goes on after them.
template <class T>
struct Count {
  Scene<T> scene;
  Rays<T> rays;
  const int64_t *list;   // which rays; null: all
  const int32_t *steps;  // where each ray of the list goes on; null: at its start
  int32_t *counts, *next;
  int limit;

  HD void operator()(int64_t i) const {
    int count = 0;
    next[i] = walk(scene, rays, list ? list[i] : i, steps ? steps[i] : 0, limit, [&](T, const T *) { count++; });
    counts[i] = count;
  }
};

// The same walk, writing the samples from offset `first` of each ray on; no sample beyond `capacity`.
template <class T>
struct Write {
  Scene<T> scene;
  Rays<T> rays;
  const int64_t *list;
  const int32_t *steps;
  const int64_t *spans;  // (rays of the list, 2): first sample, and how many
  T *positions, *ts;
  int64_t *owners;  // the ray of each sample

  HD void operator()(int64_t i) const {
    int64_t ray = list ? list[i] : i, at = spans[2 * i];
    walk(scene, rays, ray, steps ? steps[i] : 0, (int)spans[2 * i + 1], [&](T t, const T *p) {
      for (int d = 0; d < 3; d++) positions[3 * at + d] = p[d];
      ts[at] = t;
      owners[at++] = ray;
    });
  }
};

// Rays that found a sample move up into the places of those that did not.
struct Compact {
  const int64_t *list, *slots;  // slots: place of each ray if it lives, counted from 1
  const int32_t *counts, *next;
  const int64_t *firsts;
  int64_t *living, *spans;
  int32_t *steps;

  HD void operator()(int64_t i) const {
    if (counts[i] == 0) return;
    int64_t to = slots[i] - 1;
    living[to] = list[i];
    steps[to] = next[i];
    spans[2 * to] = firsts[i];
    spans[2 * to + 1] = counts[i];
  }
};

// Adds a batch of samples to the pictures of living rays; a ray that is opaque goes no further.
template <class T>
struct Accumulate {
  const T *sigmas, *features, *deltas, *ts;
  const int64_t *living, *spans;
  T *depths, *image, *spent;  // spent: optical depth so far
  int32_t *steps;
  int64_t channels;
  T opaque;  // optical depth at which a ray ends

  HD void operator()(int64_t i) const {
    int64_t ray = living[i], first = spans[2 * i];
    T tau = spent[ray];
    for (int64_t j = first; j < first + spans[2 * i + 1] && tau <= opaque; j++) {
      T s = sigmas[j] * deltas[j], w = exp(-tau) * -expm1(-s);
      for (int64_t c = 0; c < channels; c++) image[ray * channels + c] += w * features[j * channels + c];
      depths[ray] += w * ts[j];
      tau += s;
    }
    spent[ray] = tau;
    if (!(tau <= opaque)) steps[i] = LAST;
  }
};

template <class T>
Box<T> box_of(double x0, double y0, double z0, double x1, double y1, double z1) {
  return {{(T)x0, (T)y0, (T)z0}, {(T)x1, (T)y1, (T)z1}};
}

#define BOX_ARGUMENTS double x0, double y0, double z0, double x1, double y1, double z1
#define BOX x0, y0, z0, x1, y1, z1

template <class T>
Scene<T> scene_of(const void *bits, int64_t resolution, double step, BOX_ARGUMENTS) {
  Scene<T> s{(const uint8_t *)bits, (int)resolution, box_of<T>(BOX), {}, (T)step};
  for (int d = 0; d < 3; d++) s.scale[d] = (T)resolution / (s.box.high[d] - s.box.low[d]);
  return s;
}

EXPORT int morton3d(const void *cells, void *codes, int64_t n, intptr_t where) {
  return each(n, where, Encode{(const int32_t *)cells, (int32_t *)codes});
}

EXPORT int morton3d_invert(const void *codes, void *cells, int64_t n, intptr_t where) {
  return each(n, where, Decode{(const int32_t *)codes, (int32_t *)cells});
}

EXPORT int packbits(int64_t type, const void *density, void *bits, double threshold, int64_t bytes, intptr_t where) {
  return by_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return each(bytes, where, Pack<T>{(const T *)density, (uint8_t *)bits, (T)threshold});
  });
}

EXPORT int near_far(int64_t type, const void *origins, const void *directions, void *nears, void *fars, double least,
                    BOX_ARGUMENTS, int64_t n, intptr_t where) {
  return by_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return each(n, where, NearFar<T>{(const T *)origins, (const T *)directions, (T *)nears, (T *)fars,
                                     box_of<T>(BOX), (T)least});
  });
}

#define MARCH_ARGUMENTS                                                                                              \
  const void *origins, const void *directions, const void *starts, const void *fars, const void *bits,               \
      int64_t resolution, double step, BOX_ARGUMENTS, const void *list, const void *steps
#define RAYS {(const T *)origins, (const T *)directions, (const T *)starts, (const T *)fars}

EXPORT int march_count(int64_t type, MARCH_ARGUMENTS, void *counts, void *next, int64_t limit, int64_t n,
                       intptr_t where) {
  return by_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return each(n, where, Count<T>{scene_of<T>(bits, resolution, step, BOX), RAYS, (const int64_t *)list,
                                   (const int32_t *)steps, (int32_t *)counts, (int32_t *)next, (int)limit});
  });
}

EXPORT int march_write(int64_t type, MARCH_ARGUMENTS, const void *spans, void *positions, void *ts, void *owners,
                       int64_t n, intptr_t where) {
  return by_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return each(n, where, Write<T>{scene_of<T>(bits, resolution, step, BOX), RAYS, (const int64_t *)list,
                                   (const int32_t *)steps, (const int64_t *)spans, (T *)positions, (T *)ts,
                                   (int64_t *)owners});
  });
}

EXPORT int compact(const void *list, const void *slots, const void *counts, const void *next, const void *firsts,
                   void *living, void *spans, void *steps, int64_t n, intptr_t where) {
  return each(n, where, Compact{(const int64_t *)list, (const int64_t *)slots, (const int32_t *)counts,
                                (const int32_t *)next, (const int64_t *)firsts, (int64_t *)living, (int64_t *)spans,
                                (int32_t *)steps});
}

EXPORT int accumulate(int64_t type, const void *sigmas, const void *features, const void *deltas, const void *ts,
                      const void *living, const void *spans, void *depths, void *image, void *spent, void *steps,
                      int64_t channels, double opaque, int64_t n, intptr_t where) {
  return by_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return each(n, where, Accumulate<T>{(const T *)sigmas, (const T *)features, (const T *)deltas, (const T *)ts,
                                        (const int64_t *)living, (const int64_t *)spans, (T *)depths, (T *)image,
                                        (T *)spent, (int32_t *)steps, channels, (T)opaque});
  });
}

// --- Compositing (NeRF, equation 3): march.cpp and march.cu each have their own

template <class T>
struct Composite {
  const T *sigmas, *features, *deltas, *ts;
  const int64_t *spans;  // (rays, 2): first sample, and how many
  int64_t channels;
  T opaque;
  T *image, *depths, *opacities, *weights;
};

constexpr int STOPPED = -1;  // in the place of what passes a sample that its ray did not reach

template <class T>
struct CompositeGrad {
  Composite<T> in;  // its outputs are not used, but for weights, which are read
  const T *d_image, *d_depths, *d_opacities, *d_weights;
  T *d_sigmas, *d_features;

  // What one more unit of a sample's weight does to the loss.
  HD T of_weight(int64_t ray, int64_t j) const {
    T g = d_weights[j] + d_opacities[ray] + d_depths[ray] * in.ts[j];
    for (int64_t c = 0; c < in.channels; c++)
      g = fma(d_image[ray * in.channels + c], in.features[j * in.channels + c], g);
    return g;
  }
};

template <class T>
int composite(const Composite<T> &work, int64_t rays, intptr_t where);
template <class T>
int composite_grad(const CompositeGrad<T> &work, int64_t rays, intptr_t where);

#define COMPOSITE_ARGUMENTS                                                                                          \
  const void *sigmas, const void *features, const void *deltas, const void *ts, const void *spans, int64_t channels, \
      double opaque
#define COMPOSITE                                                                                             \
  (const T *)sigmas, (const T *)features, (const T *)deltas, (const T *)ts, (const int64_t *)spans, channels, \
      (T)opaque

EXPORT int composite_rays(int64_t type, COMPOSITE_ARGUMENTS, void *image, void *depths, void *opacities,
                          void *weights, int64_t rays, intptr_t where) {
  return by_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    return composite(Composite<T>{COMPOSITE, (T *)image, (T *)depths, (T *)opacities, (T *)weights}, rays, where);
  });
}

EXPORT int composite_rays_grad(int64_t type, COMPOSITE_ARGUMENTS, void *weights, const void *d_image,
                               const void *d_depths, const void *d_opacities, const void *d_weights, void *d_sigmas,
                               void *d_features, int64_t rays, intptr_t where) {
  return by_wide_type(type, [&](auto *t) {
    using T = std::remove_pointer_t<decltype(t)>;
    Composite<T> in{COMPOSITE, nullptr, nullptr, nullptr, (T *)weights};
    return composite_grad(CompositeGrad<T>{in, (const T *)d_image, (const T *)d_depths, (const T *)d_opacities,
                                           (const T *)d_weights, (T *)d_sigmas, (T *)d_features},
                          rays, where);
  });
}
