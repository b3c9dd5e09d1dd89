// The ground of every landscape: its height anywhere in the world, and what it is made of.
// The camera stands over the origin, so distance from the origin shapes the composition in every
// direction alike: open ground near by, relief further out. No view is empty and none is walled in.
#pragma once
#include "math.h"

// Slots of the scene header that describe a landscape; landscapes.py reads these numbers from this file.
#define L_KIND 16  // position in vocabulary.LANDSCAPES
#define L_SEED 17  // whole number below 2^24
#define L_HEADING 18  // azimuth of the image's center, radians
#define L_HORIZON 19  // slope of the ray through the image's center
#define L_EYE 20  // height of the camera, meters
#define L_SUN_DIR 21  // direction to the sun or the moon
#define L_SUN 24  // color of its light
#define L_AMBIENT 27  // light of the sky
#define L_ZENITH 30
#define L_SUNWARD 33  // horizon towards the sun
#define L_AWAY 36  // horizon away from it
#define L_GLOW 39  // halo of the sun
#define L_DISC 42  // 0 none, 1 sun, 2 moon
#define L_DISC_SIZE 43  // radius, radians
#define L_STARS 44  // brightness
#define L_CLOUD_COVER 45  // 0 to 1
#define L_CLOUD_SCALE 46
#define L_CLOUD_LIT 47
#define L_CLOUD_DARK 50
#define L_FOG 53  // density on the ground, 1/m
#define L_FOG_HEIGHT 54  // scale height, m
#define L_FOG_TINT 55  // share of FOG_COLOR in the color of distance
#define L_FOG_COLOR 56
#define L_SCALE 59  // of the relief: 1 / wavelength
#define L_RELIEF 60  // its height, m
#define L_NEAR 61  // distance where it begins
#define L_FAR 62  // and where it is full
#define L_FLOOR 63  // height of the open ground
#define L_SHAPE 64  // a number of the landform's own
#define L_SHAPE2 65  // another
#define L_TOP 66  // nothing of the ground is higher
#define L_REACH 67  // where the march ends
#define L_STEEP 68  // the steepest slope that the march must not miss
#define L_SHADOW 69  // length of cast shadows, 0: none
#define L_WATER 70  // 1: water at height 0
#define L_GROUND_A 71
#define L_GROUND_B 74
#define L_GROUND_C 77
#define L_GROUND_D 80
#define L_LINE 83  // snow line, shore line or number of strata
#define L_PATCH 84  // 1 / size of the ground's patches; of a city: width of a window
#define L_DEEP 85
#define L_SHALLOW 88
#define L_WAVES 91  // height of the waves, 0 to 1
#define L_RINGS 92  // circles of things around the camera
#define L_RING_FIRST 93  // radius of the first
#define L_RING_GROWTH 94  // ratio of the next
#define L_SPACING 95  // between things, m
#define L_SIZE 96  // height of a thing, m
#define L_CROWD 97  // share of places taken
#define L_MIXTURE 98  // share of the first kind
#define L_THING_A 99
#define L_THING_B 102
#define L_THING_C 105
#define L_LAMPS 108  // brightness of lit windows
#define L_SNOW 109  // snow on trees
#define L_CALM 110  // within NEAR nothing of the ground is higher than this
#define L_RAIN 111  // streaks of rain in the air, 0 to 1
#define L_FLAKES 112  // flakes of snow in the air, 0 to 1
#define L_WET 113  // how much the ground shines, 0 to 1
#define L_WHITE 114  // how much of the ground and of things is under snow, 0 to 1
#define L_AIM 115  // sine and cosine of the azimuth to what the image is about
#define L_DISTANCE 117  // and how far it is, m
#define L_BREADTH 118  // of a river, a path or a waterfall, m; of a planet, radians
#define L_BEND 119  // phase of the bends of a river or a path
#define L_ACCENT 120  // color of nebulae, lava, ...

