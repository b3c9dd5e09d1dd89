// Things that stand on the ground of a landscape: trees, cacti, rocks, flowers, buildings.
// They stand on circles around the camera, each circle cut into a whole number of cells with one thing
// in each, so that a ray meets every circle once, at a known distance, and a full turn closes.
#pragma once
#include "landforms.h"

// A ray of the panorama: it keeps its direction over ground, so it is a line in the plane (t, y).
struct Path {
  float sx, cz, turn;  // unit direction over ground, and its azimuth in turns [0, 1)
  float base, slope;   // y = base + slope * t, t the horizontal distance from the camera
};
HD vec3 path_point(const Path &p, float t) { return {p.sx * t, p.base + p.slope * t, p.cz * t}; }

struct Surface {
  float t;  // horizontal distance; negative: nothing
  vec3 color, normal, emission;
};

// What a thing looks like at (u, v) meters from its foot: albedo, and a normal with x to the right,
// y up and z towards the viewer. `u` and `v` come in units of the thing's height.
struct Look {
  vec3 color, normal;
};
HD vec3 bulge(float x, float y) {  // the normal of a ball seen at (x, y) in its unit disc
  return {x, y, sqrtf(fmaxf(0.02f, 1.0f - x * x - y * y))};
}

// No two trees of a wood have quite the same green.
HD vec3 tint(vec3 c, const float *h) { return v3(c.x * (0.75f + 0.6f * h[4]), c.y, c.z) * (0.75f + 0.5f * h[3]); }

HD bool conifer(const float *s, vec3 needles, float u, float v, const float *h, Look &out) {
  if (v < 0.13f && fabsf(u) < 0.03f) {
    out = {v3(s + L_THING_C), bulge(u / 0.03f, 0.0f)};
    return true;
  }
  float f = (v - 0.1f) / 0.9f + 0.7f * u * u;  // the boughs droop at their ends
  if (f < 0.0f || f > 1.0f) return false;
  float tiers = 3.0f + floorf(h[2] * 3.0f), part = fract(f * tiers);
  float wide = (0.19f + 0.10f * h[1]) * ((1.0f - f) * (1.12f - 0.5f * part) + 0.02f);
  if (fabsf(u) > wide) return false;
  float x = u / wide, shade = 0.55f + 0.45f * smoothstepf(1.0f, 0.2f, part + 0.25f * x * x);
  vec3 leaf = tint(needles, h) * shade;
  float patch = soft_noise(6.0f * u + 40.0f * h[1], 7.0f * v + 40.0f * h[3], 13u);  // snow lies in lumps on the boughs
  float snow = s[L_SNOW] * smoothstepf(0.42f, 0.82f, patch + 0.5f * (0.8f - part));
  out = {mix(leaf, v3(0.82f, 0.86f, 0.92f), snow), bulge(0.9f * x, 0.35f)};
  return true;
}

HD bool broadleaf(const float *s, vec3 leaf, float u, float v, const float *h, Look &out) {
  float best = 0.0f, clump = 0.0f;
  if (v > 0.25f) {  // clumps of leaves: the outline and the light on it waver
    clump = rolling(u * 11.0f + 7.0f * v + 50.0f * h[1], v * 11.0f - 7.0f * u + 50.0f * h[2], 2, 0.5f, 11u) - 0.5f;
    u += 0.05f * clump, v += 0.05f * (soft_noise(u * 9.0f - 6.0f * v, v * 9.0f + 6.0f * u + 60.0f * h[3], 12u) - 0.5f);
  }
  for (int i = 0; i < 5; i++) {  // a crown is five balls; the one nearest the viewer shows
    float a = i * 1.2566f + 6.28f * h[2], ring = i == 0 ? 0.0f : 0.19f;
    float cx = ring * (1.0f + 0.3f * h[1]) * sinf(a), cy = 0.66f + 0.15f * (i == 0 ? 0.0f : cosf(a));
    float radius = i == 0 ? 0.25f : 0.15f + 0.07f * fract(h[3] * (3.0f + i));
    float x = (u - cx) / radius, y = (v - cy) / radius, z = 1.0f - x * x - y * y;
    if (z < 0.0f) continue;
    z = sqrtf(z) * radius;
    if (z > best) {
      best = z;
      float up = saturate(0.5f + 0.55f * y + 1.1f * (v - 0.66f));
      out = {tint(leaf, h) * (0.45f + 0.6f * up + 0.3f * clump),
             bulge(0.85f * x + 0.7f * clump, 0.85f * y + 0.7f * clump)};
    }
  }
  if (best > 0.0f) return true;
  float half = 0.028f + 0.03f * saturate(0.12f - v);
  if (v < 0.6f && fabsf(u) < half) {
    out = {v3(s + L_THING_C) * (1.0f - 0.6f * smoothstepf(0.2f, 0.55f, v)), bulge(u / half, 0.0f)};
    return true;
  }
  return false;
}

