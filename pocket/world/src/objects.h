// Objects on a ground: signed-distance primitives, sphere traced.
//
// A scene is a block of floats (layout.h). A ray first collects the primitives whose bounding spheres it
// meets in a mask and marches through those only: the surface does not change, since a primitive
// reaches no further than its sphere, blend included.
#pragma once
#include "layout.h"
#include "math.h"

#ifdef __CUDA_ARCH__
#define FIRST_BIT(m) (__ffsll((long long)(m)) - 1)
#else
#define FIRST_BIT(m) __builtin_ctzll(m)
#endif

typedef unsigned long long word_t;

// A set of primitives. Most scenes have less than 64: then every step but one is on the first word alone.
struct mask_t {
  word_t low, high;

  HD bool any() const { return low | high; }
  HD bool has(int i) const { return (i < 64 ? low >> i : high >> (i - 64)) & 1; }
  HD int first() const { return low ? FIRST_BIT(low) : 64 + FIRST_BIT(high); }
  HD void add(int i) {
    if (i < 64) low |= 1ull << i;
    else high |= 1ull << (i - 64);
  }
  HD void drop_first() {
    if (low) low &= low - 1;
    else high &= high - 1;
  }
};

struct Scene {
  const float *head, *materials, *prims;
  int count;
};

HD Scene scene_of(const float *s) { return {s, s + MATERIALS, s + PRIMS, (int)s[H_PRIMS]}; }

// Distances, in the primitive's own frame. Quilez's "distance functions" collects the formulas; the
// ellipsoid is the first-order bound |f| / |grad f|.
HD float sd_ellipsoid(vec3 q, float a, float b, float c) {
  float ia = 1.0f / a, ib = 1.0f / b, ic = 1.0f / c;
  vec3 u = {q.x * ia, q.y * ib, q.z * ic};
  vec3 w = {u.x * ia, u.y * ib, u.z * ic};
  float k0 = length(u);
  return k0 * (k0 - 1.0f) / fmaxf(length(w), 1e-9f);
}
HD float sd_lens(vec3 q, float a, float b, float c) {  // no nearer than the box around it
  return fmaxf(sd_ellipsoid(q, a, b, c), length(maxv(absv(q) - v3(a, b, c), 0.0f)) - 0.02f);
}
HD float sd_box(vec3 q, float a, float b, float c, float r) {
  vec3 d = absv(q) - v3(a - r, b - r, c - r);
  return length(maxv(d, 0.0f)) + fminf(max3(d), 0.0f) - r;
}
HD float sd_cone(vec3 q, float r0, float r1, float h, float r) {  // radius r0 at -h, r1 at +h
  r0 -= r;
  r1 -= r;
  h -= r;
  float x = sqrtf(q.x * q.x + q.z * q.z), y = q.y;
  float k2x = r1 - r0, k2y = 2.0f * h;
  float cax = x - fminf(x, y < 0.0f ? r0 : r1), cay = fabsf(y) - h;
  float t = saturate(((r1 - x) * k2x + (h - y) * k2y) / (k2x * k2x + k2y * k2y));
  float cbx = x - r1 + k2x * t, cby = y - h + k2y * t;
  float sign = (cbx < 0.0f && cay < 0.0f) ? -1.0f : 1.0f;
  return sign * sqrtf(fminf(cax * cax + cay * cay, cbx * cbx + cby * cby)) - r;
}
HD float sd_capsule(vec3 q, float r0, float r1, float h) {  // radius r0 at the origin, r1 at height h
  float b = (r0 - r1) / h, a = sqrtf(fmaxf(1.0f - b * b, 0.0f));
  float x = sqrtf(q.x * q.x + q.z * q.z), k = a * q.y - b * x;
  if (k < 0.0f) return sqrtf(x * x + q.y * q.y) - r0;
  if (k > a * h) return sqrtf(x * x + (q.y - h) * (q.y - h)) - r1;
  return x * a + q.y * b - r0;
}
HD float sd_torus(vec3 q, float big, float small_) {
  float x = sqrtf(q.x * q.x + q.z * q.z) - big;
  return sqrtf(x * x + q.y * q.y) - small_;
}
HD float smooth_max(float a, float b, float k) {
  float h = fmaxf(k - fabsf(a - b), 0.0f) / k;
  return fmaxf(a, b) + h * h * k * 0.25f;
}
HD float sd_dome(vec3 q, float a, float b, float c, float cut) {  // the part of an ellipsoid above y = cut
  return smooth_max(sd_ellipsoid(q, a, b, c), cut - q.y, 0.06f);
}
HD float sd_prism(vec3 q, float w, float h, float l, float r) {  // roof: base at y=0 of half width w, ridge along z
  float nx = h, ny = w, n = 1.0f / sqrtf(nx * nx + ny * ny);
  float slope = (fabsf(q.x) * nx + (q.y - h) * ny) * n;
  return fmaxf(fmaxf(slope, -q.y), fabsf(q.z) - l) - r;
}
HD float sd_frill(vec3 q, float radius, float thick, float amp, float waves) {  // a leaf of lettuce
  float a = atan2f(q.z, q.x), x = sqrtf(q.x * q.x + q.z * q.z);
  float edge = smoothstepf(0.5f * radius, radius, x);
  float y = q.y - amp * edge * sinf(a * waves);
  float dx = x - radius * (1.0f + 0.05f * sinf(a * waves * 0.5f + 1.0f)), dy = fabsf(y) - thick;
  return 0.5f * (sqrtf(fmaxf(dx, 0.0f) * fmaxf(dx, 0.0f) + fmaxf(dy, 0.0f) * fmaxf(dy, 0.0f)) +
                 fminf(fmaxf(dx, dy), 0.0f) - 0.01f);
}
HD float sd_ribbed(vec3 q, float a, float b, float c, float ribs) {  // a pumpkin
  float x = sqrtf(q.x * q.x + q.z * q.z) / a;
  float groove = 0.07f * a * (1.0f - fabsf(cosf(0.5f * ribs * atan2f(q.z, q.x)))) * saturate(2.0f * x);
  float dent = 0.16f * b * expf(-9.0f * x * x);
  vec3 p = {q.x, q.y + (q.y > 0.0f ? dent : 0.0f), q.z};
  return 0.8f * (sd_ellipsoid(p, a, b, c) + groove);
}