// landscapes, in the order of vocabulary.LANDSCAPES
#define LAND_MOUNTAINS 0
#define LAND_BEACH 1
#define LAND_DESERT 2
#define LAND_FOREST 3
#define LAND_CITY 4
#define LAND_MEADOW 5
#define LAND_OCEAN 6
#define LAND_SNOWY_HILLS 7
#define LAND_CANYON 8
#define LAND_MARS 9
#define LAND_VILLAGE 10
#define LAND_RIVER 11
#define LAND_WATERFALL 12
#define LAND_PARK 13
#define LAND_VOLCANO 14
#define LAND_UNDERWATER 15
#define LAND_SPACE 16

HD int landscape_kind(const float *s) { return (int)s[L_KIND]; }
HD uint32_t landscape_seed(const float *s) { return (uint32_t)s[L_SEED]; }

// One round of hashing a lattice point: the march asks for thousands of them.
HD float lattice(int x, int y, uint32_t seed) {
  return (float)(pcg((uint32_t)x * 0x9E3779B1u + (uint32_t)y * 0x85EBCA77u + seed * 0xC2B2AE3Du) >> 8) / 16777216.0f;
}

// Value noise with its gradient: x the value in [0, 1], y and z the derivatives.
HD vec3 noise_slope(float x, float y, uint32_t seed) {
  float fx = floorf(x), fy = floorf(y);
  int ix = (int)fx, iy = (int)fy;
  x -= fx, y -= fy;
  float a = lattice(ix, iy, seed), b = lattice(ix + 1, iy, seed) - a;
  float c = lattice(ix, iy + 1, seed) - a, d = lattice(ix + 1, iy + 1, seed) - a - b - c;
  float u = fade(x), v = fade(y);
  float du = 30.0f * x * x * (x - 1.0f) * (x - 1.0f), dv = 30.0f * y * y * (y - 1.0f) * (y - 1.0f);
  return {a + b * u + c * v + d * u * v, du * (b + d * v), dv * (c + d * u)};
}
HD float soft_noise(float x, float y, uint32_t seed) { return noise_slope(x, y, seed).x; }

// Each octave is turned by 36.87 degrees (a 3-4-5 triangle): the lattice must not show.
HD void next_octave(float &x, float &y) {
  float t = 1.6f * x - 1.2f * y + 5.3f;
  y = 1.2f * x + 1.6f * y - 8.7f;
  x = t;
}
HD float rolling(float x, float y, int octaves, float gain, uint32_t seed) {  // in [0, 1]
  float sum = 0.0f, amp = 1.0f, total = 0.0f;
  for (int i = 0; i < octaves; i++) {
    sum += amp * soft_noise(x, y, seed + i);
    total += amp;
    amp *= gain;
    next_octave(x, y);
  }
  return sum / total;
}
// Ridged noise whose fine octaves fade on steep ground, as loose rock does not stay there; in [0, 1].
HD float eroded(float x, float y, int octaves, uint32_t seed) {
  float sum = 0.0f, amp = 0.5f, sx = 0.0f, sy = 0.0f;
  for (int i = 0; i < octaves; i++) {
    vec3 n = noise_slope(x, y, seed + i);
    float ridge = 1.0f - sqrtf(4.0f * (n.x - 0.5f) * (n.x - 0.5f) + 0.002f);  // rounded crest
    sx += n.y * amp, sy += n.z * amp;
    sum += amp * ridge * ridge / (1.0f + 0.9f * (sx * sx + sy * sy));
    amp *= 0.46f;
    next_octave(x, y);
  }
  return sum;
}

// A number in [0, 1] that depends on the direction only, so that a shore closes after a full turn.
HD float around(float x, float z, float r, float turns, uint32_t seed) {
  float k = turns / fmaxf(r, 1e-3f);
  return soft_noise(20.0f + x * k, 20.0f + z * k, seed);
}