HD bool palm(const float *s, float u, float v, const float *h, Look &out) {
  float lean = 0.5f * (h[1] - 0.5f), top = 0.74f;
  // fronds first: they hang before the trunk
  float du = u - lean, dv = v - top;
  for (int i = 0; i < 8; i++) {
    float reach = 0.26f + 0.14f * fract(h[2] * (5.0f + 3.0f * i)), side = (i & 1) ? 1.0f : -1.0f;
    float x = side * du / reach;
    if (x < 0.0f || x > 1.0f) continue;
    float lift = 1.25f - 0.42f * (i >> 1), arch = reach * (lift * x - (0.75f + 0.25f * lift) * x * x);
    float thick = 0.05f * sqrtf(x + 0.02f) * (1.08f - x) * 1.3f;
    float y = (dv - arch) / thick;
    if (fabsf(y) < 1.0f) {
      float glow = 0.65f + 0.35f * y;
      out = {mix(v3(s + L_THING_A), v3(s + L_THING_B), saturate(0.3f + 0.5f * y)) * glow,
             bulge(0.3f * side * x, 0.5f + 0.4f * y)};
      return true;
    }
  }
  float f = v / top, middle = lean * f * f, half = 0.022f - 0.008f * f + 0.015f * saturate(0.08f - v) * 10.0f;
  if (f < 1.0f && fabsf(u - middle) < half) {
    out = {v3(s + L_THING_C) * (0.9f + 0.1f * cosf(v * 90.0f)), bulge((u - middle) / half, 0.0f)};
    return true;
  }
  return false;
}

// A vertical rod with round ends from `low` to `high`, its axis at x.
HD bool rod(float u, float v, float x, float low, float high, float radius, vec3 &n) {
  float dx = (u - x) / radius, dy = (v - clampf(v, low, high)) / radius;
  if (dx * dx + dy * dy > 1.0f) return false;
  n = bulge(dx, dy);
  return true;
}
HD bool saguaro(const float *s, float u, float v, const float *h, Look &out) {
  vec3 n = v3(0.0f);
  float w = 0.075f + 0.02f * h[3];
  bool hit = rod(u, v, 0.0f, -0.1f, 1.0f - w, w, n);
  for (int i = 0; i < 2 && !hit; i++) {
    float side = i ? 1.0f : -1.0f, joint = 0.28f + 0.25f * (i ? h[1] : h[2]),
          tip = joint + 0.2f + 0.2f * (i ? h[2] : h[3]);
    if (fract(h[1] * 7.0f + 0.37f * i) < 0.22f) continue;
    float x = 0.21f * side, r = w * 0.72f;
    hit = rod(u, v, x, joint, tip, r, n);
    // the elbow: a rod on its side
    vec3 m;
    if (!hit && rod(v, u, joint, fminf(0.0f, x), fmaxf(0.0f, x), r, m)) n = {m.y, m.x, m.z}, hit = true;
  }
  if (!hit) return false;
  float rib = 0.86f + 0.14f * cosf(u / w * 9.0f);
  out = {mix(v3(s + L_THING_A), v3(s + L_THING_B), h[3]) * rib, n};
  return true;
}

HD bool boulder(const float *s, float u, float v, const float *h, Look &out) {
  float wide = 0.55f + 0.35f * h[1], skew = 0.5f * (h[2] - 0.5f);
  float x = (u - skew * v) / wide, y = v;
  float edge = 1.0f - 0.12f * (soft_noise(3.0f * x + 17.0f * h[3], 2.0f * y, 5u) - 0.3f);
  float d = x * x + y * y + 0.25f * x * x * y * y;
  if (d > edge) return false;
  float facet = soft_noise(2.2f * x + 31.0f * h[2], 2.2f * y, 6u) - 0.5f;
  vec3 n = bulge(0.9f * x + 0.5f * facet, 0.8f * y - 0.3f * facet);
  out = {mix(v3(s + L_THING_A), v3(s + L_THING_B), h[3]) * (0.75f + 0.35f * v + 0.35f * facet), n};
  return true;
}

HD bool flower(const float *s, float u, float v, const float *h, Look &out) {
  float radius = 0.20f + 0.08f * h[1], x = u / radius, y = (v - 1.0f + radius) / (radius * 0.85f), r2 = x * x + y * y;
  vec3 petal = h[2] < s[L_MIXTURE] ? v3(s + L_THING_A)
                                   : (h[2] < 0.5f + 0.5f * s[L_MIXTURE] ? v3(s + L_THING_B) : v3(s + L_THING_C));
  if (r2 < 1.0f) {
    // five petals: the real part of (x + iy)^5 over r^5
    float x2 = x * x, y2 = y * y, five = y * (5.0f * x2 * x2 - 10.0f * x2 * y2 + y2 * y2), r = sqrtf(r2);
    float edge = 0.80f + 0.20f * five / fmaxf(r2 * r2 * r, 1e-4f);
    if (r < edge) {
      bool heart = r < 0.33f;
      out = {heart ? v3(0.75f, 0.48f, 0.04f) : petal * (0.7f + 0.3f * r), bulge(0.5f * x, 0.45f + 0.4f * y)};
      return true;
    }
  }
  if (fabsf(u) < 0.035f && v < 1.0f - radius) {
    out = {v3(s + L_GROUND_B) * (0.7f + 0.3f * v), v3(0.0f, 0.6f, 0.8f)};
    return true;
  }
  return false;
}