// Four floats in one load: a warp reads shared memory once where scalars would take four turns.
struct alignas(16) Quad {
  float a, b, c, d;
};
HD Quad quad(const float *p) { return *(const Quad *)p; }

HD float prim_distance(const float *P, vec3 p) {
  Quad u = quad(P + P_POSITION), v = quad(P + P_ROTATION + 1), w = quad(P + P_ROTATION + 5), size = quad(P + P_SIZE);
  vec3 d = p - v3(u.a, u.b, u.c);
  vec3 q = {u.d * d.x + v.a * d.y + v.b * d.z, v.c * d.x + v.d * d.y + w.a * d.z, w.b * d.x + w.c * d.y + w.d * d.z};
  float a = size.a, b = size.b, c = size.c, e = size.d;
  switch ((int)P[P_TYPE]) {
    case ELLIPSOID: return sd_ellipsoid(q, a, b, c);
    case BOX: return sd_box(q, a, b, c, e);
    case CONE: return sd_cone(q, a, b, c, e);
    case CAPSULE: return sd_capsule(q, a, b, c);
    case TORUS: return sd_torus(q, a, b);
    case DOME: return sd_dome(q, a, b, c, e);
    case PRISM: return sd_prism(q, a, b, c, e);
    case FRILL: return sd_frill(q, a, b, c, e);
    case LENS: return sd_lens(q, a, b, c);
    default: return sd_ribbed(q, a, b, c, e);
  }
}

// Smooth minimum (quadratic polynomial): touches the result only where the two differ by less than k.
HD float smooth_min(float a, float b, float k) {
  if (k <= 0.0f) return fminf(a, b);
  float h = fmaxf(k - fabsf(a - b), 0.0f) / k;
  return fminf(a, b) - h * h * k * 0.25f;
}

// The primitives that one ray cares for, and those that any ray of its warp does: a warp walks the union
// together, each lane counting its own, so that GPU and CPU compute the same.
struct Masks {
  mask_t own, any;
};