// Distance of the shore in this direction: of the beach from the sand, of the city from the water.
HD float shore(const float *s, float x, float z, float r) {
  uint32_t seed = landscape_seed(s);
  return s[L_NEAR] +
         (s[L_FAR] - s[L_NEAR]) * (0.7f * around(x, z, r, 2.0f, seed + 70) + 0.3f * around(x, z, r, 7.0f, seed + 71));
}

HD float craters(const float *s, float x, float z) {
  float cell = 1.0f / s[L_SHAPE], h = 0.0f;
  float gx = floorf(x / cell - 0.5f), gz = floorf(z / cell - 0.5f);
  for (int k = 0; k < 4; k++) {  // the four nearest lattice points; a crater stays within half a cell of its own
    int ix = (int)gx + (k & 1), iz = (int)gz + (k >> 1);
    uint32_t seed = landscape_seed(s) + 40;
    float size = lattice(ix, iz, seed);
    float cx = (ix + 0.5f + 0.3f * (lattice(ix, iz, seed + 1) - 0.5f)) * cell;
    float cz = (iz + 0.5f + 0.3f * (lattice(ix, iz, seed + 2) - 0.5f)) * cell;
    float radius = cell * mixf(0.10f, 0.23f, size);
    float d = sqrtf((x - cx) * (x - cx) + (z - cz) * (z - cz)) / radius;
    if (d < 1.5f) {
      float rim = saturate(1.0f - 2.2f * fabsf(d - 1.0f));
      h += radius * (0.42f * rim * rim * (3.0f - 2.0f * rim) - 0.45f * saturate(1.0f - d * d));
    }
  }
  return h;
}

// Meters to the right of the line that leads towards L_AIM (x), and along it (y).
struct Aim {
  float right, along;
};
HD Aim aim(const float *s, float x, float z) {
  return {x * s[L_AIM + 1] - z * s[L_AIM], x * s[L_AIM] + z * s[L_AIM + 1]};
}
// Distance from the middle of a river or path that winds towards L_AIM: its bends grow with the distance, so
// that they look alike on the image.
HD float off_course(const float *s, float x, float z) {
  Aim a = aim(s, x, z);
  float far = fabsf(a.along), swing = s[L_BREADTH] * 0.55f + 0.17f * far;
  return fabsf(a.right - swing * sinf(2.1f * logf(1.0f + far / (4.0f * s[L_BREADTH])) + s[L_BEND]));
}
// Meters along the cliff from the middle of the nearest waterfall: there is one in each sixth of the turn.
HD float off_fall(const float *s, float x, float z, float r) {
  Aim a = aim(s, x, z);
  float inv = 1.0f / fmaxf(r, 1e-3f), c = a.along * inv, c2 = c * c;
  float six = c2 * (c2 * (32.0f * c2 - 48.0f) + 18.0f) - 1.0f;  // cos of six times the angle
  return r * sqrtf(fmaxf(0.0f, 2.0f - 2.0f * six)) * (1.0f / 6.0f);
}
// The cone of the volcano stands at L_AIM: distance from its axis over its radius.
HD float off_cone(const float *s, float x, float z) {
  Aim a = aim(s, x, z);
  float along = a.along - s[L_DISTANCE];
  return sqrtf(a.right * a.right + along * along) / s[L_BREADTH];
}