// A tower on a square plot: two boxes, the upper one set back, and sometimes a mast. `h` are its five numbers.
HD bool tower(const float *s, const Path &p, float x, float z, float ground, float size, float wide, const float *h,
              uint32_t id, bool mirrored, Surface &out) {
  // the walls stand at an angle of their own; sine and cosine from the half-angle's tangent
  float q = 0.45f * (h[1] - 0.5f), cosine = (1.0f - q * q) / (1.0f + q * q), sine = 2.0f * q / (1.0f + q * q);
  float dist = sqrtf(x * x + z * z), fx = x / dist, fz = z / dist;  // forward, away from the camera
  float ax = cosine * fz + sine * fx, az = -cosine * fx + sine * fz;  // along the front wall
  float dx = p.sx * ax + p.cz * az, dz = -p.sx * az + p.cz * ax;  // the ray in the tower's frame
  float ox = -(x * ax + z * az), oz = x * az - z * ax;
  bool any = false;
  for (int box = 0; box < 2; box++) {
    float top = ground + size * (box ? 1.0f : mixf(0.55f, 1.0f, h[2]));
    float hx = wide * (box ? 0.68f : 1.0f), hz = hx * mixf(0.7f, 1.0f, h[3]);
    float ix = 1.0f / (fabsf(dx) > 1e-6f ? dx : 1e-6f), iz = 1.0f / (fabsf(dz) > 1e-6f ? dz : 1e-6f);
    float x0 = (-ox - copysignf(hx, ix)) * ix, x1 = (-ox + copysignf(hx, ix)) * ix;
    float z0 = (-oz - copysignf(hz, iz)) * iz, z1 = (-oz + copysignf(hz, iz)) * iz;
    float t0 = fmaxf(x0, z0), t1 = fminf(x1, z1);
    if (t0 > t1 || t0 < 0.0f || (any && t0 > out.t)) continue;
    float y = p.base + p.slope * t0;
    if (y > top || y < ground - 1.0f) continue;
    bool front = z0 > x0;
    float along = front ? ox + dx * t0 : oz + dz * t0, half = front ? hx : hz;
    vec3 n = front ? v3(az, 0.0f, -ax) * copysignf(1.0f, dz) : v3(-ax, 0.0f, -az) * copysignf(1.0f, dx);
    // windows: whole columns and floors, about eight pixels each in the first row of towers
    float pane = s[L_PATCH], columns = fmaxf(2.0f, floorf(2.0f * half / pane)),
          floors = fmaxf(3.0f, floorf((top - ground) / (1.25f * pane)));
    float cu = (along / (2.0f * half) + 0.5f) * columns, cv = (y - ground) / (top - ground) * floors;
    float pu = fract(cu), pv = fract(cv);
    float glass = smoothstepf(0.10f, 0.24f, pu) * smoothstepf(0.90f, 0.76f, pu) * smoothstepf(0.14f, 0.28f, pv) *
                  smoothstepf(0.86f, 0.72f, pv);
    int style = (int)(h[4] * 4.0f);
    if (style == 1) glass = smoothstepf(0.2f, 0.35f, pv) * smoothstepf(0.9f, 0.75f, pv);  // ribbon windows
    if (style == 2) glass = smoothstepf(0.15f, 0.3f, pu) * smoothstepf(0.85f, 0.7f, pu);  // glass between pillars
    if (y > top - 0.4f * pane || y < ground + 0.3f * pane) glass = 0.0f;
    if (mirrored)
      cv = 0.0f, glass = smoothstepf(0.0f, 0.5f, pu) * smoothstepf(1.0f, 0.5f, pu);  // water draws lights out
    float lit = lattice((int)cu + (front ? 0 : 50), (int)cv, id + box);
    vec3 wall = mix(v3(s + L_THING_A), v3(s + L_THING_B), h[3]);
    wall = mix(wall, v3(s + L_THING_C), h[4] > 0.75f ? 0.7f : 0.0f) * (0.85f + 0.15f * saturate((y - ground) / size));
    vec3 warm = mix(v3(1.0f, 0.62f, 0.22f), v3(1.0f, 0.88f, 0.62f), lattice((int)cu, (int)cv, id + 9));
    out.t = t0, out.normal = n;
    out.color = mix(wall, v3(s + L_GROUND_D), 0.75f * glass);
    out.emission = warm * (glass * s[L_LAMPS] * smoothstepf(0.54f, 0.56f, lit) * (0.5f + 0.5f * lit));
    any = true;
  }
  if (!any && h[0] > 0.85f) {  // a mast on the tallest
    float u = p.sx * fz - p.cz * fx, y = p.base + p.slope * dist, f = (y - ground) / size;
    if (f > 0.9f && f < 1.25f && fabsf(u) * dist < wide * 0.09f * (1.35f - f) / 0.35f) {
      out = {dist, v3(s + L_THING_B) * 0.6f, v3(-fx, 0.0f, -fz), v3(0.0f)};
      any = true;
    }
  }
  return any;
}

