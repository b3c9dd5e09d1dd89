// The landscapes: sky, weather, water, and the march that finds what a pixel sees.
// A picture is a piece of a cylinder around the camera, 60 degrees to an image height, so that a
// panorama six times as wide as it is high closes exactly.
#pragma once
#include "scenery.h"

#define RADIANS_A_HEIGHT (2.0f * PI / 6.0f)
#define MARCH_STEPS 72

// The sky without clouds, sun and stars. The same colours, low down, are what distance fades into.
HD vec3 sky_gradient(const float *s, float sx, float cz, float slope) {
  vec3 sun = v3(s + L_SUN_DIR);
  float inv = 1.0f / sqrtf(1.0f + slope * slope), up = slope * inv;
  float toward = 0.5f + 0.5f * (sx * sun.x + cz * sun.z) / sqrtf(fmaxf(sun.x * sun.x + sun.z * sun.z, 1e-6f));
  vec3 low = mix(v3(s + L_AWAY), v3(s + L_SUNWARD), toward * toward);
  vec3 color = mix(v3(s + L_ZENITH), low, expf(-4.2f * fmaxf(up, 0.0f)));
  float g = fmaxf(0.0f, inv * (sx * sun.x + cz * sun.z) + up * sun.y), g4 = g * g * g * g, g16 = g4 * g4 * g4 * g4;
  return color + v3(s + L_GLOW) * (0.30f * g4 * g4 + 0.8f * g16 * g16 * g16);
}