HD Masks shared_walk(mask_t own) {
#ifdef __CUDA_ARCH__
  unsigned active = __activemask();
  word_t words[2] = {own.low, own.high};
  for (int i = 0; i < 2; i++) {
    unsigned low = __reduce_or_sync(active, (unsigned)words[i]);
    words[i] = low | (word_t)__reduce_or_sync(active, (unsigned)(words[i] >> 32)) << 32;
  }
  return {own, {words[0], words[1]}};
#else
  return {own, own};
#endif
}

HD float distance_to(const Scene &s, vec3 p, Masks mask) {
  float best = 1e9f, group_best = 1e9f;
  int group = -1;
  while (mask.any.any()) {
    int i = mask.any.first();
    mask.any.drop_first();
    if (!mask.own.has(i)) continue;
    const float *P = s.prims + i * PRIM;
    Quad kind = quad(P + P_TYPE);  // type, blend, group, material
    if ((int)kind.c != group) {
      best = fminf(best, group_best);
      group_best = 1e9f;
      group = (int)kind.c;
    }
    float d = prim_distance(P, p);
    group_best = kind.b < 0.0f ? smooth_max(group_best, -d, 0.015f) : smooth_min(group_best, d, kind.b);
  }
  return fminf(best, group_best);
}

// Primitives met by the ray o + t d, t > 0, and the stretch [t0, t1] that holds their bounding spheres.
HD mask_t ray_mask(const Scene &s, vec3 o, vec3 d, float *t0, float *t1) {
  mask_t mask = {};
  float near = 1e9f, far = 0.0f;
  vec3 to = v3(s.head + H_CENTER) - o;
  float along = dot(to, d), miss = dot(to, to) - along * along;
  float reach2 = s.head[H_REACH] * s.head[H_REACH];
  int count = miss < reach2 && (along > 0.0f || dot(to, to) < reach2) ? s.count : 0;
  for (int i = 0; i < count; i++) {
    Quad bound = quad(s.prims + i * PRIM + P_BOUND);
    vec3 c = v3(bound.a, bound.b, bound.c) - o;
    float b = dot(c, d), r2 = bound.d * bound.d, gap = r2 - (dot(c, c) - b * b);
    if (gap <= 0.0f) continue;
    float half = sqrtf(gap);
    if (b + half <= 0.0f) continue;
    mask.add(i);
    near = fminf(near, b - half);
    far = fmaxf(far, b + half);
  }
  *t0 = fmaxf(near, 0.0f);
  *t1 = far;
  return mask;
}

HD mask_t near_mask(const Scene &s, vec3 p, float reach) {
  mask_t mask = {};
  vec3 to = v3(s.head + H_CENTER) - p;
  float all = s.head[H_REACH] + reach;
  int count = dot(to, to) < all * all ? s.count : 0;
  for (int i = 0; i < count; i++) {
    Quad bound = quad(s.prims + i * PRIM + P_BOUND);
    vec3 c = v3(bound.a, bound.b, bound.c) - p;
    float r = bound.d + reach;
    if (dot(c, c) < r * r) mask.add(i);
  }
  return mask;
}

HD vec3 normal_at(const Scene &s, vec3 p, Masks mask, float e) {
  float a = distance_to(s, p + v3(e, -e, -e), mask), b = distance_to(s, p + v3(-e, -e, e), mask);
  float c = distance_to(s, p + v3(-e, e, -e), mask), d = distance_to(s, p + v3(e, e, e), mask);
  return normalize(v3(a - b - c + d, -a - b + c + d, -a + b - c + d));
}

struct Finish {
  vec3 color;
  float specular, shininess, metal, glow;
};

HD float band(float x, float soft) { return smoothstepf(-soft, soft, sinf(x)); }