// The part of a path inside a convex body, cut by one half-space at a time.
struct Span {
  float enter, leave;
  int face;  // the half-space that the path enters by
};
HD void cut(Span &span, float n_dot_o, float n_dot_d, float c, int face) {  // keeps n . (o + t d) <= c
  float gap = c - n_dot_o;
  if (fabsf(n_dot_d) < 1e-7f) {
    if (gap < 0.0f) span.leave = -1.0f;
  } else if (n_dot_d < 0.0f) {
    if (gap / n_dot_d > span.enter) span.enter = gap / n_dot_d, span.face = face;
  } else {
    span.leave = fminf(span.leave, gap / n_dot_d);
  }
}

// A house with a gable roof, its ridge along its longer side, and a chimney; or a church tower with a pointed roof.
// `h` are its five numbers.
RARE bool cottage(const float *s, const Path &p, float x, float z, float ground, float size,
    const float *h, uint32_t id,
                Surface &out) {
  float q = 1.5f * (h[1] - 0.5f), cosine = (1.0f - q * q) / (1.0f + q * q), sine = 2.0f * q / (1.0f + q * q);
  float dist = sqrtf(x * x + z * z), fx = x / dist, fz = z / dist;
  float ax = cosine * fz + sine * fx, az = -cosine * fx + sine * fz;  // along the front wall
  float dx = p.sx * ax + p.cz * az, dz = -p.sx * az + p.cz * ax;
  float ox = -(x * ax + z * az), oz = x * az - z * ax, oy = p.base - ground, dy = p.slope;
  bool church = h[0] > 0.945f, any = false;
  vec3 wall = mix(v3(s + L_THING_A), v3(s + L_THING_B), h[3]) * (0.9f + 0.2f * h[2]);
  vec3 tiles = h[2] > 0.3f ? v3(s + L_THING_C) * (0.8f + 0.4f * h[4]) : v3(0.16f, 0.17f, 0.20f);
  for (int part = 0; part < 2; part++) {
    // 0: the body; 1: the chimney, or the tower of the church
    float hx = size * (0.55f + 0.15f * h[3]), hz = size * 0.40f, wide = hx, eaves = size * (0.42f + 0.14f * h[2]);
    float steep = 1.0f, cx = 0.0f;
    bool pointed = false;
    if (part == 1) {
      cx = (h[4] > 0.5f ? 0.55f : -0.55f) * hx;
      hx = hz = church ? size * 0.22f : size * 0.06f;
      if (church) cx = 1.1f * wide;
      eaves = church ? size * 1.55f : size * 1.0f;
      steep = church ? 3.0f : 0.0f, pointed = church;
    }
    Span span = {0.0f, 1e6f, -1};
    float px = ox - cx;
    cut(span, px, dx, hx, 0);
    cut(span, -px, -dx, hx, 1);
    cut(span, oz, dz, hz, 2);
    cut(span, -oz, -dz, hz, 3);
    cut(span, oy + steep * oz, dy + steep * dz, eaves + steep * hz, 4);
    cut(span, oy - steep * oz, dy - steep * dz, eaves + steep * hz, 5);
    if (pointed) {
      cut(span, oy + steep * px, dy + steep * dx, eaves + steep * hx, 6);
      cut(span, oy - steep * px, dy - steep * dx, eaves + steep * hx, 7);
    }
    if (span.face < 0 || span.enter >= span.leave || (any && span.enter > out.t)) continue;
    float lx = px + dx * span.enter, lz = oz + dz * span.enter, y = oy + dy * span.enter;
    if (y < -1.5f) continue;
    float side = span.face & 1 ? -1.0f : 1.0f;
    float nx = 0.0f, ny = 0.0f, nz = 0.0f;
    if (span.face < 2) nx = side;
    else if (span.face < 4) nz = side;
    else if (span.face < 6) nz = side * steep, ny = 1.0f;
    else nx = side * steep, ny = 1.0f;
    vec3 color = wall, glow = v3(0.0f);
    if (span.face >= 4 && (part == 0 || church)) {  // rows of tiles, a pale edge
      float row = fract(3.2f * (y - eaves) / (0.28f * size) + 0.0f);
      color = mix(tiles * (0.82f + 0.25f * row), v3(0.80f, 0.84f, 0.90f), 0.9f * s[L_WHITE]);
    } else if (part == 0) {
      float along = span.face < 2 ? lz : lx, half = span.face < 2 ? hz : hx;
      float columns = span.face < 2 ? 2.0f : 3.0f, u = (along / half * 0.5f + 0.5f) * columns, v = y / eaves;
      float pu = fract(u) - 0.5f, pv = (v - 0.56f) * eaves / (half * 2.0f / columns);
      bool door = span.face >= 2 && (int)u == 1 && !church;
      float frame = fmaxf(fabsf(pu) / 0.24f, fabsf(pv) / 0.27f);
      if (door) {
        if (fabsf(pu) < 0.20f && v < 0.66f) color = v3(0.16f, 0.08f, 0.04f);
      } else if (frame < 1.25f && v < 0.95f) {
        float lit = lattice((int)u + 7 * span.face, 3, id) < 0.75f ? 1.0f : 0.25f;
        bool bar = fabsf(pu) < 0.03f || fabsf(pv) < 0.03f || frame > 1.0f;
        color = bar ? v3(0.75f, 0.74f, 0.70f) : v3(s + L_GROUND_D) * 0.35f;
        if (!bar) glow = v3(1.0f, 0.68f, 0.28f) * (s[L_LAMPS] * lit);
      } else if (h[4] > 0.6f) {  // timber
        float beam = fminf(fabsf(fract(u) - 0.02f), fabsf(v - 0.9f) * 2.0f);
        if (beam < 0.05f || v > 0.97f) color = v3(0.14f, 0.08f, 0.045f);
      }
      color = color * (0.75f + 0.25f * saturate(3.0f * v));
    } else if (church) {
      float v = y / eaves;
      bool window = fabsf(span.face < 2 ? lz : lx) < 0.3f * hx && v > 0.72f && v < 0.88f;
      if (window) color = v3(0.08f, 0.07f, 0.07f), glow = v3(1.0f, 0.68f, 0.28f) * (0.5f * s[L_LAMPS]);
    } else {
      color = v3(0.30f, 0.13f, 0.09f);
    }
    out.t = span.enter, out.color = color, out.emission = glow;
    out.normal = normalize(v3(nx * ax - nz * az, ny, nx * az + nz * ax));
    any = true;
  }
  return any;
}