// A ball in the sky: where the direction meets it, or nothing (z < 0). The axes are those of its disc.
HD vec3 on_ball(vec3 dir, vec3 middle, float radius) {
  vec3 right = normalize(v3(middle.z, 0.0f, -middle.x)), up = cross(middle, right);
  float x = dot(dir, right) / radius, y = dot(dir, up) / radius, d = x * x + y * y;
  return dot(dir, middle) > 0.0f && d < 1.0f ? v3(x, y, sqrtf(1.0f - d)) : v3(x, y, -1.0f);
}
// Stars, nebulae, a planet with rings and its moon.
RARE vec3 outer_space(const float *s, const Path &p) {
  float inv = 1.0f / sqrtf(1.0f + p.slope * p.slope), up = p.slope * inv;
  vec3 dir = {p.sx * inv, up, p.cz * inv}, accent = v3(s + L_ACCENT), color = v3(s + L_ZENITH);
  uint32_t seed = landscape_seed(s) + 900;
  vec3 q = dir * 2.1f + v3(5.0f);
  float warp = noise3(q, seed + 30), cloud = 0.55f * noise3(q * 1.7f + v3(1.6f * warp), seed + 31) +
                                             0.45f * noise3(q * 4.1f + v3(2.2f * warp), seed + 32);
  float glow = smoothstepf(0.42f, 0.85f, cloud), core = smoothstepf(0.60f, 0.95f, cloud);
  color = color + mix(accent, v3(accent.z, accent.x, accent.y), smoothstepf(0.35f, 0.65f, warp)) * (0.8f * glow) +
          v3(0.9f, 0.8f, 0.85f) * (0.35f * core);
  for (int k = 0; k < 2; k++) {  // many faint stars, few bright ones
    float turns = k ? 75.0f : 210.0f, fu = p.turn * turns, fv = p.slope * turns / (2.0f * PI);
    int iu = (int)fu, iv = (int)floorf(fv);
    float du = fu - iu - mixf(0.2f, 0.8f, lattice(iu, iv, seed + 4 * k)),
          dv = fv - iv - mixf(0.2f, 0.8f, lattice(iu, iv, seed + 4 * k + 1));
    float bright = lattice(iu, iv, seed + 4 * k + 2), tint = lattice(iu, iv, seed + 4 * k + 3);
    float size = (k ? 0.030f : 0.060f) + 0.055f * bright * bright;
    if (bright < (k ? 0.62f : 0.45f)) continue;
    color = color + mix(v3(1.0f, 0.82f, 0.62f), v3(0.72f, 0.84f, 1.0f), tint) *
                        (1.3f * s[L_STARS] * bright * expf(-(du * du + dv * dv) / (size * size)));
  }
  vec3 sun = v3(s + L_SUN_DIR);
  for (int k = 0; k < 2; k++) {  // the moon, then the planet before it
    float a = atan2f(s[L_AIM], s[L_AIM + 1]) + (k ? 0.0f : (s[L_BEND] > 3.14f ? 0.42f : -0.42f)), rise = k ? s[L_SHAPE2] : s[L_SHAPE2] + 0.13f;
    float radius = s[L_BREADTH] * (k ? 1.0f : 0.22f), n = 1.0f / sqrtf(1.0f + rise * rise);
    vec3 middle = {sinf(a) * n, rise * n, cosf(a) * n}, b = on_ball(dir, middle, radius);
    vec3 right = normalize(v3(middle.z, 0.0f, -middle.x)), high = cross(middle, right);
    float ringed = 0.0f;
    if (k) {
      float tx = b.x * 0.94f + b.y * 0.34f, ty = (b.y * 0.94f - b.x * 0.34f) / 0.26f, r = sqrtf(tx * tx + ty * ty);
      ringed = dot(dir, middle) > 0.0f ? smoothstepf(1.28f, 1.34f, r) * smoothstepf(2.15f, 2.05f, r) : 0.0f;
      ringed *= (0.55f + 0.45f * cosf(38.0f * r)) * (ty < 0.0f || b.z < 0.0f ? 1.0f : 0.0f);
    }
    if (b.z >= 0.0f) {
      vec3 normal = right * b.x + high * b.y - middle * b.z;
      float tilt = b.y * 0.94f - b.x * 0.34f;
      vec3 body = v3(0.55f, 0.54f, 0.52f) * (0.6f + 0.6f * noise3(v3(b.x, b.y, b.z) * 4.0f + v3(9.0f), seed + 41));
      if (k) {
        float band = soft_noise(7.0f * tilt + 30.0f, 0.6f * b.x + 3.0f, seed + 40);
        float swirl = soft_noise(16.0f * tilt + 2.0f * band, 2.0f * b.x + 7.0f, seed + 42);
        body = mix(v3(s + L_THING_A), v3(s + L_THING_B), smoothstepf(0.3f, 0.7f, 0.7f * band + 0.3f * swirl));
      }
      float lit = smoothstepf(-0.08f, 0.35f, dot(normal, sun));
      color = body * (0.03f + 1.15f * lit) + accent * (0.25f * (1.0f - b.z) * (1.0f - b.z) * lit);
    } else {
      float halo = sqrtf(b.x * b.x + b.y * b.y) - 1.0f;
      if (dot(dir, middle) > 0.0f) color = color + accent * (0.35f * expf(-halo * 14.0f) * (k ? 1.0f : 0.0f));
    }
    if (ringed > 0.0f) color = mix(color, v3(s + L_THING_C) * 0.9f, 0.8f * ringed);
  }
  if (s[L_DISC] > 0.5f) {
    float angle = length(cross(dir, sun));
    if (dot(dir, sun) > 0.0f)
      color = color + v3(1.0f, 0.92f, 0.75f) * (3.0f * smoothstepf(1.1f, 0.9f, angle / s[L_DISC_SIZE]) + 0.5f * expf(-angle * 14.0f));
  }
  return color;
}
// The surface seen from below, and rays of light that fall through it.
RARE vec3 under_surface(const float *s, const Path &p) {
  vec3 color = sky_gradient(s, p.sx, p.cz, p.slope);
  uint32_t seed = landscape_seed(s) + 900;
  float high = smoothstepf(0.16f, 0.75f, p.slope);
  if (p.slope > 0.12f) {
    float far = 1.0f / (p.slope + 0.05f), x = p.sx * far, z = p.cz * far;
    float a = fabsf(soft_noise(4.0f * x, 4.0f * z, seed) - 0.5f), b = fabsf(soft_noise(7.0f * x + 9.0f, 7.0f * z, seed + 1) - 0.5f);
    color = color + v3(s + L_GLOW) * (high * (1.3f * smoothstepf(0.10f, 0.0f, a) + 0.8f * smoothstepf(0.10f, 0.0f, b)));
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
// Smoke that rises from the crater and drifts: how dense, and how high over the crater (1: the top of the picture).
RARE float smoke(const float *s, const Path &p, float *height_) {
  Aim a = aim(s, p.sx, p.cz);
  float rise = p.slope - (s[L_FLOOR] + 0.80f * s[L_RELIEF] - p.base) / s[L_DISTANCE];
  *height_ = rise * 2.6f;
  if (a.along < 0.3f || rise < -0.02f) return 0.0f;
  float x = a.right / a.along, lean = 0.35f * s[L_SHAPE] * rise + 0.5f * s[L_SHAPE] * rise * rise, wide = 0.035f + 0.33f * rise;
  float u = (x - lean) / wide;
  uint32_t seed = landscape_seed(s) + 930;
  float puff = rolling(9.0f * x + 40.0f, 9.0f * (p.slope - 0.4f * fabsf(u) * wide) + 40.0f, 4, 0.55f, seed);
  return smoothstepf(1.15f, 0.45f, fabsf(u) + 1.3f * (0.55f - puff)) * smoothstepf(-0.015f, 0.02f, rise);
}

HD vec3 sky(const float *s, const Path &p, bool mirrored) {
  if (landscape_kind(s) >= LAND_UNDERWATER) return landscape_kind(s) == LAND_SPACE ? outer_space(s, p) : under_surface(s, p);
  vec3 sun = v3(s + L_SUN_DIR), color = sky_gradient(s, p.sx, p.cz, p.slope);
  float inv = 1.0f / sqrtf(1.0f + p.slope * p.slope), up = p.slope * inv;
  vec3 dir = {p.sx * inv, up, p.cz * inv};
  uint32_t seed = landscape_seed(s) + 900;
  if (s[L_STARS] > 0.0f && up > 0.0f && !mirrored) {  // one star at most in a cell of four degrees
    float fu = p.turn * 90.0f, fv = p.slope * 15.0f;
    int iu = (int)fu, iv = (int)fv;
    float du = fu - iu - mixf(0.18f, 0.82f, lattice(iu, iv, seed)),
          dv = fv - iv - mixf(0.18f, 0.82f, lattice(iu, iv, seed + 1));
    float bright = lattice(iu, iv, seed + 2), size = 0.045f + 0.025f * bright;
    float spot = expf(-(du * du + dv * dv) / (size * size));
    color = color + v3(0.9f, 0.93f, 1.0f) *
                        (spot * s[L_STARS] * smoothstepf(0.45f, 1.1f, bright) * smoothstepf(0.0f, 0.2f, up));
  }
  if (s[L_DISC] > 0.5f && mirrored) {  // waves draw the disc out into a path of light
    float flat = sqrtf(fmaxf(1e-6f, sun.x * sun.x + sun.z * sun.z)), rise = p.slope - sun.y / flat;
    float aside = 1.0f - (p.sx * sun.x + p.cz * sun.z) / flat;
    color = color + v3(s + L_SUN) * (3.0f * expf(-aside / 0.005f - 3.0f * rise * rise));
  } else if (s[L_DISC] > 0.5f) {
    float angle = length(cross(dir, sun)), edge = s[L_DISC_SIZE];
    if (angle < edge * 1.2f && dot(dir, sun) > 0.0f) {
      float inside = smoothstepf(1.06f, 0.94f, angle / edge);
      vec3 disc = v3(s + L_SUN) * 1.6f + v3(0.35f);
      if (s[L_DISC] > 1.5f) {  // the moon has seas and stands in its own colour
        float sea = soft_noise((dir.x - sun.x) / edge * 1.7f + 3.0f + (dir.z - sun.z) / edge * 1.7f,
                               (dir.y - sun.y) / edge * 1.7f, seed + 5);
        disc = v3(0.92f, 0.93f, 0.86f) * (0.72f + 0.28f * smoothstepf(0.35f, 0.6f, sea));
      }
      color = mix(color, disc, inside);
    }
  }
  if (s[L_CLOUD_COVER] > 0.0f && up > 0.0f) {
    float far = s[L_CLOUD_SCALE] / (p.slope + 0.16f), x = p.sx * far, z = p.cz * far;
    float bend = soft_noise(x * 0.6f, z * 0.6f, seed + 20) * 0.9f;
    float d = rolling(x + bend, z - bend, 5, 0.5f, seed + 21);
    float shade = rolling(x + bend + 0.22f * sun.x, z - bend + 0.22f * sun.z, 3, 0.5f, seed + 21);
    float bar = mixf(0.78f, 0.20f, s[L_CLOUD_COVER]);
    float cover = smoothstepf(bar - 0.07f, bar + 0.13f, d) * smoothstepf(0.0f, 0.10f, up);
    float light = saturate(0.62f + 2.6f * (d - shade) - 0.9f * (d - bar));
    vec3 cloud = mix(v3(s + L_CLOUD_DARK), v3(s + L_CLOUD_LIT), light);
    float g = fmaxf(0.0f, dot(dir, sun));
    g *= g, g *= g, g *= g;
    cloud = cloud + v3(s + L_GLOW) * (0.8f * g * (1.0f - 0.6f * cover));  // light through thin edges near the sun
    color = mix(color, cloud, 0.94f * cover);
  }
  if (landscape_kind(s) == LAND_VOLCANO) {
    float high, dense = smoke(s, p, &high);
    if (dense > 0.0f) {
      uint32_t seed_ = landscape_seed(s) + 931;
      float light = rolling(14.0f * p.sx + 40.0f, 14.0f * p.slope + 14.0f * p.cz + 40.0f, 3, 0.5f, seed_);
      vec3 ash = (v3(s + L_AMBIENT) * 0.5f + v3(s + L_SUN) * 0.22f) * (0.35f + 0.75f * light) + v3(s + L_ACCENT) * (0.9f * expf(-7.0f * high) * light);
      color = mix(color, ash, 0.93f * dense);
    }
  }
  return color;
}
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
    float y = v - j, streak = smoothstepf(w, 0.3f * w, off) * smoothstepf(0.05f, 0.30f, y) * smoothstepf(0.72f, 0.55f, y);
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
// Light that lava gives off: in streams down the cone, and in cracks of the ground near by.
RARE float lava(const float *s, vec3 q, float t) {
  uint32_t seed = landscape_seed(s) + 950;
  float c = off_cone(s, q.x, q.z);
  if (c < 0.95f) {
    Aim a = aim(s, q.x, q.z);
    float turn = atan2f(a.right, a.along - s[L_DISTANCE]);
    float wave = turn * 1.9f + 0.22f * sinf(9.0f * c + 6.0f * soft_noise(q.x * 0.008f, q.z * 0.008f, seed));
    float f = fabsf(fract(wave) - 0.5f), here = lattice((int)floorf(wave), 3, seed), reach = 0.35f + 0.7f * here;
    return smoothstepf(0.085f + 0.05f * c, 0.02f, f) * smoothstepf(reach, 0.7f * reach, c) + smoothstepf(0.115f, 0.07f, c);
  }
  float crack = fabsf(soft_noise(q.x * 0.11f, q.z * 0.11f, seed + 2) - 0.5f), where = soft_noise(q.x * 0.03f, q.z * 0.03f, seed + 3);
  return smoothstepf(0.024f, 0.004f, crack) * smoothstepf(0.5f, 0.62f, where) * smoothstepf(220.0f, 60.0f, t);
}
// Spray at the foot of the waterfalls.
RARE float spray(const float *s, const Path &p) {
  float r = s[L_DISTANCE], y = p.base + p.slope * r, off = off_fall(s, p.sx * r, p.cz * r, r) / (1.5f * s[L_BREADTH]);
  float puff = soft_noise(0.25f * off * s[L_BREADTH] + 5.0f, 0.3f * y, landscape_seed(s) + 960);
  return 0.85f * expf(-off * off - fmaxf(y, 0.0f) * 0.22f) * (y > -3.0f ? 1.0f : 0.0f) * (0.6f + 0.6f * puff);
}

// How much fog hides what lies t metres along a path that starts at (t0, y0): density falls off with height.
HD float fog(const float *s, float y0, float slope, float t) {
  float h = s[L_FOG_HEIGHT], x = clampf(slope * t / h, -20.0f, 1e6f);
  float mean = fabsf(x) < 1e-3f ? 1.0f - 0.5f * x : (1.0f - expf(-x)) / x;
  return 1.0f - expf(-s[L_FOG] * expf(-y0 / h) * t * mean);
}
HD vec3 fog_color(const float *s, const Path &p) {
  return mix(sky_gradient(s, p.sx, p.cz, 0.015f), v3(s + L_FOG_COLOR), s[L_FOG_TINT]);
}

HD float clearance(const float *s, const Path &p, float t) {  // height of the path above the ground
  return p.base + p.slope * t - height(s, p.sx * t, p.cz * t, false);
}

// First point of the ground on the path between t0 and t1: strides that the ground,
// no steeper than STEEP, cannot overtake, but never so short that the steps run out before t1, then halving.
// Negative: none.
HD float march(const float *s, const Path &p, float t0, float t1) {
  if (p.slope < -1e-6f) t0 = fmaxf(t0, (s[L_TOP] - p.base) / p.slope);
  if (p.slope > 1e-6f)
    t1 = fminf(t1, (s[L_TOP] - p.base) / p.slope);
  else if (p.base > s[L_TOP] && p.slope > -1e-6f)
    return -1.0f;
  // over the open ground near the camera a path meets nothing before it comes down to it
  float open = s[L_NEAR];
  if (p.slope < -1e-6f) open = fminf(open, (s[L_CALM] - p.base) / p.slope);
  if (p.base + p.slope * t0 > s[L_CALM]) t0 = fmaxf(t0, open);
  float t = fmaxf(t0, 0.5f), last = t, older = t, before = 1e9f, stride = 1.0f / (s[L_STEEP] - p.slope);
  bool sinking = false;
  for (int i = 0; i < MARCH_STEPS && t < t1; i++) {
    float above = clearance(s, p, t), low = last, high = t;
    bool hit = above < 0.0f;
    if (!hit && sinking && above > before && before < 0.4f * (t - older)) {  // a crest may have slipped through
      low = older, high = 0.5f * (older + last);
      hit = clearance(s, p, high) < 0.0f;
      if (!hit) low = last, high = 0.5f * (last + t), hit = clearance(s, p, high) < 0.0f;
    }
    if (hit) {
      for (int k = 0; k < 6; k++) {
        float middle = 0.5f * (low + high);
        if (clearance(s, p, middle) < 0.0f)
          high = middle;
        else
          low = middle;
      }
      return high;
    }
    sinking = above < before;
    before = above, older = last, last = t;
    t = fminf(t + fmaxf(above * stride, t * logf(t1 / t) / (MARCH_STEPS - i) + 1e-3f * t), t1 + 0.1f);
  }
  return -1.0f;
}

// Share of the sun that reaches a point of the ground, with a soft edge.
HD float sunlight(const float *s, vec3 p) {
  vec3 sun = v3(s + L_SUN_DIR);
  float reach = s[L_SHADOW], light = 1.0f, t = 0.02f * reach;
  for (int i = 0; i < 9 && light > 0.0f; i++) {
    float above = p.y + sun.y * t - height(s, p.x + sun.x * t, p.z + sun.z * t, false);
    light = fminf(light, 0.5f + 7.0f * above / t);
    t *= 1.5f;
  }
  return smoothstepf(0.0f, 1.0f, light);
}

HD vec3 shade(const float *s, vec3 albedo, vec3 n, float sunny) {
  vec3 sun = v3(s + L_SUN_DIR);
  float direct = saturate(dot(n, sun) * 0.94f + 0.06f) * sunny, open = 0.62f + 0.38f * n.y;
  float back = 0.12f * saturate(-(n.x * sun.x + n.z * sun.z));  // light returned by the surroundings
  return albedo * (v3(s + L_SUN) * (direct + back * 0.5f) + v3(s + L_AMBIENT) * open);
}

// Colour seen at (x, y): image heights from the picture's centre, x to the right, y up.
HD Hit landscape_sample(const float *s, float x, float y) {
  int kind = landscape_kind(s);
  uint32_t seed = landscape_seed(s);
  Hit hit = {v3(0.0f), 0.0f, v3(0.0f), 0};
  Path p;
  p.turn = (s[L_HEADING] + x * RADIANS_A_HEIGHT) / (2.0f * PI);
  p.turn -= floorf(p.turn);
  if (p.turn >= 1.0f) p.turn = 0.0f;
  p.sx = sinf(p.turn * 2.0f * PI), p.cz = cosf(p.turn * 2.0f * PI);
  p.base = s[L_EYE], p.slope = s[L_HORIZON] + y * RADIANS_A_HEIGHT;
  const Path view = p;
  float start = 0.0f;
  vec3 through = v3(1.0f);
  for (int bounce = 0; bounce < 2; bounce++) {
    float y0 = p.base + p.slope * start, end = s[L_REACH];
    bool wet = s[L_WATER] > 0.0f && bounce == 0 && p.slope < -1e-4f;
    float sea = wet ? -p.base / p.slope : 1e9f;
    Surface thing = scenery(s, p, start, fminf(end, sea), bounce > 0);
    if (kind == LAND_PARK) furnish(s, p, start, fminf(end, sea), thing);
    float ground = march(s, p, start, fminf(thing.t > 0.0f ? thing.t : end, sea));
    if (ground < 0.0f && thing.t < 0.0f && !wet && p.slope < -1e-4f)
      ground = fmaxf((s[L_FLOOR] - p.base) / p.slope, end);
    bool water = wet && ground < 0.0f && thing.t < 0.0f;
    float t = water ? sea : (ground > 0.0f ? ground : thing.t);
    if (t < 0.0f) {  // 1. nothing but sky
      float f = fog(s, y0, p.slope, 1e6f);
      hit.color = hit.color + through * mix(sky(s, p, bounce > 0), fog_color(s, p), p.slope > 0.0f ? f : 1.0f);
      break;
    }
    vec3 q = path_point(p, t), color = v3(0.0f), n = thing.normal;
    if (ground > 0.0f) {  // 2. ground; its normal is taken over a pixel's width, so that far slopes stay calm
      n = ground_normal(s, q.x, q.z, 0.02f + 0.004f * t);
      float sunny = s[L_SHADOW] > 0.0f ? sunlight(s, q) : 1.0f;
      vec3 albedo = ground_color(s, q, t, n);
      if (s[L_WHITE] > 0.0f)
        albedo = mix(albedo, v3(0.78f, 0.82f, 0.88f),
                     s[L_WHITE] * smoothstepf(0.50f, 0.78f, n.y) * (0.86f + 0.14f * grain(q.x, q.z, t, 9.0f, seed + 350)));
      if (kind == LAND_WATERFALL && albedo.z > 0.68f && s[L_WHITE] == 0.0f) n = normalize(v3(-p.sx, 0.55f, -p.cz));
      color = shade(s, albedo, n, sunny);
      if (kind == LAND_VOLCANO) {
        float hot = lava(s, q, t);
        color = mix(color, v3(s + L_ACCENT) * (0.9f + 0.8f * hot), saturate(1.2f * hot));
      }
      if (s[L_WET] > 0.0f) {  // wet ground is dark and mirrors the sky, most of all in puddles
        float puddle = smoothstepf(0.52f, 0.62f, soft_noise(q.x * 0.22f, q.z * 0.22f, seed + 351)) * smoothstepf(0.93f, 0.99f, n.y);
        float m = fmaxf(0.0f, 1.0f + p.slope / sqrtf(1.0f + p.slope * p.slope)), mirror = m * m * m * (0.22f + 0.6f * puddle);
        color = mix(color * (1.0f - 0.3f * s[L_WET]), sky_gradient(s, p.sx, p.cz, fmaxf(-p.slope, 0.05f)), s[L_WET] * mirror);
      }
    } else if (!water) {  // 3. something standing on it
      color = shade(s, thing.color, n, 1.0f) + thing.emission;
    }
    float f = fog(s, y0, p.slope, t - start);
    if (bounce == 0) hit.depth = t, hit.normal = water ? v3(0.0f, 1.0f, 0.0f) : n;
    hit.color = hit.color + through * fog_color(s, p) * f;
    through = through * (1.0f - f);
    if (!water) {
      hit.color = hit.color + through * color;
      break;
    }
    // 4. water: its own colour, foam on the shore, and the sky and land mirrored in it
    float calm = 1.0f / (1.0f + 0.004f * t), wave = s[L_WAVES];
    float a = grain(q.x * 1.3f, q.z * 1.3f, t, 5.0f, seed + 300), b = grain(q.z, q.x, t, 2.5f, seed + 301);
    float tilt = wave * (0.65f * a + 0.35f * b);
    float facing = fminf(1.0f, -p.slope / sqrtf(1.0f + p.slope * p.slope) + 0.35f * wave * fabsf(a) + 0.3f * wave);
    float m = 1.0f - facing, mirror = 0.03f + 0.97f * m * m * m * m * m;
    float r = t, away = kind == LAND_BEACH ? r - shore(s, q.x, q.z, r) : 1e3f;
    float deep = kind == LAND_BEACH ? smoothstepf(0.0f, 45.0f, away) : 0.75f + 0.25f * a;
    vec3 body = mix(v3(s + L_SHALLOW), v3(s + L_DEEP), deep) * (1.0f + 0.25f * tilt);
    body = body * (v3(s + L_SUN) * (0.25f + 0.6f * v3(s + L_SUN_DIR).y) + v3(s + L_AMBIENT));
    if (kind == LAND_BEACH && away < 60.0f) {
      // breakers roll in as bands along the shore, the first one runs up the sand
      float bend = 5.0f * (soft_noise(q.x * 0.11f, q.z * 0.11f, seed + 310) - 0.5f), w = away + bend;
      float band = fmaxf(smoothstepf(2.2f, 0.3f, w),
                         0.85f * saturate(1.0f - fabsf(w - 8.5f) / 1.5f) *
                             smoothstepf(0.3f, 0.6f, soft_noise(q.x * 0.06f, q.z * 0.06f, seed + 311)));
      band = fmaxf(band, 0.7f * saturate(1.0f - fabsf(w - 20.0f) / 2.2f) *
                             smoothstepf(0.45f, 0.7f, soft_noise(q.x * 0.05f, q.z * 0.05f, seed + 312)));
      hit.color = hit.color + through * band * shade(s, v3(0.9f), v3(0.0f, 1.0f, 0.0f), 1.0f);
      through = through * (1.0f - band);
    }
    if (kind == LAND_WATERFALL) {  // foam where the water comes down
      float rough = 0.5f + 0.5f * a, foot = s[L_DISTANCE] - t, off = off_fall(s, q.x, q.z, t);
      float foam = smoothstepf(9.0f, 1.0f, foot + 5.0f * rough) * smoothstepf(2.0f * s[L_BREADTH], 0.8f * s[L_BREADTH], off);
      hit.color = hit.color + through * foam * shade(s, v3(0.9f), v3(0.0f, 1.0f, 0.0f), 1.0f);
      through = through * (1.0f - foam);
    }
    hit.color = hit.color + through * body * (1.0f - mirror);
    through = through * mirror;
    // the ray goes on upwards; waves tilt it, mostly up, and blur it sideways
    float reflected = -p.slope + fabsf(tilt) * (0.10f + 0.5f * calm) + 0.10f * wave;
    p.slope = fmaxf(reflected, 0.002f);
    p.base = -p.slope * t;
    float side = 0.03f * wave * b * calm, sx = p.sx + side * p.cz;
    p.cz -= side * p.sx;
    p.sx = sx;
    p.turn += side / (2.0f * PI);
    p.turn -= floorf(p.turn);
    start = t;
  }
  if (kind == LAND_WATERFALL) hit.color = mix(hit.color, shade(s, v3(0.95f), v3(0.0f, 1.0f, 0.0f), 0.8f), spray(s, view));
  if (kind == LAND_UNDERWATER) hit.color = hit.color + v3(s + L_GLOW) * (0.42f * light_shafts(s, view));
  if (s[L_RAIN] + s[L_FLAKES] > 0.0f) hit.color = falling(s, view, hit.color);
  return hit;
}