HD Finish material(const float *M, vec3 q) {  // q: position in the object's frame, about one unit tall
  vec3 a = v3(M), b = v3(M + 3);
  float scale = M[7], t = 0.0f;
  switch ((int)M[6]) {
    case 1: t = band(dot(q, v3(0.45f, 0.85f, 0.28f)) * 2.0f * PI * scale, 0.25f); break;
    case 2: {
      float f = PI * scale;
      float x = sinf(q.x * f + 0.4f), y = sinf(q.y * f + 0.4f), z = sinf(q.z * f + 0.4f);
      t = smoothstepf(-0.06f, 0.06f, x * y * z);
      break;
    }
    case 3: {  // spots: the nearest of the jittered points of a lattice
      vec3 u = q * scale;
      int ix = (int)floorf(u.x), iy = (int)floorf(u.y), iz = (int)floorf(u.z);
      float nearest = 9.0f;
      for (int k = 0; k < 27; k++) {
        int x = ix + k % 3 - 1, y = iy + k / 3 % 3 - 1, z = iz + k / 9 - 1;
        uint32_t h = hash_u(x, y, z, 7u);
        vec3 c = v3(x + 0.25f + 0.5f * (h & 255) / 255.0f, y + 0.25f + 0.5f * (h >> 8 & 255) / 255.0f,
                    z + 0.25f + 0.5f * (h >> 16 & 255) / 255.0f);
        vec3 d = u - c;
        nearest = fminf(nearest, dot(d, d));
      }
      t = 1.0f - smoothstepf(0.11f, 0.16f, nearest);
      break;
    }
    case 4: {
      float r = sqrtf(q.x * q.x + 0.3f * q.z * q.z) * 7.0f + q.y * 1.5f + 1.6f * noise3(q * 2.5f, 3u);
      t = 0.5f + 0.5f * sinf(r * 2.0f * PI * 0.55f);
      break;
    }
    default: break;
  }
  return {mix(a, b, t), M[8], M[9], M[10], M[11]};
}

// The surface at p: materials are mixed where primitives blend.
HD Finish surface_at(const Scene &s, vec3 p, mask_t mask, int *thing) {
  Finish best = {}, group_surface = {};
  float best_d = 1e9f, group_best = 1e9f;
  int group = -1, best_thing = 0, group_thing = 0;
  while (true) {
    const float *P = mask.any() ? s.prims + mask.first() * PRIM : nullptr;
    if (!P || (int)P[P_GROUP] != group) {
      if (group_best < best_d) best_d = group_best, best = group_surface, best_thing = group_thing;
      group_best = 1e9f;
      if (!P) break;
      group = (int)P[P_GROUP];
    }
    mask.drop_first();
    float d = prim_distance(P, p);
    float k = P[P_BLEND];
    if (k < 0.0f) {  // carved away: the inside shows its own material
      if (-d > group_best - 0.005f) {
        const float *M = s.materials + (int)P[P_MATERIAL] * MATERIAL;
        group_surface = {v3(M), M[8], M[9], M[10], M[11]};
      }
      group_best = smooth_max(group_best, -d, 0.015f);
      continue;
    }
    if (d < group_best + k) {
      const float *F = s.head + (P[P_THING] > 0.0f ? H_FRAME2 : H_FRAME);
      vec3 w = (p - v3(F)) * F[12];
      vec3 q = {dot(v3(F + 3), w), dot(v3(F + 6), w), dot(v3(F + 9), w)};
      Finish m = material(s.materials + (int)P[P_MATERIAL] * MATERIAL, q);
      float t = k > 0.0f && group_best < 1e8f ? smoothstepf(-0.6f * k, 0.6f * k, group_best - d) : d < group_best;
      group_surface.color = mix(group_surface.color, m.color, t);
      group_surface.specular = mixf(group_surface.specular, m.specular, t);
      group_surface.shininess = mixf(group_surface.shininess, m.shininess, t);
      group_surface.metal = mixf(group_surface.metal, m.metal, t);
      group_surface.glow = mixf(group_surface.glow, m.glow, t);
      group_thing = (int)P[P_THING];
    }
    group_best = smooth_min(group_best, d, k);
  }
  *thing = best_thing;
  return best;
}

