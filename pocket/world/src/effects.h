// What lies over a landscape or glows in it: rain, snow, light in water, lava, spray.
#pragma once
#include "scenery.h"

// Rain or snow between the camera and what it sees, in columns that close after a full turn.
RARE vec3 falling(const float *s, const Path &p, vec3 color) {
  uint32_t seed = landscape_seed(s) + 940;
  vec3 light = v3(s + L_AMBIENT) * 1.15f + v3(s + L_SUN) * 0.45f;
  for (int layer = 0; layer < 3 && s[L_RAIN] > 0.0f; layer++) {
    int columns = 120 + 90 * layer;
    float u = p.turn * columns + 1.6f * p.slope, v = 0.0f, x = u - floorf(u);
    int i = (int)floorf(u);
    i = (i % columns + columns) % columns;
    v = p.slope * (2.6f + 1.1f * layer) + 9.0f * lattice(i, layer, seed);
    int j = (int)floorf(v);
    if (lattice(i, j * 3 + layer, seed + 1) > s[L_RAIN]) continue;
    float w = 0.075f + 0.02f * layer, off = fabsf(x - mixf(0.2f, 0.8f, lattice(i, j * 3 + layer, seed + 2)));
    float y = v - j, streak = smoothstepf(w, 0.3f * w, off) * smoothstepf(0.05f, 0.30f, y) *
        smoothstepf(0.72f, 0.55f, y);
    color = mix(color, light * 1.05f + v3(0.05f), (0.50f - 0.09f * layer) * streak);
  }
  for (int layer = 0; layer < 3 && s[L_FLAKES] > 0.0f; layer++) {
    int columns = 60 + 48 * layer;
    float u = p.turn * columns + 0.8f * p.slope, v = p.slope * columns / (2.0f * PI) + 31.0f;
    int i = (int)floorf(u), j = (int)floorf(v);
    float x = u - i, y = v - j;
    i = (i % columns + columns) % columns;
    if (lattice(i, j * 4 + layer, seed + 5) > s[L_FLAKES]) continue;
    float dx = x - mixf(0.25f, 0.75f, lattice(i, j * 4 + layer, seed + 6)),
          dy = y - mixf(0.25f, 0.75f, lattice(i, j * 4 + layer, seed + 7));
    float r = 0.11f + 0.03f * layer + 0.06f * lattice(i, j * 4 + layer, seed + 8);
    float flake = smoothstepf(r, 0.45f * r, sqrtf(dx * dx + dy * dy));
    color = mix(color, light * 1.25f + v3(0.06f), 0.88f * flake);
  }
  return color;
}
// Shafts of light, brighter towards the surface; they lie over everything.
RARE float light_shafts(const float *s, const Path &p) {
  uint32_t seed = landscape_seed(s) + 920;
  float lean = p.turn * 44.0f + 1.5f * sinf(2.0f * PI * p.turn) * p.slope, at = lean - floorf(lean / 44.0f) * 44.0f;
  int i = (int)at;
  float f = fade(at - i), a = lattice(i, 0, seed), b = lattice(i + 1 == 44 ? 0 : i + 1, 0, seed);
  float shaft = mixf(a, b, f);
  return shaft * shaft * smoothstepf(-0.15f, 0.7f, p.slope);
}
// Light that lava gives off: in streams down the cone, and in cracks of the ground near by.
RARE float lava(const float *s, vec3 q, float t) {
  uint32_t seed = landscape_seed(s) + 950;
  float c = off_cone(s, q.x, q.z);
  if (c < 0.95f) {
    Aim a = aim(s, q.x, q.z);
    float turn = atan2f(a.right, a.along - s[L_DISTANCE]);
    float wave = turn * 1.9f + 0.22f * sinf(9.0f * c + 6.0f * soft_noise(q.x * 0.008f, q.z * 0.008f, seed));
    float f = fabsf(fract(wave) - 0.5f), here = lattice((int)floorf(wave), 3, seed), reach = 0.35f + 0.7f * here;
    return smoothstepf(0.085f + 0.05f * c, 0.02f, f) * smoothstepf(reach, 0.7f * reach, c) +
        smoothstepf(0.115f, 0.07f, c);
  }
  float crack = fabsf(soft_noise(q.x * 0.11f, q.z * 0.11f, seed + 2) - 0.5f),
      where = soft_noise(q.x * 0.03f, q.z * 0.03f, seed + 3);
  return smoothstepf(0.024f, 0.004f, crack) * smoothstepf(0.5f, 0.62f, where) * smoothstepf(220.0f, 60.0f, t);
}
// Spray at the foot of the waterfalls.
RARE float spray(const float *s, const Path &p) {
  float r = s[L_DISTANCE], y = p.base + p.slope * r, off = off_fall(s, p.sx * r, p.cz * r, r) / (1.5f * s[L_BREADTH]);
  float puff = soft_noise(0.25f * off * s[L_BREADTH] + 5.0f, 0.3f * y, landscape_seed(s) + 960);
  return 0.85f * expf(-off * off - fmaxf(y, 0.0f) * 0.22f) * (y > -3.0f ? 1.0f : 0.0f) * (0.6f + 0.6f * puff);
}
