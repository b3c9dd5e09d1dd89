// Vectors, hashing and noise shared by the CPU and the CUDA build of the renderer.
// Everything is float32 and integer hashing, so that both builds draw the same scene.
#pragma once
#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define HD __host__ __device__ inline
// What few scenes call: it must not take registers from the others.
#define RARE __host__ __device__ __noinline__ inline
#else
#define HD inline
#define RARE inline
#endif

#define PI 3.14159265f

struct vec3 {
  float x, y, z;
};

HD vec3 v3(float x, float y, float z) { return {x, y, z}; }
HD vec3 v3(float s) { return {s, s, s}; }
HD vec3 v3(const float *p) { return {p[0], p[1], p[2]}; }
HD vec3 operator+(vec3 a, vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
HD vec3 operator-(vec3 a, vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
HD vec3 operator-(vec3 a) { return {-a.x, -a.y, -a.z}; }
HD vec3 operator*(vec3 a, vec3 b) { return {a.x * b.x, a.y * b.y, a.z * b.z}; }
HD vec3 operator*(vec3 a, float s) { return {a.x * s, a.y * s, a.z * s}; }
HD vec3 operator*(float s, vec3 a) { return a * s; }
HD vec3 operator/(vec3 a, float s) { return a * (1.0f / s); }
HD float dot(vec3 a, vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
HD vec3 cross(vec3 a, vec3 b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
HD float length(vec3 a) { return sqrtf(dot(a, a)); }
HD vec3 normalize(vec3 a) { return a * (1.0f / fmaxf(length(a), 1e-12f)); }
HD vec3 absv(vec3 a) { return {fabsf(a.x), fabsf(a.y), fabsf(a.z)}; }
HD vec3 maxv(vec3 a, float s) { return {fmaxf(a.x, s), fmaxf(a.y, s), fmaxf(a.z, s)}; }
HD float max3(vec3 a) { return fmaxf(a.x, fmaxf(a.y, a.z)); }

HD float clampf(float x, float lo, float hi) { return fminf(fmaxf(x, lo), hi); }
HD float saturate(float x) { return clampf(x, 0.0f, 1.0f); }
HD float mixf(float a, float b, float t) { return a + (b - a) * t; }
HD vec3 mix(vec3 a, vec3 b, float t) { return a + (b - a) * t; }
HD float smoothstepf(float lo, float hi, float x) {
  float t = saturate((x - lo) / (hi - lo));
  return t * t * (3.0f - 2.0f * t);
}
HD float fract(float x) { return x - floorf(x); }

// Integer hash (Jarzynski and Olano 2020, pcg) of up to three lattice coordinates; exact on every machine.
HD uint32_t pcg(uint32_t v) {
  uint32_t s = v * 747796405u + 2891336453u;
  uint32_t w = ((s >> ((s >> 28u) + 4u)) ^ s) * 277803737u;
  return (w >> 22u) ^ w;
}
HD uint32_t hash_u(int x, int y, int z, uint32_t seed) {
  return pcg((uint32_t)x + pcg((uint32_t)y + pcg((uint32_t)z + pcg(seed))));
}
HD float hash01(int x, int y, int z, uint32_t seed) { return (float)(hash_u(x, y, z, seed) >> 8) * (1.0f / 16777216.0f); }

// Value noise in [0, 1] with quintic fade, in two and three dimensions.
HD float fade(float t) { return t * t * t * (t * (t * 6.0f - 15.0f) + 10.0f); }
HD float noise2(float x, float y, uint32_t seed) {
  float fx = floorf(x), fy = floorf(y);
  int ix = (int)fx, iy = (int)fy;
  float u = fade(x - fx), v = fade(y - fy);
  float a = hash01(ix, iy, 0, seed), b = hash01(ix + 1, iy, 0, seed);
  float c = hash01(ix, iy + 1, 0, seed), d = hash01(ix + 1, iy + 1, 0, seed);
  return mixf(mixf(a, b, u), mixf(c, d, u), v);
}
HD float noise3(vec3 p, uint32_t seed) {
  float fx = floorf(p.x), fy = floorf(p.y), fz = floorf(p.z);
  int ix = (int)fx, iy = (int)fy, iz = (int)fz;
  float u = fade(p.x - fx), v = fade(p.y - fy), w = fade(p.z - fz);
  float r[2];
  for (int k = 0; k < 2; k++) {
    float a = hash01(ix, iy, iz + k, seed), b = hash01(ix + 1, iy, iz + k, seed);
    float c = hash01(ix, iy + 1, iz + k, seed), d = hash01(ix + 1, iy + 1, iz + k, seed);
    r[k] = mixf(mixf(a, b, u), mixf(c, d, u), v);
  }
  return mixf(r[0], r[1], w);
}
HD float fbm2(float x, float y, int octaves, uint32_t seed) {  // in [0, 1]
  float sum = 0.0f, amp = 0.5f, total = 0.0f;
  for (int i = 0; i < octaves; i++) {
    sum += amp * noise2(x, y, seed + (uint32_t)i * 1013u);
    total += amp;
    amp *= 0.5f;
    // rotated between octaves: axis-aligned lattices would show
    float nx = 1.6f * x - 1.2f * y, ny = 1.2f * x + 1.6f * y;
    x = nx + 17.3f;
    y = ny - 9.1f;
  }
  return sum / total;
}

struct Hit {
  vec3 color;   // linear 0..1, before tone and gamma: see finish()
  float depth;  // distance along the camera's forward axis; 0 where there is only sky
  vec3 normal;  // world space, unit; 0 for sky
  int object;   // 1 inside the object mask
};