// How much of the light reaches p: 0 in full shadow, soft by the distance at which the ray passes.
HD float shadow(const Scene &s, vec3 p, vec3 light, float softness) {
  float t0, t1;
  mask_t own = ray_mask(s, p, light, &t0, &t1);
  if (!own.any()) return 1.0f;
  Masks mask = shared_walk(own);
  float lit = 1.0f, t = fmaxf(t0, 0.012f);
  for (int i = 0; i < 28 && t < t1; i++) {
    float h = distance_to(s, p + light * t, mask);
    lit = fminf(lit, 0.5f + 0.5f * h * softness / t);
    if (lit < 0.0f) return 0.0f;
    t += clampf(h, 0.012f, 0.2f);
  }
  lit = saturate(lit);
  return lit * lit * (3.0f - 2.0f * lit);
}

HD float occlusion(const Scene &s, vec3 p, vec3 n, bool ground) {
  mask_t own = near_mask(s, p, 0.24f);
  if (!own.any() && !ground) return 1.0f;
  Masks mask = shared_walk(own);
  float sum = 0.0f, weight = 1.0f;
  for (int i = 1; i <= 3; i++) {
    float h = 0.08f * i;
    vec3 q = p + n * h;
    float d = distance_to(s, q, mask);
    if (ground) d = fminf(d, q.y);
    sum += weight * fmaxf(h - d, 0.0f);
    weight *= 0.7f;
  }
  return clampf(1.0f - 2.4f * sum, 0.15f, 1.0f);
}

HD vec3 sky_color(const Scene &s, vec3 d) {
  const float *h = s.head;
  float up = fmaxf(d.y, 0.0f);
  vec3 c = mix(v3(h + H_HORIZON), v3(h + H_ZENITH), powf(up, 0.55f));
  vec3 light = v3(h + H_LIGHT);
  float sun = fmaxf(dot(d, light), 0.0f);
  c = c + v3(h + H_LIGHT_COLOR) * (h[H_SUN_GLOW] * powf(sun, 12.0f));
  if (h[H_STARS] > 0.0f && d.y > 0.0f) {
    vec3 u = d * 22.0f;
    int ix = (int)floorf(u.x), iy = (int)floorf(u.y), iz = (int)floorf(u.z);
    uint32_t r = hash_u(ix, iy, iz, (uint32_t)h[H_SEED]);
    if ((r & 15u) < 3u) {
      vec3 e = u - v3(ix + 0.3f + 0.4f * (r >> 4 & 255) / 255.0f, iy + 0.3f + 0.4f * (r >> 12 & 255) / 255.0f,
                      iz + 0.3f + 0.4f * (r >> 20 & 255) / 255.0f);
      c = c + v3(h[H_STARS]) * expf(-dot(e, e) * 60.0f);
    }
  }
  return c;
}