// What stands along the path of a park: a lamp, a bench, or, at its end, a fountain. Units are the thing's height.
HD bool street_lamp(const float *s, float u, float v, Look &out, vec3 *glow) {
  vec3 iron = v3(0.05f, 0.06f, 0.06f);
  float half = v < 0.12f ? 0.045f : 0.016f;
  if (v < 0.80f && fabsf(u) < half) {
    out = {iron, bulge(u / half, 0.0f)};
    return true;
  }
  float y = (v - 0.88f) / 0.085f, wide = 0.085f * (0.75f + 0.25f * y);
  if (fabsf(y) < 1.0f && fabsf(u) < wide) {
    out = {v3(0.80f, 0.78f, 0.66f), bulge(u / wide, 0.0f)};
    *glow = v3(1.0f, 0.80f, 0.45f) * s[L_LAMPS];
    return true;
  }
  if (v > 0.95f && v < 1.03f && fabsf(u) < 1.3f * (1.04f - v) + 0.005f) {
    out = {iron, v3(0.0f, 0.6f, 0.8f)};
    return true;
  }
  return false;
}
HD bool bench(float u, float v, Look &out) {
  float x = fabsf(u);
  if (x > 1.02f) return false;
  bool leg = v < 0.46f && x > 0.80f && x < 0.90f, slat = (v > 0.42f && v < 0.54f) ||
              (v > 0.60f && v < 1.0f && fract((v - 0.60f) / 0.1334f) < 0.74f);
  if (!leg && !slat) return false;
  out = {leg ? v3(0.05f, 0.05f, 0.05f) : v3(0.34f, 0.17f, 0.07f) * (0.8f + 0.3f * v),
      v3(0.0f, v < 0.54f ? 0.8f : 0.35f, 0.7f)};
  return true;
}
HD bool fountain(float u, float v, Look &out) {
  vec3 stone = v3(0.52f, 0.50f, 0.46f);
  float x = fabsf(u);
  // jets of water: one up, two bows to the sides
  float spray = soft_noise(60.0f * u, 26.0f * v, 21u);
  float bow = 0.80f - 3.4f * (x - 0.12f) * (x - 0.12f) - 0.10f * x;
  bool water = (v > 0.60f && v < 1.0f - 0.05f * spray && x < 0.018f + 0.05f * (1.0f - v)) ||
               (v > 0.24f && x < 0.50f && fabsf(v - bow) < 0.022f + 0.05f * x * spray) ||
               (x > 0.40f && x < 0.53f && v > 0.20f && v < bow && spray > 0.45f);
  if (water) {
    out = {v3(0.85f, 0.92f, 0.97f), v3(0.0f, 0.7f, 0.7f)};
    return true;
  }
  if (v < 0.24f && x < 0.86f) {  // the basin and its rim
    bool rim = v > 0.18f;
    out = {stone * (rim ? 1.15f : 0.8f + 0.2f * cosf(40.0f * u)), bulge(0.9f * u / 0.86f, rim ? 0.5f : 0.0f)};
    return true;
  }
  float column = 0.045f + 0.10f * saturate((v - 0.50f) * 7.0f) * saturate((0.66f - v) * 40.0f);
  if (v < 0.64f && x < column) {
    out = {stone, bulge(u / column, v > 0.5f ? -0.3f : 0.0f)};
    return true;
  }
  return false;
}

