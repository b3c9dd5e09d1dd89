// The sky of every landscape: its gradient, clouds, sun and moon, and what stands there in space, under water
// and over a volcano.
#pragma once
#include "scenery.h"

// The sky without clouds, sun and stars. The same colors, low down, are what distance fades into.
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
    float a = atan2f(s[L_AIM], s[L_AIM + 1]) + (k ? 0.0f : (s[L_BEND] > 3.14f ? 0.42f : -0.42f)),
        rise = k ? s[L_SHAPE2] : s[L_SHAPE2] + 0.13f;
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
      color = body * (v3(0.03f) + (v3(0.12f) + 0.85f * v3(s + L_SUN)) * lit) + accent *
          (0.25f * (1.0f - b.z) * (1.0f - b.z) * lit);
    } else {
      float halo = sqrtf(b.x * b.x + b.y * b.y) - 1.0f;
      if (dot(dir, middle) > 0.0f) color = color + accent * (0.35f * expf(-halo * 14.0f) * (k ? 1.0f : 0.0f));
    }
    if (ringed > 0.0f) color = mix(color, v3(s + L_THING_C) * 0.9f, 0.8f * ringed);
  }
  if (s[L_DISC] > 0.5f) {
    float angle = length(cross(dir, sun));
    if (dot(dir, sun) > 0.0f)
      color = color + v3(1.0f, 0.92f, 0.75f) * (3.0f * smoothstepf(1.1f, 0.9f, angle / s[L_DISC_SIZE]) +
          0.5f * expf(-angle * 14.0f));
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
    float a = fabsf(soft_noise(4.0f * x, 4.0f * z, seed) - 0.5f),
        b = fabsf(soft_noise(7.0f * x + 9.0f, 7.0f * z, seed + 1) - 0.5f);
    color = color + v3(s + L_GLOW) * (high * (1.3f * smoothstepf(0.10f, 0.0f, a) + 0.8f * smoothstepf(0.10f, 0.0f, b)));
  }
  return color;
}
// Smoke that rises from the crater and drifts: how dense, and how high over the crater (1: the top of the image).
RARE float smoke(const float *s, const Path &p, float *height_) {
  Aim a = aim(s, p.sx, p.cz);
  float rise = p.slope - (s[L_FLOOR] + 0.80f * s[L_RELIEF] - p.base) / s[L_DISTANCE];
  *height_ = rise * 2.6f;
  if (a.along < 0.3f || rise < -0.02f) return 0.0f;
  float x = a.right / a.along, lean = 0.35f * s[L_SHAPE] * rise + 0.5f * s[L_SHAPE] * rise * rise,
      wide = 0.035f + 0.33f * rise;
  float u = (x - lean) / wide;
  uint32_t seed = landscape_seed(s) + 930;
  float puff = rolling(9.0f * x + 40.0f, 9.0f * (p.slope - 0.4f * fabsf(u) * wide) + 40.0f, 4, 0.55f, seed);
  return smoothstepf(1.15f, 0.45f, fabsf(u) + 1.3f * (0.55f - puff)) * smoothstepf(-0.015f, 0.02f, rise);
}

HD vec3 sky(const float *s, const Path &p, bool mirrored) {
  if (landscape_kind(s) >= LAND_UNDERWATER) return landscape_kind(s) == LAND_SPACE ? outer_space(s, p) :
      under_surface(s, p);
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
      if (s[L_DISC] > 1.5f) {  // the moon has seas and stands in its own color
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
      vec3 ash = (v3(s + L_AMBIENT) * 0.5f + v3(s + L_SUN) * 0.22f) * (0.35f + 0.75f * light) +
          v3(s + L_ACCENT) * (0.9f * expf(-7.0f * high) * light);
      color = mix(color, ash, 0.93f * dense);
    }
  }
  return color;
}