// Albedo of the ground at (x, z), and a tilt of its normal; `blur` is the size of a pixel there.
HD vec3 ground_color(const Scene &s, float x, float z, float blur, vec3 *n) {
  const float *h = s.head;
  vec3 a = v3(h + H_GROUND_A), b = v3(h + H_GROUND_B);
  uint32_t seed = (uint32_t)h[H_SEED];
  float fine = 1.0f - smoothstepf(0.1f, 0.5f, blur * 4.0f);  // detail fades before it aliases
  switch ((int)h[H_GROUND]) {
    case GRASS: {
      float t = fbm2(x * 2.2f, z * 2.2f, 3, seed), blades = noise2(x * 16.0f, z * 16.0f, seed + 5u);
      n->x = fine * 0.35f * (blades - 0.5f);
      n->z = fine * 0.35f * (noise2(x * 16.0f + 40.0f, z * 16.0f, seed + 6u) - 0.5f);
      return mix(a, b, saturate(1.5f * t - 0.25f + fine * 0.45f * (blades - 0.5f)));
    }
    case SNOW: {
      float e = 0.05f, t = fbm2(x * 1.3f, z * 1.3f, 2, seed);
      n->x = 2.2f * (t - fbm2((x + e) * 1.3f, z * 1.3f, 2, seed)) * fine;
      n->z = 2.2f * (t - fbm2(x * 1.3f, (z + e) * 1.3f, 2, seed)) * fine;
      return mix(a, b, t);
    }
    case SAND: {
      float bend = 1.4f * fbm2(x * 0.7f, z * 0.7f, 2, seed), f = 2.0f * PI * h[H_GROUND_SCALE];
      float phase = (z + 0.25f * x) * f + 5.0f * bend;
      n->z = -0.22f * fine * cosf(phase);
      return mix(a, b, saturate(0.5f + 0.22f * fine * sinf(phase) + 0.6f * (bend - 0.7f)));
    }
    case TABLE: {
      float w = h[H_GROUND_SCALE], row = floorf(x / w), along = z + 3.7f * hash01((int)row, 1, 0, seed);
      float tone = 0.65f * hash01((int)row, (int)floorf(along / 2.6f), 0, seed + 1u);
      float grain = noise2(x * 9.0f + 1.5f * noise2(x * 2.0f, z * 0.6f, seed), along * 0.9f, seed + 2u);
      float edge = fabsf(fract(x / w) - 0.5f), gap = smoothstepf(0.47f, 0.495f, edge) * fine;
      return mix(a, b, saturate(tone + 0.45f * (grain - 0.3f) * fine)) * (1.0f - 0.45f * gap);
    }
    case CHECKER: {
      float f = 1.0f / h[H_GROUND_SCALE], w = fmaxf(blur * f, 0.004f);
      float u = fabsf(fract(x * f * 0.5f) - 0.5f) * 4.0f - 1.0f, v = fabsf(fract(z * f * 0.5f) - 0.5f) * 4.0f - 1.0f;
      float t = clampf(u / w, -1.0f, 1.0f) * clampf(v / w, -1.0f, 1.0f);
      float fade_ = 1.0f - smoothstepf(0.25f, 1.0f, w);  // far away the squares melt into their mean
      return mix(a, b, 0.5f + 0.5f * t * fade_);
    }
    case MARS:
    case MOON: {
      bool moon = (int)h[H_GROUND] == MOON;
      vec3 c = mix(a, b, fbm2(x * 1.1f, z * 1.1f, 3, seed));
      float f = moon ? 0.75f : 0.5f;
      for (int k = 0; k < 4; k++) {  // craters (moon) or half-buried rocks (mars), one a cell
        int ix = (int)floorf(x * f - 0.5f) + (k & 1), iz = (int)floorf(z * f - 0.5f) + (k >> 1);
        float rx = hash01(ix, iz, 1, seed), rz = hash01(ix, iz, 2, seed), r = 0.14f + 0.24f * hash01(ix, iz, 3, seed);
        float dx = x * f - ix - 0.3f - 0.4f * rx, dz = z * f - iz - 0.3f - 0.4f * rz;
        float d = sqrtf(dx * dx + dz * dz) / r;
        if (d < 1.4f && d > 1e-4f) {
          float slope = d < 1.0f ? 0.75f * d : -1.9f * (1.4f - d);
          if (!moon) slope *= 0.6f;
          n->x -= slope * dx / (d * r) * fine;
          n->z -= slope * dz / (d * r) * fine;
          if (d < 1.0f) c = c * (moon ? 0.86f : 0.8f);
        }
      }
      return c;
    }
    default: return a;
  }
}

HD vec3 lit_color(const Scene &s, const Finish &m, vec3 p, vec3 n, vec3 view, float light, float ao) {
  const float *h = s.head;
  vec3 l = v3(h + H_LIGHT), half = normalize(l - view);
  float ndl = fmaxf(dot(n, l), 0.0f);
  vec3 ambient = mix(v3(h + H_BOUNCE), v3(h + H_AMBIENT), 0.5f + 0.5f * n.y) * ao;
  float fresnel = powf(1.0f - saturate(-dot(n, view)), 4.0f);
  vec3 mirror = view - n * (2.0f * dot(n, view));
  vec3 env = mirror.y > 0.0f || h[H_PLANE] == 0.0f ? mix(v3(h + H_HORIZON), v3(h + H_ZENITH), fmaxf(mirror.y, 0.0f))
                                                 : v3(h + H_BOUNCE);
  vec3 diffuse = m.color * (v3(h + H_LIGHT_COLOR) * (ndl * light) + ambient);
  float spec = m.specular * h[H_GLOSS] * powf(fmaxf(dot(n, half), 0.0f), m.shininess) * light * (ndl > 0.0f);
  vec3 c = mix(diffuse, m.color * (env * 0.9f + diffuse * 0.45f), m.metal);
  c = c + v3(h + H_LIGHT_COLOR) * spec + env * (fresnel * (0.10f + 0.25f * m.metal) * ao * h[H_GLOSS]);
  return c + m.color * m.glow;
}