// Height of the ground at (x, z) in meters. `fine` adds the octaves that only the shading needs.
HD float height(const float *s, float x, float z, bool fine) {
  uint32_t seed = landscape_seed(s);
  float r = sqrtf(x * x + z * z), relief = s[L_RELIEF];
  float ramp = smoothstepf(s[L_NEAR], s[L_FAR], r), k = s[L_SCALE];
  switch (landscape_kind(s)) {
    case LAND_MOUNTAINS: {
      float e = ramp > 0.0f ? eroded(x * k, z * k, fine ? 6 : 3, seed) : 0.0f;
      float foot = soft_noise(x * k * 2.5f, z * k * 2.5f, seed + 20);
      return s[L_FLOOR] +
             relief * (ramp * (0.15f * foot + 1.25f * e * sqrtf(e)) + 0.03f * (foot - 0.4f) * (1.0f - ramp));
    }
    case LAND_BEACH: {
      float out = s[L_SHAPE] * (shore(s, x, z, r) - r), rise = out > 0.0f ? 0.7f * (1.0f - expf(-1.4f * out)) : out;
      return fmaxf(rise, -2.0f) + relief * (rolling(x * k, z * k, fine ? 3 : 2, 0.45f, seed) - 0.5f) * saturate(rise);
    }
    case LAND_DESERT: {  // rows of dunes: a long slope into the wind, a sharp crest, a short steep face
      float bend = soft_noise(x * k * 0.35f, z * k * 0.35f, seed) * 2.6f +
                   soft_noise(x * k * 1.1f, z * k * 1.1f, seed + 1) * 0.55f;
      float phase = fract((x * s[L_SHAPE] + z * s[L_SHAPE2]) * k + bend), up = phase / 0.68f,
            down = (1.0f - phase) / 0.32f;
      float dune = up < 1.0f ? up * up * (1.6f - 0.6f * up) : down * down * (1.7f - 0.7f * down);
      float size = soft_noise(x * k * 0.6f + 7.0f, z * k * 0.6f, seed + 2),
            swell = soft_noise(x * k * 0.25f, z * k * 0.25f, seed + 3);
      return s[L_FLOOR] + relief * ((0.22f + 0.78f * ramp) * dune * (0.25f + 0.75f * size) + 0.5f * ramp * swell);
    }
    case LAND_CITY:
      return r > shore(s, x, z, r) ? s[L_FLOOR] : -2.0f;
    case LAND_OCEAN: {  // one place in each sixth of the turn where islands are likely, so that every view has one
      float inv = 1.0f / fmaxf(r, 1.0f), c = z * inv, q = x * inv;
      float c3 = c * (4.0f * c * c - 3.0f), q3 = q * (3.0f - 4.0f * q * q);
      float six = (c3 * c3 - q3 * q3) * s[L_SHAPE] + 2.0f * c3 * q3 * s[L_SHAPE2];
      float mask = rolling(x * k, z * k, 2, 0.4f, seed) +
                   0.16f * six * (1.0f - smoothstepf(0.7f * s[L_FAR], 1.5f * s[L_FAR], r));
      float land = (mask - s[L_LINE]) * ramp - 0.5f * (1.0f - ramp);
      if (land < -0.03f) return -3.0f;
      float rock = eroded(x * k * 2.2f, z * k * 2.2f, fine ? 5 : 3, seed + 30);
      return land * relief * (0.6f + 3.0f * rock * saturate(land * 6.0f));
    }
    case LAND_CANYON: {  // terraces: each a steep wall and a gentle bench
      if (ramp <= 0.0f) return s[L_FLOOR];
      float v = (rolling(x * k, z * k, 3, 0.45f, seed) - 0.5f) * 1.9f + 0.34f;
      v += 0.075f * (eroded(x * k * 6.0f, z * k * 6.0f, fine ? 3 : 2, seed + 8) - 0.4f);  // gullies in the walls
      v = saturate(v) * (s[L_SHAPE] - 0.02f) * ramp;
      float level = floorf(v), part = v - level;
      float wall = smoothstepf(0.10f, 0.30f, part), talus = part;
      return s[L_FLOOR] + relief * (level + 0.78f * wall + 0.22f * talus) / s[L_SHAPE];
    }
    case LAND_MARS: {
      float hills = rolling(x * k, z * k, fine ? 4 : 2, 0.45f, seed);
      float far_ridge = ramp > 0.0f ? eroded(x * k * 0.5f, z * k * 0.5f, 3, seed + 9) : 0.0f;
      return s[L_FLOOR] + relief * (0.25f * hills + ramp * far_ridge * 1.3f) +
             (r < 240.0f ? craters(s, x, z) * smoothstepf(6.0f, 25.0f, r) * smoothstepf(240.0f, 100.0f, r) : 0.0f);
    }
    case LAND_RIVER: {  // a valley between hills, and mountains beyond
      float d = off_course(s, x, z), w = s[L_BREADTH] * (0.5f + 0.0011f * r);
      float bank = smoothstepf(w, w + 4.0f, d), side = smoothstepf(w + 8.0f, w + 150.0f, d + 0.04f * r);
      float hills = rolling(x * k, z * k, fine ? 4 : 3, 0.38f, seed);
      float peaks = r > s[L_FAR] ? eroded(x * k * 0.45f, z * k * 0.45f, fine ? 5 : 3, seed + 9) : 0.0f;
      return -2.5f + (s[L_FLOOR] + 2.5f) * bank + relief * side * (0.06f + 0.94f * ramp) * hills +
             s[L_SHAPE] * smoothstepf(s[L_FAR], 3.2f * s[L_FAR], r) * peaks;
    }
    case LAND_WATERFALL: {  // a pool, its bank, and a ring of cliffs
      float off = off_fall(s, x, z, r), fall = smoothstepf(2.2f * s[L_BREADTH], 0.9f * s[L_BREADTH], off);
      float bay = around(x, z, r, 3.0f, seed + 70);
      float edge = s[L_DISTANCE] + (1.0f - fall) * (s[L_FAR] - s[L_NEAR]) * (bay - 0.55f);
      float pool = mixf(0.62f, 0.98f, fall) * edge * (1.06f - 0.2f * bay);
      if (r < pool - 5.0f) return -1.6f;
      float bank = 2.2f * smoothstepf(pool - 1.0f, pool + 7.0f, r);
      bank -= 1.6f * (1.0f - smoothstepf(pool - 5.0f, pool + 1.0f, r));
      if (r < edge - 1.7f && !fine) return bank;
      float rough = rolling(x * k * 9.0f, z * k * 9.0f, fine ? 3 : 2, 0.5f, seed + 72) - 0.5f;
      bank += 0.9f * rough * saturate(bank);
      if (r < edge - 1.7f) return bank;
      float wall = smoothstepf(edge, edge + 5.0f, r + 3.2f * (1.0f - fall) * rough);
      float crest = rolling(x * k, z * k, fine ? 3 : 2, 0.5f, seed) - 0.45f;
      float lip = relief * (0.8f + (1.0f - 0.75f * fall) * 0.55f * crest);
      return bank + wall * lip + 0.06f * fmaxf(r - edge - 5.0f, 0.0f);
    }
    case LAND_VOLCANO: {  // a cone with a crater, over rolling black ground
      float c = off_cone(s, x, z), plain = rolling(x * k, z * k, fine ? 4 : 2, 0.45f, seed);
      float cone = 0.0f;
      if (c < 1.0f) {
        float flank = (1.0f - c) * (1.0f - c) * (1.0f + 0.5f * c);  // steeper towards the top
        float gully = eroded(x * k * 0.9f, z * k * 0.9f, fine ? 4 : 2, seed + 5) - 0.4f;
        cone = fminf(flank, 0.80f - 1.5f * fmaxf(0.10f - c, 0.0f)) + 0.16f * gully * c * (1.0f - c);
      }
      return s[L_FLOOR] + 14.0f * plain * (0.15f + 0.85f * ramp) + relief * cone;
    }
    case LAND_UNDERWATER: {  // sand with ripples, and mounds
      float mound = rolling(x * k, z * k, fine ? 3 : 2, 0.4f, seed);
      return s[L_FLOOR] + relief * (0.25f + 0.75f * ramp) * mound;
    }
    case LAND_SPACE: {
      float hills = rolling(x * k, z * k, fine ? 4 : 2, 0.45f, seed);
      return s[L_FLOOR] + relief * (0.3f + 0.7f * ramp) * hills +
             (r < 240.0f ? craters(s, x, z) * smoothstepf(5.0f, 20.0f, r) * smoothstepf(240.0f, 100.0f, r) : 0.0f);
    }
    default: {  // forest, meadow, snowy hills, village, park: round hills
      float h = rolling(x * k, z * k, fine ? 4 : 3, 0.32f, seed);
      return s[L_FLOOR] + relief * (0.12f + 0.88f * ramp) * h;
    }
  }
}

