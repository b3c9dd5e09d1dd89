// The landscapes: sky, weather, water, and the march that finds what a pixel sees.
// A image is a piece of a cylinder around the camera, 60 degrees to an image height, so that a
// panorama six times as wide as it is high closes exactly.
#pragma once
#include "effects.h"
#include "sky.h"

#define RADIANS_A_HEIGHT (2.0f * PI / 6.0f)
#define MARCH_STEPS 72

// How much fog hides what lies t meters along a path that starts at (t0, y0): density falls off with height.
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

// Color seen at (x, y): image heights from the image's center, x to the right, y up.
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
                     s[L_WHITE] * smoothstepf(0.50f, 0.78f, n.y) *
                         (0.86f + 0.14f * grain(q.x, q.z, t, 9.0f, seed + 350)));
      if (kind == LAND_WATERFALL && albedo.z > 0.68f && s[L_WHITE] == 0.0f) n = normalize(v3(-p.sx, 0.55f, -p.cz));
      color = shade(s, albedo, n, sunny);
      if (kind == LAND_VOLCANO) {
        float hot = lava(s, q, t);
        color = mix(color, v3(s + L_ACCENT) * (0.9f + 0.8f * hot), saturate(1.2f * hot));
      }
      if (s[L_WET] > 0.0f) {  // wet ground is dark and mirrors the sky, most of all in puddles
        float puddle = smoothstepf(0.52f, 0.62f, soft_noise(q.x * 0.22f, q.z * 0.22f, seed + 351)) *
            smoothstepf(0.93f, 0.99f, n.y);
        float m = fmaxf(0.0f, 1.0f + p.slope / sqrtf(1.0f + p.slope * p.slope)), mirror = m * m * m *
            (0.22f + 0.6f * puddle);
        color = mix(color * (1.0f - 0.3f * s[L_WET]), sky_gradient(s, p.sx, p.cz, fmaxf(-p.slope, 0.05f)),
            s[L_WET] * mirror);
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
    // 4. water: its own color, foam on the shore, and the sky and land mirrored in it
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
      float foam = smoothstepf(9.0f, 1.0f, foot + 5.0f * rough) *
          smoothstepf(2.0f * s[L_BREADTH], 0.8f * s[L_BREADTH], off);
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
  if (kind == LAND_WATERFALL) hit.color = mix(hit.color, shade(s, v3(0.95f), v3(0.0f, 1.0f, 0.0f), 0.8f),
      spray(s, view));
  if (kind == LAND_UNDERWATER) hit.color = hit.color + v3(s + L_GLOW) * (0.42f * light_shafts(s, view));
  if (s[L_RAIN] + s[L_FLAKES] > 0.0f) hit.color = falling(s, view, hit.color);
  return hit;
}