// x in image heights from the center (right positive), y likewise (up positive, -0.5 to 0.5).
HD Hit object_sample(const float *floats, const float *prims, const float *materials, float x, float y) {
  Scene s = scene_of(floats);
  s.prims = prims;
  s.materials = materials;
  const float *h = s.head;
  float tan2 = 2.0f * h[H_TAN];
  vec3 eye = v3(h + H_EYE), forward = v3(h + H_FORWARD);
  vec3 d = normalize(forward + v3(h + H_RIGHT) * (x * tan2) + v3(h + H_UP) * (y * tan2));
  float cosine = dot(d, forward);
  bool plane = h[H_PLANE] > 0.0f;
  float t_ground = plane && d.y < -1e-4f ? -eye.y / d.y : 1e9f;

  float t0, t1;
  mask_t own = ray_mask(s, eye, d, &t0, &t1);
  t1 = fminf(t1, t_ground);
  bool hit = false;
  float t = t0, pixel = tan2 / 256.0f;
  if (own.any()) {
    Masks mask = shared_walk(own);
    for (int i = 0; i < 80 && t < t1; i++) {
      float r = distance_to(s, eye + d * t, mask);
      if (r < 0.25f * pixel * t) {
        hit = true;
        break;
      }
      t += r * 0.92f;
    }
  }
  vec3 light = v3(h + H_LIGHT);
  if (hit) {
    vec3 p = eye + d * t;
    mask_t touched = near_mask(s, p, 0.005f);
    vec3 n = normal_at(s, p, shared_walk(touched), 0.0018f);
    if (dot(n, d) > 0.0f) n = normalize(n - d * dot(n, d));
    int thing;
    Finish m = surface_at(s, p, touched, &thing);
    vec3 lifted = p + n * 0.008f;
    float lit = dot(n, light) > 0.0f ? shadow(s, lifted, light, h[H_SOFTNESS]) : 0.0f;
    return {lit_color(s, m, p, n, d, lit, occlusion(s, p, n, plane)), t * cosine, n, 1};
  }
  if (t_ground < 1e8f) {
    vec3 p = eye + d * t_ground;
    float blur = pixel * t_ground / fmaxf(-d.y, 0.05f);
    vec3 n = {0.0f, 1.0f, 0.0f};
    vec3 albedo = ground_color(s, p.x, p.z, blur, &n);
    n = normalize(n);
    float near_ = length(p - v3(h + H_CENTER)) - h[H_CENTER + 3];
    float lit = shadow(s, p + v3(0.0f, 0.004f, 0.0f), light, h[H_SOFTNESS]);
    float ao = near_ < 0.4f ? occlusion(s, p, v3(0.0f, 1.0f, 0.0f), false) : 1.0f;
    ao = mixf(ao, 1.0f, smoothstepf(0.0f, 0.4f, near_));
    vec3 c;
    if (h[H_GROUND] <= PLAIN) {  // a studio: the ground is the backdrop, only the shadow shows
      float dark = (1.0f - lit) * 0.42f * (1.0f - smoothstepf(1.0f, 3.0f, near_)) + (1.0f - ao) * 0.5f;
      c = albedo * (1.0f - saturate(dark));
    } else {
      Finish m = {albedo, 0.0f, 1.0f, 0.0f, 0.0f};
      if (h[H_GROUND] == TABLE || h[H_GROUND] == CHECKER) m.specular = 0.06f, m.shininess = 40.0f;
      c = lit_color(s, m, p, n, d, lit, ao);
      float haze = 1.0f - expf(-t_ground * h[H_HAZE]);
      c = mix(c, v3(h + H_HORIZON), haze * haze);
    }
    return {c, t_ground * cosine, v3(0.0f, 1.0f, 0.0f), 0};
  }
  if (h[H_GROUND] <= PLAIN) return {v3(h + H_GROUND_A), 0.0f, v3(0.0f), 0};
  return {sky_color(s, d), 0.0f, v3(0.0f), 0};
}