// What grows and swims under water.
RARE bool seaweed(const float *s, float u, float v, const float *h, Look &out) {
  for (int i = 0; i < 5; i++) {
    float tall = 0.55f + 0.45f * fract(h[1] * (7.0f + 3.0f * i));
    if (v > tall) continue;
    float f = v / tall, foot = 0.07f * (i - 2.0f), sway = 0.07f * sinf(5.0f * v + 6.28f * h[2] + 1.3f * i) * (0.2f + f);
    float half = (0.032f + 0.012f * sinf(26.0f * v + 2.0f * i)) * (1.0f - f * f);
    float x = (u - foot * (1.0f + 0.9f * f) - sway) / fmaxf(half, 1e-4f);
    if (fabsf(x) < 1.0f) {
      out = {mix(v3(0.03f, 0.14f, 0.04f), v3(0.16f, 0.36f, 0.06f), f) * (0.75f + 0.5f * h[3]), bulge(0.8f * x, 0.2f)};
      return true;
    }
  }
  return false;
}
HD vec3 coral_color(const float *s, float pick) {
  return pick < 0.34f ? v3(s + L_THING_A) : (pick < 0.67f ? v3(s + L_THING_B) : v3(s + L_THING_C));
}
// Branches that fork three times, given by rods from `a` to `b` in the plane.
RARE bool coral(const float *s, float u, float v, const float *h, Look &out) {
  vec3 color = coral_color(s, h[3]);
  for (int i = 0; i < 7; i++) {
    // a fan of arms; each bends upwards and ends in a knob
    float a = (i - 3.0f) * (0.34f + 0.10f * h[1]), reach = 0.62f + 0.36f * fract(h[2] * (5.0f + 2.0f * i));
    float x = u - 0.02f * (i - 3.0f), y = v, c = 1.0f - 0.5f * a * a, along = x * a + y * c;
    float f = saturate(along / reach), bend = 0.16f * a * f * (1.0f - f);
    float dx = x - a * reach * f + bend, dy = y - c * reach * f, r = 0.062f - 0.02f * f;
    float knob = 0.012f * sinf(30.0f * f + i);
    float d2 = dx * dx + dy * dy, edge = r + knob;
    if (d2 < edge * edge) {
      out = {color * (0.6f + 0.5f * f), bulge(dx / edge, dy / edge)};
      return true;
    }
  }
  return false;
}
RARE bool brain_coral(const float *s, float u, float v, const float *h, Look &out) {
  float x = u / (0.62f + 0.2f * h[1]), y = v / 0.95f, d = x * x + y * y;
  if (d > 1.0f) return false;
  float fold = soft_noise(9.0f * u + 20.0f * h[2], 9.0f * v + 3.0f * x, 23u) - 0.5f;
  float groove = smoothstepf(0.02f, 0.14f, fabsf(fold));
  out = {coral_color(s, fract(h[3] * 7.0f)) * (0.45f + 0.6f * groove), bulge(0.9f * x, 0.9f * y)};
  return true;
}
RARE bool fish(const float *s, float u, float v, const float *h, Look &out) {
  float side = h[1] > 0.5f ? 1.0f : -1.0f, x = side * u, y = v - 0.5f;
  float body = 0.26f * sqrtf(fmaxf(0.0f, 1.0f - x * x / 0.25f)) * (1.0f - 0.25f * x);
  bool tail = x < -0.40f && x > -0.72f && fabsf(y) < 0.04f + 0.75f * (-0.40f - x) && fabsf(y) > 1.6f * (-0.62f - x);
  bool fin = x > -0.25f && x < 0.15f && y > 0.0f && y < body + 0.14f * (1.0f - 25.0f * (x + 0.05f) * (x + 0.05f));
  if (fabsf(y) > body && !tail && !fin) return false;
  vec3 color = coral_color(s, fract(h[2] * 5.0f));
  float band = fract(3.0f * x + 0.3f);
  if (fabsf(y) < body && h[3] > 0.35f && band < 0.30f && x > -0.4f && x < 0.32f) color = v3(0.90f, 0.90f, 0.86f);
  float ex = x - 0.32f, ey = y - 0.05f, eye = ex * ex + ey * ey;
  if (eye < 0.0045f) color = eye < 0.0016f ? v3(0.02f) : v3(0.9f);
  out = {color * (tail || fabsf(y) > body ? 0.75f : 0.85f + 0.5f * y), v3(0.0f, 2.2f * y, 0.8f)};
  return true;
}