HD vec3 ground_normal(const float *s, float x, float z, float step) {
  float h = height(s, x, z, true);
  vec3 n = {h - height(s, x + step, z, true), step, h - height(s, x, z + step, true)};
  return normalize(n);
}

// Noise whose grain keeps its size on the image: two octaves chosen by distance and blended. In [-1, 1].
HD float grain(float x, float z, float t, float cells, uint32_t seed) {
  float lod = log2f(fmaxf(t, 1.0f) / cells), whole = floorf(lod), f = exp2f(-whole);
  float a = soft_noise(x * f, z * f, seed), b = soft_noise(x * f * 0.5f, z * f * 0.5f, seed);
  return 2.0f * mixf(a, b, lod - whole) - 1.0f;
}

// Albedo of the ground where it is hit.
HD vec3 ground_color(const float *s, vec3 p, float t, vec3 n) {
  uint32_t seed = landscape_seed(s) + 200;
  vec3 a = v3(s + L_GROUND_A), b = v3(s + L_GROUND_B), c = v3(s + L_GROUND_C), d = v3(s + L_GROUND_D);
  float mottle = soft_noise(p.x * s[L_PATCH], p.z * s[L_PATCH], seed);
  float flat = saturate(s[L_EYE] / fmaxf(0.06f * t, 1e-3f));  // far ground is seen edge on: its grain must fade
  float fine = flat > 0.02f ? fminf(flat, 1.0f) * grain(p.x, p.z, t, 12.0f, seed + 1) : 0.0f;
  switch (landscape_kind(s)) {
    case LAND_MOUNTAINS: {  // meadow, woods, rock, snow
      float wobble = (mottle - 0.5f) * 0.25f * s[L_RELIEF];
      vec3 low = mix(a, d, smoothstepf(0.02f, 0.16f, p.y / s[L_RELIEF] + 0.1f * (mottle - 0.5f)));
      vec3 rock = b * (0.85f + 0.3f * mottle);
      float bare = saturate(smoothstepf(0.80f, 0.62f, n.y) + smoothstepf(0.22f, 0.36f, (p.y + wobble) / s[L_RELIEF]));
      float white = smoothstepf(s[L_LINE] - 0.05f, s[L_LINE] + 0.07f, (p.y + wobble) / s[L_RELIEF]) *
                    smoothstepf(0.42f, 0.62f, n.y);
      return mix(mix(low * (1.0f + 0.12f * fine), rock, bare), c, white);
    }
    case LAND_BEACH: {
      float wet = smoothstepf(0.45f, 0.05f, p.y);
      return mix(mix(a, b, mottle) * (1.0f + 0.05f * fine), c, wet);
    }
    case LAND_DESERT: {  // ripples along the crests
      float across = p.x * s[L_SHAPE] + p.z * s[L_SHAPE2], along = p.z * s[L_SHAPE] - p.x * s[L_SHAPE2];
      return mix(a, b, mottle) * (1.0f + 0.10f * flat * grain(1.4f * across, 0.35f * along, t, 8.0f, seed + 1));
    }
    case LAND_CITY:
      return mix(a, b, smoothstepf(0.3f, 0.7f, rolling(p.x * 0.025f, p.z * 0.025f, 2, 0.5f, seed)));
    case LAND_MEADOW: {  // drifts of flowers seen from afar
      float drift = smoothstepf(0.56f, 0.74f, soft_noise(p.x * s[L_PATCH] * 2.1f, p.z * s[L_PATCH] * 2.1f, seed + 4));
      vec3 grass = mix(a, b, smoothstepf(0.25f, 0.75f, mottle)) * (1.0f + 0.16f * fine);
      vec3 bloom = mix(c, d, smoothstepf(0.45f, 0.55f, soft_noise(p.x * s[L_PATCH], p.z * s[L_PATCH], seed + 5)));
      return mix(grass, bloom, 0.62f * drift * smoothstepf(8.0f, 30.0f, t) * saturate(1.3f - t / s[L_REACH]));
    }
    case LAND_OCEAN: {  // sand, green, rock
      vec3 green = mix(b, d, mottle);
      vec3 body = mix(green, c, smoothstepf(0.78f, 0.6f, n.y));
      return mix(a, body, smoothstepf(0.035f, 0.075f, p.y / s[L_RELIEF]));
    }
    case LAND_CANYON: {  // strata: bands that follow the height, bent a little
      float y = (p.y + 0.05f * s[L_RELIEF] * (mottle - 0.5f)) / s[L_RELIEF] * s[L_LINE];
      float i = floorf(y), w = smoothstepf(0.40f, 0.60f, y - i);
      float k0 = lattice((int)i, 7, seed), k1 = lattice((int)i + 1, 7, seed), tone = mixf(k0, k1, w);
      vec3 band = tone < 0.5f ? mix(a, b, tone * 2.0f) : mix(b, c, tone * 2.0f - 1.0f);
      return mix(band, d * (1.0f + 0.12f * fine),
                 smoothstepf(0.86f, 0.96f, n.y) * (p.y < 0.1f * s[L_RELIEF] ? 1.0f : 0.45f));
    }
    case LAND_MARS: {
      vec3 dust = mix(a, b, smoothstepf(0.3f, 0.7f, mottle)) * (1.0f + 0.1f * fine);
      return mix(dust, c, smoothstepf(0.86f, 0.62f, n.y));
    }
    case LAND_VILLAGE: {  // a sandy road and lanes between gardens, fields on the hills
      float r = sqrtf(p.x * p.x + p.z * p.z), lane = 15.0f + 8.0f * around(p.x, p.z, r, 2.0f, seed + 3);
      float road = fmaxf(smoothstepf(1.9f, 1.3f, fabsf(r - lane)),
                         smoothstepf(0.62f, 0.46f, off_course(s, p.x, p.z) / s[L_BREADTH]));
      float fx = p.x * 0.012f + 0.35f * mottle, fz = p.z * 0.017f;
      float field = lattice((int)floorf(fx), (int)floorf(fz), seed + 4);
      vec3 acre = field < 0.4f ? b : (field < 0.7f ? c : a);
      vec3 green = mix(mix(a, b, smoothstepf(0.25f, 0.75f, mottle)), acre, 0.8f * smoothstepf(70.0f, 110.0f, r));
      return mix(green * (1.0f + 0.16f * fine), d * (1.0f + 0.10f * fine), road * smoothstepf(120.0f, 60.0f, r));
    }
    case LAND_RIVER: {  // gravel, grass, woods, rock
      vec3 grass = mix(a, b, smoothstepf(0.25f, 0.75f, mottle)) * (1.0f + 0.14f * fine);
      vec3 gravel = c * (1.0f + 0.22f * fine);
      vec3 low = mix(gravel, grass, smoothstepf(0.5f, 1.1f, p.y + 0.5f * (mottle - 0.5f)));
      float high = saturate(smoothstepf(0.80f, 0.64f, n.y) + smoothstepf(0.55f, 0.9f, p.y / s[L_RELIEF]));
      vec3 rock = mix(d, v3(0.88f, 0.90f, 0.94f), smoothstepf(0.8f, 1.15f, p.y / s[L_SHAPE] + 0.5f * (mottle - 0.3f)));
      return mix(low, rock, high * smoothstepf(0.3f * s[L_FAR], s[L_FAR], t));
    }
    case LAND_WATERFALL: {  // rock with moss, and the white water
      float r = sqrtf(p.x * p.x + p.z * p.z), off = off_fall(s, p.x, p.z, r);
      float strata = soft_noise(0.05f * p.x + 0.05f * p.z, 0.32f * p.y, seed + 2);
      vec3 rock = mix(a, b, smoothstepf(0.3f, 0.7f, strata)) * (0.8f + 0.4f * mottle) * (1.0f + 0.1f * fine);
      vec3 moss = mix(c, d, mottle) * (1.0f + 0.15f * fine);
      vec3 land = mix(rock, moss, smoothstepf(0.55f, 0.82f, n.y + 0.25f * (mottle - 0.5f)));
      float streak = soft_noise(5.0f * off, 0.12f * p.y + 3.0f * off, seed + 6) - 0.5f;
      float edge = s[L_BREADTH] * (0.85f + 0.5f * streak * smoothstepf(0.0f, 6.0f, p.y));
      float white = smoothstepf(edge, edge - 0.5f, off) * (r > 0.8f * s[L_DISTANCE] ? 1.0f : 0.0f);
      float thin = soft_noise(2.4f * off + 11.0f, 0.05f * p.y, seed + 7);
      return mix(land, mix(v3(0.55f, 0.70f, 0.80f), v3(1.05f, 1.08f, 1.10f), smoothstepf(0.25f, 0.6f, thin)), white);
    }
    case LAND_PARK: {  // a lawn in mown stripes, gravel paths
      float stripe = 0.5f + 0.5f * clampf(8.0f * sinf(0.9f * aim(s, p.x, p.z).right), -1.0f, 1.0f);
      vec3 lawn = mix(a, b, 0.35f * stripe + 0.5f * mottle) * (1.0f + 0.14f * fine);
      Aim to = aim(s, p.x, p.z);
      float along = to.along - s[L_DISTANCE], round = sqrtf(to.right * to.right + along * along);
      float path = to.along > 0.0f ? smoothstepf(0.56f, 0.46f, off_course(s, p.x, p.z) / s[L_BREADTH]) : 0.0f;
      path = fmaxf(path * (t < s[L_DISTANCE] ? 1.0f : 0.0f), smoothstepf(6.6f, 6.2f, round));
      vec3 bed = mix(c, v3(s + L_ACCENT), smoothstepf(0.45f, 0.55f, soft_noise(p.x * 2.2f, p.z * 2.2f, seed + 3)));
      float ring = smoothstepf(8.4f, 8.1f, round) * smoothstepf(6.9f, 7.2f, round);
      return mix(mix(lawn, bed, ring * (1.0f - path)), d * (1.0f + 0.10f * fine), path);
    }
    case LAND_VOLCANO:  // ash and lava rock
      return mix(a, b, smoothstepf(0.3f, 0.7f, mottle)) * (1.0f + 0.16f * fine) * (0.75f + 0.25f * n.y);
    case LAND_UNDERWATER: {  // sand under a net of light
      vec3 sand = mix(a, b, mottle) * (1.0f + 0.10f * flat * grain(1.6f * p.x, 0.5f * p.z, t, 6.0f, seed + 1));
      float u = soft_noise(0.9f * p.x + 3.0f * mottle, 0.9f * p.z, seed + 2) - 0.5f;
      float v = soft_noise(1.9f * p.x, 1.9f * p.z + 2.0f * mottle, seed + 3) - 0.5f;
      float net = smoothstepf(0.10f, 0.0f, fabsf(u)) + 0.6f * smoothstepf(0.10f, 0.0f, fabsf(v));
      return sand * (1.0f + 0.55f * net * smoothstepf(24.0f, 6.0f, t));
    }
    case LAND_SPACE: {
      vec3 dust = mix(a, b, smoothstepf(0.3f, 0.7f, mottle)) * (1.0f + 0.12f * fine);
      return mix(dust, c, smoothstepf(0.88f, 0.62f, n.y));
    }
    default: {  // forest floor, snow: two tones
      return mix(a, b, smoothstepf(0.25f, 0.75f, mottle)) *
             (1.0f + (landscape_kind(s) == LAND_FOREST ? 0.2f : 0.02f) * fine);
    }
  }
}