// Whether a thing may stand here: not on roads and paths, not before a waterfall, not on the volcano.
RARE bool place_free(const float *s, int kind, float x, float z, float r, float ground) {
  switch (kind) {
    case LAND_VILLAGE: return off_course(s, x, z) > 4.0f;
    case LAND_RIVER: return ground < 0.6f * s[L_RELIEF] && off_course(s, x, z) > 0.5f * s[L_BREADTH] + 3.0f;
    case LAND_WATERFALL: {
      float off = off_fall(s, x, z, r);
      return (r < s[L_DISTANCE] ? off > 2.6f * s[L_BREADTH] : off > 1.2f * s[L_BREADTH]) &&
             !(ground > 3.5f && ground < 0.55f * s[L_RELIEF]);
    }
    case LAND_PARK: {
      Aim to = aim(s, x, z);
      float along = to.along - s[L_DISTANCE];
      return off_course(s, x, z) > 5.5f && to.right * to.right + along * along > 110.0f;
    }
    case LAND_VOLCANO: return off_cone(s, x, z) > 0.75f;
    default: return true;
  }
}

// The first thing on the path between t0 and t1. t < 0: none.
HD Surface scenery(const float *s, const Path &p, float t0, float t1, bool mirrored) {
  Surface out = {-1.0f, v3(0.0f), v3(0.0f), v3(0.0f)};
  int kind = landscape_kind(s), rings = (int)s[L_RINGS];
  uint32_t seed = landscape_seed(s) + 500;
  // half the width of the widest thing, in its heights: bushes and boulders are wide, the rest is slender
  float widest = kind == LAND_BEACH || kind == LAND_CANYON || kind == LAND_MARS || kind >= LAND_VOLCANO ? 1.05f : 0.52f;
  float radius = s[L_RING_FIRST], tallest = s[L_SIZE] * 1.5f;
  for (int k = 0; k < rings && out.t < 0.0f; k++, radius *= s[L_RING_GROWTH]) {
    if (radius < t0) continue;
    if (radius > t1) break;
    float y = p.base + p.slope * radius, slack = 0.06f * radius * fabsf(p.slope);
    if (y - slack > s[L_TOP] + tallest) {
      if (p.slope > 0.0f) break;
      continue;
    }
    if (y + slack < s[L_FLOOR] - 1.0f) break;
    bool row = kind == LAND_CITY && k == 0;  // a row of trees before the towers
    float spacing = s[L_SPACING] * (kind == LAND_MEADOW ? 1.0f + 0.15f * k : (row ? 0.4f : 1.0f));
    int cells = (int)(2.0f * PI * radius / spacing) + 3;
    float f = p.turn * cells + fract(0.37f * k);
    f = f >= cells ? f - cells : f;
    int home = (int)f;
    for (int side = -1; side < 2; side++) {  // things reach into the cells beside their own; the nearest shows
      int i = home + side;
      float middle = side + 0.5f - (f - home);
      i = i < 0 ? i + cells : (i >= cells ? i - cells : i);
      if (lattice(i, k * 8 + 5, seed) > s[L_CROWD]) continue;
      float a =
          (middle + 0.5f * (lattice(i, k * 8 + 6, seed) - 0.5f)) / cells * 2.0f * PI;  // from the ray to the thing
      float h[5] = {lattice(i, k * 8, seed), 0.0f, 0.0f, 0.0f, lattice(i, k * 8 + 4, seed)};
      float near = radius * (1.0f + 0.1f * (lattice(i, k * 8 + 7, seed) - 0.5f));
      float size = (row ? 13.0f : s[L_SIZE]) * (0.6f + 0.7f * h[0]);
      if (kind == LAND_BEACH && h[4] > s[L_MIXTURE]) size *= 0.22f;  // a bush
      bool is_house = kind == LAND_VILLAGE && k < 5 && h[4] < 0.66f;
      bool is_tower = (kind == LAND_CITY && !row) || is_house;
      if (!is_tower && (fabsf(a) * near > widest * size || near > t1 || (out.t > 0.0f && near > out.t))) continue;
      for (int j = 1; j < 4; j++) h[j] = lattice(i, k * 8 + j, seed);
      float sa = a * (1.0f - a * a / 6.0f), ca = 1.0f - a * a * (0.5f - a * a / 24.0f);
      float x = near * (p.sx * ca + p.cz * sa), z = near * (p.cz * ca - p.sx * sa);
      if (is_house) {
        if (off_course(s, x, z) < 7.0f) continue;  // the road stays open
        h[4] = fract(h[4] * 29.0f);
        Surface found;
        if (cottage(s, p, x, z, height(s, x, z, false), 7.0f * (0.85f + 0.3f * h[0]), h, seed + i * 16 +
            k * 4096, found) &&
            found.t < t1 && (out.t < 0.0f || found.t < out.t))
          out = found;
        continue;
      }
      if (is_tower) {
        float bulk = 0.30f + 0.70f * h[0] * h[0], suburb = 0.45f + 0.75f * around(x, z, near, 2.5f, seed + 3);
        Surface found;
        if (tower(s, p, x, z, s[L_FLOOR], s[L_SIZE] * bulk * suburb * (1.0f + 0.12f * k),
                  spacing * (0.30f + 0.16f * h[1]), h, seed + i * 16 + k * 4096, mirrored, found) &&
            (out.t < 0.0f || found.t < out.t))
          out = found;
        continue;
      }
      float ground = height(s, x, z, false);
      if (s[L_WATER] > 0.0f && ground < 0.12f) continue;
      if (kind == LAND_MOUNTAINS && ground > 0.2f * s[L_RELIEF]) continue;
      if (kind >= LAND_VILLAGE && !place_free(s, kind, x, z, near, ground)) continue;
      bool swims = kind == LAND_UNDERWATER && h[4] > 0.70f;
      if (kind == LAND_UNDERWATER) {
        if (swims) ground += 0.9f + 0.17f * near * h[2], size *= 0.30f + 0.022f * near;
        else if (h[4] > 0.25f) size *= 0.75f;
        else size *= 1.5f;
      }
      float u = -a * near / size, v = (p.base + p.slope * near - ground + 0.02f * size) / size;
      if (v < 0.0f || v > 1.1f) continue;
      Look look;
      bool hit;
      switch (kind) {
        case LAND_BEACH:
          hit = h[4] > s[L_MIXTURE] ? boulder(s, u, v, h, look) : palm(s, u, v, h, look);
          break;
        case LAND_DESERT:
          hit = saguaro(s, u, v, h, look);
          break;
        case LAND_MEADOW:
          hit = flower(s, u, v, h, look);
          break;
        case LAND_CANYON:
        case LAND_MARS:
        case LAND_VOLCANO:
        case LAND_SPACE:
          hit = boulder(s, u, v, h, look);
          break;
        case LAND_UNDERWATER:
          hit = swims ? fish(s, u, v, h, look)
                : h[4] < 0.25f ? seaweed(s, u, v, h, look)
                : h[4] < 0.50f ? coral(s, u, v, h, look)
                               : brain_coral(s, u, v, h, look);
          break;
        default:
          hit = h[4] < s[L_MIXTURE]
                    ? conifer(s, v3(s + (kind == LAND_VILLAGE ? L_ACCENT : L_THING_A)), u, v, h, look)
                    : broadleaf(s, v3(s + (kind == LAND_CITY ? L_GROUND_A :
                        kind == LAND_VILLAGE ? L_ACCENT : L_THING_B)),
                                u, v, h, look);
      }
      if (!hit) continue;
      vec3 n = look.normal;
      out.t = near;
      // right is (cz, -sx), towards the viewer is (-sx, -cz)
      out.normal = normalize(v3(n.x * p.cz - n.z * p.sx, n.y, -n.x * p.sx - n.z * p.cz));
      out.color = look.color * (0.55f + 0.45f * saturate(2.5f * v));  // darker at the foot, as if in its own shade
      if (s[L_WHITE] > 0.0f) {
        float lump = soft_noise(9.0f * u + 40.0f * h[1], 9.0f * v + 40.0f * h[3], 17u);
        out.color = mix(out.color, v3(0.80f, 0.84f, 0.90f), s[L_WHITE] *
            smoothstepf(0.35f, 0.75f, look.normal.y + 0.5f * lump));
      }
    }
  }
  return out;
}

// What stands along a park's path: a lamp or a bench at each side in turn, a fountain at its end.
RARE void furnish(const float *s, const Path &p, float t0, float t1, Surface &out) {
  for (int k = 0; k < 7; k++) {
    bool last = k == 6, lamp = k % 2 == 0;
    float along = last ? s[L_DISTANCE] : s[L_DISTANCE] * (0.26f + 0.11f * k), far = along;
    float swing = s[L_BREADTH] * 0.55f + 0.17f * far;
    float right = swing * sinf(2.1f * logf(1.0f + far / (4.0f * s[L_BREADTH])) + s[L_BEND]);
    if (last) right = 0.0f;
    else right += (k & 2 ? -1.0f : 1.0f) * (0.5f * s[L_BREADTH] + (lamp ? 0.6f : 0.9f));
    float x = right * s[L_AIM + 1] + along * s[L_AIM], z = along * s[L_AIM + 1] - right * s[L_AIM];
    float near = sqrtf(x * x + z * z), facing = p.sx * x + p.cz * z;
    if (facing <= 0.0f || near < t0 || near > t1 || (out.t > 0.0f && near > out.t)) continue;
    float size = last ? 5.0f : (lamp ? 3.6f : 1.0f);
    float u = (p.cz * x - p.sx * z) / size, v = (p.base + p.slope * near - height(s, x, z, false) + 0.02f) / size;
    if (v < 0.0f || v > 1.1f || fabsf(u) > 1.1f) continue;
    Look look;
    vec3 glow = v3(0.0f);
    bool hit = last ? fountain(-u, v, look) : (lamp ? street_lamp(s, -u, v, look, &glow) : bench(-u, v, look));
    if (!hit) continue;
    vec3 n = look.normal;
    out.t = near, out.color = look.color, out.emission = glow;
    out.normal = normalize(v3(n.x * p.cz - n.z * p.sx, n.y, -n.x * p.sx - n.z * p.cz));
  }
}
